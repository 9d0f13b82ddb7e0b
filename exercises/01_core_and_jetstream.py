"""Lesson 01: subjects and wildcards, who keeps a message, and what works without a quorum."""

import math
from collections import Counter

from jslab import departures
from jslab.exercises import Lesson, Room, Wrong
from jslab.exercises.room import Clone
from jslab.subjects import overlap

lesson = Lesson("01", "Core NATS and JetStream", streams=("FLIGHTS",))

lesson.prediction(
    "01.1",
    "Two of three servers die; the one that is left led the stream. What still works?",
    (
        "core goes on, JetStream goes on",
        "core goes on, JetStream refuses at once",
        "core goes on, JetStream is silent first and refuses later",
        "core stops, JetStream stops",
    ),
)

# ---------------------------------------------------------------- 01.1

bags = lesson.exercise(
    "01.1",
    "Only the bags for Atlanta",
    streams=("ATLANTA",),
    hints=(
        "Write one of the subjects down, such as bags.JFK.DL.ATL, and replace each token that may be "
        "anything by a `*`.",
        "`*` stands for exactly one token, `>` for one or more, and `>` may only stand at the end. ATL is "
        "the last token, and it is the one you want to keep.",
    ),
)


@bags.check
async def check_bags(room: Room) -> str:
    info = await room.info("ATLANTA")
    flights = list(departures.day(1, 1))
    wanted = Counter(_on("bags", flight) for flight in flights if flight.dest == "ATL")
    async with room.clone(info.config) as clone:
        refusals = await clone.publish((_on("bags", flight), flight.payload) for flight in flights)
        kept = await _subjects(room, clone)
    listens = ", ".join(info.config.subjects or ["no subject"])
    if not kept and None in refusals:
        raise Wrong(
            "not-kept",
            f"{refusals.count(None)} of {len(flights)} were acknowledged and 0 are kept: with retention "
            f"{info.config.retention} a message stays only while a consumer wants it, and there is none.",
        )
    if not kept:
        raise Wrong(
            "nothing-stored",
            f"0 of {len(flights)} stored, and {wanted.total()} of them go to Atlanta. `*` is exactly one "
            f"token and these subjects have four, as in {next(iter(wanted))}; you listen to {listens}. "
            "No server complains about a pattern that matches nothing.",
        )
    if missing := wanted - kept:
        raise Wrong(
            "some-missing",
            f"{missing.total()} of the {wanted.total()} for Atlanta are not in it, such as "
            f"{next(iter(missing))}: those bags are nobody's. You listen to {listens}.",
        )
    if extra := kept - wanted:
        raise Wrong(
            "too-much",
            f"{kept.total()} stored where {wanted.total()} go to Atlanta: you keep {extra.total()} others, "
            f"such as {next(iter(extra))}. They count against this stream's limits, on every replica, and "
            "every reader has to skip them.",
        )
    return f"{kept.total()} of {len(flights)} stored, all for Atlanta, from three airports."


async def _subjects(room: Room, clone: Clone) -> Counter[str]:
    """Count a clone's messages by subject, as the learner knows the subjects."""
    info = await room.js.stream_info(clone.name, subjects_filter=">")
    subjects = info.state.subjects or {}
    return Counter({subject.partition(".")[2]: count for subject, count in subjects.items()})


def _on(first: str, flight: departures.Departure) -> str:
    return f"{first}.{flight.origin}.{flight.carrier}.{flight.dest}"


@bags.solution
async def solve_bags(lab):
    await lab.stream("ATLANTA", subjects=["bags.*.*.ATL"], num_replicas=3)


@bags.wrong("nothing-stored")
async def one_token_short(lab):
    await lab.stream("ATLANTA", subjects=["bags.*.ATL"], num_replicas=3)


@bags.wrong("too-much")
async def every_destination(lab):
    await lab.stream("ATLANTA", subjects=["bags.>"], num_replicas=3)


@bags.wrong("some-missing")
async def one_carrier_only(lab):
    await lab.stream("ATLANTA", subjects=["bags.*.DL.ATL"], num_replicas=3)


@bags.wrong("not-kept")
async def only_while_somebody_is_interested(lab):
    await lab.stream("ATLANTA", subjects=["bags.*.*.ATL"], num_replicas=3, retention="interest")


# ---------------------------------------------------------------- 01.2

AIRPORTS = ("EWR", "JFK", "LGA")
LINES = [(f"{feed}.{airport}.7", b"{}") for feed in ("gates", "charges", "alerts") for airport in AIRPORTS]
SOON = 2.0
SHIFT = 12 * 3600.0

feeds = lesson.exercise(
    "01.2",
    "Which feeds get a stream?",
    streams=("GATES", "CHARGES", "ALERTS"),
    hints=(
        "For each feed ask: somebody comes late. Is an old line still of use, or is it wrong by then?",
        "A stream is for what must still be there when nobody was listening. What only matters to those who "
        "listen now, core NATS delivers faster, and without a quorum too.",
    ),
)


