"""Pull consumers on real servers: every end of a fetch, a loop and a work, and what each leaves behind."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import time
from contextlib import aclosing
from typing import Any

import nats.errors
import nats.js.errors
import pytest

from jslab.consumers import Consumer, Message, WorkReport
from jslab.errors import AckedError, AckPendingError, ConsumerDriftError, SettingsError, StalledError
from jslab.lab import Lab
from jslab.streams import Stream
from jslab.waiting import until
from tests.waits import until_waiting


async def numbered(lab: Lab, count: int, **config: Any) -> Stream:
    stream = await lab.stream("N", subjects=["n.>"], num_replicas=3, **config)
    report = await stream.publish_many(range(count), subject=lambda n: f"n.{n % 3}", data=lambda n: b"%d" % n)
    assert report.acked == count
    return stream


async def settled(consumer: Consumer) -> None:
    """Wait until nothing is out."""

    async def none_out() -> bool:
        return (await consumer.info()).num_ack_pending == 0

    await until(none_out, what="all acks to be counted", timeout=15)


async def subscriptions(lab: Lab) -> int:
    assert lab.entry is not None
    _, connections = await lab.deployment.get(lab.entry, "/connz?subs=1")
    (ours,) = [c for c in connections["connections"] if c["cid"] == lab.nc.client_id]
    return int(ours["subscriptions"])


async def nothing(_: Message) -> None:
    """Handle a message in no time."""


# -- create or bind


async def test_a_consumer_is_created_and_then_bound_to(lab: Lab) -> None:
    stream = await numbered(lab, 10)
    made = await stream.consumer("billing", filter_subject="n.1", ack_wait=5)
    assert [m.subject for m in await made.fetch(10)] == ["n.1"] * 3
    bound = await stream.consumer("billing", filter_subject="n.1")
    assert bound.config == made.config
    assert (await stream.consumer("billing")).name == "billing"
    assert repr(bound) == "<Consumer billing of N: n.1>"


async def test_another_configuration_is_an_error_that_lists_the_differences(lab: Lab) -> None:
    stream = await numbered(lab, 10)
    await stream.consumer("billing", filter_subject="n.1", ack_wait=5)
    with pytest.raises(ConsumerDriftError) as caught:
        await stream.consumer("billing", filter_subject="n.2", ack_wait=7, max_deliver=-1)
    assert caught.value.differences == {"filter_subject": ("n.2", "n.1"), "ack_wait": (7, 5.0)}
    assert "delete_consumer('N', 'billing')" in caught.value.do
    assert (await lab.js.consumer_info("N", "billing")).config.filter_subject == "n.1"


async def test_a_backoff_is_numbers_in_an_order(lab: Lab) -> None:
    stream = await numbered(lab, 1)
    asked = {"backoff": [1, 2, 3], "max_deliver": 4}
    await stream.consumer("slow", **asked)
    assert (await stream.consumer("slow", **asked)).config.backoff == [1, 2, 3]
    with pytest.raises(ConsumerDriftError):
        await stream.consumer("slow", backoff=[1, 3, 2])


async def test_what_cannot_be_a_consumer_is_refused(lab: Lab) -> None:
    stream = await numbered(lab, 1)
    with pytest.raises(TypeError, match="no setting ackwait"):
        await stream.consumer("billing", ackwait=5)
    with pytest.raises(TypeError, match="no setting deliver_subject"):
        await stream.consumer("billing", deliver_subject="there")
    with pytest.raises(SettingsError, match=r"'bil\.ling' cannot name a consumer"):
        await stream.consumer("bil.ling")
    assert await lab.js.consumers_info("N") == []


async def test_without_a_name_it_is_ephemeral(lab: Lab) -> None:
    stream = await numbered(lab, 10)
    consumer = await stream.consumer(inactive_threshold=1)
    for message in await consumer.fetch(10):
        await message.ack()

    async def gone() -> bool:
        return not await lab.js.consumers_info("N")

    await until(gone, what="the server to remove it", timeout=30)
    with pytest.raises(nats.js.errors.NotFoundError) as caught:
        await consumer.fetch(1)
    assert "was ephemeral and unused" in caught.value.__notes__[0]


# -- messages


async def test_a_message_says_where_it_stands(lab: Lab) -> None:
    stream = await numbered(lab, 3)
    consumer = await stream.consumer("c", ack_wait=30)
    await lab.js.publish("n.x", b"data", headers={"A": "1"})
    await until_waiting(lab, "N", "c", 4)
    first, *_, last = await consumer.fetch(4)
    assert (first.seq, first.consumer_seq, first.deliveries, first.pending) == (1, 1, 1, 3)
    assert (last.subject, last.data, last.headers, last.pending) == ("n.x", b"data", {"A": "1"}, 0)
    stored = await lab.js.get_msg("N", 4)
    assert stored.time is not None
    assert last.time == stored.time
    await first.nak()
    (again,) = await consumer.fetch(1)
    assert (again.seq, again.deliveries) == (1, 2)
    assert "delivery 2" in repr(again)


async def test_a_message_is_settled_once(lab: Lab) -> None:
    stream = await numbered(lab, 3)
    consumer = await stream.consumer("c")
    one, two, three = await consumer.fetch(3)
    await one.ack()
    await two.term("no such flight")
    await three.nak(delay=60)
    for message, how in ((one, "acked"), (two, "terminated"), (three, "nak'ed")):
        assert message.settled == how
        for again in (message.ack, message.nak, message.term, message.in_progress):
            with pytest.raises(AckedError, match=f"was {how} already"):
                await again()
    assert await consumer.fetch(1, timeout=0.3) == []


# -- fetch


async def test_fetch_gives_what_there_is(lab: Lab) -> None:
    stream = await numbered(lab, 10)
    consumer = await stream.consumer("c")
    before = await subscriptions(lab)
    assert [m.seq for m in await consumer.fetch(4)] == [1, 2, 3, 4]
    began = time.monotonic()
    assert [m.seq for m in await consumer.fetch(100, timeout=0.5)] == [5, 6, 7, 8, 9, 10]
    assert time.monotonic() - began < 1.5
    assert await consumer.fetch(1, timeout=0.2) == []
    assert await subscriptions(lab) == before


async def test_fetch_waits_for_what_comes(lab: Lab) -> None:
    stream = await numbered(lab, 0)
    consumer = await stream.consumer("c")
    fetching = asyncio.ensure_future(consumer.fetch(1, timeout=10))
    await asyncio.sleep(0.3)
    await lab.js.publish("n.1", b"now")
    assert [m.data for m in await fetching] == [b"now"]


async def test_fetch_right_after_a_consumer_was_made(lab: Lab) -> None:
    stream = await numbered(lab, 1)
    for n in range(50):
        assert len(await (await stream.consumer(f"c{n}")).fetch(1)) == 1


async def test_fetch_raises_when_there_is_no_server(lab: Lab) -> None:
    stream = await numbered(lab, 10)
    consumer = await stream.consumer("c")
    await lab.faults.pause(*[server.name for server in lab.deployment.servers()])
    with pytest.raises((StalledError, TimeoutError, nats.errors.Error)):
        await consumer.fetch(1)


async def test_a_fetch_that_waits_for_acks_says_so(lab: Lab) -> None:
    stream = await numbered(lab, 30)
    consumer = await stream.consumer("c", max_ack_pending=10)
    held = await consumer.fetch(30, timeout=0.5)
    assert len(held) == 10
    with pytest.raises(AckPendingError, match="c waits for acks") as caught:
        await consumer.fetch(1, timeout=0.5)
    assert "10 messages are out and not acked, which is its max_ack_pending; 20 wait" in caught.value.seen
    for message in held:
        await message.ack()
    assert len(await consumer.fetch(5)) == 5


# -- messages()


async def test_a_loop_ends_when_idle_and_says_why(lab: Lab) -> None:
    stream = await numbered(lab, 10)
    consumer = await stream.consumer("c")
    seen = []
    began = time.monotonic()
    async for message in consumer.messages(idle=0.5):
        seen.append(message.seq)
        await message.ack()
    assert seen == list(range(1, 11))
    assert 0.5 <= time.monotonic() - began < 3
    assert consumer.ended == "nothing came for 0.5 s, after 10 messages"
    await settled(consumer)


async def test_what_waits_behind_a_slow_body_does_not_come_again(lab: Lab) -> None:
    stream = await numbered(lab, 30)
    consumer = await stream.consumer("c", ack_wait=1)
    seen = []
    async for message in consumer.messages(limit=30):
        seen.append((message.seq, message.deliveries))
        await asyncio.sleep(0.1)
        await message.ack()
    assert seen == [(seq, 1) for seq in range(1, 31)]


async def test_a_loop_ends_at_its_limit_and_takes_no_more(lab: Lab) -> None:
    stream = await numbered(lab, 300)
    consumer = await stream.consumer("c")
    async for message in consumer.messages(limit=5):
        await message.ack()
    assert consumer.ended == "the limit of 5 messages was reached"
    await settled(consumer)
    info = await consumer.info()
    assert (info.delivered.stream_seq, info.num_pending) == (5, 295)


class CrashError(Exception):
    """Something in the learner's code went wrong."""


