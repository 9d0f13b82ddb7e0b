"""What this machine lacks for a kind cluster: Docker, kind, memory, limits, ports and images.

Works where they are missing or broken: only the standard library is imported at the top. Nothing is started,
made or changed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import platform
import re
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jslab.doctor import MB, Finding, Level, free_memory
from jslab.errors import ClusterError, ToolError

if TYPE_CHECKING:
    from jslab.deployment.cluster import Cluster, Object
    from jslab.deployment.kind_cluster import Found
    from jslab.settings import Settings

T = TypeVar("T")

# Seconds that a check may take, and a program.
LIMIT, PROGRAM = 9.0, 5.0
# Four nodes were measured at 1.2 GB, three servers at 0.3, a notebook and its kernel at 0.3.
MAKING = (2_000 * MB, 3_000 * MB)
USING = (300 * MB, 700 * MB)
INOTIFY = Path("/proc/sys/fs/inotify")
# What kind's page of known issues advises. Four nodes were measured at 70 instances and 900 watches, and root
# has others: below the first number they cannot work, below the second they may fail later.
ADVISED = {"max_user_watches": 524288, "max_user_instances": 512}
INOTIFY_NEEDED = {"max_user_watches": 2000, "max_user_instances": 90}
INOTIFY_COMFORTABLE = {"max_user_watches": 65536, "max_user_instances": 512}
SPEAKS = "is a NATS server"
KIND_VERSION = "v0.33.0"
UP = "jslab up --backend kind"


@dataclass
class Sight:
    """What the checks before have seen."""

    settings: Settings
    docker: bool = False
    kind: bool = False
    found: Found | None = None
    ours: bool = False
    cluster: Cluster | None = None
    """An API server that answers us."""
    image: str | None = None
    """The server image that was loaded into the nodes."""
    namespace: Object | None = None

    @property
    def name(self) -> str:
        """The kind cluster's name."""
        return self.found.name if self.found else "jslab"

    @property
    def control_runs(self) -> bool:
        """Whether the node that holds the API server and the doors runs."""
        return bool(self.found and self.found.nodes.get(f"{self.name}-control-plane") == "running")


def note(check: str, seen: str, do: str) -> Finding:
    """Return what is worth knowing and stands in nobody's way."""
    return Finding(check, "warning", seen, do)


def others() -> Finding:
    """Say in one line what the backend kind would lack; embedded needs none of it."""
    missing = [name for name in ("docker", "kind") if shutil.which(name) is None]
    more = "`jslab doctor --backend kind` looks closer"
    if missing:
        return note("Docker, kind", f"for the backend kind: no {', no '.join(missing)}; {more}", "")
    return Finding("Docker, kind", "ok", f"for the backend kind: both are on PATH; {more}")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run what asks docker and kind, which may hang with their daemon."""

    async def limited() -> T:
        async with asyncio.timeout(LIMIT):
            return await work

    try:
        return asyncio.run(limited())
    except TimeoutError:
        raise ToolError(
            "docker or kind did not answer", seen=f"waited {LIMIT:g} s", do="sudo systemctl restart docker"
        ) from None


def answer(call: Callable[[], T]) -> T:
    """Ask an API server, in a thread that can be left behind.

    Credentials may come from a program of the user's, which may wait for somebody to log in.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as err:
            errors.append(err)

    thread = threading.Thread(target=work, name="jslab-doctor", daemon=True)
    thread.start()
    thread.join(LIMIT)
    if errors:
        raise errors[0]
    if not results:
        raise ClusterError(
            "the cluster did not answer",
            seen=f"waited {LIMIT:g} s",
            do="does `kubectl get namespaces` answer in that context? It may wait for you to log in",
        )
    return results[0]


# -- programs


