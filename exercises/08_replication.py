"""Lesson 08: who leads, who only copies, how many copies are enough, and when they are there."""

import asyncio
import contextlib
import json
from itertools import pairwise

import nats.errors
import nats.js.errors

from jslab import departures, replication
from jslab.exercises import Lesson, Room, Wrong
from jslab.exercises.notes import Notes
from jslab.glance import all_hold
from jslab.streams import placement
from jslab.waiting import until

lesson = Lesson("08", "Replication", streams=("RADAR", "DAY", "ONE"))

lesson.prediction(
    "08.1",
    "A stream has one copy, and its server comes back with an empty disk. What does the stream's info say?",
    ("no such stream", "stream there, 0 messages, no error", "stream there, an error until it is repaired"),
)

# What a publish or a question meets while nobody leads.
NO_ANSWER = (TimeoutError, nats.errors.Error, nats.js.errors.Error)


async def _servers(room: Room, stream: str) -> list[str]:
    """Name the servers that hold a stream, the leader first."""
    return [copy.server for copy in placement(await room.info(stream)).replicas]


async def _led(room: Room, stream: str) -> dict[str, str | None]:
    """Name the leader of a stream and of each of its consumers; asked again while one is being elected."""
    found: list[replication.Group] = []

    async def led() -> bool:
        nonlocal found
        with contextlib.suppress(*NO_ANSWER):
            found = await replication.groups(room.lab.nc, stream=stream)
        return bool(found) and all(group.leader for group in found)

    await until(led, what=f"{stream} and its consumers to have leaders", timeout=30)
    return {group.name: group.leader for group in found}


@contextlib.asynccontextmanager
async def _traffic(room: Room, *subjects: str):
    """Publish to subjects, each by itself, while a block runs and until an ack has come after it.

    The block begins with an ack for each subject; what it is given counts them.
    """
    acks, over = dict.fromkeys(subjects, 0), False

    async def publish(subject: str) -> None:
        last = False
        while not last:
            ending = over
            with contextlib.suppress(*NO_ANSWER):
                await room.js.publish(subject, b"", timeout=1)
                acks[subject] += 1
                last = ending
            await asyncio.sleep(0.02)

    publishers = [asyncio.create_task(publish(subject)) for subject in subjects]
    try:
        await until(lambda: all(acks.values()), what=f"an ack on {', '.join(subjects)}", timeout=30)
        yield acks
        over = True
        await asyncio.wait(publishers, timeout=30)
    finally:
        for publisher in publishers:
            publisher.cancel()
        await asyncio.gather(*publishers, return_exceptions=True)


async def _lacking(room: Room, stream: str, last_seq: int) -> list[str]:
    """Ask every server for its own copy of a stream, and name those that do not have all of it."""
    names = [server.name for server in room.lab.deployment.servers()]
    whole = [await all_hold(room.lab.deployment, stream, [name], last_seq) for name in names]
    return [name for name, has in zip(names, whole, strict=True) if not has]


async def _note(room: Room, kind: str):
    """Return what a scenario has noted, None if it has not run."""
    text = await Notes(room.lab).text(kind, room.number)
    return json.loads(text) if text else None


# ---------------------------------------------------------------- 08.1

LEAVING, NEXT, STAYING = "nats-1", "nats-2", "nats-0"
# An election takes four seconds or more, a leader that hands over a fraction of one.
PATIENCE = 2.5

ramp = lesson.exercise(
    "08.1",
    "nats-1 needs maintenance",
    streams=("RAMP", "APRON"),
    hints=(
        "A leader that dies is missed before it is replaced; one that steps down hands over. And a stream is "
        "not the only thing that has a leader.",
        "await lab.leaders() has a row for each copy of each group: which groups does nats-1 lead?",
        "stream.step_down() hands over a stream, consumer.step_down() a consumer, each with to= to a server "
        "of your choice; lab.move_leaders_off(server) everything that a server leads, to whichever.",
    ),
)


@ramp.setup
async def a_ramp_and_an_apron(room: Room) -> None:
    ramp, _ = await asyncio.gather(
        room.lab.stream("RAMP", subjects=["ramp.>"], num_replicas=3),
        room.lab.stream("APRON", subjects=["apron.>"], num_replicas=3),
    )
    await ramp.consumer("billing")


