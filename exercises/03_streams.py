"""Lesson 03: what a stream keeps, for how long, who pays when it is full, and how big it gets."""

import contextlib
import dataclasses

import nats.js.errors

from jslab import departures
from jslab.errors import NotReadyError, SubjectError
from jslab.exercises import Lesson, Room, Wrong
from jslab.exercises.room import CLONE
from jslab.publishing import publish_many
from jslab.waiting import until

lesson = Lesson(
    "03",
    "Streams: what is kept, where, and for how long",
    streams=("DAY", "LOUNGE", "CHATTER", "NEWS", "JOBS", "DISK", "MEMORY"),
)

lesson.prediction(
    "03.1",
    "A stream with retention=interest, no consumer, one js.publish. What happens?",
    ("refused with an error", "acked and kept", "acked and not kept"),
)


async def _send(room, clone, info, flights, headers=None):
    """Publish flights to a clone of the learner's stream, ``flights.`` replaced by that stream's token.

    The clone's subjects begin with a token of its own. As many bytes less of payload keep each message as
    large as it would be in the learner's stream: the store's bytes are then the same, to the byte.
    """
    token = info.config.name.lower()
    try:
        return await publish_many(
            room.js,
            clone.name,
            flights,
            subject=lambda f: f.subject.replace("flights", f"{CLONE}.{token}", 1),
            data=lambda f: f.payload[len(f"{CLONE}.") :],
            headers=headers,
        )
    except SubjectError:
        raise Wrong(
            "other-subjects",
            f"{info.config.name} captures {', '.join(info.config.subjects)}: flights on "
            f"{token}.<origin>.<carrier>.<destination> find no stream, and their publish fails.",
        ) from None


def _probe(config):
    """Take from a configuration what would stop a probe and has no part in what it shows.

    The servers set max_bytes aside for every stream, and no probe sends as much as 64 MB.
    """
    bites = 0 < (config.max_bytes or -1) < 64_000_000
    return dataclasses.replace(
        config, storage="file", no_ack=False, max_bytes=config.max_bytes if bites else -1
    )


def _kept_by_limits(config):
    if config.retention != "limits":
        raise Wrong(
            "read-once",
            f"{config.name} has retention={config.retention}: a message goes when its readers have acked "
            "it, so the next reader finds nothing. Here only limits may remove anything.",
        )


# ---------------------------------------------------------------- 03.1

board = lesson.exercise(
    "03.1",
    "A departure board",
    streams=("BOARD",),
    hints=(
        "max_msgs counts the whole stream. One limit counts each subject for itself, and a route is one.",
        "When a limit is reached somebody has to go: with discard=old the oldest, with discard=new the one "
        "that is just arriving. Which of the two belongs on a board?",
        "Do you need a limit on age as well? Think of a route that is flown once a week.",
    ),
)


@board.check
async def check_board(room: Room) -> str:
    info = await room.info("BOARD")
    _kept_by_limits(info.config)
    flights = list(departures.month(1))
    quiet = _quiet_routes(flights, info.config.max_age)
    if quiet:
        raise Wrong(
            "expires",
            f"max_age removes a row after {info.config.max_age:,.0f} s though nothing newer has come: on the "
            f"last evening of January {len(quiet)} routes would be gone from the board, {quiet[0]} for one.",
        )
    async with room.clone(_probe(info.config)) as clone:
        report = await _send(room, clone, info, flights)
        state = (await room.js.stream_info(clone.name, subjects_filter=">")).state
    rows, routes = state.subjects or {}, len({flight.subject for flight in flights})
    if report.refused:
        first = report.refused[0]
        raise Wrong(
            "frozen",
            f"{len(report.refused):,} of {len(flights):,} flights were refused ({first.err_code}: "
            f"{first.text}). {len(rows)} of {routes} routes have a row, stuck at their first flights of "
            "January: on a board the newcomer is the news, and discard=new turns the newcomer away.",
        )
    if len(rows) < routes:
        raise Wrong(
            "missing-routes",
            f"You kept the last {state.messages:,} flights. They cover {len(rows)} of {routes} routes, "
            f"{routes - len(rows)} have no row: a limit on the whole stream lets busy routes evict quiet "
            "ones.",
        )
    if state.messages > routes:
        raise Wrong(
            "whole-history",
            f"{state.messages:,} messages for {routes} routes, up to {max(rows.values()):,} on one: whoever "
            f"opens the board reads {state.messages / routes:,.0f} flights for each row it shows.",
        )
    return (
        f"{len(flights):,} flights in, {state.messages} kept: one for each route, and the latest. "
        f"The sequence went on to {state.last_seq:,}."
    )


