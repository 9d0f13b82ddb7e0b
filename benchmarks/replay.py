"""Replay against nats-py and `nats bench`: three replicas, to the last message, the DataFrame included."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import json
import random
import shutil
import sys
from statistics import median
from time import perf_counter

import nats
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from benchmarks.memory import peak_memory
from benchmarks.rows import Row
from benchmarks.turns import Measure, compared, in_turns, nats_bench, rate
from jslab import departures
from jslab.lab import Lab
from jslab.replay import Replay
from jslab.streams import Stream

STREAM, YEAR = "BENCHMARK", "YEAR"
SUBJECT = "bench.replay"
MESSAGES, SIZE = 200_000, 128
MANY = 1_000_000
BATCH = 1_000
JUMPS = 200
FETCH, CLI = f"nats-py fetch({BATCH:,}), ack none", "nats bench js ordered"


async def run(lab: Lab) -> list[Row]:
    """Compare the ways to read a stream, in turns; then the year of flights, and a million messages."""
    stream = await lab.stream(STREAM, subjects=["bench.>"], num_replicas=3, allow_direct=True)
    report = await stream.publish_many(itertools.repeat(bytes(SIZE), MESSAGES), subject=SUBJECT)
    assert report.acked == MESSAGES, report
    ways: dict[str, Measure] = {FETCH: lambda: rate(MESSAGES, _fetch(lab.js))}
    for name, options in {
        "replay().frame()": {},
        "the same by direct gets": {"route": "direct"},
        "the same by an ordered consumer": {"route": "consumer"},
        "the same, not parsed in bulk": {"bulk": False},
    }.items():
        ways[name] = lambda options=options: rate(MESSAGES, _frame(stream, options))  # type: ignore[misc]
    ways["async for message in replay()"] = lambda: rate(MESSAGES, _iterate(stream.replay()))
    if binary := shutil.which("nats"):
        ways[CLI] = lambda: _ordered(binary, lab)
    rates = await in_turns(ways)
    await lab.js.delete_stream(STREAM)
    name = f"read {MESSAGES:,} of {SIZE} bytes"
    rows = compared(name, rates, FETCH)
    if CLI in rates:
        rows += [row for row in compared(name, rates, CLI) if row.what == "replay().frame()"]
    return [*rows, *await _year(lab), *await _memory(lab)]


async def _fetch(js: JetStreamContext) -> None:
    reader = await js.pull_subscribe(
        SUBJECT, stream=STREAM, config=ConsumerConfig(ack_policy=AckPolicy.NONE, inactive_threshold=30)
    )
    read = 0
    while read < MESSAGES:
        read += len(await reader.fetch(BATCH))
    await reader.unsubscribe()


async def _frame(stream: Stream, options: dict[str, object]) -> None:
    frame = await stream.replay(**options).frame()  # type: ignore[arg-type]
    assert (len(frame), frame.seq.iloc[-1]) == (MESSAGES, MESSAGES)


async def _iterate(replay: Replay) -> None:
    count = 0
    async for _ in replay:
        count += 1
    assert count == MESSAGES


async def _ordered(binary: str, lab: Lab) -> float:
    return await nats_bench(
        binary, lab, "ordered", f"--stream={STREAM}", f"--msgs={MESSAGES}", f"--size={SIZE}"
    )


async def _year(lab: Lab) -> list[Row]:
    """Load the year with its event times, read it back into columns, and seek in it."""
    stream = await lab.stream(YEAR, subjects=["flights.>"], num_replicas=3, allow_direct=True)
    report = await stream.publish_many(
        departures.year(), subject=lambda f: f.subject, data=lambda f: f.payload, headers=lambda f: f.headers
    )
    name = f"the year, {report.acked:,} flights"
    rows = [Row(name, "publish_many with payloads and headers made on the way", report.seconds, "s")]
    for what, columns in (("two parsed columns", ["dep_delay", "carrier"]), ("all parsed columns", True)):
        runs = []
        for _ in range(3):
            began = perf_counter()
            frame = await stream.replay().frame(json=columns)  # type: ignore[arg-type]
            runs.append(perf_counter() - began)
            assert len(frame) == report.acked
        rows.append(Row(name, f"replay().frame(json=…), {what}", sorted(runs)[1], "s", tuple(runs)))
    rows += await _jumps(lab, stream, name)
    await lab.js.delete_stream(YEAR)
    return rows


async def _jumps(lab: Lab, stream: Stream, name: str) -> list[Row]:
    """Have a player go to moments all over the year, as somebody does who drags its cursor."""
    player = await lab.player(stream, clock="Event-Time")
    first = datetime.datetime(2013, 1, 1, 12, tzinfo=datetime.UTC)
    dice = random.Random(2013)
    moments = [first + datetime.timedelta(days=dice.uniform(0, 364)) for _ in range(JUMPS)]
    took = sorted([(await player.goto(moment)).seconds * 1_000 for moment in moments])
    what = f"player.goto, {JUMPS} moments"
    return [Row(name, f"{what}, median", median(took), "ms"), Row(name, f"{what}, longest", took[-1], "ms")]


async def _memory(lab: Lab) -> list[Row]:
    """Iterate a million messages, in a process of its own."""
    stream = await lab.stream(STREAM, subjects=["bench.>"], num_replicas=3, allow_direct=True)
    await stream.publish_many((b"%0*d" % (SIZE, n) for n in range(MANY)), subject=SUBJECT)
    server = lab.deployment.servers()[0].client_url
    rows = []
    for route in ("direct", "consumer"):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __name__, server, route), stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"iterating a million messages ended with {process.returncode}")
        found = json.loads(printed)
        name = f"iterate {MANY:,}, {found['route']}"
        rows += [
            Row(name, "growth of peak memory", found["growth"] / 1e6, "MB"),
            Row(name, "async for message in replay()", found["rate"], "messages/s"),
        ]
    await lab.js.delete_stream(STREAM)
    return rows


async def _iterate_a_million(server: str, route: str) -> None:
    connection = await nats.connect(server)
    replay = Replay(connection.jetstream(), STREAM, route=route)
    before, count = peak_memory(), 0
    async for _ in replay:
        count += 1
    growth = peak_memory() - before
    await connection.close()
    assert count == MANY, replay.report
    print(json.dumps({"growth": growth, "rate": replay.report.rate, "route": replay.report.route}))


if __name__ == "__main__":
    asyncio.run(_iterate_a_million(*sys.argv[1:]))
