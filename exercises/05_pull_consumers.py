"""Lesson 05: who has a message, for how long, and what becomes of it when nobody says anything."""

import asyncio
import datetime
import json
from itertools import pairwise

import nats.js.errors
from nats.js.api import AckPolicy

from jslab import departures
from jslab.consumers import open_consumer
from jslab.departures import flight_of
from jslab.errors import ExerciseError
from jslab.exercises import Lesson, Room, Wrong
from jslab.exercises.notes import Notes

lesson = Lesson("05", "Pull consumers", streams=("FLIGHTS", "LOST"))

lesson.prediction(
    "05.1",
    "A consumer has backoff=[1, 2, 3]. A worker naks a message each time it comes. When does it come again?",
    ("at once, each time", "after 1, 2 and 3 seconds", "when ack_wait is over"),
)

DAY = tuple(departures.day(1, 1))


async def _consumer(room: Room, stream: str, name: str):
    """Return a consumer's info; without it the exercise has not been begun."""
    try:
        return await room.js.consumer_info(stream, name)
    except nats.js.errors.NotFoundError:
        raise Wrong("blank", f"{stream} has no consumer {name} yet.") from None


# ---------------------------------------------------------------- 05.1

DUTY = 6
# Seconds that a flight takes, and within which a dead colleague's must be done.
SHIFT, IN_TIME = 2.0, 8.0

crew = lesson.exercise(
    "05.1",
    "A colleague who never comes back",
    streams=("DUTY", "DONE"),
    witness=("$JS.ACK.DUTY.crew.>",),
    hints=(
        "The server waits ack_wait for an answer, and then gives the flight to whoever asks next. Too long, "
        "and a dead worker's flight lies; too short, and it gives away what a living worker is still at.",
        "A flight takes two seconds, and the colleague's must be done within eight: it must come again "
        "before six are over. Let ack_wait lie between, or have the handler say in_progress while it works, "
        "which consumer.work does for you.",
        "Who handles one flight at a time comes late to the colleague's. work(handle, concurrency=6) "
        "handles six at once. It ends when nothing has come for idle seconds: let that be more than "
        "ack_wait.",
    ),
)


@crew.setup
async def six_flights(room: Room) -> None:
    await Notes(room.lab).forget("died", room.number)
    duty = await room.lab.stream("DUTY", subjects=["duty.>"], num_replicas=3)
    await room.lab.stream("DONE", subjects=["done.>"], num_replicas=3)
    await duty.publish_many(DAY[:DUTY], subject="duty.JFK", data=lambda f: f.payload)


@crew.scenario
async def a_colleague_dies(room: Room):
    """A colleague takes the first flight that crew gives out, and is never heard of again."""
    try:
        await room.js.consumer_info("DUTY", "crew")
    except nats.js.errors.NotFoundError:
        raise ExerciseError(
            "the colleague finds no consumer crew",
            seen="DUTY has none of that name",
            do='make it before the scenario: crew = await duty.consumer("crew", …)',
        ) from None
    colleague = await open_consumer(room.js, "DUTY", "crew")
    (taken,) = await colleague.fetch(1, timeout=5)
    now = datetime.datetime.now(datetime.UTC)
    await Notes(room.lab).write("died", room.number, f"{now.isoformat()} {flight_of(taken.data)}")
    yield flight_of(taken.data)