def _quiet_routes(flights, max_age):
    """Name the routes whose latest flight is more than ``max_age`` seconds before the last of all."""
    latest = {flight.subject: flight.event_time for flight in flights}
    end = flights[-1].event_time
    return [
        route.partition(".")[2]
        for route, when in latest.items()
        if max_age and (end - when).total_seconds() > max_age
    ]


@board.solution
async def solve_board(lab):
    await lab.stream("BOARD", subjects=["board.>"], num_replicas=3, max_msgs_per_subject=1)


@board.wrong("read-once")
async def board_as_a_queue(lab):
    await lab.stream("BOARD", subjects=["board.>"], max_msgs_per_subject=1, retention="workqueue")


@board.wrong("expires")
async def rows_that_expire(lab):
    await lab.stream("BOARD", subjects=["board.>"], max_msgs_per_subject=1, max_age=24 * 3600)


@board.wrong("other-subjects")
async def one_token_for_three(lab):
    await lab.stream("BOARD", subjects=["board.*"], max_msgs_per_subject=1)


@board.wrong("frozen")
async def refuse_newcomers(lab):
    await lab.stream(
        "BOARD", subjects=["board.>"], max_msgs_per_subject=1, discard="new", discard_new_per_subject=True
    )


@board.wrong("missing-routes")
async def as_many_as_routes(lab):
    await lab.stream("BOARD", subjects=["board.>"], max_msgs=307)


@board.wrong("whole-history")
async def no_limit(lab):
    await lab.stream("BOARD", subjects=["board.>"])


@board.wrong("whole-history")
async def a_few_per_route(lab):
    await lab.stream("BOARD", subjects=["board.>"], max_msgs_per_subject=5)


# ---------------------------------------------------------------- 03.2

ROOM_FOR = 5_000

intake = lesson.exercise(
    "03.2",
    "An intake that says when it is full",
    streams=("INTAKE",),
    hints=(
        "A limit alone does not refuse: by default it makes room, and every publish is acked.",
        "discard decides who pays when a limit is reached.",
    ),
)


@intake.check
async def check_intake(room: Room) -> str:
    info = await room.info("INTAKE")
    flights = list(departures.month(1))[: ROOM_FOR + 1]
    async with room.clone(_probe(info.config)) as clone:
        report = await _send(room, clone, info, flights)
        state = (await clone.info()).state
    if info.config.max_age:
        raise Wrong(
            "age",
            f"{report.acked:,} of {len(flights):,} acked, and after {info.config.max_age:,.0f} s the oldest "
            "go, read or not. Age never refuses anything: no sender hears of it.",
        )
    if state.messages < report.acked:
        raise Wrong(
            "acked-not-kept",
            f"{report.acked:,} acked, {state.messages:,} kept: everything below sequence {state.first_seq:,} "
            "was acked and is gone. An ack means stored, not kept.",
        )
    if not report.refused:
        raise Wrong(
            "never-full",
            f"{report.acked:,} flights acked and kept: at {ROOM_FOR:,} nobody was told. The intake fills "
            "on while the senders believe all is well.",
        )
    first = report.refused[0]
    if report.acked != ROOM_FOR:
        raise Wrong(
            "other-size",
            f"Full at {report.acked:,} instead of {ROOM_FOR:,} ({first.err_code}: {first.text}). "
            "The number is what the senders plan with.",
        )
    return (
        f"{state.messages:,} kept from sequence {state.first_seq} on, the next one refused with "
        f"{first.err_code}: {first.text}. The sender knows, and can wait."
    )


@intake.solution
async def solve_intake(lab):
    await lab.stream("INTAKE", subjects=["intake.>"], num_replicas=3, max_msgs=5000, discard="new")


@intake.wrong("other-subjects")
async def intake_of_one_token(lab):
    await lab.stream("INTAKE", subjects=["intake.*"], max_msgs=5000, discard="new")


@intake.wrong("age")
async def age_instead_of_number(lab):
    await lab.stream("INTAKE", subjects=["intake.>"], max_age=3600)


