"""What a lab must be allowed to do on a cluster that is not its own, asked before anything is done."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeAlias

from jslab.deployment.cluster import FORBIDDEN, KINDS, Cluster, RefusalError
from jslab.errors import ClusterError

# A verb, a kind of objects, and a part of them such as "log".
Right: TypeAlias = tuple[str, str, str]

# For a notebook: look at the servers, reach them, break them, and keep others out.
LESSON: tuple[Right, ...] = (
    ("get", "Namespace", ""),
    ("get", "StatefulSet", ""),
    ("get", "Pod", ""),
    ("list", "Pod", ""),
    ("delete", "Pod", ""),
    ("get", "Pod", "log"),
    ("get", "Pod", "proxy"),
    # Opening a WebSocket is a GET; from 1.35 on Kubernetes asks for the right to create as well.
    ("get", "Pod", "portforward"),
    ("create", "Pod", "portforward"),
    ("list", "PersistentVolumeClaim", ""),
    ("get", "Lease", ""),
    ("create", "Lease", ""),
    ("patch", "Lease", ""),
)
MAKE_NAMESPACE: Right = ("create", "Namespace", "")
REMOVE: tuple[Right, ...] = (("list", "Pod", ""), ("delete", "Pod", ""), ("delete", "Namespace", ""))


def install(kinds: Iterable[str]) -> list[Right]:
    """Return what it takes to apply objects of these kinds, and to see what becomes of them."""
    applied = [(verb, kind, "") for kind in dict.fromkeys(kinds) for verb in ("get", "create", "patch")]
    return [*applied, *(right for right in LESSON if right not in applied)]


async def check(cluster: Cluster, wanted: Iterable[Right]) -> None:
    """Raise ClusterError, which names every right that is missing."""
    asked = list(wanted)
    try:
        # One alone at first: a cluster that cannot be reached need not be asked thirty times.
        first = await asyncio.to_thread(cluster.may, *asked[0])
        others = await asyncio.gather(*(asyncio.to_thread(cluster.may, *right) for right in asked[1:]))
    except RefusalError as err:
        if err.status == FORBIDDEN:  # not even to ask is allowed: the first refusal will say what is missing
            return
        raise
    missing = [_words(right) for right, allows in zip(asked, [first, *others], strict=True) if not allows]
    if missing:
        raise ClusterError(
            f"the cluster of the context {cluster.context} does not let you do what this takes",
            seen=f"missing in the namespace {cluster.namespace}: {', '.join(missing)}",
            do="ask who runs the cluster for these rights there, or use another namespace; nothing was done",
        )


def _words(right: Right) -> str:
    verb, kind, part = right
    group = KINDS[kind].api.partition("/")[2].rpartition("/")[0]
    resource = f"{KINDS[kind].plural}.{group}" if group else KINDS[kind].plural
    return f"{verb} {resource}/{part}" if part else f"{verb} {resource}"
