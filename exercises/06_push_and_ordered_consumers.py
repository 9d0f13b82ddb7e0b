"""Lesson 06: consumers that the server pushes to, what they forget, and how to move away from them."""

import asyncio
import collections
import contextlib
import functools

from nats.js.api import ConsumerConfig, DeliverPolicy

from jslab import departures
from jslab.connection import Connection
from jslab.departures import flight_of
from jslab.errors import NotReadyError
from jslab.exercises import Lesson, Room, Wrong
from jslab.exercises.notes import Notes
from jslab.waiting import until

lesson = Lesson("06", "Push and ordered consumers", streams=("FLIGHTS",))

lesson.prediction(
    "06.1",
    "A push consumer on flights.* starts at the first of 842 flights. Delivered, and its lag?",
    ("842 delivered, lag 0", "0 delivered, lag 842", "0 delivered, lag 0"),
)


the_day = functools.cache(lambda: tuple(departures.day(1, 1)))


async def _times(room: Room, stream: str) -> collections.Counter[str]:
    """Count how often each flight of the day is in a stream."""
    await room.info(stream)
    found = collections.Counter(flight_of(message.data) for message in await room.messages(stream))
    return collections.Counter({flight.id: found[flight.id] for flight in the_day()})


async def _fill(room: Room, name: str, flights) -> None:
    """Publish flights to a stream, on their subjects below its name."""
    stream = await room.lab.stream(name)
    subject = name.lower()
    await stream.publish_many(flights, subject=lambda f: f"{subject}.{f.subject}", data=lambda f: f.payload)


# ---------------------------------------------------------------- 06.1

DELIVERED = 500
# Two workers ack in no common order: these were still in hand when the group was stopped.
IN_HAND = range(441, DELIVERED + 1, 2)
# The first of them were billed, and only their acks were never sent.
BILLED_UNACKED = 10
OLD_ACK_WAIT = 5.0
ACKS_ARRIVE = 3.0
# Seconds that an answer waits for what will come, however busy the machine is.
PATIENCE = 20.0

move = lesson.exercise(
    "06.1",
    "From push to pull, without a gap",
    streams=("FEES", "BILLED"),
    hints=(
        "lab.js.consumer_info tells where the old group stood. delivered.stream_seq is what it was given, "
        "ack_floor.stream_seq the flight up to which all of them were acked. Which of the two means that the "
        "work is done?",
        'A new consumer can begin at a sequence: deliver_policy="by_start_sequence" and opt_start_seq. Read '
        "the old one's floor before you delete it: the position goes with the consumer.",
        "consumer.work(bill, idle=3) hands each flight to bill, acks it, and ends when nothing came for "
        "three seconds.",
    ),
)


@move.setup
async def a_group_that_was_stopped(room: Room) -> None:
    """Leave a push group as it stood when its two workers were stopped: some flights were in their hands."""
    day = the_day()
    await room.lab.stream("FEES", subjects=["fees.>"], num_replicas=3)
    await room.lab.stream("BILLED", subjects=["billed.>"], num_replicas=3)
    taken = {}

    async def take(message) -> None:
        taken[message.metadata.sequence.stream] = message

    patience = ConsumerConfig(ack_wait=OLD_ACK_WAIT)
    options = {"queue": "accounts", "stream": "FEES", "cb": take, "manual_ack": True, "config": patience}
    workers = [await room.js.subscribe("fees.>", **options) for _ in range(2)]
    await _fill(room, "FEES", day[:DELIVERED])
    await until(lambda: len(taken) == DELIVERED, what="the old group to be given its flights", timeout=20)
    for seq, message in taken.items():
        if seq not in IN_HAND:
            await message.ack()

    async def acked() -> bool:
        info = await room.js.consumer_info("FEES", "accounts")
        return (info.ack_floor.stream_seq, info.num_ack_pending) == (IN_HAND[0] - 1, len(IN_HAND))

    await until(acked, what="the old group's acks to arrive", timeout=20)
    for worker in workers:
        await worker.unsubscribe()
    await _fill(room, "FEES", day[DELIVERED:])
    await _fill(room, "BILLED", [day[seq - 1] for seq in range(1, DELIVERED + 1) if seq not in _unbilled()])