@intake.wrong("acked-not-kept")
async def default_discard(lab):
    await lab.stream("INTAKE", subjects=["intake.>"], max_msgs=5000)


@intake.wrong("acked-not-kept")
async def nobody_is_interested(lab):
    await lab.stream("INTAKE", subjects=["intake.>"], max_msgs=5000, discard="new", retention="interest")


@intake.wrong("never-full")
async def room_for_twice_as_many(lab):
    await lab.stream("INTAKE", subjects=["intake.>"], max_msgs=10_000, discard="new")


@intake.wrong("never-full")
async def room_for_5000_on_every_route(lab):
    await lab.stream(
        "INTAKE",
        subjects=["intake.>"],
        max_msgs_per_subject=5000,
        discard="new",
        discard_new_per_subject=True,
    )


@intake.wrong("other-size")
async def room_for_half(lab):
    await lab.stream("INTAKE", subjects=["intake.>"], max_msgs=2500, discard="new")


# ---------------------------------------------------------------- 03.3

READERS = ("billing", "operations")
LEGS = 10

legs = lesson.exercise(
    "03.3",
    "Two readers, then it may go",
    streams=("LEGS",),
    hints=(
        "retention has three values. One never looks at readers, one lets each message have one reader, one "
        "waits for every reader.",
        "Who counts as a reader at the moment of a publish? Think of the order of your three steps.",
    ),
)


@legs.check
async def check_legs(room: Room) -> str:
    info = await room.info("LEGS")
    state, retention = info.state, info.config.retention
    if retention == "workqueue":
        raise Wrong(
            "one-reader",
            f"A second reader is refused: {await _second_reader(room, info.config)}. A work queue gives each "
            "message to one reader: whichever of the two came first, the other would miss the flight.",
        )
    if retention == "limits":
        raise Wrong(
            "never-goes",
            f"LEGS holds {state.messages:,} and would hold them when both have acked: with retention=limits "
            "acks remove nothing, and a stream without a limit grows until the servers are full.",
        )
    readers = await _readers(room, state.last_seq)
    missing = [name for name in READERS if name not in readers]
    if missing:
        raise Wrong(
            "no-such-reader",
            f"No durable consumer {' and no '.join(missing)}: a flight goes as soon as the registered "
            "readers have acked it, and who is not registered does not count.",
        )
    careless = [name for name in READERS if readers[name].config.ack_policy == "none"]
    if careless:
        raise Wrong(
            "ack-none",
            f"{careless[0]} has ack_policy=none: a flight counts as done when it is sent. If the reader dies "
            "with it in hand, the stream has already let it go.",
        )
    if state.last_seq < LEGS:
        raise Wrong("not-published", f"{state.last_seq} of {LEGS} flights published so far.")
    shares = {name: _share(readers[name]) for name in READERS}
    if not any(shares.values()):
        raise Wrong(
            "nobody-interested",
            f"{state.last_seq} acked, {state.messages} kept: nobody was interested at that moment. Readers "
            'that register later begin with nothing. (await lab.reset("03.3") begins again.)',
        )
    early = {name: _before(readers[name]) for name in READERS}
    if min(early.values()) and all(shares[name] + early[name] == state.last_seq for name in READERS):
        gone = min(early.values())
        raise Wrong(
            "too-early",
            f"Sequences 1 to {gone} went before the readers came: acked, and kept for nobody. The "
            f"{state.last_seq - gone} after them wait for both. To bill those {gone} flights somebody has to "
            'send them again. (await lab.reset("03.3") begins again.)',
        )
    short = [f"{name} gets {share} of {state.last_seq}" for name, share in shares.items()]
    if min(shares.values()) < state.last_seq:
        raise Wrong(
            "not-every-flight",
            f"{', '.join(short)}: the rest was stored before that reader was there, or its filter or a limit "
            'of the stream leaves it out. (await lab.reset("03.3") begins again.)',
        )
    return f"{', '.join(short)}; {state.messages} kept, each until both have acked it."


async def _second_reader(room, config):
    """Register two readers on a clone and say what the server answers to the second."""
    async with room.clone(_probe(config)) as clone:
        await room.js.add_consumer(clone.name, durable_name="first")
        try:
            await room.js.add_consumer(clone.name, durable_name="second")
        except nats.js.errors.APIError as err:
            return f"{err.err_code}, {err.description}"