async def every_flight_once(consumer: Consumer, handled: list[int]) -> None:
    """Run the cell again at once: what was not handled comes, and nothing else."""
    began = time.monotonic()
    async for message in consumer.messages(idle=1):
        handled.append(message.seq)
        await message.ack()
    assert time.monotonic() - began < 8
    assert sorted(handled) == list(range(1, 301))


@pytest.mark.parametrize("how", ["break", "exception", "cancel", "cancel while it waits"])
async def test_a_loop_that_is_left_gives_back_what_was_not_handled(lab: Lab, how: str) -> None:
    stream = await numbered(lab, 300)
    consumer = await stream.consumer("c", ack_wait=60)
    handled: list[int] = []
    before = await subscriptions(lab)
    tasks = asyncio.all_tasks()

    async def cell() -> None:
        async for message in consumer.messages(idle=5):
            if len(handled) == 40 and how == "break":
                break
            if len(handled) == 40 and how == "exception":
                raise CrashError
            if len(handled) == 40 and how == "cancel":
                await asyncio.sleep(60)
            handled.append(message.seq)
            await message.ack()

    running = asyncio.ensure_future(cell())
    if how.startswith("cancel"):
        enough = 40 if how == "cancel" else 300
        await until(lambda: len(handled) == enough, what="the loop to get on", timeout=10)
        await asyncio.sleep(0.3)
        running.cancel()
    with contextlib.suppress(CrashError, asyncio.CancelledError):
        await running
    await until(lambda: asyncio.all_tasks() - tasks <= {running}, what="the tasks to end", timeout=5)
    await every_flight_once(consumer, handled)
    assert await subscriptions(lab) == before


