"""Lesson 07: when a message was stored, when what it tells of happened, and reading by either."""

import asyncio
import contextlib
import functools
import statistics
from datetime import UTC, datetime

import nats.js.errors

from jslab import departures
from jslab.connection import ask
from jslab.departures import NEW_YORK, flight_of
from jslab.exercises import Lesson, Room, Wrong
from jslab.exercises.notes import Notes
from jslab.pulls import PASSING
from jslab.waiting import until

lesson = Lesson("07", "Replay and time travel", streams=("FLIGHTS", "LATE"))

lesson.prediction(
    "07.1",
    "The durable billing has handled 1 to 5. pull_subscribe names it with a config that starts at 15. Which "
    "sequence comes first?",
    ("1", "6", "15", "none: an error"),
)

DAY = tuple(departures.day(1, 1))


# Read when an exercise needs it: with the lesson's file it would cost everybody a quarter of a second.
january = functools.cache(lambda: tuple(departures.month(1)))


def below(token: str):
    """Return what gives a flight its subject below another first token."""
    return lambda flight: flight.subject.replace("flights", token, 1)


async def store(room: Room, stream: str, flights):
    """Make a stream in a setup and store flights in it, each with its event time."""
    token = stream.lower()
    made = await room.lab.stream(stream, subjects=[f"{token}.>"], num_replicas=3)
    await made.publish_many(
        flights, subject=below(token), data=lambda f: f.payload, headers=lambda f: f.headers
    )
    return made


async def handle(consumer, messages):
    """Have a consumer's first messages fetched and acked, in a setup."""
    for message in await consumer.fetch(messages, timeout=10):
        await message.ack()

    async def acked():
        return (await consumer.info()).ack_floor.stream_seq == messages

    await until(acked, what=f"{consumer.name} to have acked {messages}", timeout=20)


async def durables(room: Room, stream: str):
    """Return the durable consumers of a stream by name.

    The list of names is the meta leader's, and then each consumer is asked: in the list of infos one that is
    slow to answer would be missing.
    """
    answer = await ask(room.lab.nc, f"CONSUMER.NAMES.{stream}", timeout=10)
    found = {}
    for name in answer["consumers"] or ():
        # One without a durable name may go at any moment.
        with contextlib.suppress(nats.js.errors.NotFoundError):
            found[name] = await room.js.consumer_info(stream, name)
    return {name: info for name, info in found.items() if info.config.durable_name}


def told(when: datetime) -> str:
    """Say a moment as it is said in New York."""
    local = when.astimezone(NEW_YORK)
    return f"{local.day} {local:%B %H:%M}"


# ---------------------------------------------------------------- 07.1

NOON = datetime(2013, 1, 15, 12, tzinfo=NEW_YORK)

board = lesson.exercise(
    "07.1",
    "The board as of noon",
    streams=("PAST", "BOARD"),
    hints=(
        "start_time and end_time ask when the server stored a message. All of PAST was stored when the "
        "exercise was set up, within seconds. What else do its messages carry?",
        "stream.seek finds the sequence at which an event time begins, and a replay can end at a sequence.",
        "The last message of each subject *in a range* is replay(…, last_per_subject=True). End it before "
        "noon: end_seq is part of the range.",
    ),
)


@board.setup
async def a_month_and_an_empty_board(room: Room) -> None:
    await store(room, "PAST", january())
    await room.lab.stream("BOARD", subjects=["board.>"], num_replicas=3, max_msgs_per_subject=1)


