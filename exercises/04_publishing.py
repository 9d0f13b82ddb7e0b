"""Lesson 04: what an acknowledged publish is, and what to do about one that is not."""

import asyncio
from itertools import pairwise

from jslab import departures
from jslab.departures import flight_of
from jslab.exercises import Lesson, Room, Wrong
from jslab.exercises.notes import Notes
from jslab.waiting import until

lesson = Lesson("04", "Publishing", streams=("FLIGHTS", "LEDGER", "TINY"))

lesson.prediction(
    "04.1",
    "Both followers are frozen, two publishes time out. How many of the two are stored after the thaw?",
    ("none", "one", "both, late"),
)

MSG_ID = "Nats-Msg-Id"


# ---------------------------------------------------------------- 04.1

# How many of the year's flights repeat an earlier one in these fields; to count them takes a second.
YEAR_REPEATS = {
    ("date", "carrier", "flight"): 24,
    ("date", "carrier", "flight", "origin"): 0,
    ("date", "carrier", "flight", "dest"): 0,
    ("event_time", "carrier", "flight"): 0,
}

archive = lesson.exercise(
    "04.1",
    "A Msg-Id for January",
    streams=("ARCHIVE",),
    witness=("archive.>",),
    hints=(
        "Two sendings of one flight must have the same id, and two flights must never share one. Which "
        "fields of a flight tell it from every other flight of January?",
        "departures.frame(1) has a row for each flight; its .duplicated([…]) marks the rows that repeat "
        "an earlier one in the columns you name.",
    ),
)


@archive.setup
async def an_archive(room: Room) -> None:
    await room.lab.stream("ARCHIVE", subjects=["archive.>"], num_replicas=3)


@archive.check
async def check_archive(room: Room) -> str:
    info = await room.info("ARCHIVE")
    stored, window = info.state.messages, info.config.duplicate_window
    january = {flight.id: flight for flight in departures.month(1)}
    ids: dict[str, list[str]] = {flight: [] for flight in january}
    for seen in room.witness.messages:
        ids.setdefault(flight_of(seen.data), []).append(seen.headers.get(MSG_ID, ""))
    sent = [flight for flight in january if ids[flight]]
    if not sent:
        raise Wrong("blank", "None of January's flights has been sent to ARCHIVE with its payload yet.")
    told = f"{stored:,} stored for {len(sent):,} flights"
    if any("" in ids[flight] for flight in sent):
        raise Wrong(
            "no-id",
            f"{told}: messages without Nats-Msg-Id are never compared. Every retry after a lost ack is a "
            "second flight on somebody's bill.",
        )
    holders: dict[str, list[str]] = {}
    for flight in sent:
        for msg_id in set(ids[flight]):
            holders.setdefault(msg_id, []).append(flight)
    shared = {msg_id: flights for msg_id, flights in holders.items() if len(flights) > 1}
    if shared:
        msg_id, flights = next(iter(shared.items()))
        named = " and ".join(_describe(january[flight]) for flight in flights[:2])
        raise Wrong(
            "shared-id",
            f"{told}: {sum(len(f) - 1 for f in shared.values()):,} different flights were taken for "
            "repetitions and thrown away, and every one of them was acknowledged. Two that share the id "
            f"{msg_id!r}: {named}.",
        )
    if any(len(ids[flight]) < 2 for flight in sent):
        raise Wrong(
            "sent-once",
            f"{told}, and not everything was sent twice: an id shows its worth only at the second sending. "
            "Send January again, with the same ids.",
        )
    if len(holders) > len(sent):
        raise Wrong(
            "fresh-id",
            f"{told}: a flight got another id at each sending, and a fresh id on the retry identifies "
            "nothing. Make the id of what the flight is, not of when or how often you send it. (Ids of an "
            'earlier try count too: await lab.reset("04.1").)',
        )
    if stored > len(sent):
        raise Wrong(
            "window",
            f"{told}, though the ids are right: more than the duplicate window of {window:g} s lay between "
            "the sendings, and the server had forgotten. A loader that resumes after lunch doubles "
            "everything.",
        )
    if stored < len(sent):
        raise Wrong(
            "removed",
            f"{told}: messages were removed after the first sending, and their ids were not. Within the "
            "window the stream acknowledges them as duplicates and keeps nothing.",
        )
    if len(sent) < len(january):
        raise Wrong(
            "not-all",
            f"{told}, sent twice: right so far. January has {len(january):,}; ids that differ within a day "
            "may meet within a month. Send all of departures.month(1).",
        )
    length = sum(map(len, holders)) / len(holders)
    return (
        f"{len(january):,} flights sent twice, {stored:,} stored. Your ids have {length:.1f} characters on "
        "average. Would they last the year? Date, carrier and flight number alone would take "
        f"{YEAR_REPEATS['date', 'carrier', 'flight']} of its flights for repetitions; with the origin, or "
        "the destination, or with the whole event_time for the date, none."
    )


