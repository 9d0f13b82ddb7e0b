"""publish_many on real servers: every outcome, every fault midway, and every way to end early."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import nats.errors
import nats.js.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StreamInfo, StreamSource

from jslab import departures
from jslab.connection import stream_info
from jslab.departures import Departure
from jslab.errors import RecordError, SubjectError
from jslab.lab import Lab
from jslab.publishing import PublishReport, publish_many
from jslab.waiting import until

JANUARY = 27_004
FLIGHT: dict[str, Any] = {
    "subject": lambda f: f.subject,
    "data": lambda f: f.payload,
    "msg_id": lambda f: f.id,
}


async def flights_stream(lab: Lab, name: str = "FLIGHTS", **config: Any) -> str:
    """Make a stream that is ready to be published into from the server this lab enters by."""
    config = {"subjects": ["flights.>"], "num_replicas": 3, **config}
    await lab.stream(name, **config)
    return name


async def stored(lab: Lab, stream: str) -> list[Msg]:
    """Read everything a stream holds, headers and subjects only, in stream order."""
    count = await settled_count(lab, stream)
    reader = await lab.js.subscribe(">", stream=stream, ordered_consumer=True, headers_only=True)
    messages = [await reader.next_msg(timeout=10) for _ in range(count)]
    await reader.unsubscribe()
    return messages


async def settled_count(lab: Lab, stream: str) -> int:
    """Count a stream's messages once all its copies agree: a server just resumed answers with its past."""

    async def agreed() -> StreamInfo | None:
        info = await stream_info(lab.js, stream)
        cluster = info.cluster
        copies = (cluster.replicas or []) if cluster else []
        good = cluster and cluster.leader and len(copies) == (info.config.num_replicas or 1) - 1
        return info if good and all(c.current and not c.offline and not c.lag for c in copies) else None

    info = await until(agreed, what=f"all copies of {stream} to agree", timeout=30)
    assert info is not None
    return info.state.messages


async def stored_ids(lab: Lab, stream: str) -> list[str]:
    return [(message.headers or {}).get("Nats-Msg-Id", "") for message in await stored(lab, stream)]


async def leader_of(lab: Lab, stream: str) -> str:
    info = await stream_info(lab.js, stream)
    assert info.cluster is not None
    assert info.cluster.leader is not None
    return info.cluster.leader


async def followers_of(lab: Lab, stream: str) -> list[str]:
    leader = await leader_of(lab, stream)
    return [server.name for server in lab.deployment.servers() if server.name != leader]


async def midway(
    records: Iterator[Departure], at: int, act: Callable[[], Awaitable[None]]
) -> AsyncIterator[Departure]:
    """Give the records, and do something before the one at this position."""
    for position, record in enumerate(records):
        if position == at:
            await act()
        yield record


async def subscriptions(lab: Lab) -> int:
    """Ask the server this lab enters by how many subscriptions the connection has."""
    assert lab.entry is not None
    _, connections = await lab.deployment.get(lab.entry, "/connz?subs=1")
    (ours,) = [c for c in connections["connections"] if c["cid"] == lab.nc.client_id]
    return int(ours["subscriptions"])


async def connections(lab: Lab) -> int:
    """Count the connections to the server this lab enters by."""
    assert lab.entry is not None
    _, found = await lab.deployment.get(lab.entry, "/connz")
    return int(found["num_connections"])


def settled(report: PublishReport) -> int:
    return report.acked + report.duplicates + len(report.refused) + len(report.unknown)


class Kept:
    """What ``on_report`` was given."""

    def __init__(self) -> None:
        self.reports: list[PublishReport] = []

    def __call__(self, report: PublishReport) -> None:
        self.reports.append(report)

    @property
    def only(self) -> PublishReport:
        (report,) = self.reports
        return report


# -- acked, duplicate, refused, unknown


async def test_a_day_of_flights_is_acked_in_order(lab: Lab) -> None:
    stream = await flights_stream(lab)
    kept = Kept()
    report = await publish_many(lab.js, stream, departures.day(1, 1), **FLIGHT, on_report=kept)
    assert (report.sent, report.acked, settled(report)) == (842, 842, 842)
    assert (report.refused, report.unknown, report.duplicates) == ((), (), 0)
    assert report.last_seq == (await stream_info(lab.js, stream)).state.last_seq
    assert kept.only == report
    assert report.bytes > sum(len(flight.payload) for flight in departures.day(1, 1))
    if not report.retried:  # right after its creation a stream may have no responders for a moment
        assert await stored_ids(lab, stream) == [flight.id for flight in departures.day(1, 1)]


async def test_nothing_is_left_behind(lab: Lab) -> None:
    stream = await flights_stream(lab)
    tasks = asyncio.all_tasks()
    await lab.nc.flush()
    before = await subscriptions(lab)
    await publish_many(lab.js, stream, departures.day(1, 1), **FLIGHT)
    assert asyncio.all_tasks() == tasks
    await lab.nc.flush()
    # One more is nats-py's own, for the answers to its requests, made at the first of them.
    assert await subscriptions(lab) <= before
    assert lab.nc.pending_data_size == 0


