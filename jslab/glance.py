"""One look at a stream: what its leader says, and what the servers say of themselves."""

from __future__ import annotations

import asyncio
import datetime
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.client import Client

from jslab.deployment import Deployment
from jslab.pulls import API

# Seconds that a look waits for a leader: longer, and a live view would seem to hang during an election.
PATIENCE = 0.5


@dataclass(frozen=True, slots=True)
class Copy:
    """One server's copy of the stream, as its leader sees it."""

    server: str
    role: str
    """``leader``, ``follower``, or ``none`` for a server without a copy."""
    state: str
    """``current``, ``catching up`` or ``offline``; of a server that is held or paused, that."""
    lag: int


@dataclass(frozen=True, slots=True)
class Look:
    """A stream at one moment."""

    at: datetime.datetime
    clock: float
    """Seconds on a clock that never jumps, for rates."""
    stream: str
    leader: str | None
    term: int | None
    """Elections of the stream's group so far, as its leader counts; None while there is none."""
    messages: int
    last_seq: int
    acked: int
    """Deliveries below the ack floor, of all consumers together."""
    copies: tuple[Copy, ...]


async def all_hold(deployment: Deployment, stream: str, servers: Sequence[str], last_seq: int) -> bool:
    """Tell whether each server itself says that it has a stream up to ``last_seq``.

    A leader calls a new copy current, without lag, once they agree on the log; the messages may still be on
    their way (1 of 12 times, when 27,004 were copied on a busy machine).
    """
    answers = await asyncio.gather(*(deployment.get(name, "/jsz?accounts=1&streams=1") for name in servers))
    return all(_last_seq(body, stream) >= last_seq for _, body in answers)


def _last_seq(body: Any, stream: str) -> int:
    for account in (body or {}).get("account_details") or []:
        for detail in account.get("stream_detail") or []:
            if detail["name"] == stream:
                return int(detail["state"]["last_seq"])
    return -1


class Glance:
    """Looks at one stream, again and again; what nobody answers stays as it was."""

    def __init__(self, nc: Client, deployment: Deployment, stream: str) -> None:
        self._nc = nc
        self._deployment = deployment
        self._stream = stream
        self._state: dict[str, Any] = {}
        self._acked = 0

    async def __call__(self) -> Look:
        """Look now. Never raises for a stream without a leader: that is worth seeing."""
        info, acked, term = await asyncio.gather(self._info(), self._acks(), self._term())
        cluster = info.get("cluster") or {}
        self._state = info.get("state") or self._state
        return Look(
            at=datetime.datetime.now(datetime.UTC),
            clock=time.monotonic(),
            stream=self._stream,
            leader=cluster.get("leader") or None,
            term=term,
            messages=int(self._state.get("messages", 0)),
            last_seq=int(self._state.get("last_seq", 0)),
            acked=acked,
            copies=tuple(self._copies(cluster)),
        )

    async def _info(self) -> dict[str, Any]:
        return await self._ask(f"STREAM.INFO.{self._stream}")

    async def _acks(self) -> int:
        found = (await self._ask(f"CONSUMER.LIST.{self._stream}")).get("consumers")
        if found is not None:
            self._acked = sum(int(each["ack_floor"]["consumer_seq"]) for each in found)
        return self._acked

    async def _term(self) -> int | None:
        """Ask each server for the term of the stream's group; the highest is the group's."""
        running = [server.name for server in self._deployment.servers() if server.state == "running"]
        answers = await asyncio.gather(*(self._raft(name) for name in running))
        return max((term for term in answers if term is not None), default=None)

    async def _raft(self, server: str) -> int | None:
        _, held = await self._deployment.get(server, "/jsz?accounts=1&streams=1&raft=1")
        for account in (held or {}).get("account_details") or []:
            for stream in account.get("stream_detail") or []:
                if stream["name"] == self._stream and (group := stream.get("stream_raft_group")):
                    _, body = await self._deployment.get(
                        server, f"/raftz?acc={account['name']}&group={group}"
                    )
                    terms = [node.get("term") for nodes in (body or {}).values() for node in nodes.values()]
                    return next((int(term) for term in terms if term is not None), None)
        return None

    def _copies(self, cluster: dict[str, Any]) -> list[Copy]:
        told = {str(peer["name"]): peer for peer in cluster.get("replicas") or ()}
        return [
            self._copy(server.name, server.state, cluster, told.get(server.name))
            for server in self._deployment.servers()
        ]

    @staticmethod
    def _copy(server: str, state: str, cluster: dict[str, Any], peer: dict[str, Any] | None) -> Copy:
        if server == cluster.get("leader"):
            return Copy(server, "leader", "current" if state == "running" else state, 0)
        if peer is None:
            return Copy(server, "none", state, 0)
        health = "offline" if peer.get("offline") else "current" if peer.get("current") else "catching up"
        return Copy(server, "follower", health if state == "running" else state, int(peer.get("lag", 0)))

    async def _ask(self, api: str) -> dict[str, Any]:
        try:
            reply = await self._nc.request(f"{API}.{api}", timeout=PATIENCE)
        except (TimeoutError, nats.errors.Error):
            return {}
        found: dict[str, Any] = json.loads(reply.data)
        return found