async def _lead_all(room: Room) -> None:
    """Have nats-1 lead RAMP and its consumer, and the server that stays APRON."""
    await asyncio.gather(
        room.lead("RAMP", LEAVING),
        replication.step_down(room.lab.nc, "RAMP", "billing", to=LEAVING),
        room.lead("APRON", STAYING),
    )


@ramp.scenario
async def a_busy_ramp(room: Room):
    """Publish to RAMP, led by nats-1, and to APRON, led by another: it shows what this machine alone does."""
    await _lead_all(room)
    await room.lab.enter(STAYING)
    for name in ("RAMP", "APRON"):
        await room.js.purge_stream(name)
    async with _traffic(room, "ramp.JFK", "apron.JFK"):
        yield
    await room.lab.ready()


@ramp.check
async def check_ramp(room: Room) -> str:
    info = await room.info("RAMP")
    leaders = await _led(room, "RAMP")
    left = [name for name, leader in leaders.items() if leader == LEAVING]
    pause, usual = await _pause(room, "RAMP"), await _pause(room, "APRON")
    if not pause:
        raise Wrong("blank", "Nobody has published to RAMP yet: the scenario has not run.")
    if pause > max(PATIENCE, 2 * usual):
        raise Wrong(
            "waited",
            f"RAMP took no message for {pause:.1f} s: its followers had to miss nats-1 first, and then to "
            "vote. That is an election you could have asked for; a leader that steps down names the next at "
            "once.",
        )
    if "RAMP/billing" not in leaders:
        raise Wrong(
            "reader-gone",
            "RAMP has no consumer billing any more, and with it went its place in the stream: the next one "
            "of that name bills everything again.",
        )
    if len(left) == 2:
        raise Wrong(
            "still-leads",
            "nats-1 still leads both RAMP and its consumer billing: when it goes, publishers and readers "
            "wait for an election each.",
        )
    if info.config.num_replicas < 3:
        raise Wrong(
            "fewer-copies",
            f"RAMP has {info.config.num_replicas} of three copies left. Maintenance is a day on which "
            "another server may die as well: hand the lead over and leave the copies where they are.",
        )
    if left == ["RAMP/billing"]:
        raise Wrong(
            "consumer-left",
            f"{leaders['RAMP']} leads RAMP now, and nats-1 still leads its consumer billing: that is a raft "
            "group of its own. When nats-1 goes, publishing goes on, and billing gets nothing until its own "
            "election.",
        )
    if left:
        raise Wrong(
            "stream-left",
            f"{leaders['RAMP/billing']} leads the consumer billing now, and nats-1 still leads RAMP itself: "
            "when it goes, every publisher waits for an election.",
        )
    if again := [name for name, leader in leaders.items() if leader == NEXT]:
        raise Wrong(
            "moves-again",
            f"nats-1 may go. But nats-2 leads {' and '.join(again)} now, and goes next: there will be a "
            "second handover for everybody who writes or reads there. When you leave the choice to the "
            "server, it takes any follower that has everything; you know the plan, so name one: "
            "step_down(to=…).",
        )
    return (
        f"{leaders['RAMP']} leads RAMP, {leaders['RAMP/billing']} its consumer; the longest time without a "
        f"message was {pause:.2f} s (on APRON, which stayed where it was, {usual:.2f} s)."
    )


async def _pause(room: Room, stream: str) -> float:
    """Return the longest time between two messages of a stream in seconds, 0 if there are none."""
    times = [message.time for message in await room.messages(stream)]
    return max(((late - early).total_seconds() for early, late in pairwise(times)), default=0.0)


@ramp.solution
async def solve_ramp(lab):
    ramp = await lab.stream("RAMP")
    billing = await ramp.consumer("billing")
    async with lab.scenario("08.1"):
        # lab.move_leaders_off("nats-1") moves both, and may move them to nats-2, which goes next.
        print(await ramp.step_down(to="nats-0"), "leads RAMP")
        print(await billing.step_down(to="nats-0"), "leads billing")


@ramp.wrong("waited")
async def kill_it(lab):
    async with lab.scenario("08.1"):
        await lab.faults.crash("nats-1")


@ramp.wrong("reader-gone")
async def without_the_reader(lab):
    async with lab.scenario("08.1"):
        await (await lab.stream("RAMP")).step_down()
        await lab.js.delete_consumer("RAMP", "billing")


@ramp.wrong("still-leads")
async def nothing_at_all(lab):
    async with lab.scenario("08.1"):
        await lab.leaders()