async def test_payloads_of_every_kind_arrive(lab: Lab) -> None:
    stream = await flights_stream(lab, "TOWER", subjects=["tower.>"])
    records: list[Any] = [b"\x00raw", "Zürich", {"gate": "B22"}, [1, None], 7]
    report = await publish_many(
        lab.js, stream, records, subject="tower.line", headers={"Source": "tower"}, window=1
    )
    assert report.acked == 5
    payloads = []
    for seq in range(1, 6):
        message = await lab.js.get_msg(stream, seq)
        payloads.append(message.data)
        assert (message.headers or {})["Source"] == "tower"
    assert payloads == [b"\x00raw", "Zürich".encode(), b'{"gate":"B22"}', b"[1,null]", b"7"]


async def test_nothing_to_publish_is_an_empty_report(lab: Lab) -> None:
    stream = await flights_stream(lab)
    report = await publish_many(lab.js, stream, [], subject="flights.JFK.AA.LAX")
    assert (report.sent, report.acked, report.first_seq, settled(report)) == (0, 0, None, 0)


async def test_january_sent_twice_is_stored_once(lab: Lab) -> None:
    stream = await flights_stream(lab)
    first = await publish_many(lab.js, stream, departures.month(1), **FLIGHT)
    assert (first.acked, first.duplicates) == (JANUARY, 0)
    second = await publish_many(lab.js, stream, departures.month(1), **FLIGHT)
    assert (second.acked, second.duplicates, settled(second)) == (0, JANUARY, JANUARY)
    assert (await stream_info(lab.js, stream)).state.messages == JANUARY


async def test_an_id_without_the_carrier_calls_2803_flights_duplicates(lab: Lab) -> None:
    """Equal ids are in flight at once here: for those the server answers 10158, or an ack of sequence 0."""
    stream = await flights_stream(lab)
    report = await publish_many(
        lab.js,
        stream,
        departures.month(1),
        subject=lambda f: f.subject,
        data=lambda f: f.payload,
        msg_id=lambda f: f"{f.event_time:%m-%d}-{f.flight}",
    )
    assert (report.acked, report.duplicates, settled(report)) == (24_201, 2_803, JANUARY)


async def test_one_id_for_all_is_stored_once(lab: Lab) -> None:
    stream = await flights_stream(lab)
    report = await publish_many(
        lab.js, stream, [b"x"] * 50, subject="flights.JFK.AA.LAX", msg_id=lambda record: "always"
    )
    assert (report.acked, report.duplicates) == (1, 49)
    assert (await stream_info(lab.js, stream)).state.messages == 1


async def test_a_full_stream_refuses_by_its_error_code_and_names_the_records(lab: Lab) -> None:
    stream = await flights_stream(lab, max_msgs=20_000, discard="new")
    report = await publish_many(lab.js, stream, departures.month(1), **FLIGHT)
    assert (report.acked, len(report.refused), settled(report)) == (20_000, 7_004, JANUARY)
    assert {(lost.err_code, lost.text) for lost in report.refused} == {(10077, "maximum messages exceeded")}
    kept = set(await stored_ids(lab, stream))
    refused = {lost.msg_id for lost in report.refused}
    assert not kept & refused
    assert kept | refused == {flight.id for flight in departures.month(1)}
    flights = list(departures.month(1))
    assert all(flights[lost.position].id == lost.msg_id for lost in report.refused)
    assert all(flights[lost.position].subject == lost.subject for lost in report.refused)


async def test_a_message_over_the_streams_limit_is_refused_and_the_others_are_acked(lab: Lab) -> None:
    stream = await flights_stream(lab, max_msg_size=100)
    records = [b"x" * size for size in (10, 200, 20)]
    report = await publish_many(lab.js, stream, records, subject="flights.JFK.AA.LAX")
    assert report.acked == 2
    (lost,) = report.refused
    assert (lost.position, lost.err_code) == (1, 10054)


async def test_servers_at_their_storage_limit_refuse(lab: Lab) -> None:
    """The manifest gives each server 32 MiB for streams in memory."""
    stream = await flights_stream(lab, storage="memory", num_replicas=1)
    report = await publish_many(lab.js, stream, [b"x" * 100_000] * 500, subject="flights.JFK.AA.LAX")
    assert settled(report) == report.sent == 500
    assert report.unknown == ()
    assert 200 < report.acked < 500
    assert {lost.err_code for lost in report.refused} <= {10023, 10047, 10077}
    assert (await stream_info(lab.js, stream)).state.messages == report.acked