@crew.check
async def check_crew(room: Room) -> str:
    info = await _consumer(room, "DUTY", "crew")
    died = (await Notes(room.lab).text("died", room.number) or "").split(" ", 1)
    if len(died) < 2:
        raise Wrong("calm", "The scenario has not run: nobody died. Work inside of it.")
    moment, theirs = datetime.datetime.fromisoformat(died[0]), died[1]
    done: dict[str, list[datetime.datetime]] = {flight.id: [] for flight in DAY[:DUTY]}
    for message in await room.messages("DONE"):
        done.setdefault(flight_of(message.data), []).append(message.time)
    if early := _acked_before_done(room, done):
        raise Wrong(
            "acked-first",
            f"{early} was acked before it was done. Had your worker died in between, nobody would ever have "
            "done it: an ack says *done*, and the server forgets that there is anything to redeliver.",
        )
    ack_wait = f"ack_wait is {info.config.ack_wait:g} s"
    if not done[theirs]:
        raise Wrong(
            "left",
            f"{sum(map(bool, done.values()))} of {DUTY} flights are done. The one that your colleague took "
            f"is not: {ack_wait}, and until that is over the server believes that somebody works on it. "
            "Somebody must still ask when it is.",
        )
    if twice := [flight for flight, times in done.items() if len(times) > 1]:
        raise Wrong(
            "twice",
            f"{twice[0]} was done {len(done[twice[0]])} times, by workers that were all alive: {ack_wait}, "
            "and somebody had it in hand for longer without a word. The server takes silence for death. Two "
            "crews now walk to one aircraft.",
        )
    if undone := [flight for flight, times in done.items() if not times]:
        raise Wrong("undone", f"{len(undone)} of {DUTY} flights are not done: {', '.join(undone)}.")
    if info.config.ack_wait <= SHIFT and (silent := _without_a_word(room)):
        raise Wrong(
            "too-short",
            f"All {DUTY} flights are done once, by luck: {ack_wait}, a flight takes {SHIFT:g} s, and nobody "
            f"said in_progress about {silent}. While your worker was at it the server would have given it to "
            "anybody. Nobody asked; with a second worker two crews walk to one aircraft.",
        )
    _in_time(info.config.ack_wait, moment, done, theirs)
    took = (done[theirs][0] - moment).total_seconds()
    return f"All {DUTY} flights are done once each; the dead colleague's {took:.1f} s after it was taken."


def _in_time(
    ack_wait: float, moment: datetime.datetime, done: dict[str, list[datetime.datetime]], theirs: str
) -> None:
    """Refuse what took too long, and say what it waited for: the server, a free hand, or somebody to ask."""
    took = (done[theirs][0] - moment).total_seconds()
    if took <= IN_TIME:
        return
    late = (
        f"All {DUTY} flights are done once, but the dead colleague's {took:.1f} s after it was taken. "
        f"ack_wait is {ack_wait:g} s"
    )
    if ack_wait + SHIFT >= IN_TIME:
        raise Wrong("too-late", f"{late}: so long the passengers sat in an aircraft that nobody came to.")
    free = moment + datetime.timedelta(seconds=ack_wait)
    began = done[theirs][0] - datetime.timedelta(seconds=SHIFT)
    if before := [flight for flight, (at, *_) in done.items() if free < at <= began and flight != theirs]:
        raise Wrong(
            "busy",
            f"{late}, so the server gave it out again in time. But your worker handles one flight at a time "
            f"and had others in hand: {len(before)} more were done first. Work on several at once: "
            "work(…, concurrency=…).",
        )
    raise Wrong(
        "unasked",
        f"{late}, so the server had it ready again in time. But nobody asked: your worker had ended. Let it "
        "go on asking for longer than ack_wait (idle=…).",
    )


def _without_a_word(room: Room) -> str:
    """Return a flight that was acked, and of which nobody ever said in_progress; empty if there is none."""
    said: dict[str, set[bytes]] = {}
    for seen in room.witness.messages:
        said.setdefault(_flight_in(seen.subject), set()).add(seen.data[:4])
    return next((flight for flight, words in said.items() if b"+WPI" not in words), "")


def _flight_in(ack_subject: str) -> str:
    """Name the flight that an ack is about: the subject tells its sequence in the stream."""
    return DAY[int(ack_subject.split(".")[5]) - 1].id


def _acked_before_done(room: Room, done: dict[str, list[datetime.datetime]]) -> str:
    """Return a flight that was acked well before somebody reported it done; empty if there is none."""
    for seen in room.witness.messages:
        flight = _flight_in(seen.subject)
        acked_and_done = seen.data.startswith(b"+ACK") and done[flight]
        if acked_and_done and (done[flight][0] - seen.at).total_seconds() > SHIFT / 2:
            return flight
    return ""


@crew.solution
async def solve_crew(lab):
    import asyncio

    duty = await lab.stream("DUTY")
    # Longer than the two seconds of a flight, and short enough to have the colleague's done within eight.
    crew = await duty.consumer("crew", ack_wait=3)

    async def handle(message):
        await asyncio.sleep(2)
        await lab.js.publish("done.JFK", message.data)

    async with lab.scenario("05.1"):
        await crew.work(handle, concurrency=6, limit=6, idle=12)


async def shift(lab, **config):
    """Make the consumer crew and return it with what handles one of its messages."""
    duty = await lab.stream("DUTY")
    crew = await duty.consumer("crew", **config)

    async def handle(message):
        await asyncio.sleep(SHIFT)
        await lab.js.publish("done.JFK", message.data)

    return crew, handle