async def _readers(room, published):
    """Return the durable consumers by name.

    A consumer's leader counts what is pending in its own copy of the stream, which may be milliseconds
    behind the ack of a publish: a count that is short gets one second.
    """
    readers = {}

    async def all_counted():
        infos = await room.js.consumers_info("LEGS")
        readers.update({info.config.durable_name: info for info in infos if info.config.durable_name})
        return all(_share(info) >= published for info in readers.values())

    with contextlib.suppress(NotReadyError):
        await until(all_counted, what="the consumers to count", timeout=1)
    return readers


def _share(consumer):
    """Count the messages that a consumer was given or will be given."""
    return consumer.delivered.consumer_seq + consumer.num_pending


def _before(consumer):
    """Count the messages before the first that a consumer was given or will be given.

    With a filter this cannot be told: those that it passes over count as delivered to the stream's side.
    """
    if consumer.config.filter_subject or consumer.config.filter_subjects:
        return 0
    return consumer.delivered.stream_seq - consumer.delivered.consumer_seq


@legs.solution
async def solve_legs(lab):
    import itertools

    from jslab import departures

    stream = await lab.stream("LEGS", subjects=["legs.>"], num_replicas=3, retention="interest")
    # The readers first: interest counts at the moment of the publish.
    for reader in ("billing", "operations"):
        await lab.js.add_consumer("LEGS", durable_name=reader)
    ten = itertools.islice(departures.day(1, 1), 10)
    await stream.publish_many(ten, subject=lambda f: f"legs.{f.origin}", data=lambda f: f.payload)


@legs.wrong("one-reader")
async def a_work_queue(lab):
    import nats.js.errors

    await lab.stream("LEGS", subjects=["legs.>"], retention="workqueue")
    await lab.js.add_consumer("LEGS", durable_name="billing")
    try:
        await lab.js.add_consumer("LEGS", durable_name="operations")
    except nats.js.errors.BadRequestError as err:
        print(err)


@legs.wrong("never-goes")
async def default_retention(lab):
    await lab.stream("LEGS", subjects=["legs.>"])
    for reader in ("billing", "operations"):
        await lab.js.add_consumer("LEGS", durable_name=reader)
    for leg in range(10):
        await lab.js.publish("legs.JFK", f"leg {leg}".encode())


@legs.wrong("no-such-reader")
async def only_billing(lab):
    await lab.stream("LEGS", subjects=["legs.>"], retention="interest")
    await lab.js.add_consumer("LEGS", durable_name="billing")
    for leg in range(10):
        await lab.js.publish("legs.JFK", f"leg {leg}".encode())


@legs.wrong("no-such-reader")
async def operations_is_not_durable(lab):
    await lab.stream("LEGS", subjects=["legs.>"], retention="interest")
    await lab.js.add_consumer("LEGS", durable_name="billing")
    await lab.js.add_consumer("LEGS", name="operations")
    for leg in range(10):
        await lab.js.publish("legs.JFK", f"leg {leg}".encode())


@legs.wrong("ack-none")
async def operations_never_acks(lab):
    await lab.stream("LEGS", subjects=["legs.>"], retention="interest")
    await lab.js.add_consumer("LEGS", durable_name="billing")
    await lab.js.add_consumer("LEGS", durable_name="operations", ack_policy="none")
    for leg in range(10):
        await lab.js.publish("legs.JFK", f"leg {leg}".encode())


@legs.wrong("not-published")
async def readers_without_flights(lab):
    await lab.stream("LEGS", subjects=["legs.>"], retention="interest")
    for reader in ("billing", "operations"):
        await lab.js.add_consumer("LEGS", durable_name=reader)


@legs.wrong("nobody-interested")
async def readers_afterwards(lab):
    await lab.stream("LEGS", subjects=["legs.>"], retention="interest")
    for leg in range(10):
        await lab.js.publish("legs.JFK", f"leg {leg}".encode())
    for reader in ("billing", "operations"):
        await lab.js.add_consumer("LEGS", durable_name=reader)


@legs.wrong("too-early")
async def ten_before_and_ten_after(lab):
    await readers_afterwards(lab)
    for leg in range(10):
        await lab.js.publish("legs.JFK", f"leg {leg}".encode())


