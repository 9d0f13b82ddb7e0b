"""`python -m benchmarks [NAME ...] [--out DIR] [--backend B]`: a table, and the same as JSON."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import importlib
import json
import pkgutil
import sys
from pathlib import Path

import benchmarks
from benchmarks.rows import Row, machine, table
from jslab.lab import start


def names() -> list[str]:
    """Name the benchmarks: the modules here that have ``run``."""
    modules = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return [name for name in modules if name not in ("__main__", "memory", "rows", "turns")]


async def measure(chosen: list[str], backend: str | None) -> tuple[list[Row], str]:
    """Run the benchmarks one after the other on one lab; give the rows and the server's version."""
    rows: list[Row] = []
    async with start(backend) as lab:
        for name in chosen:
            print(f"running {name} …", file=sys.stderr, flush=True)
            rows += await importlib.import_module(f"benchmarks.{name}").run(lab)
        return rows, lab.deployment.version


def main() -> int:
    """Run what was asked for, print the table, and write both files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=benchmarks.__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which: {', '.join(names())} (default: all)"
    )
    parser.add_argument("--out", type=Path, default=Path("reports"), help="folder for the two files")
    parser.add_argument("--backend", help="embedded (default), kind or kubernetes")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(names())):
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(names())}")
    rows, server = asyncio.run(measure(arguments.names or names(), arguments.backend))
    facts = machine(server)
    text = "\n".join([", ".join(f"{name} {value}" for name, value in facts.items()), "", table(rows)])
    print(text)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "benchmarks.txt").write_text(text + "\n", encoding="utf-8")
    findings = {"machine": facts, "rows": [dataclasses.asdict(row) for row in rows]}
    (arguments.out / "benchmarks.json").write_text(json.dumps(findings, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