def _unbilled() -> set[int]:
    return set(IN_HAND[BILLED_UNACKED:])


@move.check
async def check_move(room: Room) -> str:
    await room.info("FEES")
    times = await _times(room, "BILLED")
    consumers = await room.js.consumers_info("FEES")
    pulls = [c.name for c in consumers if c.config.durable_name and not c.config.deliver_subject]
    pushes = [c for c in consumers if c.config.deliver_subject]
    since = times.total() - DELIVERED + len(_unbilled())
    if not pulls and not since:
        raise Wrong("blank", "Nothing has moved: no durable pull consumer on FEES, and no new bill.")
    if not pulls:
        raise Wrong(
            "no-durable",
            f"{since} bills since the move, and FEES has no durable pull consumer: the position is still "
            "with the old group, or in the memory of a program. At the next restart you are back where "
            "you began, and this time nobody has noted down the floor.",
        )
    info = await _when_acked(room, "FEES", pulls[0])
    if left := (info.num_pending or 0) + (info.num_ack_pending or 0):
        raise Wrong(
            "unfinished",
            f"{info.name} has {left} flights to go: {info.num_pending} wait, {info.num_ack_pending} are "
            "given out and not acked. Have it work them off; only the result shows whether it began at "
            "the right place.",
        )
    missing = [flight for flight, count in times.items() if not count]
    if missing:
        given = {the_day()[seq - 1].id for seq in _unbilled()} & set(missing)
        raise Wrong(
            "skipped",
            f"{len(missing)} flights are never billed, {missing[0]} first. "
            f"{'All' if len(given) == len(missing) else len(given)} of them the old group had been given "
            "and had not finished. Delivered is not done, and "
            "nobody will give them out again: the new consumer begins behind them. Begin at the old ack "
            "floor + 1.",
        )
    again = sum(count - 1 for count in times.values() if count > 1)
    floor, doubtful = IN_HAND[0] - 1, DELIVERED - IN_HAND[0] + 1
    counts = list(enumerate(times.values(), 1))
    done_before = [seq for seq, count in counts if seq <= floor and count > 1]
    if done_before and info.config.deliver_policy == DeliverPolicy.ALL:
        raise Wrong(
            "again",
            f"{again} flights are billed twice. Only the {doubtful} between the old group's ack floor and "
            "its last delivery can be in doubt. A new consumer begins at the first message of the stream "
            "if you do not tell it where: with a year in the stream, that is a year of second bills.",
        )
    if done_before:
        raise Wrong(
            "below-the-floor",
            f"You began at {done_before[0]}, the floor is {floor}. Up to the old group's ack floor, itself "
            f"included, every flight was acked and billed: of your {again} second bills {len(done_before)} "
            "are for what was not in doubt. Begin right behind the floor.",
        )
    # One in doubt may have been billed by the old group, and once more by you.
    extra = [seq for seq, count in counts if count > (2 if floor < seq <= DELIVERED else 1)]
    if extra:
        raise Wrong(
            "twice",
            f"{len(extra)} flights have a bill too many, number {extra[0]} of the stream first, and not by "
            "the old group: two consumers have worked on them since the move, or one and then its "
            "successor from the same place. A position helps only when one consumer has it.",
        )
    if pushes:
        raise Wrong(
            "old-left",
            f"All billed, by {pulls[0]}. But {pushes[0].name} is still registered, and "
            f"{pushes[0].num_pending} flights wait for its members. The first old deployment that comes "
            "back will bill them all a second time; until then its backlog grows, and so does the alert "
            "on it.",
        )
    return (
        f"{len(times)} flights, none skipped, {again} billed twice, of the {doubtful} that were in doubt. "
        f"The position is {info.name}'s now, and you pull. (A bill with the flight's id as Nats-Msg-Id, "
        "from the first day on, would have made the doubtful ones harmless as well.)"
    )


async def _when_acked(room: Room, stream: str, name: str):
    """Return a consumer's info when all of its acks have arrived, or when none come any more."""

    async def acked() -> bool:
        return not (await room.js.consumer_info(stream, name)).num_ack_pending

    with contextlib.suppress(NotReadyError):
        await until(acked, what=f"the acks of {name}", timeout=ACKS_ARRIVE)
    return await room.js.consumer_info(stream, name)


