"""Lesson 02: what each line of the manifests is for, on a live Kubernetes cluster."""

import asyncio
import contextlib
import json
import time
from urllib.parse import urlsplit

import nats.errors

from jslab import trial
from jslab.connection import Connection
from jslab.exercises import Lesson, Room, Wrong
from jslab.exercises.notes import Notes
from jslab.waiting import until

lesson = Lesson("02", "Deploy on Kubernetes", streams=("BOARD",), needs_pods=True)

lesson.prediction(
    "02.1",
    "All three servers are replaced, one after the other, under a publisher. Longest pause between two acks?",
    (
        "about a second or less",
        "several seconds, for the elections",
        "as long as a server takes to come back",
    ),
)

MIB = 2**20
GIB = 2**30

# ---------------------------------------------------------------- 02.1

WANTED = 2.5 * GIB

depot = lesson.exercise(
    "02.1",
    "Room for 2.5 GiB",
    hints=(
        "Two numbers in the manifests have to do with storage. One is what the server allows itself, in "
        "configmap.yaml; the other is how big its volume is, in statefulset.yaml.",
        "The server's limit must be at least what is wanted, and the volume bigger than the limit. "
        "nats-server reads whole numbers: 2560Mi, not 2.5Gi.",
    ),
)


@depot.setup
async def no_copy_yet(room: Room) -> None:
    await trial.remove_all(room.lab.deployment, "depot")


@depot.check
async def check_depot(room: Room) -> str:
    copy = await trial.find(room.lab.deployment, "depot")
    if copy is None:
        raise Wrong("blank", "There is no copy called depot on the cluster yet: change it, then apply it.")
    outcome = await copy.outcome()
    if not outcome.works:
        raise Wrong("no-cluster", f"The copy is no cluster: {outcome.what}. {outcome.seen}")
    limit, volume = await _storage(room, copy)
    has = f"max_file_store {_gib(limit)} on a volume of {_gib(volume)}"
    if limit < WANTED:
        raise Wrong(
            "limit",
            f"{has}: a stream that reserves 2.5 GiB is refused with 10047, however big the disk is. The "
            "server takes no more than its own limit.",
        )
    if volume <= limit:
        raise Wrong(
            "disk-first",
            f"{has}: the disk is full before the limit is reached. A full limit refuses a message and says "
            "so; a full disk stops every stream of that server.",
        )
    return f"{has}, on every server: refused before the disk is full."


async def _storage(room: Room, copy: trial.Trial) -> tuple[int, int]:
    """Return the smallest storage limit of the copy's servers and the smallest claim, in bytes."""
    deployment = await copy.deployment()
    answers = [await deployment.get(name, "/jsz") for name in deployment.known()]
    limits = [body["config"]["max_storage"] for _, body in answers]
    listed = await room.lab.deployment.kubectl("get", "pvc", "-o", "json", namespace=copy.namespace)
    sizes = [claim["spec"]["resources"]["requests"]["storage"] for claim in json.loads(listed)["items"]]
    return min(limits), min(map(_bytes, sizes))


def _bytes(quantity: str) -> int:
    for unit, size in (("Gi", GIB), ("Mi", MIB)):
        if quantity.endswith(unit):
            return int(float(quantity.removesuffix(unit)) * size)
    return int(quantity)


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


@depot.solution
async def solve_depot(lab):
    depot = lab.trial("depot")
    depot.change("configmap.yaml", "max_file_store: 1536Mi", "max_file_store: 2560Mi")
    depot.change("statefulset.yaml", "storage: 2Gi", "storage: 3Gi")
    await depot.apply()


@depot.wrong("no-cluster")
async def a_number_that_the_server_cannot_read(lab):
    depot = lab.trial("depot")
    depot.change("configmap.yaml", "max_file_store: 1536Mi", "max_file_store: 2.5Gi")
    depot.change("statefulset.yaml", "storage: 2Gi", "storage: 3Gi")
    await depot.apply()


@depot.wrong("limit")
async def a_bigger_disk_only(lab):
    depot = lab.trial("depot")
    depot.change("statefulset.yaml", "storage: 2Gi", "storage: 3072Mi")
    await depot.apply()


@depot.wrong("disk-first")
async def a_bigger_limit_only(lab):
    depot = lab.trial("depot")
    depot.change("configmap.yaml", "max_file_store: 1536Mi", "max_file_store: 2560Mi")
    depot.change("statefulset.yaml", "storage: 2Gi", "storage: 2147483648")
    await depot.apply()


# ---------------------------------------------------------------- 02.2