def docker(sight: Sight) -> list[Finding]:
    """Look for Docker, and ask its daemon who it is."""
    from jslab.deployment import tools

    if shutil.which("docker") is None:
        seen = f"not installed; not on PATH: {os.environ.get('PATH', '')}"
        do = "sudo apt-get install docker.io (Debian, Ubuntu), or Docker Desktop; embedded needs none"
        return [Finding("Docker", "problem", seen, do)]
    asked = ("version", "--format", "{{.Client.Version}} {{.Server.Version}}")
    try:
        client, _, server = run(tools.run("docker", *asked, timeout=PROGRAM)).strip().partition(" ")
    except ToolError as err:
        return [Finding("Docker", "problem", f"{err.what}: {err.seen}", _docker_remedy(err))]
    sight.docker = True
    return [Finding("Docker", "ok", f"{server}, client {client}")]


def _docker_remedy(err: ToolError) -> str:
    if "permission denied" in err.seen:
        return "sudo usermod -aG docker $USER, then log in again (in this terminal alone: newgrp docker)"
    if re.search("daemon|docker API|error during connect", err.seen):
        if host := os.environ.get("DOCKER_HOST"):
            return f"unset DOCKER_HOST, which names {host}; or start the Docker that listens there"
        return "sudo systemctl start docker, or open Docker Desktop"
    return err.do


def kind(sight: Sight) -> list[Finding]:
    """Look for the program kind."""
    from jslab.deployment import tools

    if shutil.which("kind") is None:
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        url = f"https://kind.sigs.k8s.io/dl/{KIND_VERSION}/kind-{sys.platform}-{machine}"
        seen = f"not installed; not on PATH: {os.environ.get('PATH', '')}"
        do = f"sudo curl -fLo /usr/local/bin/kind {url} && sudo chmod +x /usr/local/bin/kind"
        return [Finding("kind", "problem", seen, do)]
    said = run(tools.run("kind", "version", timeout=PROGRAM)).strip()
    sight.kind = True
    return [Finding("kind", "ok", f"{said}, {shutil.which('kind')}")]


def ports(sight: Sight) -> list[Finding]:
    """Ask who answers at the doors of the cluster, or whether there are ports free for them."""
    from jslab.deployment import ports as doors

    assert sight.found is not None
    mapped, control = sight.found.ports, f"{sight.name}-control-plane"
    if not mapped:
        return []
    if not sight.control_runs:
        taken = [port for port in mapped if port and not doors.free(port)]
        open_ones, lent = sum(not port for port in mapped), doors.ephemeral_range()
        free = list(itertools.islice(filter(doors.free, doors.candidates(*lent)), open_ones))
        seen = f"of 127.0.0.1, outside {lent[0]} to {lent[1]}, which is lent to clients: {len(free)} are free"
        if taken:
            listed = ", ".join(map(str, taken))
            do = f"end who listens there: ss -ltnp names it; or jslab down --backend kind, then {UP}"
            return [Finding("ports", "problem", f"mapped by the cluster, and taken: {listed}", do)]
        if len(free) < open_ones:
            return [Finding("ports", "problem", f"{seen}, {open_ones} are needed", "jslab clean")]
        return [Finding("ports", "ok", seen if open_ones else f"{', '.join(map(str, mapped))} wait for it")]
    said = {port: _greeting(port) for port in mapped}
    seen = ", ".join(f"{port} {answer}" for port, answer in said.items())
    if any(answer == "is closed" for answer in said.values()):
        return [Finding("ports", "problem", seen, f"docker restart {control} opens them again")]
    if any(answer != SPEAKS for answer in said.values()):
        return [note("ports", seen, f"jslab status --backend kind says more; {UP} puts all servers back")]
    return [Finding("ports", "ok", f"on 127.0.0.1 a NATS server answers at {', '.join(map(str, mapped))}")]


def _greeting(port: int) -> str:
    """Say what a port of 127.0.0.1 does; a NATS server speaks first."""
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=1)
    except OSError:
        return "is closed"
    with connection:
        try:
            return SPEAKS if connection.recv(5).startswith(b"INFO") else "is open, no server there"
        except OSError:
            return "is open and silent"


# -- the machine