@crew.wrong("calm")
async def without_the_scenario(lab):
    await shift(lab, ack_wait=3)


@crew.wrong("left")
async def a_minute_of_patience(lab):
    crew, handle = await shift(lab, ack_wait=60)
    async with lab.scenario("05.1"):
        await crew.work(handle, concurrency=5, limit=5)


@crew.wrong("too-late")
async def nine_seconds_of_patience(lab):
    crew, handle = await shift(lab, ack_wait=9)
    async with lab.scenario("05.1"):
        await crew.work(handle, concurrency=6, limit=6, idle=12)


@crew.wrong("busy")
async def one_after_the_other(lab):
    crew, handle = await shift(lab, ack_wait=3)
    async with lab.scenario("05.1"):
        async for message in crew.messages(limit=6, idle=5):
            await handle(message)
            await message.ack()


@crew.wrong("unasked")
async def home_before_it_comes_again(lab):
    crew, handle = await shift(lab, ack_wait=3)
    async with lab.scenario("05.1"):
        await crew.work(handle, concurrency=5, limit=5)
        await asyncio.sleep(IN_TIME - SHIFT)
        await crew.work(handle, limit=1)


@crew.wrong("too-short")
async def nobody_asked_in_between(lab):
    crew, handle = await shift(lab, ack_wait=1)
    async with lab.scenario("05.1"):
        for batch in (5, 1):
            messages = await crew.fetch(batch, timeout=5)
            await asyncio.gather(*(handle(message) for message in messages))
            for message in messages:
                await message.ack()


@crew.wrong("acked-first")
async def acked_on_arrival(lab):
    crew, handle = await shift(lab, ack_wait=3)

    async def ack_and_handle(message):
        await message.ack()
        await handle(message)

    async with lab.scenario("05.1"):
        await crew.work(ack_and_handle, concurrency=6, limit=5)


@crew.wrong("twice")
async def one_second_of_patience(lab):
    crew, handle = await shift(lab, ack_wait=1)
    async with lab.scenario("05.1"):
        for _ in range(2):
            batch = await crew.fetch(6, timeout=1)
            await asyncio.gather(*(handle(message) for message in batch))


@crew.wrong("undone")
async def only_the_colleagues(lab):
    crew, _ = await shift(lab, ack_wait=3)
    async with lab.scenario("05.1") as theirs:
        async for message in crew.messages(limit=6, idle=10):
            if flight_of(message.data) == theirs:
                await lab.js.publish("done.JFK", theirs.encode())
            await message.ack()


# ---------------------------------------------------------------- 05.2

CANCELLED = {flight.id for flight in DAY if flight.cancelled}
# Naks of a message within so many seconds of its last one, and how many of them are no retrying any more.
NOW, STORM = 0.1, 100

bills = lesson.exercise(
    "05.2",
    "Four flights that nobody can bill",
    streams=("BILLING", "BILLED", "DEAD"),
    hints=(
        "Four messages will never succeed, however often they come. They must not come for ever, the "
        "others must not wait for them, and somebody must hear of them.",
        "The server gives a message up when it was terminated, or has come max_deliver times. It says so "
        "in an advisory, which is a message like any other: a stream can keep it, if that is there in time.",
        'consumer.dead_letters("DEAD") makes such a stream; consumer.work(handler, poison=ValueError) '
        "terminates what raises that error.",
    ),
)


@bills.setup
async def a_day_to_bill(room: Room) -> None:
    billing = await room.lab.stream("BILLING", subjects=["billing.>"], num_replicas=3)
    await room.lab.stream("BILLED", subjects=["billed.>"], num_replicas=3)
    await billing.publish_many(DAY, subject=lambda f: f"billing.{f.origin}", data=lambda f: f.payload)