@move.solution
async def solve_move(lab):
    old = await lab.js.consumer_info("FEES", "accounts")
    fees = await lab.stream("FEES")
    # Up to the floor everything is done. Above it some is, and nobody can say which.
    start = old.ack_floor.stream_seq + 1
    new = await fees.consumer("accounts-pull", deliver_policy="by_start_sequence", opt_start_seq=start)
    await lab.js.delete_consumer("FEES", "accounts")

    async def bill(message):
        await lab.js.publish("billed." + message.subject, message.data)

    waiting = (await new.info()).num_pending
    print(await new.work(bill, limit=waiting, idle=10))


async def bill_from(lab, name, **where):
    """Have a new pull consumer bill what there is for it."""
    fees = await lab.stream("FEES")
    new = await fees.consumer(name, **where)

    async def bill(message):
        await lab.js.publish("billed." + message.subject, message.data)

    if waiting := (await new.info()).num_pending:
        await new.work(bill, limit=waiting, idle=PATIENCE)


async def position(lab):
    return await lab.js.consumer_info("FEES", "accounts")


@move.wrong("no-durable")
async def an_ephemeral(lab):
    start = (await position(lab)).ack_floor.stream_seq + 1
    await bill_from(lab, None, deliver_policy="by_start_sequence", opt_start_seq=start)


@move.wrong("unfinished")
async def made_and_left_alone(lab):
    fees = await lab.stream("FEES")
    await fees.consumer("accounts-pull")
    await lab.js.delete_consumer("FEES", "accounts")


@move.wrong("skipped")
async def behind_what_was_delivered(lab):
    start = (await position(lab)).delivered.stream_seq + 1
    await lab.js.delete_consumer("FEES", "accounts")
    await bill_from(lab, "accounts", deliver_policy="by_start_sequence", opt_start_seq=start)


@move.wrong("skipped")
async def only_what_is_new(lab):
    await bill_from(lab, "accounts-pull", deliver_policy="new")


@move.wrong("again")
async def from_the_beginning(lab):
    await lab.js.delete_consumer("FEES", "accounts")
    await bill_from(lab, "accounts-pull")


@move.wrong("below-the-floor")
async def at_the_floor_itself(lab):
    start = (await position(lab)).ack_floor.stream_seq
    await lab.js.delete_consumer("FEES", "accounts")
    await bill_from(lab, "accounts-pull", deliver_policy="by_start_sequence", opt_start_seq=start)


@move.wrong("below-the-floor")
async def some_earlier_to_be_sure(lab):
    start = (await position(lab)).ack_floor.stream_seq - 18
    await lab.js.delete_consumer("FEES", "accounts")
    await bill_from(lab, "accounts-pull", deliver_policy="by_start_sequence", opt_start_seq=start)


@move.wrong("twice")
async def one_and_then_another(lab):
    start = (await position(lab)).ack_floor.stream_seq + 1
    await lab.js.delete_consumer("FEES", "accounts")
    for name in ("accounts-trial", "accounts-pull"):
        await bill_from(lab, name, deliver_policy="by_start_sequence", opt_start_seq=start)


@move.wrong("old-left")
async def beside_the_old_one(lab):
    start = (await position(lab)).ack_floor.stream_seq + 1
    await bill_from(lab, "accounts-pull", deliver_policy="by_start_sequence", opt_start_seq=start)


# ---------------------------------------------------------------- 06.2

KILL_AT = 500
HELD, ACK_WAIT = 100, 2.0
# Seconds without a new flight after which the supervisor gives a program up, and after which one that has
# nothing to come is over.
STALLED, QUIET = 3 * ACK_WAIT, 1.5
LOOKS, LONGEST = 0.1, 90.0
OPENING = 20.0

desk = lesson.exercise(
    "06.2",
    "A queue between the ack and the work",
    streams=("DESK", "DONE"),
    hints=(
        "The callback returns as soon as the flight is in the queue, and nats-py acks when the callback "
        "returns. What is in the queue when the program dies?",
        "manual_ack=True leaves the ack to you. It belongs behind the work.",
        "After await work(message): await message.ack().",
    ),
)