async def test_without_an_id_frozen_followers_make_a_publish_unknown_and_store_it_late(lab: Lab) -> None:
    stream = await flights_stream(lab)
    await publish_many(lab.js, stream, departures.day(1, 1), **FLIGHT)
    leader = await leader_of(lab, stream)
    await lab.enter(leader)
    await lab.faults.pause(*await followers_of(lab, stream))
    report = await publish_many(lab.js, stream, [b"one", b"two"], subject="flights.JFK.AA.LAX", ack_timeout=1)
    assert (report.acked, len(report.unknown), report.retried) == (0, 2, ())
    assert report.unknown[0].why == "no ack within 1 s"
    await lab.faults.heal()

    async def both_late() -> bool:
        return (await stream_info(lab.js, stream)).state.messages == 844

    await until(both_late, what="both messages to be stored after all", timeout=30)


async def test_a_late_ack_of_a_record_given_up_counts(lab: Lab) -> None:
    """The first window times out while the followers are frozen; they thaw while the second waits."""
    stream = await flights_stream(lab)
    await publish_many(lab.js, stream, [b"x"], subject="flights.JFK.AA.LAX")
    await lab.enter(await leader_of(lab, stream))
    await lab.faults.pause(*await followers_of(lab, stream))
    thawed: list[asyncio.Task[None]] = []

    def records() -> Iterator[bytes]:
        for number in range(10):
            if number == 5:  # asked for only once the first five no longer wait
                thawed.append(asyncio.create_task(lab.faults.resume()))
            yield b"%d" % number

    report = await publish_many(
        lab.js, stream, records(), subject="flights.JFK.AA.LAX", window=5, ack_timeout=2
    )
    await asyncio.gather(*thawed)
    assert (report.acked, report.unknown, report.retried) == (10, (), ())
    assert (await stream_info(lab.js, stream)).state.messages == 11


async def test_with_an_id_frozen_followers_cost_time_and_nothing_else(lab: Lab) -> None:
    stream = await flights_stream(lab)
    await publish_many(lab.js, stream, itertools.islice(departures.day(1, 1), 10), **FLIGHT)
    await lab.enter(await leader_of(lab, stream))
    frozen = await followers_of(lab, stream)
    async with Witness(lab) as witness:
        await lab.faults.pause(*frozen)
        publishing = asyncio.create_task(
            publish_many(lab.js, stream, departures.day(1, 1), **FLIGHT, ack_timeout=1)
        )
        await until(lambda: witness.messages > 842, what="a message to be sent again", timeout=20)
        await lab.faults.resume(*frozen)
        report = await publishing
    assert (report.acked, report.duplicates, report.unknown) == (832, 10, ())
    assert report.retried
    ids = await stored_ids(lab, stream)
    assert len(ids) == len(set(ids)) == 842


async def test_no_responders_are_retried_until_the_stream_is_back_without_ids_too(lab: Lab) -> None:
    stream = await flights_stream(lab, num_replicas=1)
    home = await only_at_home(lab, stream)

    async def records() -> AsyncIterator[Departure]:
        await lab.faults.hold(home)
        for flight in departures.day(1, 1):
            yield flight
        await lab.faults.release(home)

    report = await publish_many(
        lab.js, stream, records(), subject=lambda f: f.subject, data=lambda f: f.payload, deadline=60
    )
    assert (report.sent, report.acked, report.unknown, report.refused) == (842, 842, (), ())
    assert report.retried
    assert (await stream_info(lab.js, stream)).state.messages == 843


async def test_no_responders_until_the_deadline_are_refused(lab: Lab) -> None:
    stream = await flights_stream(lab, num_replicas=1)
    home = await only_at_home(lab, stream)
    # Few enough to be sent before the first answer: behind a refusal new ones wait.
    few = itertools.islice(departures.day(1, 1), 50)
    records = midway(few, 0, lambda: lab.faults.hold(home))
    report = await publish_many(lab.js, stream, records, **FLIGHT, deadline=4)
    assert (report.sent, report.acked, report.unknown) == (50, 0, ())
    assert {lost.err_code for lost in report.refused} == {503}
    assert "no responders" in report.refused[0].text
    assert report.seconds < 8


async def test_when_nothing_works_until_the_deadline_the_rest_is_not_sent_and_that_is_an_error(
    lab: Lab,
) -> None:
    stream = await flights_stream(lab, num_replicas=1)
    home = await only_at_home(lab, stream)
    records = midway(departures.month(1), 10_000, lambda: lab.faults.hold(home))
    kept = Kept()
    with pytest.raises(nats.js.errors.NoStreamResponseError) as caught:
        await publish_many(lab.js, stream, records, **FLIGHT, window=500, deadline=1.5, on_report=kept)
    (note,) = caught.value.__notes__
    assert f"records from {kept.only.sent} on were not sent" in note
    assert "no responders" in note
    assert kept.only.acked >= 8_000
    assert settled(kept.only) == kept.only.sent < 11_000