def _describe(flight: departures.Departure) -> str:
    when = f"{flight.event_time:%d %B %H:%M}"
    return f"{flight.carrier} {flight.flight} {flight.origin}-{flight.dest} on {when}"


@archive.solution
async def solve_archive(lab):
    from jslab import departures

    archive = await lab.stream("ARCHIVE")
    for _ in range(2):
        report = await archive.publish_many(
            departures.month(1),
            subject=lambda flight: "archive." + flight.subject,
            data=lambda flight: flight.payload,
            # January would do without the origin; over the year, 24 flights would be lost.
            msg_id=lambda f: f"{f.event_time:%m-%d}-{f.carrier}-{f.flight}-{f.origin}",
        )
        print(report)


async def send(lab, flights, msg_id):
    """Send flights to ARCHIVE, with an id or without."""
    archive = await lab.stream("ARCHIVE")
    await archive.publish_many(
        flights,
        subject=lambda flight: "archive." + flight.subject,
        data=lambda flight: flight.payload,
        msg_id=msg_id,
    )


@archive.wrong("no-id")
async def without_an_id(lab):
    for _ in range(2):
        await send(lab, departures.day(1, 1), None)


@archive.wrong("shared-id")
async def id_without_the_carrier(lab):
    await send(lab, departures.month(1), lambda flight: f"{flight.event_time:%m-%d}-{flight.flight}")


@archive.wrong("sent-once")
async def only_once(lab):
    await send(lab, departures.day(1, 1), lambda flight: flight.id)


@archive.wrong("fresh-id")
async def an_id_for_each_attempt(lab):
    import uuid

    for _ in range(2):
        await send(lab, departures.day(1, 1), lambda flight: uuid.uuid4().hex)


@archive.wrong("window")
async def a_window_that_is_too_short(lab):
    await lab.js.update_stream(name="ARCHIVE", subjects=["archive.>"], num_replicas=3, duplicate_window=0.1)
    for _ in range(2):
        await send(lab, departures.day(1, 1), lambda flight: flight.id)
        await asyncio.sleep(1)


@archive.wrong("removed")
async def purged_in_between(lab):
    await send(lab, departures.day(1, 1), lambda flight: flight.id)
    await lab.js.purge_stream("ARCHIVE")
    await send(lab, departures.day(1, 1), lambda flight: flight.id)


@archive.wrong("not-all")
async def one_day_only(lab):
    for _ in range(2):
        await send(lab, departures.day(1, 1), lambda flight: flight.id)


# ---------------------------------------------------------------- 04.2

FIRST_SILENCE, SECOND_SILENCE = 200, 600
DOOR_FROZEN, FOLLOWERS_FROZEN = 0.8, 1.5

feed = lesson.exercise(
    "04.2",
    "Two silences",
    streams=("FEED",),
    hints=(
        "You cannot know whether a publish that timed out was stored. So ask again, and ask in a way that "
        "is harmless when it was.",
        "With the same Nats-Msg-Id a retry is stored at most once. While the first attempt hangs, the "
        "retry is answered by an APIError with err_code 10158: that id is being worked on, ask again.",
        'publish_many does all of that when it is given msg_id=…, and it takes "flights" as it is.',
    ),
)


@feed.setup
async def a_feed(room: Room) -> None:
    await Notes(room.lab).forget("handed", room.number)
    await room.lab.stream("FEED", subjects=["feed.>"], num_replicas=3)


