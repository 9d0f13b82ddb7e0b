"""Users of a cluster who may do only so much: a service account, a role, and a context for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.kind import support

# All that a lab needs in a namespace that somebody else made for it.
RULES: tuple[tuple[str, str, str], ...] = (
    ("", "namespaces", "get delete"),
    ("", "pods", "get list delete"),
    ("", "pods/log pods/proxy", "get"),
    ("", "pods/portforward", "get create"),
    ("", "persistentvolumeclaims", "list"),
    ("", "configmaps services", "get create patch"),
    ("apps", "statefulsets", "get create patch"),
    ("policy", "poddisruptionbudgets", "get create patch"),
    ("coordination.k8s.io", "leases", "get create patch"),
)


def make(namespace: str, folder: Path, *, without: tuple[str, str] | None = None) -> str:
    """Make a user with RULES in a namespace, less a verb of a resource; return the context, in a file there.

    The namespace is one of the lab's that an admin made.
    """
    labels = {
        "app.kubernetes.io/managed-by": "jslab",
        "pod-security.kubernetes.io/enforce": "restricted",
    }
    rules = [_rule(group, resources, verbs) for group, resources, verbs in _less(without)]
    user = {"kind": "ServiceAccount", "name": "learner", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "learner"}
    support.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}},
        _object("v1", "ServiceAccount", namespace),
        _object("rbac.authorization.k8s.io/v1", "Role", namespace) | {"rules": rules},
        _object("rbac.authorization.k8s.io/v1", "RoleBinding", namespace)
        | {"subjects": [user], "roleRef": role},
    )
    token = support.kubectl("create", "token", "learner", "-n", namespace).strip()
    return context(folder / "config", {"token": token})


def context(file: Path, user: dict[str, Any], server: str | None = None) -> str:
    """Write a kubeconfig for the course's cluster with another user or server; return its context."""
    config = yaml.safe_load(support.command("kind", "get", "kubeconfig", "--name", support.CLUSTER))
    config["users"][0]["user"] = user
    if server:
        config["clusters"][0]["cluster"] = {"server": server, "insecure-skip-tls-verify": True}
    config["contexts"][0]["name"] = "learner"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(config))
    return "learner"


def _object(api: str, kind: str, namespace: str) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": "learner", "namespace": namespace}}


def _less(without: tuple[str, str] | None) -> Iterator[tuple[str, str, str]]:
    for group, resources, verbs in RULES:
        left = " ".join(verb for verb in verbs.split() if (verb, resources) != without)
        if left:
            yield group, resources, left


def _rule(group: str, resources: str, verbs: str) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split()}