async def test_frozen_servers_and_no_ids_end_with_a_timeout_instead_of_feeding_the_freeze(lab: Lab) -> None:
    stream = await flights_stream(lab)
    await publish_many(lab.js, stream, [b"x"], subject="flights.JFK.AA.LAX")
    await lab.enter(await leader_of(lab, stream))
    await lab.faults.pause(*await followers_of(lab, stream))
    kept = Kept()
    with pytest.raises(nats.errors.TimeoutError) as caught:
        await publish_many(
            lab.js,
            stream,
            itertools.repeat(b"x"),
            subject="flights.JFK.AA.LAX",
            window=100,
            ack_timeout=0.5,
            deadline=2,
            on_report=kept,
        )
    assert "no ack within 0.5 s" in caught.value.__notes__[0]
    assert 100 < len(kept.only.unknown) == kept.only.sent < 1_000


# -- faults midway: with an id nothing is stored twice and nothing acked is missing


@pytest.mark.parametrize(
    ("fault", "victim"),
    [
        ("crash", "leader"),
        ("terminate", "leader"),
        ("pause", "leader"),
        ("crash", "entry"),
        ("terminate", "entry"),
        ("pause", "entry"),
        ("crash", "leader and entry"),
    ],
)
async def test_a_fault_midway_loses_nothing_and_stores_nothing_twice(
    lab: Lab, fault: str, victim: str
) -> None:
    stream = await flights_stream(lab)
    await publish_many(lab.js, stream, [b"x"], subject="flights.JFK.AA.LAX", msg_id=lambda record: "first")
    leader = await leader_of(lab, stream)
    other = next(server.name for server in lab.deployment.servers() if server.name != leader)
    await lab.enter(leader if victim == "leader and entry" else other)
    target = other if victim == "entry" else leader
    break_it = getattr(lab.faults, fault)
    records = midway(departures.month(1), 10_000, lambda: break_it(target))

    report = await publish_many(lab.js, stream, records, **FLIGHT, ack_timeout=1)

    assert (report.refused, report.unknown) == ((), ())
    assert (report.acked, report.duplicates) == (JANUARY, 0)
    await lab.faults.heal()
    await lab.ready()
    ids = await stored_ids(lab, stream)
    assert len(ids) == len(set(ids)), "stored twice"
    assert set(ids) == {"first", *(flight.id for flight in departures.month(1))}


async def test_without_ids_a_crash_leaves_some_unknown_and_nothing_acked_is_missing(lab: Lab) -> None:
    stream = await flights_stream(lab)
    await publish_many(lab.js, stream, [b"x"], subject="flights.JFK.AA.LAX", headers={"Flight": "first"})
    leader = await leader_of(lab, stream)
    await lab.enter(leader)
    report = await publish_many(
        lab.js,
        stream,
        midway(departures.month(1), 10_000, lambda: lab.faults.crash(leader)),
        subject=lambda f: f.subject,
        data=lambda f: f.payload,
        headers=lambda f: {"Flight": f.id},
        ack_timeout=1,
    )
    assert settled(report) == report.sent == JANUARY
    assert report.refused == ()
    await lab.ready()
    names = [(message.headers or {})["Flight"] for message in await stored(lab, stream)]
    assert len(names) == len(set(names)), "stored twice"
    unknown = {lost.position for lost in report.unknown}
    acked = {flight.id for position, flight in enumerate(departures.month(1)) if position not in unknown}
    assert acked <= set(names), "acked and missing"


async def test_with_a_window_of_one_the_order_holds_through_a_change_of_leader(lab: Lab) -> None:
    stream = await flights_stream(lab)

    async def step_down() -> None:
        await lab.nc.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}", b"", timeout=5)

    records = midway(departures.day(1, 1), 400, step_down)
    report = await publish_many(lab.js, stream, records, **FLIGHT, window=1, ack_timeout=1)
    assert report.acked == 842
    assert await stored_ids(lab, stream) == [flight.id for flight in departures.day(1, 1)]


async def test_while_disconnected_nothing_is_poured_into_the_reconnect_buffer(
    lab: Lab, lone: LoneClient
) -> None:
    stream = await flights_stream(lab)
    entry = entry_of(lab, lone)
    records = midway(departures.month(1), 10_000, lambda: lab.faults.crash(entry))
    report = await publish_many(lone.jetstream(), stream, records, **FLIGHT, ack_timeout=20, deadline=60)
    assert report.unknown == ()
    assert settled(report) == JANUARY
    assert lone.losses == 1
    assert lone.poured == 0
    # On Kubernetes a crash is several requests, and by the last of them every ack has come in.
    assert report.retried or lab.backend != "embedded"
    assert report.seconds < 15, (
        "what the lost connection left open was sent again only when its acks were overdue"
    )


# -- limits on what is in flight


async def test_no_more_than_the_window_waits_for_acks(lab: Lab) -> None:
    report = await stopped_while_frozen(lab, itertools.repeat(b"x"), sent=300, window=300)
    assert report.sent == len(report.unknown) == 300


async def test_no_more_than_32_mebibytes_wait_for_acks(lab: Lab) -> None:
    size = 1_000_000
    expected = 32 * 1024 * 1024 // size + 1
    report = await stopped_while_frozen(lab, itertools.repeat(bytes(size)), sent=expected, window=4000)
    assert report.sent == len(report.unknown) == expected


# -- Stop