@bills.check
async def check_bills(room: Room) -> str:
    info = await _consumer(room, "BILLING", "bills")
    billed: dict[str, int] = {}
    for message in await room.messages("BILLED"):
        flight = flight_of(message.data)
        billed[flight] = billed.get(flight, 0) + 1
    if _hurried(room) > STORM:
        again = info.delivered.consumer_seq - info.delivered.stream_seq
        raise Wrong(
            "storm",
            f"The {len(CANCELLED)} that cannot be billed have come {again:,} more times than once, and "
            "nothing changes about them in between. A bare nak asks for the message back *now*: such a "
            "loop eats a processor and an evening.",
        )
    if info.num_pending or not billed:
        raise Wrong(
            "waiting",
            f"{len(billed):,} flights are billed, {info.num_pending:,} have not even been given out: one "
            "flight that cannot be billed stopped the line behind it.",
        )
    if twice := [flight for flight, times in billed.items() if times > 1]:
        raise Wrong(
            "twice",
            f"{len(twice):,} flights were billed more than once, such as {twice[0]}: what was billed and not "
            "acked comes again.",
        )
    if missing := [f.id for f in DAY if f.id not in billed and f.id not in CANCELLED]:
        raise Wrong(
            "unbilled",
            f"{len(missing):,} flights that departed were never billed, such as {missing[0]}, and nothing "
            "will bring them again.",
        )
    kept = await _letters(room)
    lost = CANCELLED - kept
    of_them = f"All that departed are billed. Of the {len(CANCELLED)} that cannot be, {len(lost)}"
    if (alive := lost - _given_up(room)) and info.num_ack_pending:
        most = info.config.max_deliver or -1
        ends = f"max_deliver is {most}, and not reached yet" if most > 0 else "nothing ends them"
        raise Wrong(
            "endless",
            f"{of_them} still come, fail, and come again: {ends}. Only what the server gives up does it tell "
            "of, so there is nothing that DEAD could hold. Set max_deliver and work until it is reached, or "
            "name the error as poison.",
        )
    if alive:
        raise Wrong(
            "shrugged",
            f"{of_them} are on nobody's list: they were acked. An ack says done, so the server has nothing "
            "to tell of. They are still in BILLING, among 842, looking like the others.",
        )
    if lost:
        raise Wrong(
            "silent",
            f"{of_them} are on nobody's list: the server told of them once, in an advisory, and no stream "
            "kept it. They are still in BILLING, among 842, looking like the others.",
        )
    return f"{len(billed):,} flights are billed once each, {len(kept)} wait in DEAD for somebody to look."


def _told_of(room: Room, *kinds: str) -> list[dict]:
    """Return the advisories of some kinds about messages of bills, whoever else listened."""
    return [
        told
        for told in room.witness.advisories
        if told.get("type") in [f"io.nats.jetstream.advisory.v1.{kind}" for kind in kinds]
        and (told["stream"], told["consumer"]) == ("BILLING", "bills")
    ]


def _given_up(room: Room) -> set[str]:
    """Name the flights that the server told of as given up."""
    return {DAY[told["stream_seq"] - 1].id for told in _told_of(room, "max_deliver", "terminated")}


def _hurried(room: Room) -> int:
    """Count the naks that came so soon after the last one of their message that nobody can have waited."""
    moments: dict[int, list[datetime.datetime]] = {}
    for told in _told_of(room, "nak"):
        at = datetime.datetime.fromisoformat(told["timestamp"])
        moments.setdefault(told["stream_seq"], []).append(at)
    return sum((b - a).total_seconds() < NOW for own in moments.values() for a, b in pairwise(own))


async def _letters(room: Room) -> set[str]:
    """Name the flights that DEAD holds: themselves, or by the server's advisories about them."""
    try:
        letters = await room.messages("DEAD")
    except nats.js.errors.NotFoundError:
        return set()
    kept = set()
    for letter in letters:
        told = json.loads(letter.data)
        if "stream_seq" in told:
            kept.add(DAY[told["stream_seq"] - 1].id)
        else:
            kept.add(flight_of(letter.data))
    return kept


@bills.solution
async def solve_bills(lab):
    import json

    billing = await lab.stream("BILLING")
    bills = await billing.consumer("bills", ack_wait=5, max_deliver=3)
    # Made before the first message is given up: an advisory is told once.
    await bills.dead_letters("DEAD")

    async def bill(message):
        if json.loads(message.data)["dep_time"] is None:
            raise ValueError("it never departed")
        await lab.js.publish("billed.JFK", message.data)

    await bills.work(bill, poison=ValueError, concurrency=50, idle=1)


async def biller(lab, **config):
    """Make the consumer bills, and return it with what bills a message."""
    billing = await lab.stream("BILLING")
    bills = await billing.consumer("bills", **config)

    async def bill(message):
        if json.loads(message.data)["dep_time"] is None:
            raise ValueError("it never departed")
        await lab.js.publish("billed.JFK", message.data)

    return bills, bill