@ramp.wrong("fewer-copies")
async def one_copy_elsewhere(lab):
    ramp = await lab.stream("RAMP")
    async with lab.scenario("08.1"):
        await ramp.step_down()
        await ramp.scale(1)


@ramp.wrong("consumer-left")
async def the_stream_only(lab):
    async with lab.scenario("08.1"):
        await (await lab.stream("RAMP")).step_down()


@ramp.wrong("moves-again")
async def to_the_one_that_goes_next(lab):
    ramp = await lab.stream("RAMP")
    billing = await ramp.consumer("billing")
    async with lab.scenario("08.1"):
        await ramp.step_down(to="nats-2")
        await billing.step_down(to="nats-0")


@ramp.wrong("stream-left")
async def the_consumer_only(lab):
    ramp = await lab.stream("RAMP")
    async with lab.scenario("08.1"):
        await (await ramp.consumer("billing")).step_down()


# ---------------------------------------------------------------- 08.2

COPIES = 5
ENTRIES = 200
TRIES = (1.0, 1.0, 1.5)

night = lesson.exercise(
    "08.2",
    "Five copies for three streams",
    streams=("RECORD", "BOARD", "CLICKS"),
    hints=(
        "Which of the three can be made again from another, and which could nobody bring back?",
        "A write needs a majority of the copies: one of one, two of two, two of three. How many may be away?",
        "Two copies survive a disk and stop at the first server that is away. Three survive both.",
    ),
)


@night.setup
async def three_single_copies(room: Room) -> None:
    await Notes(room.lab).forget("night", room.number)
    await asyncio.gather(*(_single(room, name) for name in night.streams))


async def _single(room: Room, name: str) -> None:
    stream = await room.lab.stream(name, subjects=[f"{name.lower()}.>"])
    await stream.publish_many([b"%d" % n for n in range(ENTRIES)], subject=f"{name.lower()}.JFK")


@night.scenario
async def a_disk_is_replaced(room: Room):
    """When the block ends, a server with a copy of RECORD freezes, and comes back with an empty disk."""
    yield
    lab = room.lab
    # First of all, since copies that nobody has waited for come within a second.
    lacking = await _lacking(room, "RECORD", ENTRIES)
    copies = await _copies(room)
    servers = await _servers(room, "RECORD")
    meta = await lab.meta_leader()
    # A follower, and if there is one, one that does not lead the meta group: what follows is quicker then.
    victim = min(servers, key=lambda name: (name == servers[0], name == meta))
    await lab.enter(next(server.name for server in lab.deployment.servers() if server.name != victim))
    await replication.move_leaders_off(lab.nc, victim)
    await lab.faults.pause(victim)
    try:
        acked = victim != servers[0] and await _acked(room, "record.night")
    finally:
        await lab.faults.wipe(victim)
        await lab.faults.resume(victim)
    await lab.ready()
    if victim != servers[0]:
        copied = lab.deployment, "RECORD", [victim], (await room.info("RECORD")).state.last_seq
        await until(lambda: all_hold(*copied), what=f"{victim} to have RECORD again", timeout=30)
    found = {"copies": copies, "server": victim, "acked": acked, "lacking": lacking}
    await Notes(lab).write("night", room.number, json.dumps(found))


async def _copies(room: Room) -> dict[str, int]:
    """Count the copies that the configuration of each stream asks for."""
    return {name: (await room.info(name)).config.num_replicas for name in night.streams}


async def _acked(room: Room, subject: str) -> bool:
    """Publish one message; tell whether it was acknowledged."""
    for timeout in TRIES:
        with contextlib.suppress(*NO_ANSWER):
            await room.js.publish(subject, b"", timeout=timeout, headers={"Nats-Msg-Id": subject})
            return True
    return False