# Seconds until an address must answer, and until a client must be in.
REACHED, INSIDE = 2.0, 20.0

doors = lesson.exercise(
    "02.2",
    "Addresses for a program outside",
    hints=(
        "no_advertise keeps the servers from telling a client about each other: it knows what you tell it, "
        "and nothing else.",
        "Each server of the lab has an address of its own that works from here: "
        "[server.client_url for server in lab.deployment.servers()].",
    ),
)


@doors.check
async def check_doors(room: Room) -> str:
    urls = (await room.answer() or "").replace(",", " ").split()
    if not urls:
        raise Wrong("blank", "No address yet.")
    for url in urls:
        await _reach(url)
    client = Connection()
    await client.open(urls, INSIDE)
    try:
        names = {server.client_url: server.name for server in room.lab.deployment.servers()}
        first = names.get(client.url or "", "the server")
        began = time.monotonic()
        await room.lab.faults.crash(first)
        await until(lambda: _is_back(client), what="the client to be in again", timeout=60, every=0.02)
        away, second = time.monotonic() - began, names.get(client.url or "")
    finally:
        await client.close()
        await room.lab.ready()
    if second == first:
        raise Wrong(
            "one-door",
            f"The pod of {first} was deleted, and the client stood outside for {away:.1f} s, until that "
            "same pod was back. On a node that is lost it would stand there much longer, with two servers at "
            "work that it does not know of.",
        )
    return f"The pod of {first} was deleted; the client was in again by {second} after {away:.1f} s."


def _is_back(client: Connection) -> bool:
    return any("reconnected" in event.text for event in client.events)


async def _reach(url: str) -> None:
    """Open a connection to an address and wait for a server's first line."""
    began = time.monotonic()
    try:
        host, port = urlsplit(url).hostname, urlsplit(url).port or 4222
        async with asyncio.timeout(REACHED):
            reader, writer = await asyncio.open_connection(host, port)
            await reader.readline()
            writer.close()
    except (OSError, ValueError) as err:
        raise Wrong(
            "unreachable",
            f"{url} cannot be reached from here ({type(err).__name__} after "
            f"{time.monotonic() - began:.1f} s). Names and addresses of pods are for programs inside the "
            "cluster. A client outside loses that time at every reconnect, for each of them.",
        ) from None


@doors.solution
async def solve_doors(lab):
    urls = [server.client_url for server in lab.deployment.servers()]
    await lab.answer("02.2", " ".join(urls))


@doors.wrong("one-door")
async def the_first_one(lab):
    await lab.answer("02.2", lab.deployment.servers()[0].client_url)


@doors.wrong("unreachable")
async def the_name_in_the_manifests(lab):
    await lab.answer("02.2", "nats://nats-0.nats-headless:4222")


# ---------------------------------------------------------------- 02.3

LINES = 500
# Seconds within which somebody answers for a stream, unless all is lost.
ELECTIONS = 15
ALL = f"{LINES} of {LINES}"

disk = lesson.exercise(
    "02.3",
    "A new disk, and nothing lost",
    streams=("LEDGER", "TILL"),
    hints=(
        "A pod that is deleted comes back to the claim it had. What has to go is the claim; while its pod "
        "lives it only waits to be deleted.",
        "LEDGER has two more copies. TILL has one, on the disk that you throw away: give it copies elsewhere "
        "first, and see that they are current.",
    ),
)


@disk.setup
async def a_ledger_and_a_till(room: Room) -> None:
    for name, replicas in (("LEDGER", 3), ("TILL", 1)):
        stream = await room.lab.stream(name, subjects=[f"{name.lower()}.>"], num_replicas=replicas)
        await stream.publish_many([b"%d" % n for n in range(LINES)], subject=f"{name.lower()}.JFK")
    home = (await room.js.stream_info("TILL")).cluster.leader
    await Notes(room.lab).write("disk", room.number, " ".join([home, *await _uids(room, home)]))


@disk.check
async def check_disk(room: Room) -> str:
    home, old_claim, old_pod = (await Notes(room.lab).text("disk", room.number) or "").split()
    claim, pod = await _uids(room, home)
    if claim == old_claim and pod == old_pod:
        raise Wrong("blank", f"{home} has the volume that it had.")
    if claim == old_claim:
        raise Wrong(
            "same-disk",
            f"{home} is a new pod on the old volume: a claim outlives its pod, that is what it is for. "
            "The failing disk is still in use.",
        )
    kept = {name: await _kept(room, name) for name in ("LEDGER", "TILL")}
    if lost := [f"{name} {left}" for name, left in kept.items() if left != ALL]:
        raise Wrong(
            "lost",
            f"{home} has an empty volume, and what is left is: {', '.join(lost)}. The stream is still "
            "listed, and no error says that its only copy is gone: update_stream, too, returns before new "
            'copies have caught up. (await lab.reset("02.3") begins anew.)',
        )
    await room.lab.ready()
    return f"{home} has another volume; LEDGER and TILL have {ALL}, as before."