@bills.wrong("storm")
async def nak_and_nak(lab):
    bills, bill = await biller(lab, ack_wait=5)

    async def bill_or_nak(message):
        try:
            await bill(message)
        except ValueError:
            await message.nak()

    await bills.work(bill_or_nak, concurrency=50, limit=842 + 2 * STORM)


@bills.wrong("waiting")
async def stop_at_the_first(lab):
    bills, bill = await biller(lab, ack_wait=5)
    for message in await bills.fetch(5):
        await bill(message)
        await message.ack()


@bills.wrong("twice")
async def billed_and_then_failed(lab):
    bills, bill = await biller(lab, ack_wait=5)

    async def bill_and_file(message):
        await bill(message)
        if message.seq <= 5 and message.deliveries == 1:
            raise OSError("no room left in the archive")

    await bills.work(bill_and_file, poison=ValueError, concurrency=50, idle=1, retry_delay=0.1)


@bills.wrong("unbilled")
async def terminate_a_whole_batch(lab):
    bills, bill = await biller(lab, ack_wait=5)

    async def bill_those_of_newark(message):
        if message.subject != "billing.EWR":
            raise ValueError("not ours")
        await bill(message)

    await bills.work(bill_those_of_newark, poison=ValueError, concurrency=50, idle=1)


@bills.wrong("silent")
async def only_max_deliver(lab):
    bills, bill = await biller(lab, ack_wait=5, max_deliver=2)
    await bills.work(bill, concurrency=50, idle=1, retry_delay=0.1)


@bills.wrong("endless")
async def again_and_again(lab):
    bills, bill = await biller(lab, ack_wait=5)
    await bills.dead_letters("DEAD")
    # By itself it would never end. That is no storm, however long it goes on.
    await bills.work(bill, concurrency=50, limit=842 + STORM + 8, retry_delay=2 * NOW)


@bills.wrong("endless")
async def stopped_before_it_gave_up(lab):
    bills, bill = await biller(lab, ack_wait=5, max_deliver=50)
    await bills.dead_letters("DEAD")
    await bills.work(bill, concurrency=50, limit=842 + 8, retry_delay=0.1)


@bills.wrong("shrugged")
async def ack_what_fails(lab):
    bills, bill = await biller(lab, ack_wait=5)

    async def bill_or_shrug(message):
        try:
            await bill(message)
        except ValueError:
            await message.ack()

    await bills.work(bill_or_shrug, concurrency=50, idle=1)


@bills.wrong("silent")
async def one_letter_of_four(lab):
    bills, bill = await biller(lab, ack_wait=5)
    await lab.stream("DEAD", subjects=["dead.>"], num_replicas=3)
    await bills.work(bill, poison=ValueError, concurrency=50, idle=1)
    (first, *_) = (flight for flight in DAY if flight.cancelled)
    await lab.js.publish("dead.bills", first.payload)


# ---------------------------------------------------------------- 05.3

AIRCRAFT, LEGS = 12, 3
# Seconds that work on an aircraft's first leg takes, and on a later one.
FIRST, LATER = 0.16, 0.06
# Legs in hand at a time, on average: with one worker it is one, with three at most three.
AT_ONCE = 1.5

turns = lesson.exercise(
    "05.3",
    "The legs of one aircraft",
    streams=("LEGS", "TURNS", "PARTS"),
    hints=(
        "A consumer that three workers share gives the next message to whoever asks. In LEGS the legs of "
        "an aircraft are neighbours, so leg 2 goes out while leg 1 is still in hand. What must be split is "
        "the stream, so that an aircraft has one worker only.",
        "The subject has the tail number: a consumer's filter_subject sees it. Three consumers, each with "
        "its part of the aircraft and max_ack_pending=1, keep the order and work at the same time.",
        "A stream that sources LEGS may rewrite the subjects: StreamSource(name=…, "
        'subject_transforms=[SubjectTransform(src="legs.*", '
        'dest="parts.{{partition(3,1)}}.{{wildcard(1)}}")]).',
    ),
)