@board.check
async def check_board(room: Room) -> str:
    await room.info("BOARD")
    messages = await room.messages("BOARD")
    if not messages:
        raise Wrong(
            "blank",
            "BOARD is empty. (Your replay gave you nothing? Before 2013 was over nothing had been stored: "
            "end_time asks for the time of storing.)",
        )
    known = {flight.id: flight for flight in january()}
    found = [(message, known.get(flight_of(message.data))) for message in messages]
    if strangers := [message for message, flight in found if flight is None]:
        raise Wrong(
            "no-flight",
            f"{strangers[0].subject} on BOARD says {strangers[0].data[:40]!r}, which is no flight of "
            "January. A row is the payload of a message of PAST, as it is.",
        )
    if odd := [(m.subject, should) for m, f in found if m.subject != (should := below("board")(f))]:
        raise Wrong(
            "elsewhere",
            f"A row of BOARD is on {odd[0][0]}; who looks for that route asks for {odd[0][1]} and finds "
            "nothing, or something older.",
        )
    rows = {flight.subject: flight.event_time for _, flight in found}
    wanted = _as_of(NOON)
    if future := {route: when for route, when in rows.items() if when >= NOON}:
        route, latest = max(future.items(), key=lambda row: row[1])
        if latest == NOON:
            raise Wrong(
                "inclusive",
                f"{len(future)} of {len(rows)} rows show a flight of noon sharp, {route} for one. The board "
                "was asked for as it stood before noon. seek names the first message at or after a moment, "
                "and end_seq is part of the range: one sequence too many.",
            )
        raise Wrong(
            "future",
            f"{len(future)} of {len(rows)} rows show flights that noon of the 15th did not know yet, the "
            f"latest of {told(latest)}. The last message of a subject is the last of the whole range, and "
            "yours goes on behind noon. Whoever reproduces yesterday's decision with today's data blames the "
            "wrong person.",
        )
    if rows == _as_of(NOON.replace(tzinfo=UTC)):
        raise Wrong(
            "utc",
            f"This is the board as of {told(NOON.replace(tzinfo=UTC))}, five hours early: noon was taken in "
            "UTC. A moment without the place where its clock hangs is a guess; "
            "departures.NEW_YORK is a time zone.",
        )
    if stale := [route for route, when in rows.items() if when < wanted[route]]:
        raise Wrong(
            "stale",
            f"{len(stale)} of {len(rows)} rows are too old: {stale[0]} shows the flight of "
            f"{told(rows[stale[0]])}, and one of {told(wanted[stale[0]])} came before noon. Your board ends "
            "too early.",
        )
    if len(rows) < len(wanted):
        missing = min(wanted.keys() - rows.keys())
        raise Wrong(
            "missing",
            f"{len(rows)} of {len(wanted)} routes have a row, all of them right. {missing} is missing: its "
            f"last flight was on {told(wanted[missing])}. As of noon means all that came before, not only "
            "that day.",
        )
    return (
        f"{len(rows)} routes, each with its last flight before {told(NOON)}, out of {len(known):,} messages "
        "that were all stored much later."
    )


def _as_of(moment: datetime) -> dict[str, datetime]:
    """Return each route's last event time before a moment."""
    return {flight.subject: flight.event_time for flight in january() if flight.event_time < moment}


@board.solution
async def solve_board(lab):
    from datetime import datetime

    from jslab.departures import NEW_YORK

    past, board = await lab.stream("PAST"), await lab.stream("BOARD")
    noon = await past.seek("Event-Time", datetime(2013, 1, 15, 12, tzinfo=NEW_YORK))
    rows = past.replay(end_seq=noon - 1, last_per_subject=True)
    await board.publish_many(
        [row async for row in rows],
        subject=lambda row: row.subject.replace("past", "board", 1),
        data=lambda row: row.data,
    )


async def put_up(lab, *, data=lambda row: row.data, token="past", **span):
    """Put the last flight of each route in a range of PAST on BOARD."""
    past, made = await lab.stream("PAST"), await lab.stream("BOARD")
    rows = [row async for row in past.replay(last_per_subject=True, **span)]
    await made.publish_many(
        rows, subject=lambda row: "board." + row.subject.removeprefix(f"{token}."), data=data
    )


async def seq_of(lab, moment):
    """Return the first sequence of PAST at or after a moment."""
    return await (await lab.stream("PAST")).seek("Event-Time", moment)


@board.wrong("no-flight")
async def sequences_for_rows(lab):
    await put_up(lab, data=lambda row: str(row.seq).encode(), end_seq=100)


@board.wrong("elsewhere")
async def the_whole_subject_behind_board(lab):
    await put_up(lab, token="board", end_seq=100)


@board.wrong("inclusive")
async def up_to_the_first_of_noon(lab):
    await put_up(lab, end_seq=await seq_of(lab, NOON))


@board.wrong("future")
async def from_2013_on(lab):
    await put_up(lab, start_time=datetime(2013, 1, 1, tzinfo=NEW_YORK))