async def test_a_loop_that_ends_by_itself_leaves_what_was_given_to_you(lab: Lab) -> None:
    stream = await numbered(lab, 10)
    consumer = await stream.consumer("c", ack_wait=60)
    mine = [message async for message in consumer.messages(idle=0.3)]
    assert (await consumer.info()).num_ack_pending == 10
    for message in mine:
        await message.ack()
    await settled(consumer)


async def test_a_loop_that_waits_for_acks_says_so(lab: Lab) -> None:
    stream = await numbered(lab, 30)
    consumer = await stream.consumer("c", max_ack_pending=10, ack_wait=60)

    async def forgetful() -> None:
        async for _ in consumer.messages(idle=0.5):
            pass

    with pytest.raises(AckPendingError, match="waits for acks"):
        await forgetful()
    assert len(await consumer.fetch(10)) == 10  # they came back at once


async def test_a_loop_hears_that_its_consumer_was_deleted(lab: Lab) -> None:
    stream = await numbered(lab, 10)
    consumer = await stream.consumer("c")

    async def deleting() -> None:
        async for message in consumer.messages(forever=True):
            await message.ack()
            if message.seq == 10:
                await lab.js.delete_consumer("N", "c")

    began = time.monotonic()
    with pytest.raises(nats.js.errors.NotFoundError) as caught:
        await deleting()
    assert "it was deleted" in caught.value.__notes__[0]
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("what", ["leader", "entry"])
async def test_a_loop_goes_on_over_a_crash(lab: Lab, what: str) -> None:
    stream = await numbered(lab, 2_000)
    consumer = await stream.consumer("c", ack_wait=3)
    seen: collections.Counter[int] = collections.Counter()
    crash = None
    async for message in consumer.messages(idle=8, timeout=40):
        seen[message.seq] += 1
        await message.ack()
        if len(seen) == 500 and crash is None:
            info = await consumer.info()
            victim = info.cluster.leader if what == "leader" and info.cluster else lab.entry
            assert victim
            crash = asyncio.ensure_future(lab.faults.crash(victim))
    assert crash is not None
    await crash
    assert sorted(seen) == list(range(1, 2_001))


# -- work


async def test_work_acks_what_was_handled(lab: Lab) -> None:
    stream = await numbered(lab, 3_000)
    consumer = await stream.consumer("c")
    handled = []

    async def handler(message: Message) -> None:
        handled.append(message.seq)

    tasks = asyncio.all_tasks()
    report = await consumer.work(handler, idle=0.5)
    assert handled == list(range(1, 3_001))
    assert (report.handled, report.retried, report.terminated, report.redelivered) == (3_000, 0, 0, 0)
    assert report.ended == consumer.ended == "nothing came for 0.5 s"
    assert consumer.last_work is report
    assert "3,000" in repr(report)
    assert "3,000" in report._repr_html_()
    await settled(consumer)
    assert asyncio.all_tasks() == tasks


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_work_ends_at_its_limit_and_takes_no_more(lab: Lab, concurrency: int) -> None:
    stream = await numbered(lab, 300)
    consumer = await stream.consumer("c")
    report = await consumer.work(nothing, limit=50, concurrency=concurrency)
    assert (report.handled, report.ended) == (50, "the limit of 50 messages was reached")
    await settled(consumer)
    assert (await consumer.info()).num_pending == 250