@desk.setup
async def an_old_desk(room: Room) -> None:
    await Notes(room.lab).forget("killed", room.number)
    await room.lab.stream("DESK", subjects=["desk.>"], num_replicas=3)
    await room.lab.stream("DONE", subjects=["done.>"], num_replicas=3)
    await _fill(room, "DESK", the_day())
    await room.js.add_consumer(
        "DESK", durable_name="desk", deliver_subject="deliver.desk", ack_wait=ACK_WAIT, max_ack_pending=HELD
    )


class Supervisor:
    """Starts a program on a connection of its own, kills it in the middle of a flight, starts it again.

    After its death no task of the program gets further than its next ``work``, as if the process had gone.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self._done: set[str] = set()
        self._clock = asyncio.get_running_loop().time

    async def __call__(self, program) -> None:
        if await self._run(program, KILL_AT):
            await Notes(self._room.lab).write("killed", self._room.number, str(KILL_AT))
            print(f"killed at work on flight {KILL_AT}, {len(self._done)} done; started again")
            await until(self._nobody_bound, what="the server to notice the death", timeout=OPENING)
            await self._run(program)
        print(f"{len(self._done)} of {len(the_day())} flights done")

    async def _run(self, program, kill_at: int | None = None) -> bool:
        """Run the program until it dies, ends, or gets nothing more; return whether it was killed."""
        lab = self._room.lab
        connection = Connection()
        dead, busy, ended = False, 0, self._clock()

        async def work(message) -> None:
            nonlocal dead, busy, ended
            flight = flight_of(message.data)
            dead = dead or (flight not in self._done and len(self._done) + 1 == kill_at)
            if dead:
                raise asyncio.CancelledError
            busy += 1
            try:
                await lab.js.publish("done.desk", message.data)
            finally:
                busy -= 1
            if flight not in self._done:
                self._done.add(flight)
                ended = self._clock()

        async def over() -> bool:
            if dead or running.done():
                return True
            idle = 0 if busy else self._clock() - ended
            if len(self._done) == len(the_day()) or idle > STALLED:
                return True
            return kill_at is None and idle > QUIET and not await self._to_come()

        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(connection.close)
            await connection.open([server.client_url for server in lab.deployment.servers()], OPENING)
            running = asyncio.ensure_future(program(connection.nc.jetstream(), work))
            stack.push_async_callback(asyncio.wait, [running])
            stack.callback(running.cancel)
            ended = self._clock()
            await until(over, what="the program to end", timeout=LONGEST, every=LOOKS)
            if running.done() and not running.cancelled():
                running.result()  # what it raised is the learner's to see
        return dead

    async def _to_come(self) -> int:
        """Count what the server still has for consumers that are in use."""
        return _left(await self._room.js.consumers_info("DESK"))

    async def _nobody_bound(self) -> bool:
        return not any(consumer.push_bound for consumer in await self._room.js.consumers_info("DESK"))


def _were(count: int) -> str:
    return "1 was" if count == 1 else f"{count} were"


def _left(consumers) -> int:
    """Add up what consumers that have delivered something have yet to deliver, or to hear of again."""
    used = [consumer for consumer in consumers if consumer.delivered.consumer_seq]
    return sum((consumer.num_pending or 0) + (consumer.num_ack_pending or 0) for consumer in used)


@desk.scenario
async def a_supervisor(room: Room):
    """Give a function that starts the learner's program, kills it and starts it again."""
    yield Supervisor(room)