@board.wrong("future")
async def the_last_of_each_subject(lab):
    import nats.js.api

    config = nats.js.api.ConsumerConfig(deliver_policy="last_per_subject", max_ack_pending=1000)
    reader = await lab.js.pull_subscribe("past.>", stream="PAST", config=config)
    rows = []
    while len(rows) < 307:
        rows += await reader.fetch(307 - len(rows), timeout=5)
    for row in rows:
        await lab.js.publish(row.subject.replace("past", "board", 1), row.data)
    await reader.unsubscribe()


@board.wrong("utc")
async def noon_in_greenwich(lab):
    await put_up(lab, end_seq=await seq_of(lab, datetime(2013, 1, 15, 12, tzinfo=UTC)) - 1)


@board.wrong("stale")
async def midnight(lab):
    await put_up(lab, end_seq=await seq_of(lab, datetime(2013, 1, 15, tzinfo=NEW_YORK)) - 1)


@board.wrong("missing")
async def that_morning_only(lab):
    begin = await seq_of(lab, datetime(2013, 1, 15, tzinfo=NEW_YORK))
    await put_up(lab, start_seq=begin, end_seq=await seq_of(lab, NOON) - 1)


# ---------------------------------------------------------------- 07.2

BILLED = 700
TARIFF = datetime(2013, 1, 1, 15, tzinfo=NEW_YORK)
AGAIN = next(seq for seq, flight in enumerate(DAY, 1) if flight.event_time >= TARIFF)
SETTINGS = {"ack_wait": 10, "max_deliver": 5}

bills = lesson.exercise(
    "07.2",
    "Bill again from 15:00",
    streams=("BILLS",),
    hints=(
        "Two questions: at which sequence does 15:00 begin, and how does a durable that exists get there? "
        "Naming it again with another start does not do it.",
        "stream.seek answers the first. For the second, look at what a handle on the consumer can do: "
        'billing = await bills.consumer("billing").',
        "billing.reset(seq), or lab.js.reset_consumer, puts the position back and keeps everything else.",
    ),
)


@bills.setup
async def a_day_that_is_being_billed(room: Room) -> None:
    stream = await store(room, "BILLS", DAY)
    await handle(await stream.consumer("billing", **SETTINGS), BILLED)


@bills.check
async def check_bills(room: Room) -> str:
    await room.info("BILLS")
    there = await durables(room, "BILLS")
    if "billing" not in there:
        raise Wrong(
            "gone",
            "BILLS has no durable billing any more. Its workers get an error at their next fetch, and where "
            "it stood is known to nobody.",
        )
    if others := sorted(there.keys() - {"billing"}):
        raise Wrong(
            "second",
            f"There is {others[0]} beside billing now, and billing still has "
            f"{there['billing'].num_pending} flights before it: two consumers bill the evening, and the "
            "alert watches the old one. Somebody "
            f'will have to remember which of them is real. (await lab.reset("{room.number}") begins again.)',
        )
    info = there["billing"]
    given, pending = info.delivered.consumer_seq, info.num_pending
    if given == BILLED and pending == len(DAY) - BILLED:
        raise Wrong(
            "blank",
            f"billing stands where it stood: it goes on at sequence {BILLED + 1:,}. (You asked nats-py for a "
            "durable that begins elsewhere? It finds the one that is there and drops the rest without a "
            "word.)",
        )
    if given > BILLED:
        raise Wrong(
            "unmoved",
            f"billing went on at sequence {BILLED + 1:,}, where it was: {given - BILLED} more were given "
            "out. A start in the configuration counts when a consumer is made; nats-py bound the one that "
            "was there and dropped yours without a word. The wrong bills of the afternoon stay as they are.",
        )
    changed = [
        f"{name} {getattr(info.config, name)} instead of {value}"
        for name, value in SETTINGS.items()
        if getattr(info.config, name) != value
    ]
    if changed:
        raise Wrong(
            "other-settings",
            f"billing was made anew, and came back with {' and '.join(changed)}. Its position was all that "
            "should have changed; the rest shows up weeks later, as a retry that never ends.",
        )
    first = len(DAY) - given - pending + 1
    at = told(DAY[min(first, len(DAY)) - 1].event_time)
    if first < AGAIN:
        raise Wrong(
            "too-early",
            f"billing begins at sequence {first:,}, a flight of {at} in New York: {AGAIN - first} flights "
            "before 15:00, whose bills were right, are billed a second time.",
        )
    if first > AGAIN:
        raise Wrong(
            "too-late",
            f"billing begins at sequence {first:,}, a flight of {at} in New York: {first - AGAIN} flights "
            "from 15:00 on keep their wrong bill.",
        )
    return (
        f"The same durable, the same settings: it begins at sequence {first:,}, a flight of {at} in New "
        f"York, and has {len(DAY) - first + 1} to bill again or for the first time."
    )


