"""How a lesson went: read from its executed notebook, kept as plain records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jslab.course import Lesson

VERDICT = "application/vnd.jslab.verdict+json"

Status = Literal["passed", "failed", "cannot", "elsewhere"]


@dataclass(frozen=True)
class Verdict:
    """What a check said about an exercise, the last time it was asked."""

    exercise: str
    ok: bool
    text: str

    @property
    def line(self) -> str:
        """The verdict as one line: mark, exercise, text."""
        return f"{'✓' if self.ok else '✗'} {self.exercise} {self.text}"


@dataclass(frozen=True)
class Cell:
    """A code cell that ran: its first line and how long it took, in seconds."""

    first_line: str
    seconds: float


@dataclass(frozen=True)
class Result:
    """How one lesson went."""

    lesson: Lesson
    status: Status
    """``cannot``: this machine cannot run labs. ``elsewhere``: the lesson needs another backend."""
    seconds: float = 0.0
    reason: str = ""
    verdicts: tuple[Verdict, ...] = ()
    slowest: Cell | None = None
    notebook: Path | None = None
    """The executed notebook, as far as it came."""


def exit_code(results: Sequence[Result]) -> int:
    """Answer 0 when what can run here passed, 1 when a lesson failed, 2 when this machine cannot run them."""
    statuses = [result.status for result in results]
    if "failed" in statuses:
        return 1
    return 0 if "passed" in statuses and "cannot" not in statuses else 2


def verdicts(notebook: Any) -> tuple[Verdict, ...]:
    """Read the last verdict on each exercise from an executed notebook's outputs."""
    last: dict[str, Verdict] = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if told := output.get("data", {}).get(VERDICT):
                last[told["exercise"]] = Verdict(told["exercise"], bool(told["ok"]), str(told["text"]))
    return tuple(last[exercise] for exercise in sorted(last))


def slowest(notebook: Any) -> Cell | None:
    """Find the code cell that took longest."""
    cells = [Cell(_first_line(cell), _duration(cell)) for cell in notebook.cells if cell.cell_type == "code"]
    return max(cells, key=lambda cell: cell.seconds, default=None)


def _duration(cell: Any) -> float:
    return float(cell.metadata.get("papermill", {}).get("duration") or 0.0)


def exercises(notebook: Any) -> list[str]:
    """Name the exercises whose cells a notebook marks."""
    marks = [cell.metadata.get("jslab", {}).get("exercise") for cell in notebook.cells]
    return [mark for mark in marks if mark]


def where_it_stopped(notebook: Any) -> str:
    """Say which cell failed, by its number and first line, and what it printed last."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.metadata.get("papermill", {}).get("status") == "failed":
            printed = "".join(out.text for out in cell.outputs if out.output_type == "stream").splitlines()
            lines = [
                f"in cell {cell.id}: {_first_line(cell)}",
                *(f"printed: {line}" for line in printed[-3:]),
            ]
            return "\n".join(lines)
    return ""


def _first_line(cell: Any) -> str:
    return str(cell.source).strip().partition("\n")[0]