@legs.wrong("not-every-flight")
async def operations_filters(lab):
    await lab.stream("LEGS", subjects=["legs.>"], retention="interest")
    await lab.js.add_consumer("LEGS", durable_name="billing")
    await lab.js.add_consumer("LEGS", durable_name="operations", filter_subject="legs.JFK")
    for leg in range(10):
        await lab.js.publish("legs.JFK" if leg % 2 else "legs.EWR", f"leg {leg}".encode())


# ---------------------------------------------------------------- 03.4

WEEK = 7 * 24 * 3600

archive = lesson.exercise(
    "03.4",
    "A week, in bytes",
    streams=("ARCHIVE",),
    hints=(
        "Do not compute it: publish the week and let the stream tell you (info, state.bytes).",
        "state.bytes and max_bytes count one copy. Every server that holds a copy holds all of it.",
        "max_age is in seconds.",
    ),
)


@archive.check
async def check_archive(room: Room) -> str:
    info = await room.info("ARCHIVE")
    config = info.config
    _kept_by_limits(config)
    if config.storage != "file":
        raise Wrong(
            "in-memory",
            "ARCHIVE is kept in memory: it counts against the servers' memory, and a restart of all "
            "servers empties it.",
        )
    if config.num_replicas < 3:
        raise Wrong(
            "too-few-copies",
            f"{config.num_replicas} of three copies. One copy goes with its disk; two are no majority when "
            "one of them is away, and then nothing can be written.",
        )
    if config.max_age != WEEK:
        raise Wrong(
            "other-age",
            f"max_age is {config.max_age:,.0f} s, a week has {WEEK:,} (0 means for ever). Flights would go "
            "too early, or stay until something else evicts them.",
        )
    if (config.max_bytes or -1) <= 0:
        raise Wrong(
            "unbounded",
            "There is no max_bytes: a busy week fills the servers, and then every stream on them refuses.",
        )
    flights = [flight for day in range(1, 8) for flight in departures.day(1, day)]
    needed, kept = await _with_and_without_max_bytes(room, info, flights)
    if needed.messages < len(flights):
        raise Wrong(
            "another-limit",
            f"Even with bytes to spare only {needed.messages:,} of {len(flights):,} flights stay: another "
            "limit of the stream bites first.",
        )
    room_in_words = f"{config.max_bytes:,} bytes, a week takes {needed.bytes:,}"
    if config.max_bytes > 1.2 * needed.bytes:
        raise Wrong(
            "too-large",
            f"{room_in_words}: every one of the three servers sets max_bytes aside, "
            f"{config.max_bytes - needed.bytes:,} bytes of it for nothing, and has as much less for other "
            "streams. max_bytes counts one copy.",
        )
    payloads = sum(len(flight.payload) for flight in flights)
    if config.max_bytes < payloads:
        raise Wrong(
            "split",
            f"Kept {kept.messages:,} of {len(flights):,}: {room_in_words}, the payloads alone {payloads:,}. "
            "Three replicas are three whole copies; nothing is split between the servers.",
        )
    if kept.messages < len(flights):
        raise Wrong(
            "overhead",
            f"Kept {kept.messages:,} of {len(flights):,}: {room_in_words}. Beside its payload (here about "
            f"{payloads // len(flights)} bytes) each message has a subject, headers and the store's own "
            f"record: {needed.bytes // len(flights)} bytes in all. And no day is like another.",
        )
    return (
        f"{room_in_words}: all {kept.messages:,} flights stay, on each of {config.num_replicas} servers, "
        f"{config.num_replicas * needed.bytes:,} bytes in the cluster."
    )


async def _with_and_without_max_bytes(room, info, flights):
    """Return what a clone holds without a limit in bytes, and what it holds with the learner's.

    A limit that does not bite is not set: the servers would set it aside a second time.
    """
    config = info.config
    async with room.clone(dataclasses.replace(_probe(config), max_bytes=-1)) as clone:
        await _send(room, clone, info, flights, headers=lambda f: f.headers)
        whole = await clone.info()
        if config.max_bytes >= whole.state.bytes:
            return whole.state, whole.state
        # With discard=new an update would remove nothing of what is too much.
        cut = {"max_bytes": config.max_bytes, "discard": "old", "discard_new_per_subject": False}
        await room.js.update_stream(dataclasses.replace(whole.config, **cut))
        return whole.state, (await clone.info()).state


