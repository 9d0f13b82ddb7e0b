"""A cluster of servers in a namespace of Kubernetes: any context that the user names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jslab.deployment import Json, Say, Server, diagnosis, health, lease, manifest, rights, rollout, tools
from jslab.deployment.cluster import FORBIDDEN, UNAUTHORIZED, Cluster, Object, RefusalError
from jslab.deployment.forward import Forward
from jslab.deployment.lease import Lease
from jslab.errors import ClusterError, DeploymentError, NotReadyError, SettingsError
from jslab.settings import Settings, course_folder
from jslab.waiting import until

# Seconds for what is made: three pods with volumes, on a cluster that has to pull an image first.
ROLLOUT = 300.0
# Seconds a pod may take to be replaced, and to leave when it is asked: lame duck is 40 of them.
REPLACED, LEFT = 30.0, 90.0
# Seconds in which servers that are there become healthy, unless something is wrong.
JOINED = 15.0
# The question that leaves out how streams are.
SERVER_ONLY = "/healthz?js-server-only=true"
# Seconds for a kubectl command; one that waits for a rollout takes a minute or two.
KUBECTL = 180.0
ELSEWHERE = "this needs the node's container engine; the backends kind and embedded can do it"
NOT_HERE = "volumes of a cluster that is not ours are never deleted; the backends kind and embedded can do it"


class KubernetesDeployment:
    """Servers that outlive the notebook: joined when they are there, made when they are not.

    What ``up`` opens is the notebook's own: a Lease, so that one lesson is there at a time, and an address on
    127.0.0.1 for each server. ``down`` ends those and leaves the servers as they are.
    """

    backend = "kubernetes"
    ephemeral = False
    refuses: Mapping[str, str] = MappingProxyType({"hold": ELSEWHERE, "pause": ELSEWHERE, "wipe": NOT_HERE})

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._manifest = manifest.read(settings.manifests or course_folder("manifests"))
        self.version = ""
        self._cluster: Cluster | None = None
        self._lease: Lease | None = None
        self._forwards: dict[str, Forward] = {}
        self._pods: dict[str, Object] = {}
        self._open = False

    # -- the notebook's side

    async def up(self) -> None:
        """Take the lab for this notebook: join the servers, or make them first, and wait until they work.

        Raises LeaseHeldError, ClusterError with cause and remedy, ToolError, NotReadyError.
        """
        try:
            await self._reach(make=True, say=print)
            await self._check_rights(rights.LESSON)
            joins = await self._installed()
            if not joins:
                await self.install(print)
            self._lease = await Lease.take(self.cluster, self.backend, take_over=self._settings.take_over)
            if joins and self._settings.manifests is not None:
                await self.install(print)
            await self._undo_faults()
            await (self._join() if joins else self.ready(self._settings.timeout))
            await self.open()
        except BaseException:
            await self.down()
            raise

    async def _join(self) -> None:
        """Wait for servers that were there before; what is wrong with a stream alone keeps nobody out.

        A stream that lost its copies for good, as in an exercise, keeps its servers from being healthy until
        somebody removes it, and for that one has to come in.
        """
        try:
            await self.ready(min(JOINED, self._settings.timeout))
        except NotReadyError as err:
            works, _ = await health.whole(self.get, self._manifest.names, SERVER_ONLY)
            if works:
                print(f"the servers work, but not all of their streams: {err.seen}")
            else:
                await self.ready(self._settings.timeout)

    async def open(self) -> None:
        """Give each server an address on this machine, without taking the lab; ``down`` closes them."""
        await self._reach(make=False, say=print)
        await self._open_doors()
        self.version = await self._version()
        await self.look()
        self._open = True

    async def down(self) -> None:
        """Give the lab up: heal what is broken, let go of the lease, close every address; servers stay."""
        self._open = False
        forwards, self._forwards = self._forwards, {}
        for forward in forwards.values():
            await forward.close()
        held, self._lease = self._lease, None
        try:
            if held is not None and held.lost is None:
                await self._undo_faults()
        finally:
            if held is not None:
                await asyncio.to_thread(held.release)
            if self._cluster is not None:
                self._cluster.close()

    async def ready(self, timeout: float) -> None:
        """Wait until every server is healthy and they work as one cluster. Raises NotReadyError."""
        watcher = diagnosis.Watcher(self.cluster, self._stateful, self._manifest.startup.path)

        async def probe() -> bool:
            names = self._manifest.names
            works, _ = await health.whole(self.get, names, self._manifest.startup.path)
            if works and await self._all_ready():
                return True
            await watcher.cause(await watcher.look())
            return False

        await until(
            probe,
            what=f"{len(self._manifest.names)} servers to form a cluster",
            timeout=timeout,
            every=0.2,
            seen=lambda: watcher.report,
            do=f"{self.cluster.kubectl} describe pods says more",
        )

    async def _all_ready(self) -> bool:
        """Whether Kubernetes, too, has seen that every pod is ready: only then does it take the next one."""
        await self.look()
        return all(diagnosis.ready(self._pods.get(name)) for name in self._manifest.names)

    async def look(self) -> None:
        """Ask how the servers are, for ``servers`` to say."""
        found = await asyncio.gather(*(self.cluster.get("Pod", name) for name in self._manifest.names))
        self._pods = {diagnosis.name_of(pod): pod for pod in found if pod is not None}

    def servers(self) -> tuple[Server, ...]:
        """Return the servers as they were when last looked at."""
        if not self._open:
            raise DeploymentError(
                "this lab is not running", seen="it is closed", do="start one: lab = await jslab.start()"
            )
        if self._lease is not None and self._lease.lost is not None:
            raise self._lease.lost
        return tuple(self._server(name) for name in self._manifest.names)

    def _server(self, name: str) -> Server:
        pod = self._pods.get(name)
        return Server(
            name=name,
            client_url=self._client_url(name),
            monitor_url=self._monitor_url(name),
            state=self._state(name, pod),
            restarts=diagnosis.container(pod or {}).get("restartCount", 0),
        )

    def _state(self, name: str, pod: Object | None) -> str:
        return "running" if diagnosis.running(pod) else "backoff"

    def _client_url(self, name: str) -> str:
        return f"nats://127.0.0.1:{self._forwards[name].port}"

    def _monitor_url(self, name: str) -> str:
        path = f"/api/v1/namespaces/{self.cluster.namespace}/pods/{name}:{self._port('monitor')}/proxy/"
        return f"{self.cluster.kubectl} get --raw {path}"

    async def get(self, server: str, path: str) -> tuple[int, Json]:
        """Return status and JSON of a monitoring path, by way of the API server; status 0: no answer."""
        self._check(server)
        return await self.cluster.ask_pod(server, self._port("monitor"), path)

    async def log(self, server: str, lines: int = 50) -> str:
        """Return the last lines of a server's log, since its pod was made."""
        self._check(server)
        return await self.cluster.log(server, lines)

    # -- what can be broken

    async def crash(self, server: str) -> None:
        """Delete the pod without grace; Kubernetes makes another with the same name and volume."""
        await self._replace(server, grace=0, timeout=REPLACED)

    async def terminate(self, server: str) -> None:
        """Delete the pod as a drain does: lame duck, which hands leaders over, then a new pod; up to 45 s."""
        await self._replace(server, grace=None, timeout=LEFT)

    async def wipe(self, server: str) -> None:
        """Not here: the lab refuses it and names the backends that can."""
        raise NotImplementedError

    async def hold(self, server: str) -> None:
        """Not here: the lab refuses it and names the backends that can."""
        raise NotImplementedError

    async def release(self, server: str) -> None:
        """Nothing is ever held here."""

    async def pause(self, server: str) -> None:
        """Not here: the lab refuses it and names the backends that can."""
        raise NotImplementedError

    async def resume(self, server: str) -> None:
        """Nothing is ever paused here."""

    async def _replace(self, server: str, *, grace: int | None, timeout: float) -> None:
        """Delete a pod and return when the old server is gone and the name belongs to another pod."""
        self._check(server)
        old = await self.cluster.get("Pod", server)
        uid = old["metadata"]["uid"] if old else None
        _, before = await self.get(server, "/varz")
        if grace == 0:
            await self._kill(server, old)
        await self.cluster.delete("Pod", server, grace=grace)

        async def replaced() -> bool:
            new = await self.cluster.get("Pod", server)
            if new is None or new["metadata"]["uid"] == uid:
                return False
            _, now = await self.get(server, "/varz")
            return not now or not before or now["server_id"] != before["server_id"]

        await until(
            replaced,
            what=f"the pod of {server} to be replaced",
            timeout=timeout,
            every=0.1,
            do="see await lab.status(); await lab.faults.heal() puts all servers back",
            error=DeploymentError,
        )
        await self.look()

    async def _kill(self, server: str, pod: Object | None) -> None:
        """End the server's process itself, where that can be done from here."""

    async def _undo_faults(self) -> None:
        """End what a lab that is gone has left broken."""

    # -- the deployment itself

    async def install(self, say: Say, *, offline: bool = False) -> None:
        """Bring the namespace to what the manifests say, and wait until the servers work as one cluster.

        Safe to repeat. Raises ClusterError with cause and remedy, NotReadyError.
        """
        await self._reach(make=True, say=say, offline=offline)
        await self.apply(say)
        await self.finish(say)

    async def apply(self, say: Say) -> None:
        """Say what the namespace should be, without waiting for it to become so. Raises ClusterError."""
        space = await self.cluster.get("Namespace", self.cluster.namespace)
        if space is None or rollout.is_ours(space):
            wanted = rights.install(body["kind"] for body in self._objects())
            await self._check_rights([*wanted, *([rights.MAKE_NAMESPACE] if space is None else [])])
        await rollout.claim_namespace(self.cluster, say)
        # What another notebook has broken on purpose is its own business.
        if self._lease is not None or not await self.holder():
            await self._undo_faults()
        await self._before_applying(say)
        await rollout.apply(self.cluster, self._objects(), await self._image())

    async def _before_applying(self, say: Say) -> None:
        """Wait for what pods need before they are placed, where that can be known."""

    async def finish(self, say: Say, timeout: float = ROLLOUT) -> None:
        """Wait until what was applied works as one cluster.

        Raises ClusterError with the cause, NotReadyError.
        """
        await rollout.finished(self.cluster, self._stateful, self._manifest.startup.path, say, timeout)
        say("waiting for the servers to form a cluster")
        await self.ready(timeout)
        self.version = await self._version()

    async def beside(self, namespace: str, manifests: Path) -> KubernetesDeployment:
        """Return a deployment of other manifests, in another namespace of the same cluster."""
        settings = replace(
            self._settings,
            backend=KubernetesDeployment.backend,
            context=self.cluster.context,
            namespace=namespace,
            manifests=manifests,
            image=await self._image(),
        )
        other = KubernetesDeployment(settings)
        other._cluster = self.cluster.beside(namespace)
        return other

    async def kubectl(self, *arguments: str, namespace: str | None = None) -> str:
        """Run kubectl in the lab's namespace, or another, and return what it printed. Raises ToolError."""
        where = ("--context", self.cluster.context, "-n", namespace or self.cluster.namespace)
        return await tools.run("kubectl", *where, *arguments, timeout=KUBECTL)

    async def remove(self, say: Say) -> None:
        """Delete the namespace with everything in it, volumes included, and wait until it is gone.

        Raises ClusterError when the namespace is not ours; then nothing is touched.
        """
        await self._reach(make=False, say=say)
        found = await self.cluster.get("Namespace", self.cluster.namespace)
        if found is None:
            return
        if not rollout.is_ours(found):
            raise rollout.not_ours(self.cluster)
        await self._check_rights(rights.REMOVE)
        say(f"deleting the namespace {self.cluster.namespace}")
        await rollout.delete_namespace(self.cluster)

        async def gone() -> bool:
            try:
                return await self.cluster.get("Namespace", self.cluster.namespace) is None
            except RefusalError as err:
                if err.status in (UNAUTHORIZED, FORBIDDEN):
                    say("the role that lets you look was in it and is gone; Kubernetes deletes the rest")
                    return True
                raise

        await until(gone, what=f"the namespace {self.cluster.namespace} to go", timeout=120, every=0.3)

    def known(self) -> tuple[str, ...]:
        """Return the names of the servers that the manifests ask for."""
        return self._manifest.names

    async def strangers(self) -> list[str]:
        """Name what ``remove`` would take away beside the lab: nothing, a namespace is all ours."""
        return []

    async def holder(self) -> str:
        """Say which notebook has the lab and since when; empty when none has."""
        return lease.describe(await self.cluster.get("Lease", lease.NAME))

    async def plan(self) -> list[str]:
        """Let the API server judge the manifests, change nothing, and name the objects that it accepts.

        Raises ClusterError: in a namespace that is not there nothing can be judged.
        """
        await self._reach(make=False, say=print)
        await rollout.apply(self.cluster, self._objects(), await self._image(), dry_run=True)
        return [f"{body['kind']}/{body['metadata']['name']}" for body in self._objects()]

    async def present(self) -> bool:
        """Tell whether the deployment is there, without making anything."""
        await self._reach(make=False, say=print)
        return await self._installed()

    @property
    def cluster(self) -> Cluster:
        """The namespace. Raises DeploymentError before ``up``."""
        if self._cluster is None:
            raise DeploymentError(
                "this lab is not running", seen="no cluster", do="start one: await jslab.start()"
            )
        return self._cluster

    async def _reach(self, *, make: bool, say: Say, offline: bool = False) -> None:
        if offline:
            raise SettingsError(
                "--offline is for kind",
                seen=f"backend {self.backend}",
                do="name a server image that this cluster can pull: JSLAB_IMAGE",
            )
        if self._settings.context is None:
            raise SettingsError(
                "the backend kubernetes needs a context by its name",
                seen="none given; the current one is never guessed",
                do="name it: JSLAB_CONTEXT, or context= of start(); `kubectl config get-contexts` lists them",
            )
        if self._cluster is None:
            self._cluster = Cluster(self._settings.context, self._settings.namespace)

    async def _check_rights(self, wanted: Iterable[rights.Right]) -> None:
        await rights.check(self.cluster, wanted)

    async def _installed(self) -> bool:
        found = await self.cluster.get("Namespace", self.cluster.namespace)
        if found is None:
            return False
        if not rollout.is_ours(found):
            raise rollout.not_ours(self.cluster)
        return await self.cluster.get("StatefulSet", self._stateful) is not None

    def _objects(self) -> list[Any]:
        return manifest.objects(self._manifest.folder)

    async def _image(self) -> str | None:
        return self._settings.image

    async def _open_doors(self) -> None:
        """Give each server an address on 127.0.0.1 that outlives its pod."""
        for name in self._manifest.names:
            forward = Forward(self._way_to(name), self._port("client"))
            await forward.start()
            self._forwards[name] = forward

    def _way_to(self, name: str) -> Any:
        return lambda: self.cluster.forward(name, self._port("client"))

    async def _version(self) -> str:
        _, facts = await self.get(self._manifest.names[0], "/varz")
        return str((facts or {}).get("version", "unknown"))

    @property
    def _stateful(self) -> str:
        return self._manifest.names[0].rpartition("-")[0]

    def _port(self, name: str) -> int:
        return self._manifest.ports[name]

    def _check(self, server: str) -> None:
        if server not in self._manifest.names:
            raise ClusterError(
                f"there is no server {server!r}",
                seen=f"servers of this lab: {', '.join(self._manifest.names)}",
                do="use one of those names",
            )