async def test_so_many_handlers_run_at_a_time(lab: Lab) -> None:
    stream = await numbered(lab, 200)
    consumer = await stream.consumer("c")
    running = most = 0

    async def handler(_: Message) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1

    report = await consumer.work(handler, concurrency=8, limit=200)
    assert (report.handled, most) == (200, 8)
    assert report.seconds < 200 * 0.02 / 2


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_what_raises_comes_again_after_the_delay(lab: Lab, concurrency: int) -> None:
    stream = await numbered(lab, 20)
    consumer = await stream.consumer("c", ack_wait=60)
    at: dict[int, list[float]] = collections.defaultdict(list)

    async def handler(message: Message) -> None:
        at[message.seq].append(time.monotonic())
        if message.seq == 7 and message.deliveries < 3:
            raise CrashError("not yet")

    report = await consumer.work(handler, retry_delay=0.5, concurrency=concurrency, idle=1.5)
    assert (report.handled, report.retried, report.redelivered) == (20, 2, 2)
    assert report.last_error == "CrashError: not yet"
    first, second, third = at.pop(7)
    assert second - first >= 0.49
    assert third - second >= 0.49
    assert all(len(times) == 1 for times in at.values())
    await settled(consumer)


async def test_a_slow_handlers_message_is_kept_from_coming_again(lab: Lab) -> None:
    stream = await numbered(lab, 3)
    consumer = await stream.consumer("c", ack_wait=1)
    seen: list[int] = []

    async def handler(message: Message) -> None:
        seen.append(message.seq)
        await asyncio.sleep(2.5 if message.seq == 1 else 0)

    report = await consumer.work(handler, idle=1.5)
    assert seen == [1, 2, 3]
    assert (report.handled, report.redelivered) == (3, 0)


async def test_a_handler_that_hangs_or_is_cancelled_gives_its_message_back(lab: Lab) -> None:
    stream = await numbered(lab, 3)
    consumer = await stream.consumer("c", ack_wait=60)

    async def handler(message: Message) -> None:
        if message.seq == 1 and message.deliveries == 1:
            await asyncio.Event().wait()
        if message.seq == 2 and message.deliveries == 1:
            raise asyncio.CancelledError

    report = await consumer.work(handler, handler_timeout=0.3, retry_delay=0.1, idle=1)
    assert (report.handled, report.retried, report.redelivered) == (3, 2, 2)


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("poison", [ValueError, (KeyError, ValueError), [ValueError]])
async def test_poison_is_terminated(lab: Lab, poison: Any, concurrency: int) -> None:
    stream = await numbered(lab, 10)
    consumer = await stream.consumer("c", ack_wait=60)

    async def handler(message: Message) -> None:
        if message.seq % 5 == 0:
            raise ValueError("a flight that never was")

    report = await consumer.work(handler, poison=poison, concurrency=concurrency, idle=0.3)
    assert (report.handled, report.terminated, report.retried) == (8, 2, 0)