@desk.check
async def check_desk(room: Room) -> str:
    await room.info("DESK")
    times = await _times(room, "DONE")
    if not times.total():
        raise Wrong("blank", "DONE is empty: no flight has been worked on.")
    consumers = await room.js.consumers_info("DESK")
    missing = [flight for flight, count in times.items() if not count]
    told = f"{len(times) - len(missing)} of {len(times)} flights are done"
    stuck = [
        consumer for consumer in consumers if consumer.num_ack_pending and not consumer.ack_floor.stream_seq
    ]
    if missing and stuck:
        raise Wrong(
            "never-acked",
            f"{told}, and delivery has stopped: {stuck[0].num_ack_pending} given out, none acked, and "
            f"max_ack_pending is {stuck[0].config.max_ack_pending}. The server waits for your word and you "
            "wait for its flights. (The default is 1,000: all is well in the test, and at message 1,001 "
            "the night shift is called.)",
        )
    if not await Notes(room.lab).text("killed", room.number):
        raise Wrong(
            "calm",
            f"{told}, and nobody was killed. A program that never dies needs no acks: hand it to the "
            "scenario, await supervise(program).",
        )
    if missing and (left := _left(consumers)):
        wait = max(consumer.config.ack_wait or 0 for consumer in consumers)
        raise Wrong(
            "unfinished",
            f"{told}; the server still has {left} for your program. It ended by itself, or had nothing new "
            f"in {STALLED:g} s and was ended, or the cell was interrupted. After a kill the server waits, "
            f"ack_wait is {wait:g} s here, before it gives out again what the dead one held: an empty queue "
            "does not mean that there is nothing more.",
        )
    if missing:
        raise Wrong(
            "lost",
            f"{told}. {_were(len(missing))} acked before the work was done, {missing[0]} first, and died "
            "with the program. To the server an ack means done, so nothing acked is given out again; no "
            "log says so, and the lag is 0.",
        )
    again = sum(count - 1 for count in times.values())
    if again > KILL_AT - HELD:
        raise Wrong(
            "again",
            f"All {len(times)} are done, and {again} of them twice: after the kill your program began at "
            "the first flight again. The server held no position for it. That is fine for a screen, and "
            "not for a bill.",
        )
    return (
        f"{len(times)} flights done through a kill in the middle of flight {KILL_AT}, {again} of them twice."
    )


@desk.solution
async def solve_desk(lab):
    import asyncio

    async def program(js, work):
        flights = asyncio.Queue()
        await js.subscribe("desk.>", durable="desk", stream="DESK", cb=flights.put, manual_ack=True)
        while True:
            message = await flights.get()
            await work(message)
            await message.ack()  # behind the work: what is in the queue at a kill comes again

    async with lab.scenario("06.2") as supervise:
        await supervise(program)


async def run_desk(lab, behind=None, **options):
    """Run a desk with a queue; ``behind`` is awaited with each message after the work."""

    async def program(js, work):
        flights = asyncio.Queue()
        options.setdefault("durable", "desk")
        await js.subscribe("desk.>", stream="DESK", **{"cb": flights.put, **options})
        while True:
            message = await flights.get()
            await work(message)
            if behind:
                await behind(message)

    async with lab.scenario("06.2") as supervise:
        await supervise(program)


@desk.wrong("lost")
async def acked_by_default(lab):
    await run_desk(lab)


@desk.wrong("lost")
async def acked_before_the_work(lab):
    async def program(js, work):
        flights = asyncio.Queue()
        await js.subscribe("desk.>", durable="desk", stream="DESK", cb=flights.put, manual_ack=True)
        while True:
            message = await flights.get()
            await message.ack()
            await work(message)

    async with lab.scenario("06.2") as supervise:
        await supervise(program)


@desk.wrong("never-acked")
async def nobody_acks(lab):
    await run_desk(lab, manual_ack=True)


@desk.wrong("calm")
async def without_a_supervisor(lab):
    await lab.js.publish("done.desk", b"opened at six")
    for flight in the_day():
        await lab.js.publish("done.desk", flight.payload)


@desk.wrong("unfinished")
async def home_after_600(lab):
    taken = []

    async def program(js, work):
        desk = await js.subscribe("desk.>", durable="desk", stream="DESK")
        while len(taken) < 600:
            taken.append(await desk.next_msg(timeout=None))
            await work(taken[-1])
            await taken[-1].ack()

    async with lab.scenario("06.2") as supervise:
        await supervise(program)


@desk.wrong("again")
async def an_ephemeral_desk(lab):
    await run_desk(lab, lambda message: message.ack(), durable=None, manual_ack=True)


# ---------------------------------------------------------------- 06.3

FIRST_SHIFT = 400
DOUBLES = 100

readers = lesson.exercise(
    "06.3",
    "Two readers, two kinds of consumer",
    streams=("MOVES", "INVOICES"),
    hints=(
        "For each reader ask: must the server remember where it was? And: may the stream let go of a message "
        "before this reader has said that it is done?",
        "MOVES keeps a message while some consumer has not acked it, and a consumer counts from the "
        "moment it exists. So billing's must be there before the first flight, and the frame must be "
        "read before billing acks.",
        "billing: a durable pull consumer. The frame: lab.js.subscribe(…, ordered_consumer=True), read "
        "to the message whose metadata.num_pending is 0, and unsubscribed; or moves.replay().frame(), "
        "which needs no consumer of yours.",
    ),
)