@feed.scenario
async def two_silences(room: Room):
    """Hand out 1 January, and while it is published go silent twice.

    First the server that the lab enters by freezes and then dies: what it was sent meanwhile is lost. Then
    both followers freeze and thaw: what was published meanwhile is stored late. At the end it notes how many
    flights were asked for, since FEED alone cannot tell one that was lost from one that was never sent.
    """
    lab = room.lab
    handed = 0
    leader = await lab.meta_leader()
    door, other = (server.name for server in lab.deployment.servers() if server.name != leader)
    await room.lead("FEED", leader)
    # A client walks down its list of servers: next after the door comes the one entered before it.
    await lab.enter(leader)
    await lab.enter(door)
    silences: list[asyncio.Task[None]] = []

    async def door_dies() -> None:
        await asyncio.sleep(DOOR_FROZEN)
        await lab.faults.crash(door)
        await lab.ready()

    async def followers_thaw() -> None:
        await asyncio.sleep(FOLLOWERS_FROZEN)
        await lab.faults.resume()

    async def flights():
        nonlocal handed
        for position, flight in enumerate(departures.day(1, 1)):
            if position == FIRST_SILENCE:
                await lab.faults.pause(door)
                silences.append(asyncio.create_task(door_dies()))
            elif position == SECOND_SILENCE:
                await silences[0]
                await lab.faults.pause(door, other)
                silences.append(asyncio.create_task(followers_thaw()))
            handed = position + 1
            yield flight

    try:
        yield flights()
    finally:
        for silence in silences:
            silence.cancel()
        await asyncio.gather(*silences, return_exceptions=True)
        await lab.faults.heal()
        await Notes(lab).write("handed", room.number, str(handed))


@feed.check
async def check_feed(room: Room) -> str:
    await room.info("FEED")
    messages = await room.messages("FEED")
    if not messages:
        raise Wrong("blank", "FEED is empty: nothing was published in the scenario.")
    handed = await Notes(room.lab).text("handed", room.number)
    if handed is None:
        raise Wrong(
            "calm",
            f"{len(messages)} messages in FEED, all of them sent in calm weather: the scenario has not run. "
            'Publish the flights that it hands out: async with lab.scenario("04.2") as flights.',
        )
    day = [flight.id for flight in departures.day(1, 1)]
    count = dict.fromkeys(day, 0)
    for message in messages:
        count[flight_of(message.data)] = count.get(flight_of(message.data), 0) + 1
    missing = [flight for flight in day if count[flight] == 0]
    if missing and int(handed) < len(day):
        raise Wrong(
            "ended",
            f"Your loop ended at flight {handed} of {len(day)}; the rest was never sent. One answer that "
            "nobody expected, and a whole feed stops. Was it an APIError with err_code 10158? That is the "
            "answer to a retry while the first attempt still hangs: neither yes nor no, so ask again.",
        )
    if missing:
        raise Wrong(
            "missing",
            f"{len(missing)} of {len(day)} flights never reached FEED, {missing[0]} first. Their publishes "
            "ended without an ack, and the server they went to died with them. Other publishes ended just "
            "so, and are stored: a timeout is not a no, it is unknown. Ask again until you hold an ack.",
        )
    twice = [flight for flight in day if count[flight] > 1]
    if twice:
        raise Wrong(
            "twice",
            f"No flight is missing, and {twice[0]} is in FEED {count[twice[0]]} times: its publish "
            "timed out, you sent it again, and then the frozen followers thawed and stored every attempt. A "
            "retry must carry something by which the stream knows it again.",
        )
    pause = max((late.time - early.time).total_seconds() for early, late in pairwise(messages))
    if pause < 1:
        raise Wrong(
            "calm",
            f"Every flight once, but in calm weather: the longest pause between two was {pause:.2f} s. "
            "Publish each flight when the scenario hands it out, not all of them afterwards.",
        )
    return f"{len(day)} flights, each exactly once, through a silence of {pause:.1f} s."


@feed.solution
async def solve_feed(lab):
    feed = await lab.stream("FEED")
    async with lab.scenario("04.2") as flights:
        # With an id, publish_many asks again after a timeout, a lost connection, and a "not yet" (10158).
        report = await feed.publish_many(
            flights,
            subject=lambda flight: "feed." + flight.subject,
            data=lambda flight: flight.payload,
            msg_id=lambda flight: flight.id,
            ack_timeout=0.5,
        )
    print(report)