@bills.solution
async def solve_bills(lab):
    from datetime import datetime

    from jslab.departures import NEW_YORK

    bills = await lab.stream("BILLS")
    seq = await bills.seek("Event-Time", datetime(2013, 1, 1, 15, tzinfo=NEW_YORK))
    billing = await bills.consumer("billing")
    await billing.reset(seq)


async def make_anew(lab, **config):
    """Delete billing, and make it again."""
    stream = await lab.stream("BILLS")
    await lab.js.delete_consumer("BILLS", "billing")
    await stream.consumer("billing", **config)


@bills.wrong("gone")
async def delete_it(lab):
    await lab.js.delete_consumer("BILLS", "billing")


@bills.wrong("second")
async def another_name(lab):
    stream = await lab.stream("BILLS")
    await stream.consumer("billing-2", deliver_policy="by_start_sequence", opt_start_seq=AGAIN, **SETTINGS)


@bills.wrong("unmoved")
async def name_it_again_with_another_start(lab):
    import nats.js.api

    config = nats.js.api.ConsumerConfig(deliver_policy="by_start_sequence", opt_start_seq=AGAIN)
    reader = await lab.js.pull_subscribe("bills.>", "billing", stream="BILLS", config=config)
    for message in await reader.fetch(5, timeout=5):
        await message.ack()
    await reader.unsubscribe()


@bills.wrong("other-settings")
async def made_anew_without_its_settings(lab):
    await make_anew(lab, deliver_policy="by_start_sequence", opt_start_seq=AGAIN)


@bills.wrong("too-early")
async def from_the_beginning(lab):
    await make_anew(lab, **SETTINGS)


@bills.wrong("too-early")
async def three_in_greenwich(lab):
    stream = await lab.stream("BILLS")
    seq = await stream.seek("Event-Time", datetime(2013, 1, 1, 15, tzinfo=UTC))
    await lab.js.reset_consumer("BILLS", "billing", seq)


@bills.wrong("too-late")
async def one_behind(lab):
    await lab.js.reset_consumer("BILLS", "billing", AGAIN + 1)


@bills.wrong("too-late")
async def where_the_acks_ended(lab):
    await lab.js.reset_consumer("BILLS", "billing")


# ---------------------------------------------------------------- 07.3

HISTORY = DAY + tuple(departures.day(1, 2))
# Live flights a second, how many at least, and the backlog that the people at the display notice.
RATE, AT_LEAST, NOTICED = 25, 40, 200

backfill = lesson.exercise(
    "07.3",
    "A backfill beside live traffic",
    streams=("OPS", "TALLY"),
    hints=(
        "History has an end here: the sequence before the one that the scenario hands you. What comes from "
        "there on has somebody who counts it.",
        "A replay reads by itself: no durable is made, none is moved, and nothing waits for it.",
        "With nats-py: a consumer that is acked, or needs no acks, and that you delete afterwards. One "
        "without a name goes by itself, when nobody has pulled from it for 5 s: also in the middle of your "
        "work.",
    ),
)


@backfill.setup
async def two_days_of_history(room: Room) -> None:
    await Notes(room.lab).forget("live", room.number)
    ops = await store(room, "OPS", HISTORY)
    await room.lab.stream("TALLY", subjects=["tally.>"], num_replicas=3)
    await handle(await ops.consumer("live", max_ack_pending=5_000), len(HISTORY))


