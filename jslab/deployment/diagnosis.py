"""Why pods do not become ready: from conditions, events, claims, log lines and each server's own health."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jslab.deployment import health
from jslab.deployment.cluster import Cluster, Object, RefusalError
from jslab.errors import ClusterError

MONITOR = 8222
# Seconds that a symptom must last: pulling and binding fail for a moment in deployments that end well.
PATIENCE = 8.0
# Seconds in which three servers that can find each other have done so, on a busy laptop too.
MEETING = 15.0
NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}
NO_CONTAINER = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"}
NO_CLAIM_YET = re.compile(r'persistentvolumeclaim "[^"]+" not found')
# The label by which a StatefulSet knows which version a pod is of.
REVISION = "controller-revision-hash"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


@dataclass(frozen=True, slots=True)
class Sight:
    """What was there at one moment."""

    stateful: Object
    pods: tuple[Object, ...]
    health: dict[str, tuple[int, Any]] = field(default_factory=dict)
    """Status and body of the health path, of pods that run and are not ready."""

    @property
    def done(self) -> bool:
        """Whether every pod is ready and of the newest version."""
        spec, status = self.stateful["spec"], self.stateful.get("status", {})
        return bool(
            self._observed
            and status.get("currentRevision") == status.get("updateRevision")
            and status.get("readyReplicas") == status.get("updatedReplicas") == spec["replicas"]
        )

    @property
    def outdated(self) -> tuple[str, ...]:
        """Names of pods of an older version that cannot run, which a rolling update would wait for in vain.

        It takes one pod at a time and goes on when the new one is ready; a server alone never is.
        """
        if not self._observed:
            return ()
        return tuple(name_of(pod) for pod in self.pods if pod not in self.newest and _cannot_run(pod))

    @property
    def newest(self) -> tuple[Object, ...]:
        """The pods of the newest version: what is wrong with an older one says nothing about it."""
        if not self._observed:
            return ()
        revision = self.stateful["status"].get("updateRevision")
        return tuple(pod for pod in self.pods if pod["metadata"]["labels"].get(REVISION) == revision)

    @property
    def _observed(self) -> bool:
        """Whether Kubernetes has seen what was last applied."""
        seen = self.stateful.get("status", {}).get("observedGeneration", 0)
        return bool(seen >= self.stateful["metadata"]["generation"])

    @property
    def line(self) -> str:
        """What is waited for, in one line."""
        names = wanted(self.stateful)
        pods = {name_of(pod): pod for pod in self.pods}
        waits = [f"{name} ({phase(pods.get(name))})" for name in names if not ready(pods.get(name))]
        return ", ".join(waits) or "the newest version of every pod"


class Watcher:
    """Looks at the pods of one StatefulSet again and again, and remembers since when a symptom lasts."""

    def __init__(self, cluster: Cluster, name: str, health_path: str) -> None:
        self._cluster = cluster
        self._name = name
        self._health_path = health_path
        self._since: dict[str, float] = {}
        self._now: set[str] = set()
        self._restarts: dict[str, int] = {}
        self.report = ""
        """All that is known of what is not ready, in some lines."""

    async def look(self) -> Sight:
        """Ask for the StatefulSet and its pods, and the servers that are not ready for their health."""
        stateful = await self._cluster.get("StatefulSet", self._name)
        if stateful is None:
            raise ClusterError(
                f"the StatefulSet {self._name} is gone",
                seen=f"none in {self._cluster.namespace}; somebody deleted it meanwhile",
                do="apply it again: jslab up",
            )
        found = await self._cluster.find("Pod", stateful["spec"]["selector"]["matchLabels"])
        pods = tuple(sorted(found, key=name_of))
        waiting = [name_of(pod) for pod in pods if running(pod) and not ready(pod)]
        answers = await asyncio.gather(
            *(self._cluster.ask_pod(name, MONITOR, self._health_path) for name in waiting)
        )
        return Sight(stateful, pods, dict(zip(waiting, answers, strict=True)))

    async def cause(self, sight: Sight) -> ClusterError | None:
        """Return what keeps the pods from becoming ready, once that is plain and will not go by itself."""
        self._now = set()
        events = await self._events()
        finders: Sequence[Callable[[], Any]] = (
            lambda: self._no_image(sight),
            lambda: self._no_container(sight),
            lambda: self._crash_loop(sight),
            lambda: self._no_storage(sight, events),
            lambda: self._not_created(sight, events),
            lambda: self._no_node(sight),
            lambda: self._deadlock(sight),
        )
        causes = [await finder() for finder in finders]
        self._since = {symptom: at for symptom, at in self._since.items() if symptom in self._now}
        self.report = await self._describe(sight, events)
        return next((cause for cause in causes if cause), None)

    def _lasts(self, symptom: str, patience: float = PATIENCE) -> bool:
        self._now.add(symptom)
        return time.monotonic() - self._since.setdefault(symptom, time.monotonic()) >= patience

    async def _no_image(self, sight: Sight) -> ClusterError | None:
        for pod in sight.newest:
            reason, said = waiting(pod)
            if reason in NO_IMAGE and self._lasts(f"image {name_of(pod)}"):
                image = pod["spec"]["containers"][0]["image"]
                return ClusterError(
                    f"the image {image} cannot be pulled",
                    seen=f"{name_of(pod)} on {pod['spec'].get('nodeName')}: {reason}: {said}",
                    do="without a way to the registry: `jslab up --backend kind --offline`, or name an image "
                    "that the nodes have: JSLAB_IMAGE",
                )
        return None

    async def _no_container(self, sight: Sight) -> ClusterError | None:
        for pod in sight.newest:
            reason, said = waiting(pod)
            if reason in NO_CONTAINER and self._lasts(f"container {name_of(pod)}"):
                return ClusterError(
                    f"the container of {name_of(pod)} cannot be started",
                    seen=f"{reason}: {said}",
                    do="correct what it names in the manifests, and run `jslab up` again",
                )
        return None

    async def _crash_loop(self, sight: Sight) -> ClusterError | None:
        for pod in sight.newest:
            status = container(pod)
            restarts = status.get("restartCount", 0)
            # Those before the first look prove nothing: each start of the machine is one.
            since = restarts - self._restarts.setdefault(pod["metadata"]["uid"], restarts)
            if not ready(pod) and (waiting(pod)[0] == "CrashLoopBackOff" or since >= 2):
                ended = status.get("lastState", {}).get("terminated") or {}
                # A program that could not even be started has a message, and no log.
                words = ended.get("message") or await self._last_words(name_of(pod))
                return ClusterError(
                    f"the server in {name_of(pod)} ends again and again",
                    seen=f"exit code {ended.get('exitCode', '?')}: {words}",
                    do="correct what it names in the manifests, and run `jslab up` again",
                )
        return None

    async def _no_storage(self, sight: Sight, events: Sequence[Object]) -> ClusterError | None:
        for claim in await self._claims():
            if claim["status"].get("phase") != "Pending" or not self._lasts(f"claim {name_of(claim)}"):
                continue
            said = [
                event.get("message", "") for event in about(events, claim) if event.get("type") == "Warning"
            ]
            said += [
                event.get("message", "")
                for event in about(events, claim)
                if event["reason"] == "FailedBinding"
            ]
            if said:
                return ClusterError(
                    f"the claim {name_of(claim)} gets no volume",
                    seen=said[-1],
                    do=await self._storage_remedy(claim),
                )
        return None

    async def _storage_remedy(self, claim: Object) -> str:
        named = claim["spec"].get("storageClassName")
        try:
            classes = await self._cluster.find("StorageClass")
        except RefusalError:
            classes = []
        names = ", ".join(map(name_of, classes)) or "none that you may see"
        if named is None:
            return (
                f"no storage class is the default one (classes: {names}). Name one in volumeClaimTemplates "
                "(storageClassName), or make one the default: kubectl annotate storageclass NAME "
                f"{DEFAULT_CLASS}=true"
            )
        return f"the claim names the class {named}; classes of the cluster: {names}"

    async def _not_created(self, sight: Sight, events: Sequence[Object]) -> ClusterError | None:
        failed = [event for event in about(events, sight.stateful) if event["reason"] == "FailedCreate"]
        missing = len(sight.pods) < sight.stateful["spec"]["replicas"]
        if failed and missing and self._lasts("create"):
            return ClusterError(
                f"Kubernetes refuses to make a pod of {self._name}",
                seen=failed[-1].get("message", ""),
                do="correct what it names: a quota, or what a Pod Security Standard forbids",
            )
        return None

    async def _no_node(self, sight: Sight) -> ClusterError | None:
        for pod in sight.newest:
            condition = conditions(pod).get("PodScheduled", {})
            # The pod's claim is made at the same moment: the scheduler looks again before long.
            early = NO_CLAIM_YET.search(condition.get("message", ""))
            unschedulable = condition.get("reason") == "Unschedulable" and not early
            if unschedulable and self._lasts(f"node {name_of(pod)}"):
                return ClusterError(
                    f"no node takes {name_of(pod)}",
                    seen=condition.get("message", ""),
                    do="give the cluster what it lacks, or ask for less in resources.requests; a node that "
                    "is cordoned takes nothing: kubectl uncordon NODE",
                )
        return None

    async def _deadlock(self, sight: Sight) -> ClusterError | None:
        """Find the two ways in which servers wait for each other for ever."""
        stuck = [name for name, (status, _) in sight.health.items() if status not in (0, 200)]
        if not stuck or any(ready(pod) for pod in sight.pods) or not self._lasts("deadlock", MEETING):
            return None
        spec = sight.stateful["spec"]
        said = f"{stuck[0]} {self._health_path}: {_words(sight.health[stuck[0]])}"
        if spec.get("podManagementPolicy") == "OrderedReady" and len(sight.pods) < spec["replicas"]:
            return ClusterError(
                f"a deadlock: {stuck[0]} waits for the other servers, and they wait for it",
                seen=f"{said}; OrderedReady makes the next pod only when this one is ready",
                do="podManagementPolicy: Parallel; delete the StatefulSet first, it cannot be changed",
            )
        service = await self._cluster.get("Service", spec["serviceName"])
        if service is not None and not service["spec"].get("publishNotReadyAddresses"):
            return ClusterError(
                "a deadlock: a server is ready when it has found the others, and found when it is ready",
                seen=f"{said}; the service {spec['serviceName']} gives no names to pods that are not ready",
                do="publishNotReadyAddresses: true in that service",
            )
        return None

    async def _last_words(self, pod: str) -> str:
        text = await self._cluster.log(pod, 40, previous=True) or await self._cluster.log(pod, 40)
        return health.last_words(text) or "it wrote nothing"

    async def _claims(self) -> list[Object]:
        return [claim for claim in await self._cluster.find("PersistentVolumeClaim") if "status" in claim]

    async def _events(self) -> list[Object]:
        try:
            events = await self._cluster.find("Event")
        except RefusalError:  # the right to read events is no condition for a lab
            return []
        return sorted(events, key=lambda event: event["metadata"].get("creationTimestamp") or "")

    async def _describe(self, sight: Sight, events: Sequence[Object]) -> str:
        lines = []
        for pod in sight.pods:
            if ready(pod):
                continue
            name = name_of(pod)
            lines.append(f"{name}: {phase(pod)}")
            if name in sight.health:
                lines.append(f"    {self._health_path}: {_words(sight.health[name])}")
            lines += [
                f"    event {event['reason']}: {event.get('message')}" for event in about(events, pod)[-2:]
            ]
            if last := (await self._cluster.log(name, 1)).strip():
                lines.append(f"    last line of its log: {last}")
        lines += [
            f"claim {name_of(c)}: {c['status'].get('phase')}" for c in await self._claims() if _unbound(c)
        ]
        return "\n        ".join(lines) or "no pods"


def wanted(stateful: Object) -> list[str]:
    """Return the names of the pods that a StatefulSet stands for."""
    return [f"{name_of(stateful)}-{number}" for number in range(stateful["spec"]["replicas"])]


def name_of(found: Object) -> str:
    """Return an object's name."""
    return str(found["metadata"]["name"])


