"""What a benchmark found, as rows of a table and as JSON."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One finding: the median of its runs, and how it compares within this run."""

    benchmark: str
    what: str
    value: float
    unit: str
    runs: tuple[float, ...] = ()
    """Every measured value, in the order of the runs."""
    ratio: float | None = None
    """``value`` divided by that of the row named in ``against``."""
    against: str = ""


def table(rows: Iterable[Row]) -> str:
    """Write the rows as aligned text."""
    lines = [("benchmark", "what", "value", "unit", "ratio", "against", "all runs")]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        runs = " ".join(number(run) for run in row.runs)
        lines.append((row.benchmark, row.what, number(row.value), row.unit, ratio, row.against, runs))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    right = {2, 4}
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def number(value: float) -> str:
    """Write a number with as many digits as one reads."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine(server: str) -> dict[str, Any]:
    """Say where and on what the numbers were taken."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "nats-py": version("nats-py"),
        "nats-server": server,
    }
