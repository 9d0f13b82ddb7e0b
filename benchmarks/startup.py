"""From nothing to a lab that is ready, in new processes as a learner's kernel is one."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from statistics import median
from time import perf_counter

from benchmarks.rows import Row
from jslab.lab import Lab

KERNELS = 10
STARTS = 100
COMMANDS = 5

# What a first cell waits for, the import included.
FIRST_CELL = """
from time import perf_counter
began = perf_counter()
import asyncio, jslab
async def cell():
    lab = await jslab.start()
    print(perf_counter() - began)
    await lab.stop()
asyncio.run(cell())
"""

# Ready means ready: the very next calls are a stream of three replicas and a publish, without a retry.
AT_ONCE = """
import asyncio, json, sys, jslab
from time import perf_counter
async def cells(count):
    for number in range(count):
        began = perf_counter()
        async with jslab.start() as lab:
            ready = perf_counter() - began
            await lab.stream("FIRST", subjects=["first.>"], num_replicas=3)
            ack = await lab.js.publish(f"first.{number}", b"at once", stream="FIRST")
            assert ack.seq == 1, ack
        print(json.dumps(ready), flush=True)
asyncio.run(cells(int(sys.argv[1])))
"""


async def run(lab: Lab) -> list[Row]:
    """Measure; the lab that the other benchmarks use runs idle beside it."""
    if lab.backend != "embedded":
        return []
    first = [float(await _python("-c", FIRST_CELL)) for _ in range(KERNELS)]
    starts = [json.loads(line) for line in (await _python("-c", AT_ONCE, str(STARTS))).splitlines()]
    assert len(starts) == STARTS
    return [
        *_seconds(f"first cell: import jslab, await jslab.start(), {KERNELS} kernels", first, budget=1.0),
        *_seconds(f"{STARTS} starts, then at once a stream and a publish: none failed", starts, shown=0),
        *_seconds("python -m jslab --help", await _timed("-m", "jslab", "--help"), budget=0.25),
        *_seconds("python -c 'import jslab'", await _timed("-c", "import jslab"), budget=0.25),
        *_seconds("python -c pass", await _timed("-c", "pass")),
    ]


def _seconds(what: str, runs: Sequence[float], *, budget: float | None = None, shown: int = 10) -> list[Row]:
    """One row for the median, one for the slowest; the ratio is the share of the budget that was used."""
    against = f"budget {budget} s" if budget else ""
    ratio = median(runs) / budget if budget else None
    return [
        Row("startup", what, median(runs), "s", tuple(runs[:shown]), ratio, against),
        Row("startup", "  the slowest of them", max(runs), "s"),
    ]


async def _timed(*arguments: str) -> list[float]:
    seconds = []
    for _ in range(COMMANDS):
        began = perf_counter()
        await _python(*arguments)
        seconds.append(perf_counter() - began)
    return seconds


async def _python(*arguments: str) -> str:
    """Run a new interpreter and return what it printed; raise with its last words when it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    printed, said = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"exit code {process.returncode}: {said.decode()[-2000:]}")
    return printed.decode()
