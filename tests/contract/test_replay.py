"""Replay on real servers: the same rows by every route, whatever happens meanwhile; bad questions."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import warnings
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import nats.js.errors
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jslab import departures
from jslab.connection import stream_info
from jslab.errors import ClockError, ReplayError, StalledError
from jslab.lab import Lab
from jslab.publishing.payloads import subject_matches
from jslab.replay import Replay, StoredMessage, sources
from jslab.streams import Stream
from tests.waits import until_waiting

# How to read, and what the report calls it.
ROUTES: dict[str, dict[str, Any]] = {
    "direct get, parsed in bulk": {"route": "direct", "bulk": True},
    "direct get, through nats-py": {"route": "direct", "bulk": False},
    "ordered consumer, parsed in bulk": {"route": "consumer", "bulk": True},
    "ordered consumer, through nats-py": {"route": "consumer", "bulk": False},
}
every_route = pytest.mark.parametrize("route", ROUTES)
# On kind faults are taken with what reads by default; the others see the same frames.
faulty_route = pytest.mark.parametrize(
    "route",
    [pytest.param(name, marks=() if how["bulk"] else pytest.mark.embedded) for name, how in ROUTES.items()],
)
NEW_YORK = ZoneInfo("America/New_York")
SUBJECTS = ("odd.a", "odd.b.c", "odd.b.d", "odd.é", "odd.$x", "odd." + "long" * 40)
PAYLOADS = (b"", b"one", b"\r\n", b"MSG odd.a 1 3\r\nabc\r\n", bytes(range(256)), b"x" * 70_000, "ü".encode())
HEADERS: tuple[dict[str, str] | None, ...] = (
    None,
    {"Event-Time": "2013-01-01T05:15:00-05:00"},
    {"A": "1", "B": "", "C": "a: b", "Umlaut": "ä"},
)

Reference = tuple[int, str, tuple[tuple[str, str], ...], bytes]


def told(message: StoredMessage) -> Reference:
    return message.seq, message.subject, tuple(sorted(message.headers.items())), message.data


async def read(replay: Replay) -> list[Reference]:
    return [told(message) async for message in replay]


def checksum(rows: list[Reference]) -> str:
    return hashlib.sha256(repr(rows).encode()).hexdigest()


async def one_by_one(lab: Lab, stream: str) -> list[tuple[Reference, datetime]]:
    """Read a stream in the plainest way there is: each sequence by itself, from the leader."""
    found = []
    for seq in range(1, (await stream_info(lab.js, stream)).state.last_seq + 1):
        reply = await lab.nc.request(f"$JS.API.STREAM.MSG.GET.{stream}", json.dumps({"seq": seq}).encode())
        if message := json.loads(reply.data).get("message"):
            lines = base64.b64decode(message.get("hdrs", "")).decode().split("\r\n")[1:-2]
            headers = sorted((name, value) for name, _, value in (line.partition(": ") for line in lines))
            data = base64.b64decode(message.get("data", ""))
            row = message["seq"], message["subject"], tuple(headers), data
            found.append((row, datetime.fromisoformat(message["time"])))
    return found


async def odd_stream(lab: Lab, **config: Any) -> Stream:
    """Make a stream of unusual messages, some of which are deleted and some purged."""
    stream = await lab.stream("ODD", subjects=["odd.>"], num_replicas=3, allow_direct=True, **config)
    for n in range(60):
        subject, payload = SUBJECTS[n % len(SUBJECTS)], PAYLOADS[n % len(PAYLOADS)]
        await lab.js.publish(subject, payload, headers=HEADERS[n % len(HEADERS)])
    for seq in (7, 8, 9, 30, 60):
        await lab.js.delete_msg("ODD", seq)
    await stream.purge(seq=4)
    return stream


async def numbered(lab: Lab, count: int, **config: Any) -> Stream:
    config = {"subjects": ["n.>"], "num_replicas": 3, "allow_direct": True, **config}
    stream = await lab.stream("N", **config)
    report = await stream.publish_many(range(count), subject=lambda n: f"n.{n % 7}", data=lambda n: b"%d" % n)
    assert report.acked == count
    return stream


async def timed(lab: Lab, minutes: list[int], **config: Any) -> Stream:
    """Make a stream whose messages carry event times, so many minutes after noon of a day in New York."""
    stream = await lab.stream("T", subjects=["t"], num_replicas=3, **config)
    noon = datetime(2013, 1, 15, 12, tzinfo=NEW_YORK)
    await stream.publish_many(
        minutes,
        subject="t",
        data=lambda m: json.dumps({"minute": m}).encode(),
        headers=lambda m: {"Event-Time": (noon + timedelta(minutes=m)).isoformat()},
    )
    return stream


async def consumers(lab: Lab, stream: str) -> int:
    return len(await lab.js.consumers_info(stream))


# -- the same rows by every route


async def test_every_route_gives_the_same_rows_as_reading_one_by_one(lab: Lab) -> None:
    stream = await odd_stream(lab)
    reference = [row for row, _ in await one_by_one(lab, "ODD")]
    assert len(reference) == 60 - 5 - 3
    sums = {}
    for name, options in ROUTES.items():
        replay = stream.replay(**options)
        sums[name] = checksum(await read(replay))
        assert replay.report.route.startswith(name)
        assert (replay.report.messages, replay.report.missing) == (52, 8)
    assert sums == dict.fromkeys(ROUTES, checksum(reference))
    assert await consumers(lab, "ODD") == 0


@every_route
async def test_stored_times_are_the_servers_to_the_nanosecond(lab: Lab, route: str) -> None:
    stream = await odd_stream(lab)
    asked = await lab.nc.request("$JS.API.STREAM.MSG.GET.ODD", b'{"seq": 12}')
    frame = await stream.replay(start_seq=12, end_seq=12, **ROUTES[route]).frame()
    assert frame.time.dtype == "datetime64[ns, UTC]"
    assert frame.time[0] == pd.Timestamp(json.loads(asked.data)["message"]["time"])


async def test_ranges_and_filters_give_what_a_plain_reader_gives(lab: Lab) -> None:
    stream = await odd_stream(lab)
    reference = await one_by_one(lab, "ODD")
    times = [time for _, time in reference]
    moments = st.sampled_from(times).flatmap(
        lambda time: st.sampled_from([time, time - timedelta(milliseconds=1), time + timedelta(days=1)])
    )
    filters = st.sampled_from(["odd.>", "odd.*", "odd.b.*", "odd.a", "*.b.>", ">", "odd.none"])

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.one_of(st.none(), st.integers(1, 70), moments),
        st.one_of(st.none(), st.integers(1, 70), moments),
        st.one_of(st.none(), filters),
        st.booleans(),
        st.sampled_from(list(ROUTES)),
    )
    @example(times[0], times[-1], None, False, "direct get, parsed in bulk")
    @example(61, None, None, True, "ordered consumer, parsed in bulk")
    def holds(start: Any, end: Any, subject: str | None, last: bool, route: str) -> None:
        asked: dict[str, Any] = {}
        if start is not None:
            asked["start_seq" if isinstance(start, int) else "start_time"] = start
        if end is not None:
            asked["end_seq" if isinstance(end, int) else "end_time"] = end
        if type(start) is type(end) and start is not None and start > end:
            with pytest.raises(ReplayError, match="lies after"):
                stream.replay(**asked)
            return
        replay = stream.replay(subject=subject, last_per_subject=last, **asked, **ROUTES[route])
        rows = asyncio.run_coroutine_threadsafe(read(replay), loop).result(30)
        assert rows == expected(reference, start, end, subject, last)

    loop = asyncio.get_running_loop()

    await asyncio.to_thread(holds)


def expected(
    reference: list[tuple[Reference, datetime]], start: Any, end: Any, subject: str | None, last: bool
) -> list[Reference]:
    """Say what a replay should give, by looking at every message."""

    def wanted(row: Reference, time: datetime) -> bool:
        after = start is None or (row[0] >= start if isinstance(start, int) else time >= start)
        before = end is None or (row[0] <= end if isinstance(end, int) else time < end)
        return after and before and subject_matches(subject or ">", row[1])

    rows = [row for row, time in reference if wanted(row, time)]
    return sorted({row[1]: row for row in rows}.values()) if last else rows


@every_route
async def test_many_batches_are_read_in_order(lab: Lab, route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = await numbered(lab, 5_000)
    monkeypatch.setattr(sources, "BATCH", 300)
    monkeypatch.setattr(sources, "BATCH_BYTES", 10_000)
    rows = await read(stream.replay(**ROUTES[route]))
    assert [row[0] for row in rows] == list(range(1, 5_001))
    assert [row[3] for row in rows] == [b"%d" % n for n in range(5_000)]
    some = await read(stream.replay(subject="n.3", start_seq=100, end_seq=4_900, **ROUTES[route]))
    assert [row[0] for row in some] == [seq for seq in range(100, 4_901) if (seq - 1) % 7 == 3]


async def test_a_work_queue_is_read_by_direct_gets_alone(lab: Lab) -> None:
    stream = await numbered(lab, 10, retention="workqueue")
    assert len(await read(stream.replay())) == 10
    with pytest.raises(nats.js.errors.BadRequestError) as caught:
        await read(stream.replay(route="consumer"))
    assert "allow_direct=True" in caught.value.__notes__[0]
    assert (await stream.info()).state.messages == 10


@every_route
async def test_a_stream_that_keeps_by_interest_keeps_what_it_had(lab: Lab, route: str) -> None:
    stream = await lab.stream("N", subjects=["n.>"], num_replicas=3, retention="interest", allow_direct=True)
    await lab.js.add_consumer("N", durable_name="billing", ack_policy="explicit")
    for n in range(20):
        await lab.js.publish("n.1", b"%d" % n)
    assert len(await read(stream.replay(**ROUTES[route]))) == 20
    assert (await stream.info()).state.messages == 20
    await until_waiting(lab, "N", "billing", 20)


async def test_a_stream_without_direct_gets_is_read_by_a_consumer(lab: Lab) -> None:
    stream = await numbered(lab, 10, allow_direct=False)
    replay = stream.replay()
    assert len(await read(replay)) == 10
    assert replay.report.route == "ordered consumer, parsed in bulk"
    with pytest.raises(ReplayError, match="N allows no direct gets"):
        await read(stream.replay(route="direct"))


async def test_a_replay_never_moves_a_consumer(lab: Lab) -> None:
    stream = await numbered(lab, 100)
    await lab.js.add_consumer("N", durable_name="billing", ack_policy="explicit")
    before = await until_waiting(lab, "N", "billing", 100)
    for options in ROUTES.values():
        assert len(await read(stream.replay(**options))) == 100
    after = await lab.js.consumer_info("N", "billing")
    assert (after.delivered, after.ack_floor, after.num_pending) == (
        before.delivered,
        before.ack_floor,
        before.num_pending,
    )
    assert await consumers(lab, "N") == 1


@every_route
async def test_leaving_early_leaves_nothing_behind(lab: Lab, route: str) -> None:
    stream = await numbered(lab, 3_000)
    tasks = asyncio.all_tasks()
    async with aclosing(aiter(stream.replay(**ROUTES[route]))) as messages:  # type: ignore[type-var]
        async for message in messages:
            if message.seq == 10:
                break
    assert asyncio.all_tasks() == tasks
    assert await consumers(lab, "N") == 0
    reading = asyncio.ensure_future(read(stream.replay(follow=True, bulk=ROUTES[route]["bulk"])))
    await asyncio.sleep(0.3)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert asyncio.all_tasks() == tasks
    assert await consumers(lab, "N") == 0
    assert stream.last_replay is not None
    assert stream.last_replay.messages == 3_000


# -- frames


async def test_a_frame_has_seq_subject_time_headers_and_data(lab: Lab) -> None:
    stream = await odd_stream(lab)
    reference = [row for row, _ in await one_by_one(lab, "ODD")]
    frame = await stream.replay().frame()
    assert list(frame.columns) == ["seq", "subject", "time", "headers", "data"]
    assert list(frame.seq) == [row[0] for row in reference]
    assert list(frame.data) == [row[3] for row in reference]
    assert [dict(found or {}) for found in frame.headers] == [dict(row[2]) for row in reference]
    assert frame.time.is_monotonic_increasing


async def test_payloads_become_columns(lab: Lab) -> None:
    stream = await lab.stream("FLIGHTS", subjects=["flights.>"], num_replicas=3)
    day = list(departures.day(1, 1))
    await stream.publish_many(day, subject=lambda f: f.subject, data=lambda f: f.payload)
    with pytest.warns(UserWarning, match="no payload has nobody"):
        named = await stream.replay().frame(json=["dep_delay", "carrier", "nobody"])
    assert list(named.columns) == ["seq", "subject", "time", "dep_delay", "carrier", "nobody"]
    assert list(named.carrier) == [flight.carrier for flight in day]
    assert int(named.dep_delay.isna().sum()) == sum(flight.dep_delay is None for flight in day)
    assert named.nobody.isna().all()
    everything = await stream.replay(subject="flights.JFK.>").frame(json=True)
    assert len(everything) == 297
    assert {"seq", "id", "event_time", "distance"} <= set(everything.columns)


async def test_what_is_not_json_is_named_and_the_rest_kept(lab: Lab) -> None:
    stream = await lab.stream("J", subjects=["j"], num_replicas=3)
    for payload in (b'{"a": 1}', b"not json", b'{"b": 2}', b"[1]", b"\xff", b'{"a": 3, "b": null}'):
        await lab.js.publish("j", payload)
    replay = stream.replay()
    with pytest.warns(UserWarning, match="sequences 2, 4, 5"):
        frame = await replay.frame(json=True)
    assert replay.report.not_json == [2, 4, 5]
    assert list(frame.seq) == [1, 2, 3, 4, 5, 6]
    assert list(frame.a.fillna(0)) == [1, 0, 0, 0, 0, 3]
    assert list(frame.b.fillna(0)) == [0, 0, 2, 0, 0, 0]


async def test_a_column_that_no_payload_has_is_named(lab: Lab) -> None:
    stream = await lab.stream("J", subjects=["j"], num_replicas=3)
    for payload in (b'{"a": 1}', b'{"b": 2}'):
        await lab.js.publish("j", payload)
    with pytest.warns(
        UserWarning, match="no payload has carier, so that column is empty; payloads have a, b"
    ):
        frame = await stream.replay().frame(json=["b", "carier"])
    assert list(frame.b.fillna(0)) == [0, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(await stream.replay().frame(json=["b"])) == 2


async def test_a_column_that_would_hide_the_messages_own_is_refused(lab: Lab) -> None:
    stream = await lab.stream("J", subjects=["j"], num_replicas=3)
    await lab.js.publish("j", b'{"time": 1}')
    with pytest.raises(ReplayError, match="'time' from the payload would hide"):
        await stream.replay().frame(json=["time"])
    with pytest.raises(ReplayError, match="'time' from the payload would hide"):
        await stream.replay().frame(json=True)
    with pytest.raises(ReplayError, match="takes a list") as caught:
        await stream.replay().frame(json="time")
    assert "json=['time']" in caught.value.do


async def test_an_empty_range_is_an_empty_frame(lab: Lab) -> None:
    stream = await numbered(lab, 10)
    for replay in (stream.replay(start_seq=11), stream.replay(subject="n.none")):
        frame = await replay.frame()
        assert (len(frame), str(frame.time.dtype), str(frame.seq.dtype)) == (
            0,
            "datetime64[ns, UTC]",
            "int64",
        )
    assert list((await stream.replay(start_seq=11).frame(json=["a"])).columns) == [
        "seq",
        "subject",
        "time",
        "a",
    ]


# -- time


async def test_a_start_before_the_first_message_says_that_you_get_all(lab: Lab) -> None:
    stream = await numbered(lab, 10)
    replay = stream.replay(start_time=datetime(2013, 1, 1, tzinfo=UTC))
    assert len(await read(replay)) == 10
    assert "you get all" in repr(replay.report)


async def test_the_report_says_which_times_were_asked_for(lab: Lab) -> None:
    stream = await numbered(lab, 10)
    since, noon = datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 1, 12, tzinfo=UTC)
    all_of_it = stream.replay(start_time=since)
    await read(all_of_it)
    assert "stored from 2013-01-01 00:00:00+00:00 on: sequences 1 to 10" in repr(all_of_it.report)
    nothing = stream.replay(start_time=since, end_time=noon)
    assert await read(nothing) == []
    assert "and before 2013-01-01 12:00:00+00:00: no sequence" in repr(nothing.report)
    assert "end_time lies before the first message, stored 20" in repr(nothing.report)


async def test_a_start_in_the_future_or_beyond_the_end_is_empty_and_says_so(lab: Lab) -> None:
    stream = await numbered(lab, 10)
    for replay in (
        stream.replay(start_seq=11),
        stream.replay(start_time=datetime.now(UTC) + timedelta(days=1)),
    ):
        assert await read(replay) == []
        assert "there is nothing from" in repr(replay.report)


async def test_seek_finds_the_first_message_at_or_after_an_event_time(lab: Lab) -> None:
    minutes = sorted([0, 0, 1, 5, 5, 5, 9, 30, 31, 60] * 5)
    stream = await timed(lab, minutes)
    for seq in (1, 11, 12, 13):
        await lab.js.delete_msg("T", seq)
    left = [(seq, minute) for seq, minute in enumerate(minutes, 1) if seq not in (1, 11, 12, 13)]
    noon = datetime(2013, 1, 15, 12, tzinfo=NEW_YORK)
    for minute in range(-1, 62):
        found = await stream.seek("Event-Time", noon + timedelta(minutes=minute))
        assert found == next((seq for seq, m in left if m >= minute), len(minutes) + 1), minute


async def test_a_stream_out_of_order_says_so(lab: Lab) -> None:
    stream = await timed(lab, [5, 4, 3, 2, 1, 0])
    with pytest.raises(ClockError, match="not in the order of Event-Time") as caught:
        await stream.seek("Event-Time", datetime(2013, 1, 15, 12, 2, tzinfo=NEW_YORK))
    assert "behind it" in caught.value.seen
    with pytest.raises(ClockError, match="not in the order of Event-Time") as caught:
        await read(stream.replay(clock="Event-Time", speed=1e6))
    assert "message 1 says" in caught.value.seen


async def test_a_message_without_the_clock_is_named(lab: Lab) -> None:
    stream = await timed(lab, [0, 1])
    await lab.js.publish("t", b"{}", headers={"Other": "1"})
    await lab.js.publish("t", b"{}", headers={"Event-Time": "2013-01-15T12:00:00"})
    with pytest.raises(ClockError, match="message 3 has no header Event-Time") as caught:
        await read(stream.replay(clock="Event-Time", speed=1e6))
    assert "Other" in caught.value.seen
    with pytest.raises(ClockError, match="of message 4 is no time with a time zone"):
        await read(stream.replay(start_seq=4, clock="Event-Time", speed=1e6))
    with pytest.raises(ClockError, match="message 3"):
        await stream.seek("Event-Time", datetime(2013, 1, 15, 13, tzinfo=NEW_YORK))


async def test_a_replay_keeps_the_pace_of_event_time(lab: Lab) -> None:
    stream = await timed(lab, [0, 10, 20, 60])
    loop = asyncio.get_running_loop()
    arrived = [loop.time() async for _ in stream.replay(clock="Event-Time", speed=3_600)]
    since = [at - arrived[0] for at in arrived]
    for seen, due in zip(since, (0, 1 / 6, 1 / 3, 1), strict=True):
        assert due <= seen + 0.001
        assert seen < due + 0.5


async def test_a_replay_keeps_the_pace_of_storing(lab: Lab) -> None:
    stream = await lab.stream("P", subjects=["p"], num_replicas=3)
    for _ in range(3):
        await lab.js.publish("p", b"")
        await asyncio.sleep(0.3)
    frame = await stream.replay().frame()
    gap = (frame.time.iloc[-1] - frame.time.iloc[0]).total_seconds()
    loop = asyncio.get_running_loop()
    arrived = [loop.time() async for _ in stream.replay(speed=2)]
    assert gap / 2 - 0.001 <= arrived[-1] - arrived[0] < gap / 2 + 0.5


# -- while it reads


@every_route
async def test_messages_that_arrive_meanwhile_are_not_part_of_it_unless_it_follows(
    lab: Lab, route: str
) -> None:
    stream = await numbered(lab, 1_000)
    replay = stream.replay(**ROUTES[route])
    count = 0
    async for message in replay:
        count += 1
        if message.seq == 1:
            await lab.js.publish("n.new", b"")
    assert count == 1_000
    assert "1 messages were stored after it began" in repr(replay.report)


async def test_follow_goes_on_with_new_messages(lab: Lab) -> None:
    stream = await numbered(lab, 10)

    async def publish_later() -> None:
        for n in range(5):
            await asyncio.sleep(0.05)
            await lab.js.publish("n.later", b"%d" % n)

    publishing = asyncio.ensure_future(publish_later())
    seen = []
    async with aclosing(aiter(stream.replay(start_seq=9, follow=True))) as messages:  # type: ignore[type-var]
        async for message in messages:
            seen.append(message.seq)
            if message.seq == 15:
                break
    await publishing
    assert seen == list(range(9, 16))
    assert await consumers(lab, "N") == 0


async def step_down(lab: Lab, stream: str) -> None:
    await lab.nc.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}", timeout=5)


FAULTS: dict[str, Callable[[Lab], Awaitable[None]]] = {}


def fault(act: Callable[[Lab], Awaitable[None]]) -> Callable[[Lab], Awaitable[None]]:
    FAULTS[act.__name__.replace("_", " ")] = act
    return act


@fault
async def the_leader_steps_down(lab: Lab) -> None:
    await step_down(lab, "N")


@fault
async def the_leader_crashes(lab: Lab) -> None:
    leader = (await (await lab.stream("N")).placement()).leader
    assert leader
    await lab.faults.crash(leader)


@fault
async def the_server_it_reads_by_crashes(lab: Lab) -> None:
    assert lab.entry
    await lab.faults.crash(lab.entry)


@fault
async def a_copy_freezes(lab: Lab) -> None:
    leader = (await (await lab.stream("N")).placement()).leader
    await lab.faults.pause(
        next(s.name for s in lab.deployment.servers() if s.name not in (leader, lab.entry))
    )


@faulty_route
@pytest.mark.parametrize("what", FAULTS)
async def test_a_fault_midway_loses_and_repeats_nothing(
    lab: Lab, route: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await numbered(lab, 20_000)
    monkeypatch.setattr(sources, "BATCH", 500)
    monkeypatch.setattr(sources, "BATCH_BYTES", 50_000)
    seqs, act = [], None
    async for message in stream.replay(timeout=40, **ROUTES[route]):
        seqs.append(message.seq)
        if message.seq == 3_000:
            act = asyncio.ensure_future(FAULTS[what](lab))
        if message.seq % 500 == 0:
            await asyncio.sleep(0.02)  # so that most of it is read after the fault
    assert act is not None
    await act
    assert seqs == list(range(1, 20_001))


@pytest.mark.parametrize("bulk", [True, False], ids=["in bulk", "plain"])
async def test_a_copy_that_lags_never_shortens_a_replay(lab: Lab, bulk: bool) -> None:
    stream = await numbered(lab, 2_000)
    leader = (await stream.placement()).leader
    late = next(s.name for s in lab.deployment.servers() if s.name != leader)
    await lab.enter(next(s.name for s in lab.deployment.servers() if s.name not in (leader, late)))
    await lab.faults.pause(late)
    await stream.publish_many(range(30_000), subject="n.more", data=lambda n: b"%d" % n)
    await lab.faults.resume(late)
    await lab.enter(late)  # direct gets are answered by the copy where the connection enters
    for _ in range(5):
        assert len(await read(stream.replay(bulk=bulk))) == 32_000


async def test_a_stream_purged_meanwhile_goes_on_behind_and_says_so(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await numbered(lab, 5_000)
    monkeypatch.setattr(sources, "BATCH", 100)
    for options in ROUTES.values():
        begin = (await stream.info()).state.first_seq
        replay = stream.replay(**options)
        seqs = []
        async for message in replay:
            seqs.append(message.seq)
            if len(seqs) == 200:
                await stream.purge(seq=begin + 1_000)
        assert seqs == sorted(set(seqs))
        assert seqs[-1] == 5_000
        assert seqs[-(5_000 - begin - 999) :] == list(range(begin + 1_000, 5_001))
        assert replay.report.missing == 5_000 - len(seqs)
        assert "were removed while it was read" in repr(replay.report)


@every_route
async def test_a_stream_deleted_meanwhile_is_named(
    lab: Lab, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await numbered(lab, 5_000)
    monkeypatch.setattr(sources, "BATCH", 100)

    async def deleting() -> None:
        async for message in stream.replay(**ROUTES[route]):
            if message.seq == 50:
                await lab.js.delete_stream("N")

    with pytest.raises(nats.js.errors.NotFoundError) as caught:
        await deleting()
    assert "deleted while it was read" in caught.value.__notes__[0]


async def test_a_stream_made_anew_meanwhile_is_another(lab: Lab) -> None:
    stream = await numbered(lab, 50)

    async def changing() -> None:
        async for message in stream.replay():
            if message.seq == 50:
                await lab.js.delete_stream("N")
                await numbered(lab, 60)

    with pytest.raises(ReplayError, match="deleted and made again"):
        await changing()


@faulty_route
async def test_a_connection_lost_for_longer_than_the_timeout_ends_it(
    lab: Lab, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await numbered(lab, 5_000)
    monkeypatch.setattr(sources, "BATCH", 100)
    everyone = [server.name for server in lab.deployment.servers()]

    async def cut_off() -> None:
        async for message in stream.replay(timeout=3, **ROUTES[route]):
            if message.seq == 50:
                await lab.faults.pause(*everyone)

    with pytest.raises(StalledError, match="the replay of N does not go on: waited 3 s") as caught:
        await cut_off()
    assert "the last message read is" in caught.value.seen
    assert isinstance(caught.value, TimeoutError)


async def test_no_stream_of_that_name(lab: Lab) -> None:
    with pytest.raises(nats.js.errors.NotFoundError) as caught:
        await read(Replay(lab.js, "NOPE"))
    assert "NOPE is not there" in caught.value.__notes__[0]


# -- bad questions


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"start_seq": 5, "end_seq": 4}, "start_seq lies after end_seq"),
        ({"start_seq": 0}, "start_seq is not a sequence"),
        ({"end_seq": 1.5}, "end_seq is not a sequence"),
        ({"start_seq": True}, "start_seq is not a sequence"),
        ({"start_seq": 1, "start_time": datetime.now(UTC)}, "one start"),
        ({"end_seq": 1, "end_time": datetime.now(UTC)}, "one end"),
        ({"start_time": datetime(2013, 1, 1)}, "start_time has no time zone"),  # noqa: DTZ001
        ({"end_time": "2013-01-01"}, "end_time is not a datetime"),
        (
            {"start_time": datetime(2014, 1, 1, tzinfo=UTC), "end_time": datetime(2013, 1, 1, tzinfo=UTC)},
            "start_time lies after end_time",
        ),
        ({"speed": 0}, "a number above 0"),
        ({"speed": -1}, "a number above 0"),
        ({"speed": "fast"}, "a number above 0"),
        ({"speed": float("inf")}, "a number above 0"),
        ({"clock": "Event-Time"}, "has no pace"),
        ({"last_per_subject": True, "speed": 2}, "known at the end only"),
        ({"last_per_subject": True, "follow": True}, "known at the end only"),
        ({"follow": True, "end_seq": 5}, "has no end"),
        ({"follow": True, "end_time": datetime.now(UTC)}, "has no end"),
        ({"subject": "a..b"}, "cannot be a subject filter"),
        ({"subject": "a.>.b"}, "cannot be a subject filter"),
        ({"subject": "a b"}, "cannot be a subject filter"),
        ({"subject": ""}, "cannot be a subject filter"),
        ({"route": "push"}, "no such way to read"),
        ({"route": "direct", "follow": True}, "wait for nothing new"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused_before_any_server_is_asked(
    lab: Lab, asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(ReplayError, match=words) as caught:
        Replay(lab.js, "NOPE", **asked)
    assert caught.value.seen
    assert caught.value.do


async def test_a_filter_that_can_match_nothing_is_refused(lab: Lab) -> None:
    stream = await numbered(lab, 10)
    with pytest.raises(ReplayError, match=r"nothing in N can match 'flihgts\.>'") as caught:
        await read(stream.replay(subject="flihgts.>"))
    assert caught.value.seen == "N stores n.>"
    assert await read(stream.replay(subject="n.none")) == []


async def test_naive_moments_and_frames_that_follow_are_refused(lab: Lab) -> None:
    stream = await numbered(lab, 10)
    with pytest.raises(ReplayError, match="has no time zone"):
        await stream.seek("Event-Time", datetime(2013, 1, 1))  # noqa: DTZ001
    with pytest.raises(ReplayError, match="never ends"):
        await stream.replay(follow=True).frame()


# -- what is touched of nats-py


async def test_another_nats_py_is_read_through_its_public_names(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await numbered(lab, 100)
    monkeypatch.setattr("jslab.wire.TOUCHED", ("_ps", "_gone_in_the_next_version"))
    replay = stream.replay()
    assert len(await read(replay)) == 100
    assert "this nats-py has no _gone_in_the_next_version" in replay.report.route