@night.check
async def check_night(room: Room) -> str:
    copies, seen = await _copies(room), await _note(room, "night")
    if sum(copies.values()) > COPIES:
        raise Wrong(
            "over-budget",
            f"{_listed(copies)}: {sum(copies.values())} copies on disks that have room for {COPIES}. Which "
            "of the three could be made again if it were lost?",
        )
    if seen is None and copies["RECORD"] == 1:
        raise Wrong("blank", f"{_listed(copies)}, as it was, and the night is still to come.")
    if seen is None or seen["copies"] != copies:
        raise Wrong(
            "calm",
            f"{_listed(copies)}, and no disk was replaced since you chose that. Put your code into async "
            'with lab.scenario("08.2"), and see what the night leaves.',
        )
    record, entries = (await room.info("RECORD")).state.messages, ENTRIES + seen["acked"]
    if copies["RECORD"] == 3 and seen["lacking"]:
        raise Wrong(
            "not-there",
            "RECORD is configured for three copies, but they were not there when your block ended and "
            f"{seen['server']} froze: {' and '.join(seen['lacking'])} did not have the record yet. The write "
            f"meanwhile was {'' if seen['acked'] else 'not '}acknowledged, and {record} of {entries} entries "
            "are left. update_stream answers before the copying; wait for the copies, which stream.scale(3) "
            "does.",
        )
    if record < entries:
        raise Wrong(
            "lost",
            f"RECORD has {record} of {entries} entries, and no error tells of the rest: {seen['server']} got "
            f"an empty disk, and RECORD had {copies['RECORD']} of your {sum(copies.values())} copies. "
            "Passengers and the authorities ask for the record; a board is drawn again from it. "
            'await lab.reset("08.2") begins anew.',
        )
    if not seen["acked"]:
        raise Wrong(
            "no-quorum",
            f"{_listed(copies)}. Nothing is lost, and while {seen['server']} was away nothing could be "
            "written either: a majority of two is two, so either server stops RECORD. Two copies are twice "
            "as likely to stop as one.",
        )
    others = {name: (await room.info(name)).state.messages for name in ("BOARD", "CLICKS")}
    left = ", ".join(f"{name} {held}" for name, held in others.items())
    return (
        f"{_listed(copies)}. {seen['server']} was away and got an empty disk: RECORD took its write "
        f"meanwhile and has all {record} entries, on every server again. Of {ENTRIES} each, {left} are left."
    )


def _listed(copies: dict[str, int]) -> str:
    return ", ".join(f"{name} R{count}" for name, count in copies.items())


@night.solution
async def solve_night(lab):
    async with lab.scenario("08.2"):
        # The board can be drawn again from the record, clicks can be missed: one copy each is left for them.
        await (await lab.stream("RECORD")).scale(3)


@night.wrong("over-budget")
async def three_for_two_of_them(lab):
    for name in ("RECORD", "BOARD"):
        await (await lab.stream(name)).scale(3)


@night.wrong("calm")
async def and_go_home(lab):
    await (await lab.stream("RECORD")).scale(3)


@night.wrong("not-there")
async def three_without_waiting(lab):
    record = await lab.stream("RECORD")
    async with lab.scenario("08.2"):
        await lab.js.update_stream(record.config, num_replicas=3)


@night.wrong("lost")
async def two_copies_for_what_is_read_most(lab):
    async with lab.scenario("08.2"):
        for name in ("BOARD", "CLICKS"):
            await (await lab.stream(name)).scale(2)


@night.wrong("no-quorum")
async def two_two_one(lab):
    async with lab.scenario("08.2"):
        for name in ("RECORD", "BOARD"):
            await (await lab.stream(name)).scale(2)


# ---------------------------------------------------------------- 08.3

FLIGHTS = 6_099
SLOW = 1.5

week = lesson.exercise(
    "08.3",
    "From one copy to three, and when to say so",
    streams=("WEEK",),
    hints=(
        "update_stream answers when it is decided that there shall be three copies. Then the copying begins.",
        "The leader tells how far its followers are: await stream.placement(), or await lab.leaders(). Its "
        "word may come too early: ready is when each server itself has the messages.",
        "await stream.scale(3) asks the leader and then each server, and returns when all have them.",
    ),
)


def _flights():
    return (flight for day in range(1, 8) for flight in departures.day(1, day))


@week.setup
async def a_week_in_one_copy(room: Room) -> None:
    await Notes(room.lab).forget("word", room.number)
    stream = await room.lab.stream("WEEK", subjects=["week.>"])
    await stream.publish_many(_flights(), subject=lambda f: f"week.{f.origin}", data=lambda f: f.payload)