def _legs() -> tuple[departures.Departure, ...]:
    """Choose the aircraft that fly most on the first days of the year, and their first legs, in order.

    An aircraft's legs are neighbours, so that workers who share them all have two of them in hand at once.
    The very first is alone and its other two come last: else a batch of three would be a whole aircraft.
    """
    by_tail: dict[str, list[departures.Departure]] = {}
    for day in (1, 2, 3):
        for flight in departures.day(1, day):
            if flight.tailnum and not flight.cancelled:
                by_tail.setdefault(flight.tailnum, []).append(flight)
    busiest = sorted(by_tail, key=lambda tail: (-len(by_tail[tail]), tail))[:AIRCRAFT]
    (first, *rest), *others = (by_tail[tail][:LEGS] for tail in busiest)
    return (first, *(leg for own in others for leg in own), *rest)


@turns.setup
async def aircraft_with_legs(room: Room) -> None:
    legs = await room.lab.stream("LEGS", subjects=["legs.*"], num_replicas=3)
    await room.lab.stream("TURNS", subjects=["turns.>"], num_replicas=3)
    await legs.publish_many(_legs(), subject=lambda f: f"legs.{f.tailnum}", data=lambda f: f.payload)


@turns.scenario
async def the_work_on_a_leg(room: Room):
    """Yield what works on a leg: it notes begin and end in TURNS, and takes a moment."""
    tails: set[str] = set()

    async def turn(message) -> None:
        leg = json.loads(message.data)
        await room.js.publish(f"turns.begin.{leg['tailnum']}", message.data)
        first = leg["tailnum"] not in tails
        tails.add(leg["tailnum"])
        await asyncio.sleep(FIRST if first else LATER)
        await room.js.publish(f"turns.done.{leg['tailnum']}", message.data)

    yield turn


@turns.check
async def check_turns(room: Room) -> str:
    begun: dict[str, datetime.datetime] = {}
    ended: dict[str, datetime.datetime] = {}
    count = 0
    for message in await room.messages("TURNS"):
        if message.subject.startswith("turns.begin."):
            count += 1
            begun.setdefault(flight_of(message.data), message.time)
        else:
            ended.setdefault(flight_of(message.data), message.time)
    legs = _legs()
    if not ended:
        raise Wrong(
            "blank", "No leg has been worked on yet: hand each message to turn, inside of the scenario."
        )
    if count > len(begun):
        raise Wrong(
            "copies",
            f"{len(begun)} legs, worked on {count} times: each durable is a reader of its own and gets "
            "everything that its filter lets through. Three of them without a filter are three times the "
            "work, not a third.",
        )
    if disordered := _out_of_order(legs, begun, ended):
        first, second = disordered
        raise Wrong(
            "order",
            f"{second.tailnum}: the leg of {second.event_time:%H:%M} to {second.dest} was begun before the "
            f"one of {first.event_time:%H:%M} to {first.dest} was done. A consumer that workers share is a "
            "queue, not a partition: it knows nothing of aircraft.",
        )
    if missing := [leg for leg in legs if leg.id not in ended]:
        raise Wrong("undone", f"{len(missing)} of {len(legs)} legs are not done, such as {missing[0].id}.")
    busy = sum((ended[leg.id] - begun[leg.id]).total_seconds() for leg in legs)
    at_once = busy / (max(ended.values()) - min(begun.values())).total_seconds()
    if at_once < AT_ONCE:
        raise Wrong(
            "serial",
            f"In order, with {at_once:.1f} legs in hand at a time: to keep the order of each aircraft, you "
            f"made all of them wait for each other. {AIRCRAFT} crews stand by while one works.",
        )
    return f"{len(legs)} legs in the order of each of {AIRCRAFT} aircraft, {at_once:.1f} in hand at a time."


def _out_of_order(legs, begun, ended):
    """Return two legs of one aircraft of which the second was begun too early; None if there are none."""
    for tail in {leg.tailnum for leg in legs}:
        own = [leg for leg in legs if leg.tailnum == tail and leg.id in begun]
        for first, second in pairwise(own):
            if first.id not in ended or begun[second.id] < ended[first.id]:
                return first, second
    return None


@turns.solution
async def solve_turns(lab):
    import asyncio

    from nats.js.api import StreamSource, SubjectTransform

    # One more token in the subject, made of the tail number: an aircraft is always in the same part.
    into_parts = SubjectTransform(src="legs.*", dest="parts.{{partition(3,1)}}.{{wildcard(1)}}")
    legs = StreamSource(name="LEGS", subject_transforms=[into_parts])
    parts = await lab.stream("PARTS", sources=[legs], num_replicas=3)
    teams = [await parts.consumer(f"team-{n}", filter_subject=f"parts.{n}.*", ack_wait=5) for n in range(3)]
    async with lab.scenario("05.3") as turn:
        await asyncio.gather(*(team.work(turn) for team in teams))


