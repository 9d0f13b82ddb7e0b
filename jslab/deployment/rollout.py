"""Brings a namespace to what the manifests say, and waits until its pods are ready."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jslab.deployment import Say, diagnosis
from jslab.deployment.cluster import CONFLICT, INVALID, OURS, Cluster, Object, RefusalError
from jslab.errors import ClusterError
from jslab.waiting import until

CONFIG_MARK = "jslab/config"
# What the API lets nobody change in a StatefulSet, of what the manifests set.
IMMUTABLE = ("serviceName", "podManagementPolicy", "selector", "volumeClaimTemplates")
# Seconds between two lines that say what is waited for, when nothing new is to be said.
SILENCE = 10.0
# The Pod Security Standard that the course's pods meet; the API server refuses any other in the namespace.
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


async def claim_namespace(cluster: Cluster, say: Say) -> None:
    """Make the namespace, or check that it is ours; if it is not, nothing in it is touched: ClusterError."""
    found = await cluster.get("Namespace", cluster.namespace)
    if found is None:
        say(f"namespace {cluster.namespace}: making it")
        try:
            await make_namespace(cluster)
        except RefusalError as err:
            if err.status != CONFLICT:
                raise
            await claim_namespace(cluster, say)  # somebody was faster: look whose it is
    elif not is_ours(found):
        raise not_ours(cluster)
    elif found["metadata"].get("deletionTimestamp"):
        raise ClusterError(
            f"the namespace {cluster.namespace} is being deleted",
            seen=f"since {found['metadata']['deletionTimestamp']}",
            do="try again when it is gone, some seconds from now",
        )


async def make_namespace(cluster: Cluster, marks: Mapping[str, str] | None = None) -> None:
    """Make the namespace as ours, with further labels if given."""
    metadata = {"name": cluster.namespace, "labels": OURS | RESTRICTED | dict(marks or {})}
    await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


async def delete_namespace(cluster: Cluster) -> None:
    """Begin to delete the namespace with everything in it; one that is not there is passed over."""
    pods = await cluster.find("Pod")
    await cluster.delete("Namespace", cluster.namespace)
    # Servers that nobody will miss need no lame duck, and now nobody makes them anew.
    for pod in pods:
        with contextlib.suppress(RefusalError):  # the role that lets us may be gone already
            await cluster.delete("Pod", diagnosis.name_of(pod), grace=0)


def is_ours(found: Object) -> bool:
    """Tell whether an object carries our label."""
    labels = found["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in OURS.items())


def not_ours(cluster: Cluster) -> ClusterError:
    """Return the error about a namespace that somebody else made."""
    (label,) = (f"{key}={value}" for key, value in OURS.items())
    return ClusterError(
        f"the namespace {cluster.namespace} is not the lab's",
        seen=f"it exists in the context {cluster.context} without the label {label}",
        do="name another: JSLAB_NAMESPACE, or namespace= of start(). Nothing in it was touched",
    )


async def apply(
    cluster: Cluster, objects: Sequence[Object], image: str | None, *, dry_run: bool = False
) -> None:
    """Apply manifests in their order, with the servers' ``image`` replaced when one is given.

    A changed nats.conf restarts the servers, one after the other. Raises ClusterError; for a field that
    cannot be changed it names the field and the remedy.
    """
    for body in prepared(objects, image):
        try:
            await _apply_one(cluster, body, dry_run)
        except RefusalError as err:
            if err.status == INVALID:
                raise await _immutable(cluster, body, err) from err
            raise


async def _apply_one(cluster: Cluster, body: Object, dry_run: bool) -> None:
    try:
        await cluster.apply(body, dry_run=dry_run)
    except RefusalError as err:
        # A second `jslab up` applies the same at this moment: now it is there to change.
        if err.status == INVALID and "already allocated" in err.seen and body["kind"] == "Service":
            await cluster.apply(body, dry_run=dry_run)
        else:
            raise


def prepared(objects: Sequence[Object], image: str | None) -> list[Object]:
    """Return a copy of manifests in which pods change when their configuration does."""
    bodies = copy.deepcopy(list(objects))
    configs = [body["data"] for body in bodies if body["kind"] == "ConfigMap"]
    mark = hashlib.sha256(json.dumps(configs, sort_keys=True).encode()).hexdigest()[:16]
    for body in bodies:
        if body["kind"] == "StatefulSet":
            template = body["spec"]["template"]
            template["metadata"].setdefault("annotations", {})[CONFIG_MARK] = mark
            if image is not None:
                template["spec"]["containers"][0]["image"] = image
    return bodies


async def _immutable(cluster: Cluster, body: Object, err: RefusalError) -> ClusterError:
    live = await cluster.get(body["kind"], body["metadata"]["name"])
    if body["kind"] != "StatefulSet" or live is None:
        return err
    name = body["metadata"]["name"]
    # The API server adds defaults: what it would make of the manifest can be compared with what is there.
    other = {**body, "metadata": {**body["metadata"], "name": f"{name}-compared"}}
    try:
        has, wants = live["spec"], (await cluster.apply(other, dry_run=True))["spec"]
    except RefusalError:
        return err
    changed = [
        f"{path}: the cluster has {_short(there)}, the manifest {_short(asked)}"
        for field in IMMUTABLE
        for path, there, asked in _differences(f"spec.{field}", has.get(field), wants.get(field))
    ]
    if not changed:
        return err
    return ClusterError(
        f"the StatefulSet {name} is there, and Kubernetes lets nobody change what differs",
        seen="; ".join(changed),
        do=f"delete it and keep its pods and claims, then run this again: {cluster.kubectl} "
        f"delete statefulset {name} --cascade=orphan. For other claims, take the "
        "deployment down, with its data: jslab down",
    )


def _differences(path: str, has: Any, wants: Any) -> Iterator[tuple[str, Any, Any]]:
    """Find the places, as deep as can be, where two values differ."""
    if isinstance(has, dict) and isinstance(wants, dict):
        for key in {**has, **wants}:
            yield from _differences(f"{path}.{key}", has.get(key), wants.get(key))
    elif isinstance(has, list) and isinstance(wants, list) and len(has) == len(wants):
        for number, (one, other) in enumerate(zip(has, wants, strict=True)):
            yield from _differences(f"{path}[{number}]", one, other)
    elif has != wants:
        yield path, has, wants


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) < 160 else f"{text[:157]}..."


async def finished(cluster: Cluster, name: str, health_path: str, say: Say, timeout: float) -> None:
    """Wait until every pod of a StatefulSet is ready and of its newest version, saying what is waited for.

    Raises ClusterError as soon as a cause is plain that waiting will not mend, and NotReadyError with all
    that is known when time is up.
    """
    watcher = diagnosis.Watcher(cluster, name, health_path)
    told, told_at = "", time.monotonic()

    async def done() -> bool:
        nonlocal told, told_at
        sight = await watcher.look()
        if sight.done:
            return True
        for pod in sight.outdated:
            await cluster.delete("Pod", pod, grace=0)
        if cause := await watcher.cause(sight):
            raise cause
        if sight.line != told or time.monotonic() - told_at > SILENCE:
            told, told_at = sight.line, time.monotonic()
            say(f"waiting for {sight.line}")
        return False

    await until(
        done,
        what=f"the pods of {name} in {cluster.namespace} to become ready",
        timeout=timeout,
        every=0.3,
        seen=lambda: watcher.report,
        do=f"{cluster.kubectl} describe pods says more",
    )