@week.scenario
async def one_server_is_slow(room: Room):
    """Publish to WEEK, and keep one server frozen until some time after its copies are asked for.

    A frozen server makes sure that the copies are not there when the configuration is. At the word "ready"
    it is written down what the leader says of the copies.
    """
    lab, notes = room.lab, Notes(room.lab)
    home, meta = (await room.info("WEEK")).cluster.leader, await lab.meta_leader()
    slow = next(server.name for server in lab.deployment.servers() if server.name not in (home, meta))
    for kind in ("answer", "thaw", "word"):
        await notes.forget(kind, room.number)
    await lab.enter(home)
    await replication.move_leaders_off(lab.nc, slow)
    looks: list[asyncio.Task[list[str]]] = []

    async def on_answer(_) -> None:
        looks.append(asyncio.create_task(_lacking(room, "WEEK", FLIGHTS)))

    async def thaw() -> None:
        await until(lambda: _grows(room), what="WEEK to be given copies", timeout=600)
        await asyncio.sleep(SLOW)
        await notes.write("thaw", room.number, slow)
        await lab.faults.resume(slow)

    ear = await lab.nc.subscribe(f"jslab.answer.{room.number}", cb=on_answer)
    await lab.faults.pause(slow)
    thawing = asyncio.create_task(thaw())
    try:
        async with _traffic(room, "week.live") as acks:
            yield
    finally:
        thawing.cancel()
        await asyncio.gather(thawing, return_exceptions=True)
        await ear.unsubscribe()
        await lab.faults.heal()
    lacking = set((await asyncio.gather(*looks))[-1]) if looks else set()
    said, thawed = await notes.read("answer", room.number), await notes.read("thaw", room.number)
    if said and (not thawed or said[1] < thawed[1]):
        lacking.add(slow)
    found = {"acked": acks["week.live"], "said": bool(looks), "lacking": sorted(lacking)}
    await notes.write("word", room.number, json.dumps(found))


async def _grows(room: Room) -> bool:
    with contextlib.suppress(*NO_ANSWER):
        return ((await room.js.stream_info("WEEK")).config.num_replicas or 1) > 1
    return False


@week.check
async def check_week(room: Room) -> str:
    info = await room.info("WEEK")
    replicas, seen = info.config.num_replicas, await _note(room, "word")
    wanted = FLIGHTS + (seen["acked"] if seen else 0)
    if info.state.messages < wanted:
        raise Wrong(
            "history",
            f"WEEK was created at {info.created:%H:%M:%S} UTC, has {replicas} copies, and "
            f"{info.state.messages:,} of {wanted:,} messages. The rest went with the old one, and so would "
            "every consumer's place in it.",
        )
    if replicas == 1 and not (seen and seen["said"]):
        raise Wrong("blank", f"WEEK has one copy of its {info.state.messages:,} messages.")
    if not (seen and seen["said"]):
        raise Wrong(
            "not-said",
            f"WEEK has {replicas} copies, and nobody said so while it was in use. Whoever waits to take a "
            'server away needs a word: in the scenario, await lab.answer("08.3", "ready").',
        )
    if seen["lacking"]:
        raise Wrong(
            "too-early",
            f"When you said ready, {' and '.join(seen['lacking'])} did not have the whole week. "
            "update_stream answers once it is *decided* that there shall be copies; then the copying begins. "
            "The leader's word alone comes too early, too: it may call a copy current that is still empty. "
            "Ask each server, as stream.scale does. A server that goes now may take the only whole copy with "
            "it.",
        )
    return (
        f"When you said ready, each of the three servers had all {FLIGHTS:,} flights; and the "
        f"{seen['acked']:,} messages that were acknowledged meanwhile are there, too."
    )


@week.solution
async def solve_week(lab):
    week = await lab.stream("WEEK")
    async with lab.scenario("08.3"):
        await week.scale(3)
        await lab.answer("08.3", "ready")


@week.wrong("history")
async def make_it_anew(lab):
    async with lab.scenario("08.3"):
        await lab.js.delete_stream("WEEK")
        # The frozen server may be its first leader: then the answer takes an election.
        with contextlib.suppress(nats.errors.TimeoutError):
            await lab.js.add_stream(name="WEEK", subjects=["week.>"], num_replicas=3)
        await lab.answer("08.3", "ready")


@week.wrong("not-said")
async def in_silence(lab):
    await lab.js.update_stream((await lab.stream("WEEK")).config, num_replicas=3)


@week.wrong("too-early")
async def as_soon_as_it_is_decided(lab):
    week = await lab.stream("WEEK")
    async with lab.scenario("08.3"):
        with contextlib.suppress(nats.errors.TimeoutError):
            await lab.js.update_stream(week.config, num_replicas=3)
        await lab.answer("08.3", "ready")


