"""Ways to do the same, measured in turns, so that what slows the machine down slows all of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from statistics import median
from time import perf_counter

from benchmarks.rows import Row
from jslab.lab import Lab

ROUNDS = 3

Measure = Callable[[], Awaitable[float]]
"""Does it once, and gives messages per second."""


async def in_turns(
    ways: Mapping[str, Measure], before: Callable[[], Awaitable[None]] | None = None, rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Measure each way once a round; ``before`` is awaited before each."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, measure in ways.items():
            if before is not None:
                await before()
            rates[name].append(await measure())
    return rates


def compared(benchmark: str, rates: Mapping[str, list[float]], base: str) -> list[Row]:
    """Give a row for each way, with the ratio of its median to that of ``base``."""
    against = median(rates[base])
    return [
        Row(benchmark, name, median(runs), "messages/s", tuple(runs), median(runs) / against, base)
        if name != base
        else Row(benchmark, name, against, "messages/s", tuple(runs))
        for name, runs in rates.items()
    ]


async def rate(messages: int, work: Awaitable[object]) -> float:
    """Give messages per second."""
    began = perf_counter()
    await work
    return messages / (perf_counter() - began)


async def nats_bench(binary: str, lab: Lab, *arguments: str) -> float:
    """Give the rate that `nats bench js` prints, so that the start of its process does not count."""
    server = next(server.client_url for server in lab.deployment.servers() if server.name == lab.entry)
    process = await asyncio.create_subprocess_exec(
        *(binary, "-s", server, "bench", "js", *arguments, "--no-progress"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed = (await process.communicate())[0].decode()
    found = re.search(r"([\d,]+) msgs/sec", printed)
    if process.returncode or not found:
        raise RuntimeError(f"nats bench ended with {process.returncode}:\n{printed}")
    return float(found[1].replace(",", ""))
