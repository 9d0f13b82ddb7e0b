"""Makes, finds, wakes and deletes the kind cluster of this machine that is ours."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jslab.deployment import Say, manifest, ports, process, tools
from jslab.deployment.cluster import OURS, Cluster, Object
from jslab.deployment.kind_nodes import Nodes
from jslab.deployment.rollout import is_ours
from jslab.errors import ClusterError, PortTakenError, ToolError
from jslab.settings import Settings, course_folder, state_dir
from jslab.waiting import until

# In this namespace of the kind cluster lies the object that says that the cluster is ours.
MARKER, MARKER_SPACE = "jslab-cluster", "kube-system"
CREATING, DELETING, STARTING = 600.0, 60.0, 90.0
# Kubernetes' own port on the control plane: the one that is mapped and no door.
API_PORT = "6443"


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of the kind cluster, as it was found: nothing was started or made."""

    name: str
    nodes: Mapping[str, str]
    """State of each node container: ``running``, ``paused``, ``exited``; empty when there is no cluster."""
    wanted: int
    """Nodes that cluster.yaml names."""
    half_made: bool
    ports: tuple[int, ...]
    """Mapped ports of 127.0.0.1; where there is no cluster those of cluster.yaml, 0 for any free one."""


class KindCluster:
    """The cluster by its name: at most one jslab makes or deletes it, and a half-made one is made anew."""

    def __init__(self, settings: Settings) -> None:
        folder = settings.manifests or course_folder("manifests")
        self.folder = (folder if (folder / "kind").is_dir() else course_folder("manifests")) / "kind"
        """Where cluster.yaml and services.yaml lie."""
        self._settings = settings
        self._config = manifest.plain(self.folder / "cluster.yaml")[0]
        self.name = settings.kind_cluster or str(self._config.get("name") or "jslab")
        self.nodes = Nodes(self.name)
        self.api: Cluster | None = None
        """The way to its API server; None while there is none."""
        self._marker: Object | None = None

    @property
    def image(self) -> str | None:
        """The server's image that was loaded into the nodes; None when none was."""
        return (self._marker or {}).get("data", {}).get("image") or None

    async def remember_image(self, name: str) -> None:
        """Have the cluster itself know which image its nodes were given."""
        assert self.api is not None
        body = {"data": {"image": name}}
        self._marker = await self.api.patch("ConfigMap", MARKER, body, namespace=MARKER_SPACE)

    async def found(self) -> Found:
        """Look at what there is of the cluster, and change nothing. Raises ToolError."""
        states = await self._states_if_any()
        mapped = [mapping.get("hostPort") or 0 for mapping in _mappings(self._config)]
        if self.nodes.started(states):
            bound = await self.nodes.bound()
            mapped = [int(port or 0) for node_port, port in bound.items() if node_port != API_PORT]
        wanted = len(self._config.get("nodes", []))
        return Found(self.name, states, wanted, await self._half_made(states), tuple(mapped))

    async def there(self) -> bool:
        """Tell whether there is such a cluster, whole, ours or not."""
        states = await self._states_if_any()
        return bool(states) and not await self._half_made(states)

    async def credentials(self) -> Cluster:
        """Get the cluster's own credentials from kind; the user's kubeconfig is neither read nor written."""
        config = yaml.safe_load(await tools.run("kind", "get", "kubeconfig", "--name", self.name))
        return Cluster(f"kind-{self.name}", self._settings.namespace, config)

    async def reach(self, *, make: bool, say: Say) -> None:
        """Connect to the cluster; a missing or half-made one is made, a sleeping one is woken.

        Raises ClusterError when it is not ours, or not there and ``make`` is false.
        """
        async with self._alone(say) if make else contextlib.nullcontext():
            states = await self._states_if_any()
            half_made = await self._half_made(states)
            if not make and (half_made or not states):
                raise self._not_there(states)
            if half_made:
                say(f"the kind cluster {self.name} was left half made ({', '.join(states)}): making it anew")
                await self._delete()
            if half_made or not states:
                await self._create(say)
            else:
                await self._wake(states, say)

    async def remove(self, say: Say) -> None:
        """Delete the cluster. Raises ClusterError, and touches nothing, when it is not ours."""
        async with self._alone(say):
            states = await self._states_if_any()
            if not states:
                return
            if not await self._half_made(states):
                await self._wake(states, say)
            say(f"deleting the kind cluster {self.name}")
            await self._delete()

    @contextlib.asynccontextmanager
    async def _alone(self, say: Say) -> AsyncIterator[None]:
        """Let one jslab at a time make or delete the cluster; another one is waited for."""
        told = False

        def ours() -> bool:
            nonlocal told
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    say(f"another jslab makes or deletes the kind cluster {self.name}: waiting for it")
                told = True
                return False
            return True

        with self._file("lock").open("w") as lock:
            await until(ours, what="another jslab to end", timeout=CREATING, error=ClusterError)
            self._end_orphan()
            yield

    def _end_orphan(self) -> None:
        """End a kind whose jslab was killed: it would go on with the next cluster of that name."""
        pid = int((self._intended() or {}).get("kind") or 0)
        line = process.command_line(pid) if pid else ""
        if "create cluster" in line and f"--name {self.name} " in line:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    async def _states_if_any(self) -> dict[str, str]:
        await tools.run("docker", "version", "--format", "{{.Server.Version}}")
        exists = self.name in (await tools.run("kind", "get", "clusters")).split()
        return await self.nodes.states() if exists else {}

    # -- making and deleting

    async def _create(self, say: Say) -> None:
        count = len(self._config.get("nodes", []))
        say(f"making the kind cluster {self.name}, {count} nodes: half a minute or so")
        chosen = self._settings.kind_image
        with self._claimed_ports() as config, self._private_kubeconfig() as kubeconfig:
            mapped = [mapping["hostPort"] for mapping in _mappings(config)]
            self._intend(mapped, None)
            try:
                await tools.run(
                    *("kind", "create", "cluster", "--config", "-", "--name", self.name),
                    *("--kubeconfig", kubeconfig),
                    *(("--image", chosen) if chosen else ()),
                    stdin=yaml.safe_dump(config).encode(),
                    timeout=CREATING,
                    started=lambda pid: self._intend(mapped, pid),
                )
            except ToolError:
                if not await self.nodes.states():  # kind has cleaned up itself
                    self._intent.unlink()
                raise
        connected = await self._connect()
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": MARKER, "labels": OURS},
            "data": {"image": ""},
        }
        self._marker = await connected.create(body, namespace=MARKER_SPACE)
        self._intent.unlink()

    async def _delete(self) -> None:
        with self._private_kubeconfig() as kubeconfig:
            arguments = ("delete", "cluster", "--name", self.name, "--kubeconfig", kubeconfig)
            # Docker may still have been making a node when the kind that asked for it was ended.
            while await self.nodes.states():
                await tools.run("kind", *arguments, timeout=DELETING)
        self._intent.unlink(missing_ok=True)
        self._disconnect()

    @contextlib.contextmanager
    def _claimed_ports(self) -> Iterator[dict[str, Any]]:
        """Fill free host ports into the cluster's configuration; one that it names itself must be free."""
        config = copy.deepcopy(self._config)
        open_ones = [mapping for mapping in _mappings(config) if not mapping.get("hostPort")]
        for mapping in _mappings(config):
            if (port := mapping.get("hostPort")) and not ports.free(port):
                raise PortTakenError(
                    f"port {port} of 127.0.0.1, which cluster.yaml maps, is taken",
                    seen=f"somebody listens there; {self.folder / 'cluster.yaml'} names it",
                    do="end that program, or write hostPort: 0, which takes a free one",
                )
        with ports.claim(state_dir(self._settings), len(open_ones)) as chosen:
            for mapping, port in zip(open_ones, chosen, strict=True):
                mapping["hostPort"] = port
            yield config

    @contextlib.contextmanager
    def _private_kubeconfig(self) -> Iterator[str]:
        """Name a file for kind to write credentials to, which would otherwise go into the user's own.

        Under the lock it may have one name, so that what a killed jslab left is taken away by the next.
        """
        file = self._file("kubeconfig")
        try:
            yield str(file)
        finally:
            file.unlink(missing_ok=True)
            file.with_name(f"{file.name}.lock").unlink(missing_ok=True)

    # -- what was begun and not finished

    def _file(self, kind: str) -> Path:
        return state_dir(self._settings) / f"kind-{self.name}.{kind}"

    @property
    def _intent(self) -> Path:
        """A file that is there while we make the cluster: a cluster without our marker is then half made."""
        return self._file("creating")

    def _intend(self, mapped: Sequence[int], kind: int | None) -> None:
        self._intent.write_text(json.dumps({"ports": mapped, "kind": kind}))

    def _intended(self) -> dict[str, Any] | None:
        """Return the mapped ports of the cluster that we began to make, and the process that makes it."""
        try:
            return dict(json.loads(self._intent.read_text()))
        except FileNotFoundError:
            return None
        except ValueError:  # killed while it was written
            return {}

    async def _half_made(self, states: Mapping[str, str]) -> bool:
        """Tell whether this is a cluster of ours that was not finished: it has the ports that we chose."""
        intended = self._intended()
        if not states:
            return False
        if not self.nodes.started(
            states
        ):  # docker may make a node after the kind that asked for it was ended
            return True
        if intended is None:
            return False
        bound = {int(port or 0) for port in (await self.nodes.bound()).values()}
        return set(intended.get("ports", ())) <= bound

    # -- connecting

    def _disconnect(self) -> None:
        if self.api is not None:
            self.api.close()
        self.api, self._marker = None, None

    async def _connect(self) -> Cluster:
        """Connect to the API server, and see whether the cluster is ours."""
        self._disconnect()
        self.api = await self.credentials()
        found = await self.api.get("ConfigMap", MARKER, namespace=MARKER_SPACE)
        self._marker = found if found and is_ours(found) else None
        return self.api

    async def _wake(self, states: Mapping[str, str], say: Say) -> None:
        """Connect, and start node containers that were stopped before, as by a restart of the machine.

        Raises ClusterError when the cluster is not ours; it is then left as it was found.
        """
        control_plane = self.nodes.control_plane
        stopped = [name for name, state in states.items() if state in ("exited", "created")]
        asleep = control_plane in stopped or states.get(control_plane) == "paused"
        if not asleep:
            await self._connect()
            self._must_be_ours()
        if asleep:
            await self._wake_control_plane(paused=control_plane not in stopped)
        if others := [name for name in stopped if name != control_plane]:
            say(f"starting the stopped nodes {', '.join(others)}")
            await self.nodes.start(*others)

    async def _wake_control_plane(self, *, paused: bool) -> None:
        """Wake the node that can say whose cluster this is; one that is not ours goes back to sleep."""
        node = self.nodes.control_plane
        await (self.nodes.thaw(node) if paused else self.nodes.start(node))
        await self._until_connected()
        try:
            self._must_be_ours()
        except ClusterError:
            await (self.nodes.freeze(node) if paused else self.nodes.stop(node))
            raise

    async def _until_connected(self) -> None:
        """Connect to an API server that is just starting: its answers may be errors at first."""
        said: list[ClusterError] = []

        async def connected() -> bool:
            try:
                await self._connect()
            except ClusterError as err:
                said.append(err)
                return False
            return True

        await until(
            connected,
            what=f"the API server of the kind cluster {self.name} to answer",
            timeout=STARTING,
            every=0.5,
            seen=lambda: said[-1].seen,
            do=f"docker logs {self.nodes.control_plane} may say why; to give the cluster up, with its data: "
            f"kind delete cluster --name {self.name}",
            error=ClusterError,
        )

    def _not_there(self, states: Mapping[str, str]) -> ClusterError:
        if not states:
            return ClusterError(
                f"there is no kind cluster {self.name}",
                seen="`kind get clusters` does not list it",
                do="make it: jslab up --backend kind",
            )
        return ClusterError(
            f"the kind cluster {self.name} is half made",
            seen=", ".join(f"{name} {state}" for name, state in states.items()),
            do="if no other jslab is making it at this moment: jslab up --backend kind makes it anew, "
            "jslab down --backend kind removes it",
        )

    def _must_be_ours(self) -> None:
        if self._marker is None:
            raise ClusterError(
                f"the kind cluster {self.name} is not the lab's",
                seen=f"it has no ConfigMap {MARKER} of ours in {MARKER_SPACE}: somebody else made it",
                do="keep it and use it by its context: JSLAB_BACKEND=kubernetes "
                f"JSLAB_CONTEXT=kind-{self.name}; or delete it yourself: "
                f"kind delete cluster --name {self.name}. Nothing in it was touched",
            )


def _mappings(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the port mappings of a cluster.yaml, those of all its nodes."""
    return [mapping for node in config.get("nodes", []) for mapping in node.get("extraPortMappings", [])]
