"""Lesson 00: an acknowledged message, who orders it, and which stream captures it."""

from jslab.exercises import Lesson, Room, Wrong
from jslab.publishing.payloads import subject_matches

lesson = Lesson("00", "Start here", streams=("HELLO", "DAY"))

lesson.prediction(
    "00.1",
    "No stream covers a subject. When does each publish complain?",
    (
        "both at once",
        "js.publish at once, nc.publish never",
        "js.publish after a timeout, nc.publish at once",
        "neither ever",
    ),
)

# ---------------------------------------------------------------- 00.1

tower = lesson.exercise(
    "00.1",
    "TOWER outlives any one machine",
    streams=("TOWER",),
    witness=("tower.>",),
    hints=(
        "How many servers may fail is decided when the stream is made: num_replicas.",
        "A publish is acknowledged when you get a PubAck back, with a stream and a sequence in it.",
    ),
)


@tower.check
async def check_tower(room: Room) -> str:
    info = await room.info("TOWER")
    config, leader = info.config, info.cluster.leader
    if "tower.>" not in (config.subjects or []):
        raise Wrong(
            "other-subjects",
            f"TOWER listens to {', '.join(config.subjects or ['nothing'])}, not to tower.>: "
            "lines on other subjects of the tower would be lost.",
        )
    if config.storage != "file":
        raise Wrong(
            "in-memory",
            "TOWER is kept in memory: a power cut of the building takes every copy at once.",
        )
    if (config.num_replicas or 1) < 3:
        copies = "One copy" if (config.num_replicas or 1) == 1 else "Two copies"
        raise Wrong(
            "too-few-copies",
            f"{copies}, led by {leader}. If that disk goes, one copy comes back empty, without an error; "
            "and two are no majority when one is away, so writes stop. Ask for num_replicas=3.",
        )
    sent = room.witness.messages
    if sent and not any(seen.reply for seen in sent):
        raise Wrong(
            "no-ack",
            "You asked for no ack: nc.publish returns before the server has read the line, and a refusal "
            "would have looked the same. Use lab.js.publish.",
        )
    lines = await room.messages("TOWER")
    if not lines:
        raise Wrong("no-line", "TOWER has three copies and not one line: publish one to tower.…")
    return f"{config.num_replicas} copies, led by {leader}, and {len(lines)} line(s), acknowledged."


@tower.solution
async def solve_tower(lab):
    await lab.stream("TOWER", subjects=["tower.>"], num_replicas=3)
    ack = await lab.js.publish("tower.JFK", b"AA 1 cleared for takeoff, runway 13R")
    print(ack)


@tower.wrong("other-subjects")
async def one_airport_only(lab):
    await lab.stream("TOWER", subjects=["tower.JFK"], num_replicas=3)
    await lab.js.publish("tower.JFK", b"AA 1 cleared")


@tower.wrong("in-memory")
async def kept_in_memory(lab):
    await lab.stream("TOWER", subjects=["tower.>"], num_replicas=3, storage="memory")
    await lab.js.publish("tower.JFK", b"AA 1 cleared")


@tower.wrong("too-few-copies")
async def default_replicas(lab):
    await lab.stream("TOWER", subjects=["tower.>"])
    await lab.js.publish("tower.JFK", b"AA 1 cleared")


@tower.wrong("too-few-copies")
async def two_replicas(lab):
    await lab.stream("TOWER", subjects=["tower.>"], num_replicas=2)
    await lab.js.publish("tower.JFK", b"AA 1 cleared")


@tower.wrong("no-line")
async def nothing_published(lab):
    await lab.stream("TOWER", subjects=["tower.>"], num_replicas=3)


@tower.wrong("no-ack")
async def core_publish(lab):
    await lab.stream("TOWER", subjects=["tower.>"], num_replicas=3)
    await lab.nc.publish("tower.JFK", b"AA 1 cleared")
    await lab.nc.flush()
    while not (await lab.js.stream_info("TOWER")).state.messages:
        pass  # it is stored all the same, a moment after the flush


# ---------------------------------------------------------------- 00.2

radar = lesson.exercise(
    "00.2",
    "Who orders RADAR's writes?",
    streams=("RADAR",),
    hints=(
        "Three servers play three different parts here. Only one of them gives each message of RADAR "
        "its sequence number.",
        'Ask the stream itself: lab.js.stream_info("RADAR"), and look at its cluster.',
    ),
)


@radar.setup
async def three_servers_three_parts(room: Room) -> None:
    names = [server.name for server in room.lab.deployment.servers()]
    meta = await room.lab.meta_leader()
    entry, leader = [name for name in names if name != meta][:2]
    await room.lab.stream("RADAR", subjects=["radar.>"], num_replicas=3)
    await room.lab.enter(entry)
    await room.lead("RADAR", leader)