async def test_stop_while_publishing_reports_what_was_acked_and_leaves_nothing(lab: Lab) -> None:
    stream = await flights_stream(lab)
    await publish_many(lab.js, stream, [b"x"], subject="flights.JFK.AA.LAX")
    await lab.nc.flush()
    tasks, before = asyncio.all_tasks(), await subscriptions(lab)
    kept = Kept()
    async with Witness(lab) as witness:
        publishing = asyncio.create_task(
            publish_many(lab.js, stream, itertools.repeat(b"x"), subject="flights.JFK.AA.LAX", on_report=kept)
        )
        await until(lambda: witness.messages > 5_000, what="publishing to be under way", timeout=20)
        await stopped(publishing)
    assert kept.only.acked > 1_000
    assert settled(kept.only) == kept.only.sent
    assert all("CancelledError" in lost.why for lost in kept.only.unknown)
    assert asyncio.all_tasks() == tasks
    await lab.nc.flush()
    assert await subscriptions(lab) == before
    again = await publish_many(lab.js, stream, [b"y"], subject="flights.JFK.AA.LAX")
    assert again.acked == 1


async def test_stop_while_the_followers_are_frozen(lab: Lab) -> None:
    report = await stopped_while_frozen(lab, departures.day(1, 1), sent=842, **FLIGHT)
    assert len(report.unknown) == 842


async def test_stop_while_the_entry_server_reads_nothing(lab: Lab) -> None:
    """nats-py swallows a cancellation while it waits for its socket; publish_many must not get there."""
    stream = await flights_stream(lab)
    await publish_many(lab.js, stream, [b"x"], subject="flights.JFK.AA.LAX")
    entry = lab.entry
    assert entry is not None
    kept = Kept()
    asked = 0

    async def records() -> AsyncIterator[bytes]:
        nonlocal asked
        await lab.faults.pause(entry)
        while True:
            asked += 1
            yield bytes(500_000)

    publishing = asyncio.create_task(
        publish_many(lab.js, stream, records(), subject="flights.JFK.AA.LAX", window=100, on_report=kept)
    )
    before = 0
    while not before or asked > before:  # until the sockets are full, and no more is asked for
        before = asked
        await asyncio.sleep(0.5)
    await stopped(publishing)
    assert kept.only.acked == 0
    assert kept.only.sent < 60, "more was written than sockets and proxies between here and there hold"


async def test_stop_while_waiting_for_the_stream_to_answer(lab: Lab, lone: LoneClient) -> None:
    stream = await flights_stream(lab)
    await lab.faults.hold(entry_of(lab, lone))
    await until(lambda: not lone.is_connected, what="the connection to be lost", timeout=20)
    kept = Kept()
    publishing = asyncio.create_task(
        publish_many(lone.jetstream(), stream, [b"x"], subject="flights.JFK.AA.LAX", on_report=kept)
    )
    await asyncio.sleep(0)  # it begins to wait
    await stopped(publishing)
    assert kept.only.sent == 0


# -- the connection that many records go by