def memory(sight: Sight) -> list[Finding]:
    """Hold the free memory against what the nodes take."""
    from jslab.deployment import tools

    amounts = [free_memory()]
    if sight.docker:  # Docker Desktop has a machine of its own, smaller than this one
        total = run(tools.run("docker", "info", "--format", "{{.MemTotal}}", timeout=PROGRAM)).strip()
        amounts.append(int(total) if total.isdigit() else None)
    known = [amount for amount in amounts if amount is not None]
    if not known:
        return [note("memory", "free memory is not known here", "have 3 GB free")]
    runs = bool(sight.found) and sight.control_runs
    needed, comfortable = USING if runs else MAKING
    level: Level = "ok" if min(known) >= comfortable else "warning" if min(known) >= needed else "problem"
    seen = f"{min(known) / 1e9:.1f} GB free" + (", beside the running nodes" if runs else "")
    parts = "a notebook takes 0.3 GB" if runs else "four nodes, three servers and a notebook take 1.8 GB"
    do = f"close something, or give Docker Desktop more: {parts}; the backend embedded takes 0.3"
    return [Finding("memory", level, seen, do)]


def inotify(_: Sight) -> list[Finding]:
    """Hold the limits on inotify against what four nodes take."""
    limits = {name: int((INOTIFY / name).read_text()) for name in ADVISED}
    seen = ", ".join(f"{name} {number}" for name, number in limits.items())
    advised = " ".join(f"fs.inotify.{name}={max(limits[name], least)}" for name, least in ADVISED.items())
    keep = f"printf '%s\\n' {advised} | sudo tee /etc/sysctl.d/99-kind.conf"
    do = f"sudo sysctl -w {advised}; to keep it: {keep}"
    if any(limits[name] < least for name, least in INOTIFY_NEEDED.items()):
        return [Finding("inotify", "problem", f"{seen}: too few for four nodes", do)]
    if any(limits[name] < least for name, least in INOTIFY_COMFORTABLE.items()):
        return [note("inotify", f'{seen}: with more programs "too many open files"', do)]
    return [Finding("inotify", "ok", seen)]


def node_image(sight: Sight) -> list[Finding]:
    """Look whether Docker has the node image that is named."""
    from jslab.deployment import tools

    chosen = sight.settings.kind_image
    if sight.found and sight.found.nodes:
        return [Finding("node image", "ok", "the nodes are made; JSLAB_KIND_IMAGE is for the next ones")]
    if chosen is None:
        seen = "kind's own, from a registry unless this Docker has it; JSLAB_KIND_IMAGE names another"
        return [Finding("node image", "ok", seen)]
    asked = ("image", "inspect", chosen, "--format", "{{.Os}}/{{.Architecture}}")
    try:
        built_for = run(tools.run("docker", *asked, timeout=PROGRAM)).strip()
    except ToolError:
        do = f"docker pull {chosen}; or without a registry: docker load, or unset JSLAB_KIND_IMAGE"
        return [note("node image", f"this Docker has no {chosen} (JSLAB_KIND_IMAGE); kind would pull it", do)]
    return [Finding("node image", "ok", f"{chosen} (JSLAB_KIND_IMAGE), {built_for}, is in this Docker")]


def server_image(sight: Sight) -> list[Finding]:
    """Say where the nodes get the server's image from."""
    from jslab import settings
    from jslab.deployment import manifest

    offline = f"{UP} --offline needs no registry"
    if chosen := sight.settings.image:
        seen = f"{chosen} (JSLAB_IMAGE), which nodes without it pull; for one of this Docker: "
        seen += f"kind load docker-image {chosen} --name {sight.name}"
    elif sight.image:
        seen = f"{sight.image}, loaded into the nodes by --offline"
    else:
        image = manifest.read(sight.settings.manifests or settings.course_folder("manifests")).image
        seen = f"{image}, from the manifests, which nodes without it pull; {offline}"
    return [Finding("server image", "ok", seen)]
