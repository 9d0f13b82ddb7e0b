"""When a cluster of servers works as a whole: decided from what each says over HTTP, on every backend."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

# How a line begins, or what it holds, with which a server says why it ends.
FATAL_MARKS = ("[FTL]", "nats-server:")

Get = Callable[[str, str], Awaitable[tuple[int, Any]]]


async def whole(get: Get, names: Sequence[str], health_path: str) -> tuple[bool, Mapping[str, int]]:
    """Tell whether all servers are one working cluster, and the status of each one's ``health_path``.

    That is: every server is healthy, all name one meta leader, it calls all its peers online and current,
    and each server has all its routes to each other.
    """
    answers = await asyncio.gather(*(get(name, health_path) for name in names))
    health = {name: status for name, (status, _) in zip(names, answers, strict=True)}
    if any(status != 200 for status in health.values()):
        return False, health
    return await _led(get, names) and await _routed(get, names), health


async def _led(get: Get, names: Sequence[str]) -> bool:
    answers = await asyncio.gather(*(get(name, "/jsz") for name in names))
    groups = {
        name: (body or {}).get("meta_cluster", {}) for name, (_, body) in zip(names, answers, strict=True)
    }
    leaders = {group.get("leader") for group in groups.values()}
    leader = next(iter(leaders))
    if len(leaders) != 1 or leader not in groups:
        return False
    # Only the leader knows how its peers are; a follower calls healthy peers not current.
    peers = groups[leader].get("replicas", [])
    return len(peers) == len(names) - 1 and all(p.get("current") and not p.get("offline") for p in peers)


async def _routed(get: Get, names: Sequence[str]) -> bool:
    (_, facts), *routes = await asyncio.gather(
        get(names[0], "/varz"), *(get(name, "/routez") for name in names)
    )
    return all_routed(facts, {name: body for name, (_, body) in zip(names, routes, strict=True)})


def last_words(log: str) -> str:
    """Return the line of a log in which a server says why it ended, else its last one; empty without any."""
    lines = log.splitlines()
    fatal = [line for line in lines if any(mark in line for mark in FATAL_MARKS)]
    return (fatal or lines or [""])[-1]


def all_routed(facts: Any, routes: Mapping[str, Any]) -> bool:
    """Tell from ``/varz`` of one and ``/routez`` of all servers whether each has all routes to each other.

    Two servers share a pool of routes, and each account has its own of them: with one missing, health is
    fine, but some messages do not arrive, and the first stream waits for an election (1 of 100 starts on
    a busy machine). A missing route is dialled again a second later.
    """
    pool = max(1, (facts or {}).get("cluster", {}).get("pool_size", 1))
    found = collections.Counter(
        (name, route.get("remote_name"), route.get("account"))
        for name, body in routes.items()
        for route in (body or {}).get("routes") or []
    )
    # Beside the pool some accounts have a route to themselves; the system account does by default.
    own = {account for _, _, account in found if account is not None}
    return all(
        found[one, other, None] == pool and all(found[one, other, account] for account in own)
        for one in routes
        for other in routes
        if one != other
    )
