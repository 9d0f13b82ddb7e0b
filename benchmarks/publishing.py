"""publish_many against nats-py and `nats bench`: to the last ack, three replicas, a fresh stream each."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter

import nats
from nats.js import JetStreamContext

from benchmarks.memory import peak_memory
from benchmarks.rows import Row
from jslab import departures
from jslab.departures import Departure
from jslab.lab import Lab
from jslab.publishing import publish_many

STREAM = "BENCHMARK"
SUBJECTS = ["bench.>", "flights.>"]
SUBJECT = "bench.publishing"
MESSAGES = 100_000
ONE_BY_ONE = 2_000
SIZE = 128
WINDOW = 4_000
ROUNDS = 3
MANY = 1_000_000
BASE = "nats-py publish_async"

Measure = Callable[[], Awaitable[float]]
"""Publishes, and gives messages per second up to the last ack."""


async def run(lab: Lab) -> list[Row]:
    """Compare, in turns, so that what slows the machine down slows all."""
    js = lab.js
    plain: dict[str, Measure] = {
        "nats-py publish, one at a time": lambda: _rate(ONE_BY_ONE, _one_by_one(js)),
        BASE: lambda: _rate(MESSAGES, _publish_async(js)),
        "publish_many": lambda: _rate(MESSAGES, _publish_many(js)),
    }
    if binary := shutil.which("nats"):
        plain["nats bench js pub async"] = lambda: _nats_bench(binary, lab)
    january = list(departures.month(1))
    flights: dict[str, Measure] = {
        BASE: lambda: _rate(len(january), _flights_async(js, january)),
        "publish_many": lambda: _rate(len(january), _flights_many(js, january)),
    }
    return [
        *_rows(f"publish {SIZE} bytes", await _in_turns(lab, plain)),
        *_rows("publish January with functions and ids", await _in_turns(lab, flights)),
        *await _memory(lab),
    ]


async def _in_turns(lab: Lab, ways: dict[str, Measure]) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, measure in ways.items():
            await _fresh_stream(lab)
            rates[name].append(await measure())
    await lab.js.delete_stream(STREAM)
    return rates


def _rows(benchmark: str, rates: dict[str, list[float]]) -> list[Row]:
    base = median(rates[BASE])
    return [
        Row(benchmark, name, median(runs), "messages/s", tuple(runs), median(runs) / base, BASE)
        if name != BASE
        else Row(benchmark, name, base, "messages/s", tuple(runs))
        for name, runs in rates.items()
    ]


async def _fresh_stream(lab: Lab) -> None:
    if STREAM in {info.config.name for info in await lab.js.streams_info()}:
        await lab.js.delete_stream(STREAM)
    await lab.js.add_stream(name=STREAM, subjects=SUBJECTS, num_replicas=3)
    # The first message waits until the servers have heard of the stream; nobody's time should count that.
    await publish_many(lab.js, STREAM, [b"first"], subject=SUBJECT)


async def _rate(messages: int, publishing: Awaitable[None]) -> float:
    began = perf_counter()
    await publishing
    return messages / (perf_counter() - began)


# -- bytes


async def _one_by_one(js: JetStreamContext) -> None:
    for _ in range(ONE_BY_ONE):
        await js.publish(SUBJECT, bytes(SIZE))


async def _publish_async(js: JetStreamContext) -> None:
    payload = bytes(SIZE)
    acks = [await js.publish_async(SUBJECT, payload) for _ in range(MESSAGES)]
    await asyncio.gather(*acks)


async def _publish_many(js: JetStreamContext) -> None:
    report = await publish_many(js, STREAM, [bytes(SIZE)] * MESSAGES, subject=SUBJECT)
    assert report.acked == MESSAGES, report


async def _nats_bench(binary: str, lab: Lab) -> float:
    """Give the rate that it prints, so that the start of its process does not count."""
    server = next(server.client_url for server in lab.deployment.servers() if server.name == lab.entry)
    options = [f"--stream={STREAM}", f"--msgs={MESSAGES}", f"--size={SIZE}", f"--batch={WINDOW}"]
    process = await asyncio.create_subprocess_exec(
        *(binary, "-s", server, "bench", "js", "pub", "async", SUBJECT, "--no-progress", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed = (await process.communicate())[0].decode()
    found = re.search(r"([\d,]+) msgs/sec", printed)
    if process.returncode or not found:
        raise RuntimeError(f"nats bench ended with {process.returncode}:\n{printed}")
    return float(found[1].replace(",", ""))


# -- flights, with functions for subject, payload and id


async def _flights_async(js: JetStreamContext, flights: list[Departure]) -> None:
    acks = [
        await js.publish_async(flight.subject, flight.payload, headers={"Nats-Msg-Id": flight.id})
        for flight in flights
    ]
    await asyncio.gather(*acks)


async def _flights_many(js: JetStreamContext, flights: list[Departure]) -> None:
    report = await publish_many(
        js, STREAM, flights, subject=lambda f: f.subject, data=lambda f: f.payload, msg_id=lambda f: f.id
    )
    assert report.acked == len(flights), report


# -- memory


async def _memory(lab: Lab) -> list[Row]:
    """Publish a million messages from a generator, in a process of its own."""
    await _fresh_stream(lab)
    server = lab.deployment.servers()[0].client_url
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, server), stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    await lab.js.delete_stream(STREAM)
    if process.returncode:
        raise RuntimeError(f"publishing a million messages ended with {process.returncode}")
    found = json.loads(printed)
    name = f"publish {MANY:,} from a generator"
    return [
        Row(name, "growth of peak memory", found["growth"] / 1e6, "MB"),
        Row(name, "publish_many", found["rate"], "messages/s"),
    ]


async def _publish_a_million(server: str) -> None:
    connection = await nats.connect(server)
    before = peak_memory()
    records = (b"%0*d" % (SIZE, number) for number in range(MANY))
    report = await publish_many(connection.jetstream(), STREAM, records, subject=SUBJECT)
    growth = peak_memory() - before
    await connection.close()
    assert report.acked == MANY, report
    print(json.dumps({"growth": growth, "rate": report.rate}))


if __name__ == "__main__":
    asyncio.run(_publish_a_million(sys.argv[1]))