@backfill.scenario
async def live_traffic(room: Room):
    """Publish flights of 3 January, and let the worker of ``live`` count each on ``tally.live``.

    It hands out the first live sequence. At the end it notes that, and the longest backlog of ``live``: when
    all is over nobody can see any more how long it was.
    """
    stream = await room.lab.stream("OPS")
    live = await stream.consumer("live")
    since = (await stream.info()).state.last_seq + 1
    coming = list(departures.day(1, 3))
    sent, longest, over = 0, 0, False

    async def traffic() -> None:
        nonlocal sent
        for flight in coming:
            if over:
                return
            await room.js.publish(below("ops")(flight), flight.payload, headers=flight.headers)
            sent += 1
            await asyncio.sleep(1 / RATE)

    async def count(message) -> None:
        await room.js.publish("tally.live", message.data)
        await asyncio.sleep(0.25 / RATE)

    async def look() -> bool:
        """Look at the backlog, and tell whether there is none."""
        nonlocal longest
        with contextlib.suppress(*PASSING):  # a busy server, an election: it is looked at again
            info = await live.info()
            backlog = info.num_pending + info.num_ack_pending
            longest = max(longest, backlog)
            return bool(backlog == 0)
        return False

    async def watch() -> None:
        while True:
            await look()
            await asyncio.sleep(0.1)

    async def caught_up() -> bool:
        return await look() or longest > NOTICED

    publishing, *others = (
        asyncio.create_task(work) for work in (traffic(), live.work(count, forever=True), watch())
    )
    try:
        yield since
        await until(lambda: sent >= AT_LEAST or publishing.done(), what="live traffic", timeout=60)
        over = True
        await publishing
        await until(caught_up, what="live to have handled all", timeout=30)
        await Notes(room.lab).write("live", room.number, f"{since} {longest}")
    finally:
        await _end(publishing, *others)


