"""What the backends kind and kubernetes lack in their cluster, each finding with its remedy.

Works where Docker, kind or the cluster are missing or broken. Nothing is started, made or changed.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from jslab import doctor_docker as machine
from jslab.doctor import Finding, guarded
from jslab.doctor_docker import UP, Sight, answer, note, run
from jslab.errors import ClusterError, LabError

if TYPE_CHECKING:
    from jslab.deployment.cluster import Cluster, Object

# Seconds an API server may let us wait: to connect, for an answer.
PATIENCE = (2.0, 4.0)
Check: TypeAlias = Callable[[Sight], list[Finding]]


def examine(backend: str) -> Iterator[Finding]:
    """Make every check that a backend needs beside those of the course; none raises, each ends in seconds."""
    if sys.platform == "win32":
        return
    if backend not in CHECKS:
        yield machine.others()
        return
    try:
        from jslab import settings

        sight = Sight(replace(settings.read(), backend=backend))
    except LabError as err:
        yield Finding("settings", "problem", f"{err.what}: {err.seen}", err.do)
        return
    for name, check, possible in CHECKS[backend]:
        if possible(sight):
            yield from guarded(name, functools.partial(check, sight))


# -- the kind cluster


def _kind_cluster(sight: Sight) -> list[Finding]:
    from jslab.deployment.kind import KindDeployment

    found = sight.found = run(KindDeployment(sight.settings).found())
    name, nodes = found.name, found.nodes
    if not nodes:
        return [note("kind cluster", f"there is no {name} yet; the first start makes it", UP)]
    states = ", ".join(f"{node} {state}" for node, state in nodes.items())
    if found.half_made:
        do = f"wait for the `jslab up` that is making it; if there is none: {UP} makes it anew"
        return [note("kind cluster", f"{name} is half made: {states}", do)]
    asleep = {node: state for node, state in nodes.items() if state != "running"}
    if dead := [node for node, state in asleep.items() if state not in ("paused", "exited", "created")]:
        return [Finding("kind cluster", "problem", states, f"docker logs {dead[0]} says why")]
    if asleep:
        do = f"{UP} starts and thaws them; one that a lesson froze: await lab.faults.heal() there"
        return [note("kind cluster", f"{name}: {states}", do)]
    if len(nodes) < found.wanted:
        do = f"jslab down --backend kind, then {UP}"
        return [note("kind cluster", f"{name}: {states}; cluster.yaml names {found.wanted} nodes", do)]
    return [Finding("kind cluster", "ok", f"{name}: {len(nodes)} nodes running")]


def _kind_server(sight: Sight) -> list[Finding]:
    from jslab.deployment.cluster import NOT_FOUND, RefusalError
    from jslab.deployment.kind import KindDeployment
    from jslab.deployment.kind_cluster import MARKER, MARKER_SPACE
    from jslab.deployment.rollout import is_ours

    control = f"{sight.name}-control-plane"
    cluster = run(KindDeployment(sight.settings).credentials())
    cluster.timeout = PATIENCE
    try:
        marker = answer(lambda: cluster.ask("get", "ConfigMap", MARKER, namespace=MARKER_SPACE))
    except RefusalError as err:
        if err.status != NOT_FOUND:
            raise
        marker = None
    except ClusterError as err:
        do = f"docker restart {control}, and give it a minute; docker logs {control} says more"
        return [Finding("API server", "problem", f"{err.what}: {err.seen}", do)]
    sight.cluster, sight.ours = cluster, bool(marker and is_ours(marker))
    sight.image = ((marker or {}).get("data") or {}).get("image") or None
    if not sight.ours:
        seen = f"{sight.name} is not the lab's: no ConfigMap {MARKER} of ours in {MARKER_SPACE}"
        do = (
            f"keep it and use it: kind export kubeconfig --name {sight.name}, then JSLAB_BACKEND=kubernetes "
            f"JSLAB_CONTEXT=kind-{sight.name}; or delete it: kind delete cluster --name {sight.name}"
        )
        return [Finding("kind cluster", "problem", seen, do)]
    return [_nodes(sight, answer(lambda: cluster.ask("get", "Node", None))["items"])]


def _nodes(sight: Sight, nodes: list[Object]) -> Finding:
    from jslab.deployment import diagnosis

    bad = [f"{diagnosis.name_of(node)} is not ready" for node in nodes if not diagnosis.ready(node)]
    bad += [f"{diagnosis.name_of(node)} takes no pods" for node in nodes if node["spec"].get("unschedulable")]
    if bad:
        do = f"await lab.faults.heal() in the notebook that did it, or {UP}; a restarted node needs a minute"
        return note("API server", f"answers; {', '.join(bad)}", do)
    return Finding("API server", "ok", f"answers; {len(nodes)} nodes are ready")


# -- a cluster that the user names


def _context(sight: Sight) -> list[Finding]:
    import yaml

    wanted = sight.settings.context
    names = (os.environ.get("KUBECONFIG") or "~/.kube/config").split(os.pathsep)
    files = [file for name in names if name and (file := Path(name).expanduser()).is_file()]
    contexts: dict[str, str] = {}
    for file in files:
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            servers = {
                entry["name"]: entry["cluster"].get("server") for entry in content.get("clusters") or []
            }
            for entry in content.get("contexts") or []:
                contexts.setdefault(entry["name"], str(servers.get(entry["context"].get("cluster"))))
        except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError) as err:
            said = " ".join(f"{type(err).__name__}: {err}".split())
            do = "correct it, or name another file: export KUBECONFIG=..."
            return [Finding("context", "problem", f"{file} is no kubeconfig: {said}", do)]
    listed = ", ".join(contexts) or "none"
    where = ", ".join(map(str, files)) or f"no file {', '.join(names)}"
    do = (
        f"export JSLAB_CONTEXT={next(iter(contexts))}"
        if contexts
        else "log in to your cluster, which makes one"
    )
    if len(contexts) > 1:
        do += ", or another of them"
    if wanted is None:
        seen = f"none named, and the current one is never guessed; there are: {listed} ({where})"
        return [Finding("context", "problem", seen, do)]
    if wanted not in contexts:
        return [Finding("context", "problem", f"there is no {wanted}; there are: {listed} ({where})", do)]
    from jslab.deployment.cluster import Cluster

    sight.cluster = Cluster(wanted, sight.settings.namespace)
    sight.cluster.timeout = PATIENCE
    return [Finding("context", "ok", f"{wanted}, the API server {contexts[wanted]} ({where})")]


def _server(sight: Sight) -> list[Finding]:
    from jslab.deployment.cluster import FORBIDDEN, UNAUTHORIZED, RefusalError

    cluster = _cluster(sight)
    sight.cluster = None  # until it has answered, nothing else is asked of it
    try:
        answer(lambda: cluster.ask("get", "Namespace", cluster.namespace))
    except RefusalError as err:
        if err.status == UNAUTHORIZED:
            return [Finding("credentials", "problem", f"{err.what}: {err.seen}", err.do)]
        # The API server has names for people it does not know, and may refuse them only later.
        if err.status == FORBIDDEN and "system:anonymous" in err.seen:
            return [Finding("credentials", "problem", err.seen, "there are none that work: log in")]
    except ClusterError as err:
        if "CERTIFICATE_VERIFY_FAILED" not in err.seen:
            raise
        do = "get a new kubeconfig, if the cluster was made anew; else look who answers there (HTTPS_PROXY?)"
        return [Finding("API server", "problem", f"is not the one of your kubeconfig: {err.seen}", do)]
    except ValueError as err:
        return [
            Finding("API server", "problem", f"it is none: {err}", "correct the address in your kubeconfig")
        ]
    sight.cluster = cluster
    return [Finding("API server", "ok", "answers, and accepts your credentials")]


# -- what holds for both


def _namespace(sight: Sight) -> list[Finding]:
    from jslab.deployment.cluster import FORBIDDEN, NOT_FOUND, RefusalError
    from jslab.deployment.rollout import is_ours, not_ours

    cluster, name = _cluster(sight), sight.settings.namespace
    try:
        found = sight.namespace = answer(lambda: cluster.ask("get", "Namespace", name))
    except RefusalError as err:
        if err.status == NOT_FOUND:
            return [Finding("namespace", "ok", f"{name} is free: there is none yet")]
        if err.status == FORBIDDEN:
            do = f"ask for the right to get the namespace {name}, or name another: export JSLAB_NAMESPACE=..."
            return [Finding("namespace", "problem", f"{name} cannot be looked at: {err.seen}", do)]
        raise
    if not is_ours(found):
        alien = not_ours(cluster)
        return [Finding("namespace", "problem", f"{alien.what}: {alien.seen}", "export JSLAB_NAMESPACE=...")]
    if since := found["metadata"].get("deletionTimestamp"):
        return [note("namespace", f"{name} is being deleted since {since}", "wait until it is gone")]
    return [Finding("namespace", "ok", f"{name} is the lab's")]


def _storage(sight: Sight) -> list[Finding]:
    from jslab.deployment import diagnosis
    from jslab.deployment.cluster import FORBIDDEN, RefusalError

    cluster = _cluster(sight)
    try:
        classes = answer(lambda: cluster.ask("get", "StorageClass", None))["items"]
    except RefusalError as err:
        if err.status != FORBIDDEN:
            raise
        return [
            note("storage class", f"cannot be looked at: {err.seen}", "ask whether there is a default one")
        ]
    there = {diagnosis.name_of(one): one["metadata"].get("annotations") or {} for one in classes}
    default = [name for name, marks in there.items() if marks.get(diagnosis.DEFAULT_CLASS) == "true"]
    named = {name for name in _named_classes(sight) if name}
    listed = ", ".join(there) or "none"
    if missing := sorted(named - there.keys()):
        seen = f"the manifests name {', '.join(missing)}; the cluster has: {listed}"
        return [Finding("storage class", "problem", seen, "correct storageClassName in statefulset.yaml")]
    if default or named:
        chosen = ", ".join([*sorted(named), *(f"{name} is the default" for name in default)])
        return [Finding("storage class", "ok", chosen)]
    kubectl = f"kubectl --context {cluster.context}"
    if sight.found is not None:
        kubectl = f"docker exec {sight.name}-control-plane kubectl --kubeconfig /etc/kubernetes/admin.conf"
    do = (
        f"{kubectl} annotate storageclass {next(iter(there))} {diagnosis.DEFAULT_CLASS}=true"
        if there
        else "install a provisioner: https://github.com/rancher/local-path-provisioner is a small one"
    )
    return [Finding("storage class", "problem", f"no default one; the cluster has: {listed}", do)]


def _named_classes(sight: Sight) -> Iterator[str | None]:
    for body in _objects(sight):
        for claim in body.get("spec", {}).get("volumeClaimTemplates") or []:
            yield claim["spec"].get("storageClassName")


def _objects(sight: Sight) -> list[dict[str, Any]]:
    from jslab import settings
    from jslab.deployment import manifest

    return manifest.objects(sight.settings.manifests or settings.course_folder("manifests"))


def _rights(sight: Sight) -> list[Finding]:
    from jslab.deployment import rights
    from jslab.deployment.cluster import FORBIDDEN, KINDS, OURS, RefusalError

    cluster = _cluster(sight)
    kinds = [body["kind"] for body in _objects(sight) if body["kind"] in KINDS]
    wanted = [*rights.install(kinds), *([rights.MAKE_NAMESPACE] if sight.namespace is None else [])]
    try:
        missing = answer(lambda: [right for right in wanted if not cluster.may(*right)])
    except RefusalError as err:
        if err.status != FORBIDDEN:
            raise
        return [note("rights", f"cannot be asked about: {err.seen}", "a refusal will name it")]
    if not missing:
        return [Finding("rights", "ok", f"all {len(wanted)} that a lab takes, in {cluster.namespace}")]
    grouped: dict[str, list[str]] = {}
    for verb, kind, part in missing:
        grouped.setdefault(KINDS[kind].plural + (f"/{part}" if part else ""), []).append(verb)
    seen = "; ".join(f"{', '.join(verbs)} {what}" for what, verbs in grouped.items())
    # The role `edit` holds all of them but the right to make the namespace.
    name, steps = cluster.namespace, []
    if rights.MAKE_NAMESPACE in missing:
        label = " ".join(f"{key}={value}" for key, value in OURS.items())
        steps.append(f"kubectl create namespace {name} && kubectl label namespace {name} {label}")
    if missing != [rights.MAKE_NAMESPACE]:
        steps.append(f"kubectl create rolebinding jslab -n {name} --clusterrole=edit --user=YOU")
    do = f"who runs the cluster can enter: {' && '.join(steps)}"
    return [Finding("rights", "problem", f"missing in {name}: {seen}", do)]


def _cluster(sight: Sight) -> Cluster:
    assert sight.cluster is not None
    return sight.cluster


def _asleep_or_awake(sight: Sight) -> bool:
    return sight.found is not None and not sight.found.half_made


def _reached(sight: Sight) -> bool:
    return sight.cluster is not None


# Each with whether it can be made, after what the ones before it have seen.
CHECKS: dict[str, list[tuple[str, Check, Callable[[Sight], bool]]]] = {
    "kind": [
        ("Docker", machine.docker, lambda _: True),
        ("kind", machine.kind, lambda _: True),
        ("kind cluster", _kind_cluster, lambda sight: sight.docker and sight.kind),
        ("API server", _kind_server, lambda sight: _asleep_or_awake(sight) and sight.control_runs),
        ("namespace", _namespace, lambda sight: sight.ours),
        ("storage class", _storage, lambda sight: sight.ours),
        ("ports", machine.ports, lambda s: _asleep_or_awake(s) and (s.ours or not s.control_runs)),
        ("memory", machine.memory, lambda _: True),
        ("inotify", machine.inotify, lambda _: sys.platform == "linux"),
        ("node image", machine.node_image, lambda sight: sight.docker),
        ("server image", machine.server_image, lambda _: True),
    ],
    "kubernetes": [
        ("context", _context, lambda _: True),
        ("API server", _server, _reached),
        ("namespace", _namespace, _reached),
        ("storage class", _storage, _reached),
        ("rights", _rights, _reached),
    ],
}
