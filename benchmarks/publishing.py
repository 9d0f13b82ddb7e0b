"""publish_many against nats-py and `nats bench`: to the last ack, three replicas, a fresh stream each."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys

import nats
from nats.js import JetStreamContext

from benchmarks.memory import peak_memory
from benchmarks.rows import Row
from benchmarks.turns import Measure, compared, in_turns, nats_bench, rate
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
MANY = 1_000_000
BASE = "nats-py publish_async"


async def run(lab: Lab) -> list[Row]:
    """Compare, in turns, so that what slows the machine down slows all."""
    js = lab.js
    plain: dict[str, Measure] = {
        "nats-py publish, one at a time": lambda: rate(ONE_BY_ONE, _one_by_one(js)),
        BASE: lambda: rate(MESSAGES, _publish_async(js)),
        "publish_many": lambda: rate(MESSAGES, _publish_many(js)),
    }
    if binary := shutil.which("nats"):
        plain["nats bench js pub async"] = lambda: _nats_bench(binary, lab)
    january = list(departures.month(1))
    flights: dict[str, Measure] = {
        BASE: lambda: rate(len(january), _flights_async(js, january)),
        "publish_many": lambda: rate(len(january), _flights_many(js, january)),
    }

    async def fresh() -> None:
        await _fresh_stream(lab)

    return [
        *compared(f"publish {SIZE} bytes", await in_turns(plain, fresh), BASE),
        *compared("publish January with functions and ids", await in_turns(flights, fresh), BASE),
        *await _memory(lab),
    ]


async def _fresh_stream(lab: Lab) -> None:
    if STREAM in {info.config.name for info in await lab.js.streams_info()}:
        await lab.js.delete_stream(STREAM)
    await lab.js.add_stream(name=STREAM, subjects=SUBJECTS, num_replicas=3)
    # The first message waits until the servers have heard of the stream; nobody's time should count that.
    await publish_many(lab.js, STREAM, [b"first"], subject=SUBJECT)


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
    options = [f"--stream={STREAM}", f"--msgs={MESSAGES}", f"--size={SIZE}", f"--batch={WINDOW}"]
    return await nats_bench(binary, lab, "pub", "async", SUBJECT, *options)


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