@feed.wrong("ended")
async def not_prepared_for_a_timeout(lab):
    try:
        async with lab.scenario("04.2") as flights:
            async for flight in flights:
                await lab.js.publish("feed." + flight.subject, flight.payload, timeout=0.5)
    except TimeoutError as err:
        print(repr(err))


@feed.wrong("missing")
async def without_a_retry(lab):
    async with lab.scenario("04.2") as flights:
        async for flight in flights:
            try:
                await lab.js.publish("feed." + flight.subject, flight.payload, timeout=0.5)
            except TimeoutError:
                print("given up:", flight.id)


@feed.wrong("twice")
async def retry_without_an_id(lab):
    import nats.js.errors

    async with lab.scenario("04.2") as flights:
        async for flight in flights:
            acked = False
            while not acked:
                try:
                    await lab.js.publish("feed." + flight.subject, flight.payload, timeout=0.5)
                    acked = True
                except (TimeoutError, nats.js.errors.NoStreamResponseError):
                    print("again:", flight.id)


@feed.wrong("calm")
async def outside_of_the_scenario(lab):
    from jslab import departures

    for flight in departures.day(1, 1):
        await lab.js.publish("feed." + flight.subject, flight.payload)


@feed.wrong("calm")
async def after_the_scenario(lab):
    async with lab.scenario("04.2") as flights:
        collected = [flight async for flight in flights]
    for flight in collected:
        await lab.js.publish("feed." + flight.subject, flight.payload)


# ---------------------------------------------------------------- 04.3

ROOM_FOR = 20_000
FASTER = 3
STRETCH, PACE, PACE_STRETCH = 4_000, 1_200, 100

intake = lesson.exercise(
    "04.3",
    "Refused, by name",
    streams=("INTAKE", "REFUSED"),
    hints=(
        "One publish after the other waits a round trip for each flight. Keep many of them waiting for "
        "their acks at once, and look at every one of the answers.",
        "A full stream answers err_code 10077. publish_many lists such records in report.refused, each with "
        "its position in what you sent, and with its msg_id when it was given one.",
    ),
)


@intake.setup
async def an_intake_with_a_limit(room: Room) -> None:
    limits = {"max_msgs": ROOM_FOR, "discard": "new"}
    await room.lab.stream("INTAKE", subjects=["intake.>"], num_replicas=3, **limits)
    await room.lab.stream("REFUSED", subjects=["refused.>"], num_replicas=3)


@intake.check
async def check_intake(room: Room) -> str:
    info = await room.info("INTAKE")
    if not info.state.messages:
        raise Wrong("blank", "INTAKE is empty: publish January to it.")
    if info.config.max_msgs != ROOM_FOR or info.config.discard != "new":
        raise Wrong(
            "limit-moved",
            f"INTAKE's limit is {info.config.max_msgs:,} with discard {info.config.discard} now. It was the "
            "receiver's word on how much it can take; a sender that moves the limit moves the flood.",
        )
    if info.state.messages < ROOM_FOR:
        raise Wrong(
            "not-all",
            f"INTAKE holds {info.state.messages:,} and has room for {ROOM_FOR:,}: it has not refused "
            "anything yet. Send all of departures.month(1).",
        )
    messages = await room.messages("INTAKE")
    stored = {flight_of(message.data) for message in messages}
    named = {flight_of(message.data) for message in await room.messages("REFUSED")}
    if named & stored:
        raise Wrong(
            "not-refused",
            f"{len(named & stored):,} of the {len(named):,} flights you name are in INTAKE, "
            f"{min(named & stored)} among them. Only the server's answer refuses: a timeout, or an order "
            "of sending, is a guess. Whoever sends these again stores them twice.",
        )
    refused = {flight.id for flight in departures.month(1)} - stored
    counts = f"{len(named & refused):,} of the {len(refused):,} flights that INTAKE refused are named"
    if not named:
        raise Wrong(
            "not-named",
            f"{counts}: REFUSED is empty. An answer that nobody looks at tells nobody, and in nats-py 2.16 a "
            "future of publish_async never learns of a refusal. 10077 arrives as ServiceUnavailableError, "
            "code 503: the stream is full, not down, and no retry makes room.",
        )
    if named - refused:
        raise Wrong(
            "no-flight",
            f"{counts}. REFUSED also has {min(named - refused)[:40]!r}, which is no flight of January: "
            "whoever has to send it later cannot find it. Each payload is one flight's id, such as "
            f"{min(refused)}.",
        )
    if refused - named:
        raise Wrong(
            "not-all-named",
            f"{counts}; {min(refused - named)} is one that is not. Whoever sends the named ones again later "
            "will not send that one. A report shows the first few records, its list holds all of them.",
        )
    rate = _best([message.time.timestamp() for message in messages], STRETCH)
    one_by_one = await _one_by_one(room)
    if rate < FASTER * one_by_one:
        raise Wrong(
            "slow",
            f"All named, at {rate:,.0f} flights a second. One by one this cluster takes {one_by_one:,.0f}: "
            f"you are {rate / one_by_one:.1f} times as fast, of {FASTER} asked. A year of flights is "
            f"{336_776 / rate / 60:.1f} minutes at your rate. Keep more of them waiting at once.",
        )
    return (
        f"{len(refused):,} refused, all named, at {rate:,.0f} flights a second: "
        f"{rate / one_by_one:.0f} times the {one_by_one:,.0f} of one by one."
    )