@radar.check
async def check_radar(room: Room) -> str:
    info = await room.info("RADAR")
    leader, said = info.cluster.leader, await room.answer()
    if said is None:
        raise Wrong("blank", 'No answer yet: await lab.answer("00.2", "nats-…").')
    if said == leader:
        return f"{leader} leads RADAR: it gives every message its sequence, the other two copy."
    if said == await room.lab.meta_leader():
        raise Wrong(
            "meta-leader",
            f"{said} is the meta leader: it decides on which servers streams live, not the order of RADAR. "
            "Waiting for it in an outage of RADAR would be waiting for the wrong machine.",
        )
    if said == room.lab.entry:
        raise Wrong(
            "your-door",
            f"{said} is your door: the server you are connected to. It only forwards your message to the "
            "stream's leader.",
        )
    raise Wrong("no-such-server", f"There is no server {said!r} that has a part in this: look at the card.")


@radar.solution
async def solve_radar(lab):
    info = await lab.js.stream_info("RADAR")
    await lab.answer("00.2", info.cluster.leader)


@radar.wrong("meta-leader")
async def name_the_meta_leader(lab):
    await lab.answer("00.2", await lab.meta_leader())


@radar.wrong("your-door")
async def name_the_entry(lab):
    await lab.answer("00.2", lab.entry)


@radar.wrong("no-such-server")
async def name_nobody(lab):
    await lab.answer("00.2", "nats-7")


# ---------------------------------------------------------------- 00.3

CHARTER = "charter.JFK.NK.MIA"

charters = lesson.exercise(
    "00.3",
    "A refused publish",
    streams=("LOG", "CHARTERS", "ALL"),
    hints=(
        "A publish is refused at once when no stream captures its subject. Which streams are there, and "
        "which subjects do they have?",
        "Limits belong to a stream. Two things that are limited separately are two streams, and each of "
        "them needs a limit of its own.",
    ),
)


@charters.setup
async def a_log_with_a_limit(room: Room) -> None:
    log = await room.lab.stream("LOG", subjects=["log.>"], num_replicas=3, max_msgs=1000)
    for number in range(3):
        await room.js.publish("log.ops", f"line {number}".encode(), stream=log.name)


@charters.check
async def check_charters(room: Room) -> str:
    log = await room.info("LOG")
    if "charter" in " ".join(log.config.subjects or []):
        raise Wrong(
            "same-stream",
            f"LOG captures {', '.join(log.config.subjects)} now. Limits and purges are per stream: after "
            f"{log.config.max_msgs} lines of chatter in the log, the oldest charter is gone.",
        )
    home = await _home_of(room, CHARTER)
    if home is None:
        refused = [
            answer["error"]
            for _, answer in room.witness.api_calls("STREAM")
            if "error" in answer and "no-ack" in answer["error"]["description"]
        ]
        if refused:
            raise Wrong(
                "everything",
                f"The server refused `>`: {refused[-1]['description']} ({refused[-1]['err_code']}). A stream "
                "that captures everything would store the acks and the API's own traffic, and answer those "
                "too. Name the subjects you mean.",
            )
        raise Wrong("blank", f"No stream captures {CHARTER}: a publish to it is refused at once.")
    info = await room.info(home)
    if max(info.config.max_msgs or -1, info.config.max_bytes or -1, info.config.max_age or -1) <= 0:
        raise Wrong(
            "no-limit",
            f"{home} captures it, without any limit: it grows until the servers' storage is full, and then "
            "every stream of the cluster refuses. Give it max_msgs, max_bytes or max_age.",
        )
    stored = [m for m in await room.messages(home) if m.subject == CHARTER]
    if not stored:
        raise Wrong("not-published", f"{home} would capture it. Now publish it, and look at the ack.")
    return f"{home} has it as sequence {stored[-1].seq}, limited apart from LOG."


async def _home_of(room: Room, subject: str) -> str | None:
    """Name the stream that captures a subject."""
    for info in await room.js.streams_info():
        if any(subject_matches(pattern, subject) for pattern in info.config.subjects or []):
            return info.config.name
    return None


@charters.solution
async def solve_charters(lab):
    await lab.stream("CHARTERS", subjects=["charter.>"], num_replicas=3, max_msgs=10_000)
    ack = await lab.js.publish("charter.JFK.NK.MIA", b'{"seats": 180}')
    print(ack)


@charters.wrong("same-stream")
async def both_in_the_log(lab):
    both = ["log.>", "charter.>"]
    info = await lab.js.update_stream(name="LOG", subjects=both, num_replicas=3, max_msgs=1000)
    await lab.settle(info)
    await lab.js.publish("charter.JFK.NK.MIA", b"{}")


@charters.wrong("everything")
async def capture_everything(lab):
    import nats.js.errors

    try:
        await lab.js.add_stream(name="ALL", subjects=[">"], num_replicas=3)
    except nats.js.errors.ServerError as err:
        print(err)


@charters.wrong("no-limit")
async def without_a_limit(lab):
    await lab.stream("CHARTERS", subjects=["charter.>"], num_replicas=3)
    await lab.js.publish("charter.JFK.NK.MIA", b"{}")


@charters.wrong("not-published")
async def stream_but_no_message(lab):
    await lab.stream("CHARTERS", subjects=["charter.>"], num_replicas=3, max_age=3600)