@archive.solution
async def solve_archive(lab):
    import dataclasses

    from jslab import departures

    week = [flight for day in range(1, 8) for flight in departures.day(1, day)]
    archive = await lab.stream("ARCHIVE", subjects=["archive.>"], num_replicas=3, max_age=7 * 24 * 3600)
    await archive.publish_many(
        week,
        subject=lambda f: f.subject.replace("flights", "archive", 1),
        data=lambda f: f.payload,
        headers=lambda f: f.headers,
    )
    used = (await archive.info()).state.bytes
    # A tenth more, because no two weeks are the same.
    config = dataclasses.replace(archive.config, max_bytes=int(used * 1.1))
    await lab.js.update_stream(config)
    print(f"{used:,} bytes used, {config.max_bytes:,} given")


@archive.wrong("read-once")
async def archive_as_a_queue(lab):
    await lab.stream(
        "ARCHIVE",
        subjects=["archive.>"],
        num_replicas=3,
        max_age=7 * 24 * 3600,
        max_bytes=2_500_000,
        retention="interest",
    )


@archive.wrong("in-memory")
async def archive_in_memory(lab):
    await lab.stream(
        "ARCHIVE",
        subjects=["archive.>"],
        num_replicas=3,
        max_age=7 * 24 * 3600,
        max_bytes=2_500_000,
        storage="memory",
    )


@archive.wrong("too-few-copies")
async def one_copy(lab):
    await lab.stream("ARCHIVE", subjects=["archive.>"], max_age=7 * 24 * 3600, max_bytes=2_500_000)


@archive.wrong("other-age")
async def seven_what(lab):
    await lab.stream("ARCHIVE", subjects=["archive.>"], num_replicas=3, max_age=7, max_bytes=2_500_000)


@archive.wrong("other-age")
async def no_age(lab):
    await lab.stream("ARCHIVE", subjects=["archive.>"], num_replicas=3, max_bytes=2_500_000)


@archive.wrong("unbounded")
async def only_age(lab):
    await lab.stream("ARCHIVE", subjects=["archive.>"], num_replicas=3, max_age=7 * 24 * 3600)


@archive.wrong("other-subjects")
async def archive_of_one_token(lab):
    await lab.stream(
        "ARCHIVE", subjects=["archive.*"], num_replicas=3, max_age=7 * 24 * 3600, max_bytes=2_500_000
    )


@archive.wrong("another-limit")
async def a_number_as_well(lab):
    await lab.stream(
        "ARCHIVE",
        subjects=["archive.>"],
        num_replicas=3,
        max_age=7 * 24 * 3600,
        max_bytes=2_500_000,
        max_msgs=5000,
    )


@archive.wrong("too-large")
async def three_times_for_three_copies(lab):
    await lab.stream(
        "ARCHIVE", subjects=["archive.>"], num_replicas=3, max_age=7 * 24 * 3600, max_bytes=7_500_000
    )


@archive.wrong("split")
async def a_third_for_each_server(lab):
    await lab.stream(
        "ARCHIVE", subjects=["archive.>"], num_replicas=3, max_age=7 * 24 * 3600, max_bytes=2_500_000 // 3
    )


@archive.wrong("split")
async def a_third_and_refuse(lab):
    await lab.stream(
        "ARCHIVE",
        subjects=["archive.>"],
        num_replicas=3,
        max_age=7 * 24 * 3600,
        max_bytes=2_500_000 // 3,
        discard="new",
    )


@archive.wrong("overhead")
async def sum_of_payloads(lab):
    from jslab import departures

    week = [flight for day in range(1, 8) for flight in departures.day(1, day)]
    payloads = sum(len(flight.payload) for flight in week)
    await lab.stream(
        "ARCHIVE", subjects=["archive.>"], num_replicas=3, max_age=7 * 24 * 3600, max_bytes=payloads
    )


@archive.wrong("overhead")
async def seven_times_new_years_day(lab):
    from jslab import departures

    archive = await lab.stream("ARCHIVE", subjects=["archive.>"], num_replicas=3)
    await archive.publish_many(
        departures.day(1, 1),
        subject=lambda f: f.subject.replace("flights", "archive", 1),
        data=lambda f: f.payload,
        headers=lambda f: f.headers,
    )
    used = (await archive.info()).state.bytes
    await lab.js.delete_stream("ARCHIVE")
    await lab.stream(
        "ARCHIVE", subjects=["archive.>"], num_replicas=3, max_age=7 * 24 * 3600, max_bytes=7 * used
    )