@pytest.mark.parametrize("poison", ["ValueError", [KeyError, "ValueError"], int, ValueError("x")])
async def test_what_cannot_be_raised_is_no_poison(lab: Lab, poison: Any) -> None:
    stream = await numbered(lab, 1)
    consumer = await stream.consumer("c")
    with pytest.raises(SettingsError, match=r"poison takes classes of exceptions[\s\S]*KeyError, ValueError"):
        await consumer.work(nothing, poison=poison)
    assert (await consumer.info()).delivered.consumer_seq == 0


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_message_that_cannot_be_settled_ends_the_work(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    stream = await numbered(lab, 10)
    consumer = await stream.consumer("c", ack_wait=60)

    async def fails(_: Message) -> None:
        raise RuntimeError("the ack cannot be written")

    monkeypatch.setattr(Message, "ack", fails)
    with pytest.raises(RuntimeError, match="cannot be written"):
        await consumer.work(nothing, concurrency=concurrency)


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_stopped_work_gives_back_what_was_not_handled(lab: Lab, concurrency: int) -> None:
    stream = await numbered(lab, 300)
    consumer = await stream.consumer("c", ack_wait=60)
    handled: list[int] = []

    async def handler(message: Message) -> None:
        await asyncio.sleep(0.005)
        handled.append(message.seq)

    tasks = asyncio.all_tasks()
    running = asyncio.ensure_future(consumer.work(handler, concurrency=concurrency))
    await until(lambda: len(handled) >= 100, what="a hundred to be handled", timeout=10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() - tasks <= {running}
    report = consumer.last_work
    assert isinstance(report, WorkReport)
    assert report.ended == ""
    assert report.handled == len(handled)
    await every_flight_once(consumer, handled)


async def test_a_worker_hears_that_its_consumer_was_deleted(lab: Lab) -> None:
    stream = await numbered(lab, 10)
    consumer = await stream.consumer("c")

    async def handler(message: Message) -> None:
        if message.seq == 10:
            await lab.js.delete_consumer("N", "c")

    with pytest.raises(nats.js.errors.NotFoundError) as caught:
        await consumer.work(handler, forever=True)
    assert "it was deleted" in caught.value.__notes__[0]


async def test_a_crash_under_a_worker_loses_nothing(lab: Lab) -> None:
    stream = await numbered(lab, 5_000)
    consumer = await stream.consumer("c", ack_wait=3)
    seen: collections.Counter[int] = collections.Counter()
    crash = None

    async def handler(message: Message) -> None:
        nonlocal crash
        seen[message.seq] += 1
        if len(seen) == 1_000 and crash is None:
            info = await consumer.info()
            assert info.cluster is not None
            assert info.cluster.leader is not None
            crash = asyncio.ensure_future(lab.faults.crash(info.cluster.leader))
        await asyncio.sleep(0)

    await consumer.work(handler, idle=8, timeout=40)
    assert crash is not None
    await crash
    assert sorted(seen) == list(range(1, 5_001))
    await settled(consumer)


# -- dead letters


async def test_what_is_given_up_is_kept_as_dead_letters(lab: Lab) -> None:
    stream = await numbered(lab, 30)
    consumer = await stream.consumer("c", ack_wait=1, max_deliver=2)
    dead = await consumer.dead_letters("DEAD")

    async def handler(message: Message) -> None:
        if message.seq in (5, 6):
            raise ValueError(f"cancelled flight {message.seq}")
        if message.seq == 7:
            raise CrashError

    report = await consumer.work(handler, poison=ValueError, retry_delay=0.2, idle=3)
    assert (report.handled, report.terminated, report.retried) == (27, 2, 2)

    async def three() -> bool:
        return len(await dead.list()) == 3

    await until(three, what="three advisories", timeout=15)
    letters = {letter.seq: letter for letter in await dead.list()}
    assert sorted(letters) == [5, 6, 7]
    assert letters[5].why == "terminated: ValueError: cancelled flight 5"
    assert (letters[7].why, letters[7].deliveries) == ("max_deliver reached", 2)
    assert (letters[7].subject, letters[7].data) == ("n.0", b"6")
    again = await (await stream.consumer("c")).dead_letters("DEAD")
    assert len(await again.list()) == 3


# -- pause, resume, reset


async def test_a_paused_consumer_gives_out_nothing_until_it_is_resumed(lab: Lab) -> None:
    stream = await numbered(lab, 10)
    consumer = await stream.consumer("c", max_ack_pending=100)
    for _ in range(5):  # the server's answers to both overtake the news: 1 of 20 fetches was served otherwise
        await consumer.pause(60)
        assert await consumer.fetch(1, timeout=0.2) == []
        await consumer.resume()
        assert len(await consumer.fetch(1)) == 1
    with pytest.raises(SettingsError, match="the seconds of pause"):
        await consumer.pause(0)


async def test_reset_moves_a_durable(lab: Lab) -> None:
    stream = await numbered(lab, 30)
    consumer = await stream.consumer("c")
    for message in await consumer.fetch(20):
        await message.ack()
    await consumer.reset(15)
    assert [m.seq for m in await consumer.fetch(3)] == [15, 16, 17]
    await consumer.reset()
    assert (await consumer.fetch(1))[0].seq in (1, 15)


async def test_two_loops_of_one_consumer_share_its_messages(lab: Lab) -> None:
    stream = await numbered(lab, 600)
    consumer = await stream.consumer("c")

    async def loop() -> list[int]:
        seen = []
        async with aclosing(consumer.messages(idle=1)) as messages:
            async for message in messages:
                seen.append(message.seq)
                await message.ack()
                await asyncio.sleep(0.001)
        return seen

    one, other = await asyncio.gather(loop(), loop())
    assert sorted(one + other) == list(range(1, 601))
    assert min(len(one), len(other)) > 50