@pytest.mark.parametrize("way", ["in bulk", "by nats-py", "without a second connection"])
async def test_many_records_arrive_by_every_way(lab: Lab, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    if way == "by nats-py":
        monkeypatch.setattr("jslab.wire.TOUCHED", ("_a_name_that_nats_py_has_not",))
    if way == "without a second connection":
        monkeypatch.setattr("jslab.publishing.publisher.OPENED", 0.0)
    stream = await flights_stream(lab)
    flights = sorted(itertools.islice(departures.month(1), 3_000), key=lambda flight: flight.id)
    opened = await connections(lab)
    seen: list[int] = []

    async def records() -> AsyncIterator[Departure]:
        for number, flight in enumerate(flights):
            if number == 2_000:
                seen.append(await connections(lab))
            yield flight

    report = await publish_many(lab.js, stream, records(), **FLIGHT)
    assert report.acked == 3_000
    assert seen == [opened + (way != "without a second connection")]
    ids = await stored_ids(lab, stream)
    assert (ids if not report.retried else sorted(ids)) == sorted(flight.id for flight in flights)

    async def as_before() -> bool:
        return await connections(lab) == opened

    await until(as_before, what="the connection to be gone", timeout=5)


# -- bad input


async def test_a_generator_that_raises_midway_keeps_its_error_and_gets_a_note(lab: Lab) -> None:
    stream = await flights_stream(lab)

    def records() -> Iterator[Departure]:
        yield from itertools.islice(departures.month(1), 1_234)
        raise ZeroDivisionError("the gate is closed")

    kept = Kept()
    with pytest.raises(ZeroDivisionError, match="the gate is closed") as caught:
        await publish_many(lab.js, stream, records(), **FLIGHT, on_report=kept)
    assert caught.value.__notes__ == [
        "jslab: publishing ended at record 1234. Of 1,234 records sent 1,234 were acked, 0 duplicate, "
        "0 refused, 0 unknown."
    ]
    assert (kept.only.sent, kept.only.acked) == (1_234, 1_234)
    assert (await stream_info(lab.js, stream)).state.messages == 1_234


async def test_an_async_generator_that_raises_midway_does_too(lab: Lab) -> None:
    stream = await flights_stream(lab)

    async def fail() -> None:
        raise ZeroDivisionError("the gate is closed")

    tasks = asyncio.all_tasks()
    with pytest.raises(ZeroDivisionError) as caught:
        await publish_many(lab.js, stream, midway(departures.month(1), 2_500, fail), **FLIGHT)
    assert "publishing ended at record 2500" in caught.value.__notes__[0]
    assert asyncio.all_tasks() == tasks


async def test_a_function_of_a_record_that_raises_names_the_record(lab: Lab) -> None:
    stream = await flights_stream(lab)
    records = [{"dest": "LAX"}, {"dest": "SFO"}, {}]
    with pytest.raises(KeyError) as caught:
        await publish_many(lab.js, stream, records, subject=lambda r: f"flights.JFK.AA.{r['dest']}")
    assert "publishing ended at record 2. Of 2 records sent 2 were acked" in caught.value.__notes__[0]


async def test_a_record_that_is_not_json_names_the_record(lab: Lab) -> None:
    stream = await flights_stream(lab)
    with pytest.raises(RecordError, match="record 1 cannot be sent") as caught:
        await publish_many(
            lab.js, stream, [{"delay": 1}, {"delay": float("nan")}], subject="flights.JFK.AA.LAX"
        )
    assert "Of 1 records sent 1 were acked" in caught.value.__notes__[0]


async def test_a_header_that_nats_refuses_names_the_record(lab: Lab) -> None:
    stream = await flights_stream(lab)
    with pytest.raises(nats.errors.BadHeaderError) as caught:
        await publish_many(
            lab.js, stream, [b"a", b"b"], subject="flights.JFK.AA.LAX",
            headers=lambda r: {"Event Time": "now"} if r == b"b" else {"Event-Time": "now"},
        )  # fmt: skip
    assert "ended at record 1. Of 1 records sent 1 were acked" in caught.value.__notes__[0]


@pytest.mark.parametrize("headers", [None, {"Source": "x" * 1_000}])
async def test_a_record_over_max_payload_names_itself_its_size_and_the_limit(
    lab: Lab, headers: dict[str, str] | None
) -> None:
    """Headers count: with them the server would close the connection, though nats-py lets it pass."""
    stream = await flights_stream(lab)
    limit = lab.nc.max_payload
    too_long = bytes(limit + 1 if headers is None else limit - 500)
    with pytest.raises(nats.errors.MaxPayloadError) as caught:
        await publish_many(lab.js, stream, [b"x", too_long], subject="flights.JFK.AA.LAX", headers=headers)
    first, second = caught.value.__notes__
    assert first.startswith("jslab: record 1 on flights.JFK.AA.LAX is 1,04")
    assert f"the server takes {limit:,}" in first
    assert "Of 1 records sent 1 were acked" in second
    assert lab.nc.is_connected


async def test_a_record_of_exactly_max_payload_is_taken(lab: Lab) -> None:
    stream = await flights_stream(lab)
    report = await publish_many(lab.js, stream, [bytes(lab.nc.max_payload)], subject="flights.JFK.AA.LAX")
    assert report.acked == 1
    assert lab.nc.is_connected


async def test_a_subject_the_stream_does_not_capture_names_record_stream_and_the_one_that_does(
    lab: Lab,
) -> None:
    stream = await flights_stream(lab)
    await lab.stream("TOWER", subjects=["tower.>"])
    kept = Kept()
    with pytest.raises(SubjectError) as caught:
        await publish_many(
            lab.js, stream, ["flights.JFK.AA.LAX", "flights.JFK.AA.SFO", "tower.line", "flights.x"],
            subject=lambda r: r, on_report=kept,
        )  # fmt: skip
    assert caught.value.what == "record 2: stream FLIGHTS does not capture tower.line"
    assert caught.value.seen == "FLIGHTS captures flights.>; stream TOWER does"
    assert "js.update_stream" in caught.value.do
    assert (kept.only.sent, kept.only.acked) == (2, 2)
    assert (await stream_info(lab.js, "TOWER")).state.messages == 0


async def test_a_subject_that_no_stream_captures_says_so(lab: Lab) -> None:
    stream = await flights_stream(lab)
    with pytest.raises(SubjectError) as caught:
        await publish_many(lab.js, stream, [b"x"], subject="trains.NYC")
    assert caught.value.seen == "FLIGHTS captures flights.>; no stream does"


async def test_a_mirror_takes_no_publishes(lab: Lab) -> None:
    await flights_stream(lab)
    await lab.stream("COPY", mirror=StreamSource(name="FLIGHTS"), num_replicas=1)
    with pytest.raises(SubjectError) as caught:
        await publish_many(lab.js, "COPY", [b"x"], subject="flights.JFK.AA.LAX")
    assert caught.value.seen == "COPY captures nothing, as a mirror does; stream FLIGHTS does"


async def test_an_illegal_subject_names_the_record_and_what_is_wrong(lab: Lab) -> None:
    stream = await flights_stream(lab)
    with pytest.raises(SubjectError) as caught:
        await publish_many(lab.js, stream, ["LAX", "San Francisco"], subject=lambda r: f"flights.JFK.AA.{r}")
    assert "record 1 has no legal subject: 'flights.JFK.AA.San Francisco'" in caught.value.what
    assert caught.value.seen == "it contains white space"


async def test_an_ack_of_another_stream_is_an_error(lab: Lab) -> None:
    """Between two records the subject is moved to another stream."""
    await lab.stream("FIRST", subjects=["flights.>", "first.>"], num_replicas=1)

    async def ten_are_stored() -> bool:
        return (await stream_info(lab.js, "FIRST")).state.messages == 10

    async def move() -> None:
        # Records are read ahead of being sent.
        await until(ten_are_stored, what="the first ten records", timeout=10)
        await lab.js.update_stream(name="FIRST", subjects=["first.>"], num_replicas=1)
        await lab.settle(await lab.js.add_stream(name="SECOND", subjects=["flights.>"]))

        async def second_answers() -> bool:
            return (await lab.js.publish("flights.x", b"")).stream == "SECOND"

        await until(second_answers, what="SECOND to take the subject", timeout=10)

    kept = Kept()
    with pytest.raises(SubjectError) as caught:
        await publish_many(
            lab.js, "FIRST", midway(departures.day(1, 1), 10, move), **FLIGHT, window=10, on_report=kept
        )
    assert "record 10 was not stored by stream FIRST" in caught.value.what
    assert "stream SECOND stored it" in caught.value.seen
    assert kept.only.acked == 10
    assert kept.only.unknown[0].why.startswith("stream SECOND stored it")


async def test_a_missing_stream_is_nats_pys_own_error_with_a_note(lab: Lab) -> None:
    kept = Kept()
    with pytest.raises(nats.js.errors.NotFoundError) as caught:
        await publish_many(lab.js, "NOWHERE", [b"x"], subject="nowhere", on_report=kept)
    assert "there is no stream NOWHERE" in caught.value.__notes__[0]
    assert kept.only.sent == 0


async def test_a_connection_closed_midway_is_nats_pys_own_error_with_a_note(
    lab: Lab, lone: LoneClient
) -> None:
    stream = await flights_stream(lab)
    closing: list[asyncio.Task[None]] = []

    async def close() -> None:
        closing.append(asyncio.create_task(lone.close()))

    kept = Kept()
    with pytest.raises(nats.errors.ConnectionClosedError) as caught:
        await publish_many(
            lone.jetstream(), stream, midway(departures.month(1), 5_000, close), **FLIGHT, on_report=kept
        )
    await asyncio.gather(*closing)
    assert "the connection was closed while publishing" in caught.value.__notes__[0]
    assert settled(kept.only) == kept.only.sent < JANUARY


async def test_a_server_that_stays_away_ends_in_a_clear_error(lab: Lab, lone: LoneClient) -> None:
    stream = await flights_stream(lab)
    await lab.faults.hold(entry_of(lab, lone))
    with pytest.raises((nats.errors.TimeoutError, nats.errors.ConnectionReconnectingError)) as caught:
        await publish_many(lone.jetstream(), stream, [b"x"], subject="flights.JFK.AA.LAX", deadline=1)
    assert (
        "no server told about stream FLIGHTS within 1 s; nothing was published" in caught.value.__notes__[0]
    )


@pytest.mark.parametrize("bad", [{"window": 0}, {"ack_timeout": 0}, {"deadline": -1}])
async def test_arguments_that_make_no_sense_are_refused(lab: Lab, bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="window must be at least 1"):
        await publish_many(lab.js, "FLIGHTS", [b"x"], subject="flights.x", **bad)


# -- long sources


async def test_a_slow_source_is_not_mistaken_for_silent_servers(lab: Lab) -> None:
    stream = await flights_stream(lab)

    async def every_second() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d" % number
            await asyncio.sleep(0.7)  # the source is slow: longer than the deadline

    report = await publish_many(lab.js, stream, every_second(), subject="flights.JFK.AA.LAX", deadline=0.5)
    assert report.acked == 3


async def test_a_source_that_pauses_after_an_unknown_record_is_not_given_up(lab: Lab) -> None:
    stream = await flights_stream(lab)
    await publish_many(lab.js, stream, [b"x"], subject="flights.JFK.AA.LAX")
    await lab.enter(await leader_of(lab, stream))
    await lab.faults.pause(*await followers_of(lab, stream))

    async def pauses() -> AsyncIterator[bytes]:
        yield b"one"
        await asyncio.sleep(1.5)  # the source is slow: longer than the deadline
        await lab.faults.resume()
        yield b"two"

    report = await publish_many(
        lab.js, stream, pauses(), subject="flights.JFK.AA.LAX", ack_timeout=0.3, deadline=0.8
    )
    assert (report.acked, report.unknown) == (2, ())


async def test_a_source_that_blocks_the_event_loop_is_not_mistaken_for_silent_servers(lab: Lab) -> None:
    stream = await flights_stream(lab)

    def blocks() -> Iterator[bytes]:
        for number in range(6):
            yield b"%d" % number
            time.sleep(0.8)  # longer than both limits, and nothing else runs meanwhile

    report = await publish_many(
        lab.js, stream, blocks(), subject="flights.JFK.AA.LAX", ack_timeout=0.3, deadline=0.6
    )
    assert (report.acked, report.unknown) == (6, ())


async def test_a_long_generator_streams_in_little_memory(lab: Lab) -> None:
    """In a process of its own, so that nothing else counts; `make bench` does a million."""
    stream = await flights_stream(lab)
    script = f"""
import asyncio, nats
from benchmarks.memory import peak_memory
from jslab.publishing import publish_many
async def main():
    nc = await nats.connect({lab.deployment.servers()[0].client_url!r})
    records = (b"%0128d" % number for number in range(200_000))
    before = peak_memory()
    report = await publish_many(nc.jetstream(), {stream!r}, records, subject="flights.JFK.AA.LAX")
    print(report.acked, peak_memory() - before)
    await nc.close()
asyncio.run(main())
"""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    printed, _ = await child.communicate()
    acked, growth = printed.split()
    assert int(acked) == 200_000
    assert 0 < int(growth) < 50_000_000


# -- helpers of the tests above


class LoneClient(Client):
    """A connection that knows one server only, and counts what it is asked to do without it."""

    losses = 0
    poured = 0

    async def publish(self, *args: Any, **options: Any) -> None:
        self.poured += not self.is_connected
        await super().publish(*args, **options)


@pytest.fixture
async def lone(lab: Lab) -> AsyncIterator[LoneClient]:
    """A connection of its own, to one server that is not the lab's entry."""
    client = LoneClient()

    async def lost() -> None:
        client.losses += 1

    async def quiet(error: Exception) -> None:
        """Say nothing of connections refused while the server is away; nats-py forgets their sockets."""
        if not client.is_connected and client._transport is not None:
            client._transport.close()  # type: ignore[no-untyped-call]

    server = next(server for server in lab.deployment.servers() if server.name != lab.entry)
    await client.connect(
        server.client_url,
        reconnect_time_wait=0.1,  # type: ignore[arg-type]  # asyncio.sleep takes it
        max_reconnect_attempts=-1,
        disconnected_cb=lost,
        error_cb=quiet,
    )
    yield client
    await client.close()


def entry_of(lab: Lab, client: Client) -> str:
    """Name the server that a connection enters by."""
    url = client.connected_url
    assert url is not None
    return next(server.name for server in lab.deployment.servers() if server.client_url == url.geturl())


class Witness:
    """Counts what is published on ``flights.>``, with a core subscription."""

    def __init__(self, lab: Lab) -> None:
        self.messages = 0
        self._lab = lab

    async def __aenter__(self) -> Witness:
        self._subscription = await self._lab.nc.subscribe(
            "flights.>", cb=self._count, pending_bytes_limit=0, pending_msgs_limit=0
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._subscription.unsubscribe()
        await asyncio.sleep(0)

    async def _count(self, message: Msg) -> None:
        self.messages += 1


async def only_at_home(lab: Lab, stream: str) -> str:
    """Put a first message into an R1 stream, enter by another server, and name the stream's own."""
    await publish_many(lab.js, stream, [b"x"], subject="flights.JFK.AA.LAX")
    home = await leader_of(lab, stream)
    await lab.enter(next(server.name for server in lab.deployment.servers() if server.name != home))
    return home


async def stopped(publishing: asyncio.Task[PublishReport]) -> None:
    """Stop a publish as an interrupted cell does; it must end within two seconds."""
    publishing.cancel()
    async with asyncio.timeout(2):
        with pytest.raises(asyncio.CancelledError):
            await publishing


async def stopped_while_frozen(lab: Lab, records: Any, *, sent: int, **options: Any) -> PublishReport:
    """Publish with both followers frozen, until so many messages left; stop, and give the report."""
    stream = await flights_stream(lab)
    await publish_many(lab.js, stream, [b"x"], subject="flights.JFK.AA.LAX")
    await lab.enter(await leader_of(lab, stream))
    options = {"subject": "flights.JFK.AA.LAX", "ack_timeout": 20, **options}
    kept = Kept()
    async with Witness(lab) as witness:
        await lab.faults.pause(*await followers_of(lab, stream))
        publishing = asyncio.create_task(publish_many(lab.js, stream, records, on_report=kept, **options))
        await until(lambda: witness.messages >= sent, what=f"{sent} messages to leave", timeout=20)
        await lab.nc.flush()  # whatever is sent beyond that would have arrived by now
        await stopped(publishing)
        assert witness.messages == sent
    return kept.only