def _best(times: list[float], stretch: int) -> float:
    """Return the highest rate over so many messages in a row.

    What else runs on the machine slows a flood more than it slows single round trips, so the best stretch
    of both is compared.
    """
    starts = range(0, len(times) - stretch, stretch // 4)
    return max(stretch / (times[start + stretch] - times[start]) for start in starts)


async def _one_by_one(room: Room) -> float:
    """Publish some flights one after the other to a stream like INTAKE, and return the rate."""
    payload = next(departures.day(1, 1)).payload
    clock = asyncio.get_running_loop().time
    await room.lab.stream("CHK_PACE", subjects=["CHK.pace"], num_replicas=3)
    try:
        times = [clock()]
        for number in range(PACE):
            await room.js.publish("CHK.pace", payload, headers={MSG_ID: str(number)})
            times.append(clock())
        return _best(times, PACE_STRETCH)
    finally:
        await room.js.delete_stream("CHK_PACE")


@intake.solution
async def solve_intake(lab):
    from jslab import departures

    intake, refused = await lab.stream("INTAKE"), await lab.stream("REFUSED")
    report = await intake.publish_many(
        departures.month(1),
        subject=lambda flight: "intake." + flight.subject,
        data=lambda flight: flight.payload,
        msg_id=lambda flight: flight.id,
    )
    await refused.publish_many([lost.msg_id for lost in report.refused], subject="refused.flights")
    print(report)


async def send_to_intake(lab, flights, window=4000):
    """Publish flights to INTAKE and give the report."""
    intake = await lab.stream("INTAKE")
    return await intake.publish_many(
        flights,
        subject=lambda flight: "intake." + flight.subject,
        data=lambda flight: flight.payload,
        msg_id=lambda flight: flight.id,
        window=window,
    )


async def name_refused(lab, names):
    refused = await lab.stream("REFUSED")
    await refused.publish_many(names, subject="refused.flights")


@intake.wrong("limit-moved")
async def make_room(lab):
    await lab.js.update_stream(name="INTAKE", subjects=["intake.>"], num_replicas=3, discard="new")
    await send_to_intake(lab, departures.day(1, 1))


@intake.wrong("not-all")
async def a_day_only(lab):
    await send_to_intake(lab, departures.day(1, 1))


@intake.wrong("not-refused")
async def to_be_on_the_safe_side(lab):
    report = await send_to_intake(lab, departures.month(1))
    first = report.refused[0].position
    await name_refused(lab, [flight.id for flight in list(departures.month(1))[first - 1000 :]])


@intake.wrong("not-named")
async def futures_that_nobody_awaits(lab):
    js = lab.nc.jetstream(publish_async_max_pending=30_000)
    for flight in departures.month(1):
        future = await js.publish_async("intake." + flight.subject, flight.payload)
        future.add_done_callback(asyncio.Future.exception)  # what it says is not looked at

    async def full():
        return (await lab.js.stream_info("INTAKE")).state.messages == ROOM_FOR

    await until(full, what="INTAKE to be full", timeout=10)


@intake.wrong("not-named")
async def retry_every_503(lab):
    flights = list(departures.month(1))
    for _ in range(2):
        report = await send_to_intake(lab, flights)
        flights = [flights[lost.position] for lost in report.refused]
    print("still down, given up:", len(flights))


@intake.wrong("no-flight")
async def positions_for_names(lab):
    report = await send_to_intake(lab, departures.month(1))
    await name_refused(lab, [str(lost.position) for lost in report.refused])


@intake.wrong("not-all-named")
async def what_the_report_shows(lab):
    report = await send_to_intake(lab, departures.month(1))
    await name_refused(lab, [lost.msg_id for lost in report.refused[:5]])


@intake.wrong("slow")
async def one_at_a_time(lab):
    flights = list(departures.month(1))
    await send_to_intake(lab, flights[:ROOM_FOR], window=1)
    report = await send_to_intake(lab, flights[ROOM_FOR:])
    await name_refused(lab, [lost.msg_id for lost in report.refused])


# ---------------------------------------------------------------- 04.4

GATE = "gates.B22"
WHOLE_STREAM, ONE_SUBJECT = "Nats-Expected-Last-Sequence", "Nats-Expected-Last-Subject-Sequence"
BOARD = (("gates.B22", b"free"), ("gates.C3", b"DL 461"), ("gates.A4", b"free"), ("gates.C3", b"free"))

gates = lesson.exercise(
    "04.4",
    "Two dispatchers, one gate",
    streams=("GATES",),
    witness=("gates.>",),
    hints=(
        "Both dispatchers decide on what they saw: the last message on gates.B22. The server can hold a "
        "publish against that, if you tell it which sequence you saw.",
        "Nats-Expected-Last-Sequence compares with the last sequence of the whole stream, and every other "
        "gate moves that on. The header that looks at the message's own subject alone is "
        "Nats-Expected-Last-Subject-Sequence.",
        'lab.js.get_last_msg("GATES", "gates.B22").seq is what both of them saw: that number belongs in '
        "Nats-Expected-Last-Subject-Sequence.",
    ),
)


@gates.setup
async def a_board_of_gates(room: Room) -> None:
    await room.lab.stream("GATES", subjects=["gates.>"], num_replicas=3)
    for subject, state in BOARD:
        await room.js.publish(subject, state)


@gates.check
async def check_gates(room: Room) -> str:
    info = await room.info("GATES")
    claims = [seen for seen in room.witness.messages if seen.subject == GATE]
    if not claims:
        raise Wrong("blank", "Nobody has claimed gates.B22 yet.")
    if len({claim.data for claim in claims}) < 2:
        raise Wrong(
            "one-asked",
            f"Only {claims[0].data.decode()} was sent to gates.B22. A rule shows itself when the second "
            "dispatcher asks as well, knowing nothing of the first.",
        )
    stored = [m for m in await room.messages("GATES") if m.subject == GATE and m.seq > len(BOARD)]
    names = ", then ".join(message.data.decode() for message in stored)
    if len(stored) > 1:
        raise Wrong(
            "both",
            f"gates.B22 was given away {len(stored)} times: {names}. Both dispatchers hold an ack, and two "
            "aircraft are on their way to one gate. A Msg-Id does not help: it tells a repetition of the "
            "same message, and these are rivals.",
        )
    refused = f"gates.B22 has no new message; all {len(claims)} claims were refused"
    if not stored and any(WHOLE_STREAM in claim.headers for claim in claims):
        raise Wrong(
            "other-gates",
            f"{refused}. {WHOLE_STREAM} compares with the last sequence of the whole stream. That is "
            f"{info.state.last_seq}: other gates have moved it on since the last word on gates.B22, and so a "
            f"gate that is free cannot be had. {ONE_SUBJECT} looks at the message's own subject alone.",
        )
    if not stored:
        free = 1 + max(index for index, (subject, _) in enumerate(BOARD) if subject == GATE)
        raise Wrong(
            "nobody",
            f"{refused}. The last message on gates.B22 had sequence {free}, and says that the gate is free; "
            "your claims asked for something else to be the last. What both dispatchers have seen belongs in "
            f"{ONE_SUBJECT}.",
        )
    ids = [claim.headers[MSG_ID] for claim in claims if MSG_ID in claim.headers]
    if len(ids) > len(set(ids)):
        raise Wrong(
            "same-id",
            f"{names} is stored, and the other claim was acknowledged too, as a duplicate: both carry the id "
            f"{ids[0]!r}. Its dispatcher holds an ack for a gate that somebody else has, and after the "
            f"duplicate window of {info.config.duplicate_window:g} s the same claim would be stored.",
        )
    async with room.clone(info.config) as clone:
        for entry in BOARD:
            await clone.publish([entry])
        (elsewhere,) = await clone.publish([("gates.C3", b"UA 1545")])
        refusals = []
        for claim in claims:
            headers = {key: value for key, value in claim.headers.items() if key != "Nats-Expected-Stream"}
            refusals += await clone.publish([(GATE, claim.data)], headers)
    if elsewhere is not None:
        raise Wrong(
            "others-stuck",
            f"{names} has B22, and now no gate can change: on a copy of GATES an update of gates.C3 was "
            f"refused ({elsewhere}).",
        )
    if None not in refusals:
        raise Wrong(
            "scope",
            f"{names} has B22, by luck. On a copy of GATES where gate C3 changed a moment before, your "
            f"{len(claims)} claims were all refused ({refusals[0]}): you ask that nothing in the stream has "
            "changed, and mean one gate. At a busy airport nobody would ever get one.",
        )
    return f"{names} has B22, the other claim was refused, and other gates may change meanwhile."


@gates.solution
async def solve_gates(lab):
    import asyncio

    seen = await lab.js.get_last_msg("GATES", "gates.B22")
    headers = {"Nats-Expected-Last-Subject-Sequence": str(seen.seq)}
    claims = [lab.js.publish("gates.B22", flight, headers=headers) for flight in (b"AA 1", b"UA 1545")]
    for outcome in await asyncio.gather(*claims, return_exceptions=True):
        print(outcome)


async def claim_b22(lab, *headers):
    """Let a dispatcher claim B22 for each of the headers; a refusal is printed."""
    import nats.js.errors

    for flight, header in zip((b"AA 1", b"UA 1545"), headers, strict=False):
        try:
            print(await lab.js.publish("gates.B22", flight, headers=header))
        except nats.js.errors.APIError as err:
            print(err)


@gates.wrong("one-asked")
async def one_dispatcher(lab):
    await claim_b22(lab, None)


@gates.wrong("both")
async def an_id_each(lab):
    await claim_b22(lab, {"Nats-Msg-Id": "B22-AA1"}, {"Nats-Msg-Id": "B22-UA1545"})


@gates.wrong("other-gates")
async def the_gates_sequence_for_the_stream(lab):
    seen = await lab.js.get_last_msg("GATES", "gates.B22")
    header = {"Nats-Expected-Last-Sequence": str(seen.seq)}
    await claim_b22(lab, header, header)


@gates.wrong("nobody")
async def no_message_expected(lab):
    header = {"Nats-Expected-Last-Subject-Sequence": "0"}
    await claim_b22(lab, header, header)


@gates.wrong("same-id")
async def the_gate_as_id(lab):
    await claim_b22(lab, {"Nats-Msg-Id": "B22"}, {"Nats-Msg-Id": "B22"})


@gates.wrong("others-stuck")
async def one_message_for_each_gate(lab):
    await lab.js.purge_stream("GATES", subject="gates.B22")
    await lab.js.purge_stream("GATES", subject="gates.C3", keep=1)
    await lab.js.update_stream(
        name="GATES",
        subjects=["gates.>"],
        num_replicas=3,
        max_msgs_per_subject=1,
        discard="new",
        discard_new_per_subject=True,
    )
    await claim_b22(lab, None, None)


@gates.wrong("scope")
async def the_whole_stream(lab):
    last = (await lab.js.stream_info("GATES")).state.last_seq
    header = {"Nats-Expected-Last-Sequence": str(last)}
    await claim_b22(lab, header, header)