def conditions(pod: Object) -> dict[str, Object]:
    """Return a pod's conditions by their type."""
    return {entry["type"]: entry for entry in pod.get("status", {}).get("conditions") or []}


def container(pod: Object) -> Object:
    """Return the status of the pod's one container, empty before it has one."""
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    return dict(statuses[0])


def waiting(pod: Object) -> tuple[str, str]:
    """Return reason and message of a container that waits, empty for one that does not."""
    state = container(pod).get("state", {}).get("waiting") or {}
    return state.get("reason", ""), state.get("message", "")


def running(pod: Object | None) -> bool:
    """Tell whether a pod's container runs."""
    return pod is not None and "running" in (container(pod).get("state") or {})


def ready(pod: Object | None) -> bool:
    """Tell whether a pod is ready, and not about to go."""
    if pod is None or pod["metadata"].get("deletionTimestamp"):
        return False
    return bool(conditions(pod).get("Ready", {}).get("status") == "True")


def phase(pod: Object | None) -> str:
    """Say in a few words how far a pod is."""
    if pod is None:
        return "not made yet"
    if pod["metadata"].get("deletionTimestamp"):
        return "leaving"
    if ready(pod):
        return "ready"
    if running(pod):
        return "runs, not ready yet"
    if reason := waiting(pod)[0]:
        return reason
    scheduled = conditions(pod).get("PodScheduled", {})
    return "starting" if scheduled.get("status") == "True" else scheduled.get("reason") or "not on a node yet"


def about(events: Sequence[Object], found: Object) -> list[Object]:
    """Return the events about one object, oldest first."""
    uid, name = found["metadata"].get("uid"), name_of(found)
    return [
        event
        for event in events
        if event["involvedObject"].get("uid") == uid and event["involvedObject"].get("name") == name
    ]


def _cannot_run(pod: Object) -> bool:
    if pod["metadata"].get("deletionTimestamp") or running(pod):
        return False
    reason = waiting(pod)[0]
    unscheduled = conditions(pod).get("PodScheduled", {}).get("reason") == "Unschedulable"
    return unscheduled or reason in NO_IMAGE | NO_CONTAINER | {"CrashLoopBackOff"}


def _unbound(claim: Object) -> bool:
    return bool(claim["status"].get("phase") != "Bound")


def _words(answer: tuple[int, Any]) -> str:
    status, body = answer
    if status == 0:
        return "no answer"
    said = (body.get("error") or body.get("status") or "") if isinstance(body, dict) else ""
    return f"{status} {said}".strip()