@turns.wrong("copies")
async def three_durables_that_want_all(lab):
    legs = await lab.stream("LEGS")
    teams = [await legs.consumer(f"team-{n}", ack_wait=5) for n in range(3)]
    async with lab.scenario("05.3") as turn:
        await asyncio.gather(*(team.work(turn, limit=6) for team in teams))


@turns.wrong("order")
async def one_durable_for_three(lab):
    legs = await lab.stream("LEGS")
    team = await legs.consumer("team", ack_wait=5)
    async with lab.scenario("05.3") as turn:
        await asyncio.gather(*(team.work(turn, idle=1) for _ in range(3)))


@turns.wrong("order")
async def three_at_a_time(lab):
    legs = await lab.stream("LEGS")
    team = await legs.consumer("team", ack_wait=5)
    async with lab.scenario("05.3") as turn:
        await team.work(turn, concurrency=3, idle=1)


@turns.wrong("order")
async def three_at_a_time_by_three(lab):
    legs = await lab.stream("LEGS")
    team = await legs.consumer("team", ack_wait=5)

    async def work(turn):
        while batch := await team.fetch(3):
            for message in batch:
                await turn(message)
                await message.ack()

    async with lab.scenario("05.3") as turn:
        await asyncio.gather(*(work(turn) for _ in range(3)))


@turns.wrong("undone")
async def two_parts_of_three(lab):
    legs = await lab.stream("LEGS")
    tails = sorted({flight.tailnum for flight in _legs()})
    team = await legs.consumer("team", filter_subjects=[f"legs.{tail}" for tail in tails[:2]], ack_wait=5)
    async with lab.scenario("05.3") as turn:
        await team.work(turn, idle=1)


@turns.wrong("serial")
async def one_in_flight_for_all(lab):
    legs = await lab.stream("LEGS")
    team = await legs.consumer("team", max_ack_pending=1, ack_wait=5)
    async with lab.scenario("05.3") as turn:
        await asyncio.gather(*(team.work(turn, idle=1) for _ in range(3)))


# ---------------------------------------------------------------- 05.4

LOT, LOTS = 2_000, 2

lots = lesson.exercise(
    "05.4",
    "Two thousand at a time",
    streams=("MANIFEST", "BATCHES"),
    hints=(
        "Until a message is acked it is outstanding, and a consumer gives out only so many. Two thousand "
        "must be out at once, and none of them may be acked before the transaction holds.",
        "max_ack_pending is 1,000 if you name none. When commit raises, nothing was stored: nak the whole "
        "lot, and it comes again.",
    ),
)


@lots.setup
async def a_manifest(room: Room) -> None:
    manifest = await room.lab.stream("MANIFEST", subjects=["manifest.>"], num_replicas=3)
    await room.lab.stream("BATCHES", subjects=["batches.>"], num_replicas=3)
    flights = list(departures.month(1))[: LOT * LOTS]
    await manifest.publish_many(flights, subject="manifest.JFK", data=lambda f: str(f.id))


@lots.scenario
async def a_database(room: Room):
    """Yield commit, which stores a lot of exactly 2,000 messages; the first time the database goes away."""
    attempts = 0

    async def commit(messages) -> None:
        nonlocal attempts
        if len(messages) != LOT:
            raise ExerciseError(
                f"a transaction holds {LOT:,} flights",
                seen=f"{len(messages):,}",
                do="gather so many before you commit",
            )
        attempts += 1
        if attempts == 1:
            raise ConnectionError("the database went away before the transaction was stored")
        await room.js.publish("batches.stored", json.dumps([flight_of(m.data) for m in messages]).encode())

    yield commit