@feeds.check
async def check_feeds(room: Room) -> str:
    ages = await _kept(room)
    sent = len(AIRPORTS)
    count = ", ".join(f"{feed} {len(ages[feed])} of {sent}" for feed in ages)
    seen = f"{sent} lines to each feed, nobody listening, read two seconds later: {count}."
    if not any(ages.values()):
        raise Wrong(
            "blank",
            f"{seen} Right for the gates; but these charges are never billed, and these alerts never read.",
        )
    if ages["gates"]:
        raise Wrong(
            "stale-gates",
            f"{seen} A display that is switched on now begins with gates of the past, and one that reads a "
            "stream goes dark without a quorum. It wants what is said from now on: core NATS.",
        )
    short = [feed for feed in ("charges", "alerts") if len(ages[feed]) < sent]
    if short:
        raise Wrong(
            "lost",
            f"{seen} What is missing in {' and '.join(short)} is gone, and a core publish never says so.",
        )
    soonest = min(ages["charges"] + ages["alerts"])
    if soonest < SHIFT:
        raise Wrong(
            "expires",
            f"All lines are there now, but some only for {soonest / 3600:.1f} hours (max_age): whoever reads "
            f"after {SHIFT / 3600:.0f} hours finds an empty stream and no error.",
        )
    return seen


async def _kept(room: Room) -> dict[str, list[float]]:
    """Say for how long, in seconds, each line will be kept, feed by feed, when nobody listens."""
    ages: dict[str, list[float]] = {subject.partition(".")[0]: [] for subject, _ in LINES}
    for info in await room.js.streams_info():
        # "Two seconds later" is worked out, not waited for: by then only max_age removes a line.
        age = info.config.max_age or math.inf
        patterns = info.config.subjects or []
        if age > SOON and any(overlap(pattern, f"{feed}.>") for pattern in patterns for feed in ages):
            async with room.clone(info.config) as clone:
                await clone.publish(LINES)
                for subject in (await _subjects(room, clone)).elements():
                    ages[subject.partition(".")[0]].append(age)
    return ages


@feeds.solution
async def solve_feeds(lab):
    # The gate displays get no stream: what is worthless later need not be kept.
    await lab.stream("CHARGES", subjects=["charges.>"], num_replicas=3)
    await lab.stream("ALERTS", subjects=["alerts.>"], num_replicas=3, max_age=7 * 24 * 3600)


@feeds.wrong("stale-gates")
async def all_three(lab):
    await lab.stream("GATES", subjects=["gates.>"], num_replicas=3)
    await lab.stream("CHARGES", subjects=["charges.>"], num_replicas=3)
    await lab.stream("ALERTS", subjects=["alerts.>"], num_replicas=3)


@feeds.wrong("lost")
async def charges_only(lab):
    await lab.stream("CHARGES", subjects=["charges.>"], num_replicas=3)


@feeds.wrong("lost")
async def one_airport_of_three(lab):
    await lab.stream("CHARGES", subjects=["charges.>"], num_replicas=3)
    await lab.stream("ALERTS", subjects=["alerts.JFK.>"], num_replicas=3)


@feeds.wrong("expires")
async def gone_before_the_next_shift(lab):
    await lab.stream("CHARGES", subjects=["charges.>"], num_replicas=3)
    await lab.stream("ALERTS", subjects=["alerts.>"], num_replicas=3, max_age=3600)


# ---------------------------------------------------------------- 01.3

AA_1 = "1-1-AA-1-JFK"
DAY = 842

status = lesson.exercise(
    "01.3",
    "A subject for flight AA 1",
    streams=("STATUS",),
    hints=(
        "The server filters by subject and never looks into a payload. What you want to filter by has to be "
        "a token.",
        "A subscriber to status.JFK.> says: these two tokens first, then anything. Where can a new token go "
        "so that this stays true? And B6 flies a number 1 too.",
    ),
)


@status.setup
async def a_stream_that_holds_one_day(room: Room) -> None:
    # A second attempt replaces the first: there is room for one day, and ids are forgotten at once.
    await room.lab.stream("STATUS", subjects=["status.>"], num_replicas=3, max_msgs=DAY, duplicate_window=0.1)


