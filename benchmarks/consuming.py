"""Work with acks against a hand-written loop of fetch and ack: three replicas, until all is acked."""

from __future__ import annotations

import itertools
from functools import partial

from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig

from benchmarks.rows import Row
from benchmarks.turns import Measure, compared, in_turns, rate
from jslab.consumers import Message
from jslab.lab import Lab
from jslab.streams import Stream
from jslab.waiting import until

STREAM, SUBJECT = "BENCHMARK", "bench.work"
MESSAGES, SIZE = 50_000, 128
BATCH = 500
OUTSTANDING = 10_000
LOOP = f"nats-py fetch({BATCH}) and ack"


async def run(lab: Lab) -> list[Row]:
    """Give one stream's messages to a handler that does nothing, in turns, each time by a new consumer."""
    stream = await lab.stream(STREAM, subjects=["bench.>"], num_replicas=3)
    report = await stream.publish_many(itertools.repeat(bytes(SIZE), MESSAGES), subject=SUBJECT)
    assert report.acked == MESSAGES, report
    numbers = itertools.count()
    ways: dict[str, Measure] = {LOOP: lambda: _loop(lab.js, f"loop-{next(numbers)}")}
    for concurrency in (1, 10):
        ways[f"Consumer.work, concurrency {concurrency}"] = partial(_work, stream, numbers, concurrency)
    rates = await in_turns(ways)
    await lab.js.delete_stream(STREAM)
    return compared(f"handle and ack {MESSAGES:,} of {SIZE} bytes", rates, LOOP)


async def _loop(js: JetStreamContext, name: str) -> float:
    config = ConsumerConfig(durable_name=name, max_ack_pending=OUTSTANDING)
    await js.add_consumer(STREAM, config)
    reader = await js.pull_subscribe_bind(name, STREAM)

    async def work() -> None:
        handled = 0
        while handled < MESSAGES:
            for message in await reader.fetch(BATCH):
                await _nothing(message)
                await message.ack()
                handled += 1
        await _all_acked(js, name)

    found = await rate(MESSAGES, work())
    await reader.unsubscribe()
    await js.delete_consumer(STREAM, name)
    return found


async def _work(stream: Stream, numbers: itertools.count[int], concurrency: int) -> float:
    consumer = await stream.consumer(f"work-{next(numbers)}", max_ack_pending=OUTSTANDING)

    async def work() -> None:
        report = await consumer.work(_nothing, concurrency=concurrency, limit=MESSAGES)
        assert (report.handled, report.redelivered) == (MESSAGES, 0), report
        await _all_acked(stream.js, consumer.name)

    found = await rate(MESSAGES, work())
    await stream.js.delete_consumer(STREAM, consumer.name)
    return found


async def _nothing(message: Message) -> None:
    """Do what a handler does; the loop has the same."""


async def _all_acked(js: JetStreamContext, name: str) -> None:
    async def acked() -> bool:
        info = await js.consumer_info(STREAM, name)
        return info.ack_floor.stream_seq == MESSAGES and not info.num_ack_pending

    await until(acked, what=f"{name} to have all acks", timeout=60, every=0.01)