@readers.setup
async def a_stream_of_interest(room: Room) -> None:
    # One copy: with three, the server refuses the single copy of an ordered consumer (10134).
    await room.lab.stream("MOVES", subjects=["moves.>"], num_replicas=1, retention="interest")
    await room.lab.stream("INVOICES", subjects=["invoices.>"], num_replicas=3)


@readers.scenario
async def a_day_of_moves(room: Room):
    """Publish the day to MOVES; who is registered by then has it."""
    await _fill(room, "MOVES", the_day())
    yield


@readers.check
async def check_readers(room: Room) -> str:
    info = await room.info("MOVES")
    if not info.state.last_seq:
        raise Wrong("blank", "No flight has come to MOVES yet: the scenario publishes them.")
    times = await _times(room, "INVOICES")
    if not times.total() and not info.state.messages:
        raise Wrong(
            "unheard",
            f"{info.state.last_seq} flights were published, and each got the publisher's ack. MOVES keeps "
            "none of them, and none is invoiced. A stream with interest keeps a message for the consumers "
            "that exist at that moment; when nobody is registered it keeps nothing. Register the readers "
            "first.",
        )
    rows = await room.answer()
    if rows is None:
        raise Wrong("no-frame", 'Nobody has loaded the frame: await lab.answer("06.3", str(len(frame))).')
    if rows != str(len(times)):
        raise Wrong(
            "short",
            f"The frame has {rows[:20]} rows, the day {len(times)} flights. What billing has acked, this "
            "stream lets go; whoever reads later reads what others left over, and no error says so.",
        )
    missing = [flight for flight, count in times.items() if not count]
    told = f"{len(times) - len(missing)} of {len(times)} flights are invoiced"
    if missing and info.state.messages:
        raise Wrong(
            "unfinished",
            f"{told}; {info.state.messages} are in MOVES and wait for the second shift. What the first held "
            "unacked when it went, its consumer gives out again when ack_wait is over, 30 s by default.",
        )
    if missing:
        raise Wrong(
            "lost",
            f"{told}, and MOVES is empty. For a consumer that acks nothing, delivered counts as done: the "
            "rest was in the memory of the first shift when it went home, and the stream had let it go "
            "already.",
        )
    again = sum(count - 1 for count in times.values())
    if again > DOUBLES:
        raise Wrong(
            "twice",
            f"{again} flights are invoiced twice. The second shift began at the first flight: the server "
            "holds no position for an ephemeral consumer. Only because somebody else had not acked were "
            "they still there.",
        )
    durables = {c.name: c for c in await room.js.consumers_info("MOVES") if c.config.durable_name}
    if "billing" not in durables:
        raise Wrong(
            "no-position",
            f"All {len(times)} are invoiced, this time. But MOVES has no durable consumer billing: while "
            "billing restarts nobody is registered, and what comes in those seconds is acked to its "
            "publisher and not kept.",
        )
    if others := sorted(durables.keys() - {"billing"}):
        raise Wrong(
            "kept",
            f"All invoiced, and {info.state.messages} messages are still in MOVES. {others[0]} is "
            f"registered, with {_left([durables[others[0]]])} to go, and will be when the frame is long "
            "forgotten: from now on every message is kept for it, until the disk is full. A reader that "
            "comes once needs no durable.",
        )
    return (
        f"{rows} rows in the frame, {len(times)} flights invoiced, and only billing is registered. (MOVES "
        "has one copy. With three, the server refuses an ordered consumer, 10134: a consumer that "
        "decides what such a stream lets go must have as many copies. A replay needs none of yours, and "
        "works there, too.)"
    )