# ---------------------------------------------------------------- 08.4

closing = lesson.exercise(
    "08.4",
    "One server may go",
    streams=("TICKETS", "LOUNGE", "PARKING"),
    hints=(
        "Who leads can be changed in a moment. Who holds copies cannot.",
        "await lab.leaders() has a row for each copy. Of each of the three streams, count the copies that "
        "are left without nats-0, then without nats-1, then without nats-2: are they still a majority?",
    ),
)


@closing.setup
async def three_streams_on_three_servers(room: Room) -> None:
    """Leave one server that may go, and have it lead most; another leads nothing and is needed."""
    await Notes(room.lab).forget("gone", room.number)
    lounge, tickets, parking = await asyncio.gather(
        room.lab.stream("LOUNGE", subjects=["lounge.>"], num_replicas=2),
        room.lab.stream("TICKETS", subjects=["tickets.>"], num_replicas=3),
        room.lab.stream("PARKING", subjects=["parking.>"], num_replicas=3),
    )
    (leader, quiet), seats = await asyncio.gather(_servers(room, "LOUNGE"), tickets.consumer("seats"))
    busy = next(s.name for s in room.lab.deployment.servers() if s.name not in (leader, quiet))
    await asyncio.gather(
        lounge.step_down(to=leader),
        tickets.step_down(to=busy),
        seats.step_down(to=busy),
        parking.step_down(to=leader),
    )
    await parking.scale(1)


@closing.scenario
async def the_named_server_goes(room: Room):
    """When the block ends, freeze the server that was named, and write to all three streams."""
    lab, notes = room.lab, Notes(room.lab)
    await notes.forget("answer", room.number)
    yield
    named, names = await room.answer(), [server.name for server in lab.deployment.servers()]
    if named not in names:
        return
    await lab.enter(next(name for name in names if name != named))
    await replication.move_leaders_off(lab.nc, named)
    await lab.faults.pause(named)
    try:
        acked = await asyncio.gather(*(_acked(room, f"{name.lower()}.JFK") for name in closing.streams))
    finally:
        await lab.faults.heal()
    found = {"server": named, "silent": [n for n, ack in zip(closing.streams, acked, strict=True) if not ack]}
    await notes.write("gone", room.number, json.dumps(found))


@closing.check
async def check_closing(room: Room) -> str:
    held = {name: await _servers(room, name) for name in closing.streams}
    said, seen = await room.answer(), await _note(room, "gone")
    if not said:
        raise Wrong("blank", "No server is named yet.")
    if not any(said in servers for servers in held.values()):
        raise Wrong("no-such-server", f"No server called {said!r} holds a copy of any of the three.")
    if seen is None or seen["server"] != said:
        raise Wrong(
            "calm",
            f"{said} is named, and still there: a name is only tried when it is given in the scenario.",
        )
    where = "; ".join(f"{name} is on {', '.join(held[name])}" for name in seen["silent"] or held)
    if seen["silent"]:
        raise Wrong(
            "stopped",
            f"{said} went, its leaders were handed over before, and nobody could write to "
            f"{' and '.join(seen['silent'])}: {where}. What is left is no majority of that. Whether a server "
            "leads says nothing about whether it is needed.",
        )
    return f"{said} went, and all three went on: {where}. Without it each still has a majority."


@closing.solution
async def solve_closing(lab):
    async with lab.scenario("08.4"):
        leaders = await lab.leaders()
        copies = leaders[leaders.group.isin(["TICKETS", "LOUNGE", "PARKING"])]
        for server in sorted(set(copies.server)):
            left = copies[copies.server != server].groupby("group").size()
            enough = left.reindex(copies.group.unique(), fill_value=0) > copies.groupby("group").size() / 2
            if enough.all():
                await lab.answer("08.4", server)


@closing.wrong("no-such-server")
async def a_server_from_elsewhere(lab):
    async with lab.scenario("08.4"):
        await lab.answer("08.4", "nats-7")


@closing.wrong("calm")
async def without_trying(lab):
    async with lab.scenario("08.4"):
        pass
    await lab.answer("08.4", "nats-0")


@closing.wrong("stopped")
async def the_one_that_leads_nothing(lab):
    async with lab.scenario("08.4"):
        quiet = (await (await lab.stream("LOUNGE")).placement()).replicas[1]
        await lab.answer("08.4", quiet.server)