async def _kept(room: Room, stream: str) -> str:
    """Say how much a stream still has, as soon as anybody answers for it."""

    async def answer():
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            return await room.info(stream)

    info = await until(answer, what=f"anybody to answer for {stream}", timeout=ELECTIONS)
    return f"{info.state.messages} of {LINES}"


async def _uids(room: Room, server: str) -> tuple[str, str]:
    """Return what identifies the claim and the pod of a server; empty for one that is not there."""
    wanted = (f"pvc/data-{server}", f"pod/{server}")
    options = ("--ignore-not-found", "-o", "jsonpath={.metadata.uid}")
    claim, pod = [await room.lab.deployment.kubectl("get", name, *options) for name in wanted]
    return claim or "none", pod or "none"


@disk.solution
async def solve_disk(lab):
    import asyncio

    till = await lab.stream("TILL")
    home = (await till.placement()).leader
    await lab.js.update_stream(till.config, num_replicas=3)
    copies = ()
    while len(copies) < 3 or not all(copy.current for copy in copies):
        await asyncio.sleep(0.1)
        copies = (await till.placement()).replicas
    await lab.kubectl(f"delete pvc data-{home} --wait=false")
    await lab.kubectl(f"delete pod {home}")
    await lab.ready()


@disk.wrong("same-disk")
async def a_new_pod_only(lab):
    till = await lab.stream("TILL")
    await lab.kubectl(f"delete pod {(await till.placement()).leader}")
    await lab.ready()


@disk.wrong("lost")
async def the_node_out_of_service(lab):
    till = await lab.stream("TILL")
    home = (await till.placement()).leader
    await lab.kubectl(f"delete pvc data-{home} --wait=false")
    await lab.faults.hold(home)


@disk.wrong("lost")
async def at_once(lab):
    till = await lab.stream("TILL")
    home = (await till.placement()).leader
    await lab.kubectl(f"delete pvc data-{home} --wait=false")
    await lab.faults.crash(home)
    await lab.ready()


# ---------------------------------------------------------------- 02.4

gate = lesson.exercise(
    "02.4",
    "The question before the gate opens",
    hints=(
        "Ready and alive are about one server. Your job needs the cluster, and at least two servers that "
        "have met.",
        "The startup probe in statefulset.yaml asks for everything: the meta group, and every stream and "
        "consumer of that server.",
    ),
)


@gate.check
async def check_gate(room: Room) -> str:
    path = await room.answer()
    if not path:
        raise Wrong("blank", "No path yet: it begins with a slash.")
    server = room.lab.deployment.servers()[0].name
    status, _ = await room.lab.deployment.get(server, path)
    if status != 200:
        raise Wrong(
            "never",
            f"{path} answers {status or 'nothing'} on {server}, which is in perfect health: the gate never "
            "opens, and somebody will switch it off.",
        )
    lonely = await _ask_one_of_three(room, path)
    if lonely == 200:
        raise Wrong(
            "too-early",
            f"{path} answers 200 on a server that has met none of its two peers: the job begins, and its "
            "first write waits for a leader that does not exist.",
        )
    return f"{path} answers {lonely} on a server that is alone, and 200 in a cluster that works."


async def _ask_one_of_three(room: Room, path: str) -> int:
    """Start one server of three in a namespace of its own and return the status that it answers."""
    copy = room.lab.trial("alone")
    copy.change("statefulset.yaml", "replicas: 3", "replicas: 1")
    copy.change("statefulset.yaml", "path: /healthz", "path: /healthz?js-enabled-only=true")
    try:
        await copy.apply()
        await copy.kubectl("wait --for=create --timeout=30s pod/nats-0")
        await copy.kubectl("wait --for=condition=ready --timeout=60s pod/nats-0")
        status, _ = await (await copy.deployment()).get("nats-0", path)
    finally:
        await copy.remove()
    return int(status)


@gate.solution
async def solve_gate(lab):
    await lab.answer("02.4", "/healthz")


@gate.wrong("never")
async def a_path_of_another_product(lab):
    await lab.answer("02.4", "/ready")


@gate.wrong("too-early")
async def what_readiness_asks(lab):
    await lab.answer("02.4", "/healthz?js-server-only=true")