async def _end(*tasks) -> None:
    """Cancel tasks until they have ended: a request that is just being answered can swallow one cancel."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=5)
    await asyncio.gather(*tasks, return_exceptions=True)


@backfill.check
async def check_backfill(room: Room) -> str:
    await room.info("OPS")
    counted = [flight_of(message.data) for message in await room.messages("TALLY")]
    noted = await Notes(room.lab).text("live", room.number)
    if not counted:
        raise Wrong("blank", "TALLY is empty: no flight has been counted yet.")
    if noted is None:
        raise Wrong(
            "calm",
            f"{len(counted):,} counted, and the scenario has not run to its end. "
            f'Work inside of async with lab.scenario("{room.number}") as since.',
        )
    since, longest = map(int, noted.split())
    if longest > NOTICED:
        raise Wrong(
            "live-waited",
            f"Up to {longest:,} flights waited for the worker of live; people notice {NOTICED}. Its position "
            "was put back, and so the departures of this minute queued behind those of New Year: one "
            "durable has one position, and it is not yours to borrow.",
        )
    there = await durables(room, "OPS")
    if left := [info for name, info in there.items() if name != "live"]:
        raise Wrong(
            "left-behind",
            f"The durable {left[0].name} is still registered on OPS, with {left[0].num_pending} messages "
            "that nobody will fetch. Its lag grows for ever and its alert with it; on an interest stream "
            "every message would be kept for it.",
        )
    ops = [flight_of(message.data) for message in await room.messages("OPS")]
    times = dict.fromkeys(ops, 0)
    for flight in counted:
        times[flight] = times.get(flight, 0) + 1
    told_of = (
        f"{len(counted):,} counted for {since - 1:,} flights of history and {len(ops) - since + 1} live ones"
    )
    missing = [flight for flight in ops if not times[flight]]
    if missing == ops[: since - 1]:
        raise Wrong(
            "untouched",
            f"{told_of}: the live worker has counted what is its own, and of what lies below sequence "
            f"{since:,} nobody has counted anything.",
        )
    if missing:
        raise Wrong(
            "missing",
            f"{told_of}: {len(missing):,} were never counted, {missing[0]} first. A reader that ends without "
            "an error has not therefore read everything: one that does not ack stops at max_ack_pending "
            "(1,000), and one fetch is one batch.",
        )
    if twice := [flight for flight in ops if times[flight] > 1]:
        raise Wrong(
            "twice",
            f"{told_of}: {len(twice)} were counted twice, {twice[0]} first. The live worker counts from "
            f"sequence {since:,} on; your backfill read on behind that, or read something again. A sum that "
            "is too high by a little is the kind that nobody notices.",
        )
    return f"{told_of}, each once; at most {longest} waited for the live worker, and nothing is left behind."


@backfill.solution
async def solve_backfill(lab):
    ops, tally = await lab.stream("OPS"), await lab.stream("TALLY")
    async with lab.scenario("07.3") as since:
        history = [message async for message in ops.replay(end_seq=since - 1)]
        print(await tally.publish_many(history, subject="tally.history", data=lambda m: m.data))


async def tally_all(lab, messages):
    """Count messages on ``tally.history``."""
    tally = await lab.stream("TALLY")
    await tally.publish_many(messages, subject="tally.history", data=lambda m: m.data)


@backfill.wrong("calm")
async def before_the_scenario(lab):
    stream = await lab.stream("OPS")
    await tally_all(lab, [message async for message in stream.replay()])


@backfill.wrong("live-waited")
async def put_live_back(lab):
    live = await (await lab.stream("OPS")).consumer("live")
    async with lab.scenario("07.3"):
        await live.reset(1)


@backfill.wrong("left-behind")
async def a_durable_of_its_own(lab):
    stream = await lab.stream("OPS")
    async with lab.scenario("07.3") as since:
        reader = await stream.consumer("backfill", ack_policy="none")
        await tally_all(lab, [message async for message in reader.messages(limit=since - 1)])


@backfill.wrong("untouched")
async def watch_the_live_ones(lab):
    async with lab.scenario("07.3"):
        pass


@backfill.wrong("missing")
async def without_acks(lab):
    async with lab.scenario("07.3"):
        reader = await lab.js.pull_subscribe("ops.>", stream="OPS")
        messages = []
        with contextlib.suppress(TimeoutError):
            while True:
                messages += await reader.fetch(500, timeout=1)
        await tally_all(lab, messages)
        await reader.unsubscribe()


@backfill.wrong("twice")
async def until_now(lab):
    stream = await lab.stream("OPS")
    async with lab.scenario("07.3") as since:

        async def some_live():
            return (await stream.info()).state.last_seq > since

        await until(some_live, what="live flights", timeout=20)
        await tally_all(lab, [message async for message in stream.replay()])


# ---------------------------------------------------------------- 07.4

BEGIN, END = datetime(2013, 1, 1, 6, tzinfo=NEW_YORK), datetime(2013, 1, 1, 9, tzinfo=NEW_YORK)
MORNING = [flight for flight in DAY if BEGIN <= flight.event_time < END]
SPEED = 1_800
# Seconds from the pace's line that half of the messages may be; when each hour comes at once it is 0.5.
OFF = 0.25

screen = lesson.exercise(
    "07.4",
    "Three hours in six seconds",
    streams=("MORNING", "SCREEN"),
    hints=(
        "A replay's speed= alone divides the gaps with which the messages were *stored*. Which gaps should "
        "it keep, and where do they stand?",
        "replay(clock=…, speed=…) takes its pace from a header; seek finds the sequences for 06:00 and "
        "09:00.",
    ),
)


@screen.setup
async def a_morning_to_show(room: Room) -> None:
    await store(room, "MORNING", DAY)
    await room.lab.stream("SCREEN", subjects=["screen.>"], num_replicas=3)


@screen.check
async def check_screen(room: Room) -> str:
    await room.info("SCREEN")
    messages = await room.messages("SCREEN")
    if not messages:
        raise Wrong("blank", "SCREEN is empty: nothing has been shown yet.")
    shown = [flight_of(message.data) for message in messages]
    wanted = {flight.id: flight.event_time for flight in MORNING}
    if others := [flight for flight in shown if flight not in wanted]:
        raise Wrong(
            "other-flights",
            f"{len(others)} of the {len(shown)} messages on SCREEN are not of 06:00 to 09:00 in New York, "
            f"{others[0]} for one. 09:00 is where the range ends, so a flight of 09:00 has no part in it.",
        )
    if len(set(shown)) < len(wanted) or len(shown) > len(wanted):
        raise Wrong(
            "not-each-once",
            f"{len(shown)} messages on SCREEN show {len(set(shown))} of the {len(wanted)} flights from 06:00 "
            "to "
            f'09:00. (Those of an earlier try count too: await lab.reset("{room.number}").)',
        )
    stored = [(message.time - messages[0].time).total_seconds() for message in messages]
    event = [(wanted[flight] - wanted[shown[0]]).total_seconds() for flight in shown]
    ratio = max(event) / stored[-1]
    if not SPEED / 2 < ratio < SPEED * 2:
        raise Wrong(
            "other-pace",
            f"It took {stored[-1]:.1f} s, {ratio:,.0f} times as fast as it happened; {SPEED:,} were asked "
            "for. speed= without a clock, like ReplayPolicy ORIGINAL on the server, keeps the gaps of "
            "storing: those of whoever loaded MORNING, in a moment.",
        )
    ahead = [at - when / SPEED for at, when in zip(stored, event, strict=True)]
    middle = statistics.median(ahead)
    off = statistics.median(abs(each - middle) for each in ahead)
    if off > OFF:
        raise Wrong(
            "bursts",
            f"It took {stored[-1]:.1f} s, but half of the flights came {off:.1f} s or more from their "
            "moment: in bursts. A pace by the hour, or by a column that is cut to the hour, shows "
            f"{len(shown) // 3} departures at once and then an empty runway.",
        )
    return (
        f"{len(shown)} flights of three hours in {stored[-1]:.1f} s, {ratio:,.0f} times as fast as it "
        f"happened; half of them within {off * 1000:.0f} ms of their moment."
    )


@screen.solution
async def solve_screen(lab):
    from datetime import datetime

    from jslab.departures import NEW_YORK

    morning = await lab.stream("MORNING")
    begin = await morning.seek("Event-Time", datetime(2013, 1, 1, 6, tzinfo=NEW_YORK))
    end = await morning.seek("Event-Time", datetime(2013, 1, 1, 9, tzinfo=NEW_YORK))
    three_hours = morning.replay(start_seq=begin, end_seq=end - 1, clock="Event-Time", speed=1800)
    async for flight in three_hours:
        await lab.js.publish("screen.departures", flight.data)


async def three_hours(lab, **pace):
    """Show the three hours at some pace."""
    stream = await lab.stream("MORNING")
    begin, end = await stream.seek("Event-Time", BEGIN), await stream.seek("Event-Time", END)
    async for message in stream.replay(start_seq=begin, end_seq=end - 1, **pace):
        await lab.js.publish("screen.departures", message.data)


@screen.wrong("other-flights")
async def with_nine_sharp(lab):
    stream = await lab.stream("MORNING")
    begin, end = await stream.seek("Event-Time", BEGIN), await stream.seek("Event-Time", END)
    async for message in stream.replay(start_seq=begin, end_seq=end):
        await lab.js.publish("screen.departures", message.data)


@screen.wrong("not-each-once")
async def the_first_hundred(lab):
    stream = await lab.stream("MORNING")
    begin = await stream.seek("Event-Time", BEGIN)
    async for message in stream.replay(start_seq=begin, end_seq=begin + 99):
        await lab.js.publish("screen.departures", message.data)


@screen.wrong("not-each-once")
async def shown_twice(lab):
    await three_hours(lab)
    await three_hours(lab)


@screen.wrong("other-pace")
async def at_the_pace_of_storing(lab):
    await three_hours(lab, speed=1_800)


@screen.wrong("other-pace")
async def as_the_server_paces(lab):
    import nats.js.api

    stream = await lab.stream("MORNING")
    config = nats.js.api.ConsumerConfig(
        deliver_policy="by_start_sequence",
        opt_start_seq=await stream.seek("Event-Time", BEGIN),
        replay_policy=nats.js.api.ReplayPolicy.ORIGINAL,
    )
    reader = await lab.js.pull_subscribe("morning.>", stream="MORNING", config=config)
    shown = 0
    while shown < len(MORNING):
        for message in await reader.fetch(len(MORNING) - shown, timeout=5):
            await lab.js.publish("screen.departures", message.data)
            shown += 1
    await reader.unsubscribe()


@screen.wrong("other-pace")
async def ten_times_as_fast(lab):
    await three_hours(lab, clock="Event-Time", speed=18_000)


@screen.wrong("bursts")
async def paced_by_the_hour(lab):
    stream = await lab.stream("MORNING")
    begin, end = await stream.seek("Event-Time", BEGIN), await stream.seek("Event-Time", END)
    hour = BEGIN.hour
    async for message in stream.replay(start_seq=begin, end_seq=end - 1):
        happened = datetime.fromisoformat(message.headers["Event-Time"])
        await asyncio.sleep((happened.hour - hour) * 3_600 / SPEED)
        hour = happened.hour
        await lab.js.publish("screen.departures", message.data)