@readers.solution
async def solve_readers(lab):
    import json

    import pandas as pd

    moves = await lab.stream("MOVES")
    billing = await moves.consumer("billing", ack_wait=5)  # first of all: from now on the stream keeps for it

    async def shift(limit):
        async for message in billing.messages(limit=limit, idle=10):
            await lab.js.publish("invoices.JFK", message.data)
            await message.ack()

    async with lab.scenario("06.3"):
        reader = await lab.js.subscribe("moves.>", stream="MOVES", ordered_consumer=True)
        rows, waiting = [], 1
        while waiting:
            message = await reader.next_msg(timeout=20)
            rows.append(json.loads(message.data))
            waiting = message.metadata.num_pending
        await reader.unsubscribe()
        frame = pd.DataFrame(rows)
        await lab.answer("06.3", str(len(frame)))
        await shift(400)
        await shift(len(frame) - 400)


async def invoices(lab, name, limit):
    """Have a durable pull consumer write invoices, so many."""
    moves = await lab.stream("MOVES")
    billing = await moves.consumer(name)
    async for message in billing.messages(limit=limit, idle=PATIENCE):
        await lab.js.publish("invoices.JFK", message.data)
        await message.ack()


async def ordered(lab):
    return await lab.js.subscribe("moves.>", stream="MOVES", ordered_consumer=True)


async def take(reader, count, patience=PATIENCE):
    """Read so many messages, or what comes."""
    found = []
    with contextlib.suppress(TimeoutError):
        while len(found) < count:
            found.append(await reader.next_msg(timeout=patience))
    await reader.unsubscribe()
    return found


async def invoice(lab, messages):
    for message in messages:
        await lab.js.publish("invoices.JFK", message.data)


async def count_rows(lab, reader):
    await lab.answer("06.3", str(len(await take(reader, len(the_day())))))


@readers.wrong("unheard")
async def registered_too_late(lab):
    async with lab.scenario("06.3"):
        moves = await lab.stream("MOVES")
        await moves.consumer("billing")


@readers.wrong("no-frame")
async def billing_alone(lab):
    moves = await lab.stream("MOVES")
    await moves.consumer("billing")
    async with lab.scenario("06.3"):
        await invoices(lab, "billing", len(the_day()))


@readers.wrong("short")
async def the_frame_after_a_shift(lab):
    moves = await lab.stream("MOVES")
    await moves.consumer("billing")
    async with lab.scenario("06.3"):
        await invoices(lab, "billing", FIRST_SHIFT)

        async def let_go():
            return (await moves.info()).state.messages == len(the_day()) - FIRST_SHIFT

        await until(let_go, what="the stream to let go", timeout=10)
        reader = await ordered(lab)
        await lab.answer("06.3", str(len(await take(reader, len(the_day()) - FIRST_SHIFT))))
        await invoices(lab, "billing", len(the_day()) - FIRST_SHIFT)


@readers.wrong("unfinished")
async def the_first_shift_only(lab):
    moves = await lab.stream("MOVES")
    await moves.consumer("billing")
    async with lab.scenario("06.3"):
        await count_rows(lab, await ordered(lab))
        await invoices(lab, "billing", FIRST_SHIFT)


@readers.wrong("lost")
async def two_ordered_ones(lab):
    reader, billing = await ordered(lab), await ordered(lab)
    async with lab.scenario("06.3"):
        await count_rows(lab, reader)
        await invoice(lab, await take(billing, FIRST_SHIFT))
        await invoice(lab, await take(await ordered(lab), len(the_day()) - FIRST_SHIFT, patience=2))


@readers.wrong("twice")
async def the_other_way_round(lab):
    moves = await lab.stream("MOVES")
    tmp = await moves.consumer("tmp")
    async with lab.scenario("06.3"):
        await lab.answer("06.3", str(len(await tmp.fetch(len(the_day()), timeout=PATIENCE))))
        await invoice(lab, await take(await ordered(lab), FIRST_SHIFT))
        await invoice(lab, await take(await ordered(lab), len(the_day())))


@readers.wrong("no-position")
async def ordered_in_one_go(lab):
    reader, billing = await ordered(lab), await ordered(lab)
    async with lab.scenario("06.3"):
        await count_rows(lab, reader)
        await invoice(lab, await take(billing, len(the_day())))


@readers.wrong("kept")
async def a_durable_for_the_frame(lab):
    moves = await lab.stream("MOVES")
    await moves.consumer("billing")
    tmp = await moves.consumer("tmp")
    async with lab.scenario("06.3"):
        await lab.answer("06.3", str(len(await tmp.fetch(len(the_day()), timeout=PATIENCE))))
        await invoices(lab, "billing", len(the_day()))