@lots.check
async def check_lots(room: Room) -> str:
    info = await _consumer(room, "MANIFEST", "lots")
    stored = [flight for m in await room.messages("BATCHES") for flight in json.loads(m.data)]
    open_, most = info.num_ack_pending or 0, info.config.max_ack_pending or 0
    held = f"{len(set(stored)):,} of {LOT * LOTS:,} flights are in a transaction"
    if 0 < most < LOT:
        raise Wrong(
            "window",
            f"{held}; {open_:,} are outstanding, and max_ack_pending is {most:,}: the server waits for your "
            f"acks before it gives out more, and you wait for {LOT:,} before you ack. Nobody is down, "
            "nothing moves.",
        )
    if len(stored) > len(set(stored)):
        raise Wrong(
            "twice",
            f"{held}, and {len(stored) - len(set(stored)):,} of them in two: what a transaction holds must "
            "be acked before ack_wait is over, or it is given out again.",
        )
    gone = LOT * LOTS - info.num_pending - open_ - len(stored)
    if gone > 0:
        raise Wrong(
            "lost",
            f"{held}, and {gone:,} were delivered, are not stored, and will never come again: they counted "
            "as done before the transaction was. The database went away once. That is what it does.",
        )
    if len(stored) < LOT * LOTS:
        raise Wrong(
            "undone",
            f"{held}; {open_:,} are outstanding and {info.num_pending:,} wait. Nothing is lost, but nothing "
            "is finished: go on until the manifest is empty.",
        )
    if open_:
        raise Wrong(
            "unacked",
            f"{held}, all of them once, and {open_:,} are not acked. When ack_wait is over they come again, "
            "and are billed again.",
        )
    return f"{held}, once each, in lots of {LOT:,}, though the database went away in between."


@lots.solution
async def solve_lots(lab):
    manifest = await lab.stream("MANIFEST")
    # As many as a transaction holds may be out at once, and longer than it takes.
    lots = await manifest.consumer("lots", max_ack_pending=2_000, ack_wait=30)
    async with lab.scenario("05.4") as commit:
        lot = []
        while more := await lots.fetch(2_000 - len(lot)):
            lot += more
            if len(lot) < 2_000:
                continue
            try:
                await commit(lot)
            except ConnectionError:
                for message in lot:
                    await message.nak()
            else:
                for message in lot:
                    await message.ack()
            lot = []


async def gather(consumer, wanted=LOT):
    """Fetch until so many are here, or no more come."""
    lot = []
    while len(lot) < wanted:
        if not (more := await consumer.fetch(wanted - len(lot), timeout=2)):
            break
        lot += more
    return lot


@lots.wrong("window")
async def as_it_comes(lab):
    from jslab.errors import AckPendingError

    manifest = await lab.stream("MANIFEST")
    lots = await manifest.consumer("lots", ack_wait=30)
    async with lab.scenario("05.4") as commit:
        try:
            await commit(await gather(lots))
        except AckPendingError as err:
            print(err)


@lots.wrong("lost")
async def no_acks_at_all(lab):
    manifest = await lab.stream("MANIFEST")
    lots = await manifest.consumer("lots", ack_policy=AckPolicy.NONE)
    async with lab.scenario("05.4") as commit:
        for _ in range(LOTS):
            try:
                await commit(await gather(lots))
            except ConnectionError as err:
                print(err)


@lots.wrong("lost")
async def acked_before_the_commit(lab):
    manifest = await lab.stream("MANIFEST")
    lots = await manifest.consumer("lots", max_ack_pending=LOT, ack_wait=30)
    async with lab.scenario("05.4") as commit:
        for _ in range(LOTS):
            lot = await gather(lots)
            for message in lot:
                await message.ack()
            try:
                await commit(lot)
            except ConnectionError as err:
                print(err)


@lots.wrong("twice")
async def stored_and_given_back(lab):
    manifest = await lab.stream("MANIFEST")
    lots = await manifest.consumer("lots", max_ack_pending=LOT, ack_wait=30)
    async with lab.scenario("05.4") as commit:
        for _ in range(3):
            lot = await gather(lots)
            try:
                await commit(lot)
            except ConnectionError as err:
                print(err)
            for message in lot:
                await message.nak()


@lots.wrong("undone")
async def give_up_when_the_database_does(lab):
    manifest = await lab.stream("MANIFEST")
    lots = await manifest.consumer("lots", max_ack_pending=LOT, ack_wait=30)
    async with lab.scenario("05.4") as commit:
        try:
            await commit(await gather(lots))
        except ConnectionError as err:
            print(err)


@lots.wrong("unacked")
async def never_acked(lab):
    manifest = await lab.stream("MANIFEST")
    lots = await manifest.consumer("lots", max_ack_pending=LOT * LOTS, ack_wait=60)
    async with lab.scenario("05.4") as commit:
        lot = await gather(lots)
        try:
            await commit(lot)
        except ConnectionError as err:
            print(err)
        await commit(lot)
        await commit(await gather(lots))