@status.check
async def check_status(room: Room) -> str:
    stored = (await room.info("STATUS")).state.messages
    pattern = await room.answer()
    if not stored:
        raise Wrong("blank", "STATUS is empty: publish 1 January to it, under subjects of your design.")
    flights = list(departures.day(1, 1))
    from_jfk = sum(flight.origin == "JFK" for flight in flights)
    heard = sum((await _matching(room, "status.JFK.>")).values())
    if heard != from_jfk:
        raise Wrong(
            "jfk-noticed",
            f"`status.JFK.>` now matches {heard} of {from_jfk}. Its subscribers get no error: to them JFK "
            "has simply gone quiet. Tokens that others filter by keep their places.",
        )
    if pattern is None:
        raise Wrong("no-filter", 'Published. Now the filter: await lab.answer("01.3", "status.…").')
    found = await _matching(room, pattern)
    downloads = sum(found.values())
    if not downloads:
        raise Wrong(
            "matches-nothing",
            f"`{pattern}` matches 0 of {stored}. Your subjects look like {await _example(room)}; `*` is "
            "exactly one token, `>` one or more at the end.",
        )
    if downloads > 1:
        raise Wrong(
            "too-many",
            f"`{pattern}` matches {downloads} of {stored}, on {', '.join(list(found)[:3])}: {downloads} "
            "downloads to find one flight. The server compares the tokens of subjects and never opens a "
            "payload: what tells AA 1 from the others must be a token, in your subjects and in your filter.",
        )
    (subject,) = found
    message = await room.js.get_last_msg("STATUS", subject)
    if AA_1.encode() not in (message.data or b""):
        raise Wrong(
            "another-flight",
            f"`{pattern}` matches one flight, {subject}, and that is not AA 1 ({AA_1} is not in its "
            "payload): passengers would be sent to another aircraft's gate.",
        )
    to_atlanta = sum(flight.dest == "ATL" for flight in flights)
    atlanta = sum((await _matching(room, "status.*.*.ATL")).values())
    return (
        f"`{pattern}` matches 1 of {stored}, `status.JFK.>` still {heard}. A subscriber to "
        f"`status.*.*.ATL`, four tokens and no `>`, hears {atlanta} of {to_atlanta} now: patterns that end "
        "in `>` let a subject grow, others do not."
    )


async def _matching(room: Room, pattern: str) -> dict[str, int]:
    """Ask the server which subjects of STATUS match, and how many messages each has."""
    return (await room.js.stream_info("STATUS", subjects_filter=pattern)).state.subjects or {}


async def _example(room: Room) -> str:
    return str((await room.js.get_last_msg("STATUS", "status.JFK.>")).subject)


@status.solution
async def solve_status(lab):
    from jslab import departures

    stream = await lab.stream("STATUS")
    await stream.publish_many(
        departures.day(1, 1),
        subject=lambda flight: f"status.{flight.origin}.{flight.carrier}.{flight.dest}.{flight.flight}",
        data=lambda flight: flight.payload,
    )
    await lab.answer("01.3", "status.*.AA.*.1")


@status.wrong("jfk-noticed")
async def number_first(lab):
    from jslab import departures

    stream = await lab.stream("STATUS")
    await stream.publish_many(
        departures.day(1, 1),
        subject=lambda flight: f"status.{flight.flight}.{flight.origin}.{flight.carrier}.{flight.dest}",
        data=lambda flight: flight.payload,
    )
    await lab.answer("01.3", "status.1.*.AA.*")


@status.wrong("no-filter")
async def published_but_not_named(lab):
    from jslab import departures

    stream = await lab.stream("STATUS")
    await stream.publish_many(
        departures.day(1, 1),
        subject=lambda flight: f"status.{flight.origin}.{flight.carrier}.{flight.dest}.{flight.flight}",
        data=lambda flight: flight.payload,
    )


@status.wrong("matches-nothing")
async def a_token_short(lab):
    from jslab import departures

    stream = await lab.stream("STATUS")
    await stream.publish_many(
        departures.day(1, 1),
        subject=lambda flight: f"status.{flight.origin}.{flight.carrier}.{flight.dest}.{flight.flight}",
        data=lambda flight: flight.payload,
    )
    await lab.answer("01.3", "status.*.AA.1")


@status.wrong("too-many")
async def number_in_the_payload(lab):
    from jslab import departures

    stream = await lab.stream("STATUS")
    await stream.publish_many(
        departures.day(1, 1),
        subject=lambda flight: f"status.{flight.origin}.{flight.carrier}.{flight.dest}",
        data=lambda flight: flight.payload,
    )
    await lab.answer("01.3", "status.>")


@status.wrong("too-many")
async def number_without_the_carrier(lab):
    from jslab import departures

    stream = await lab.stream("STATUS")
    await stream.publish_many(
        departures.day(1, 1),
        subject=lambda flight: f"status.{flight.origin}.{flight.carrier}.{flight.dest}.{flight.flight}",
        data=lambda flight: flight.payload,
    )
    await lab.answer("01.3", "status.*.*.*.1")


@status.wrong("another-flight")
async def the_other_number_1(lab):
    from jslab import departures

    stream = await lab.stream("STATUS")
    await stream.publish_many(
        departures.day(1, 1),
        subject=lambda flight: f"status.{flight.origin}.{flight.carrier}.{flight.dest}.{flight.flight}",
        data=lambda flight: flight.payload,
    )
    await lab.answer("01.3", "status.*.B6.*.1")
