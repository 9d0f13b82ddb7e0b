"""Pull requests of one consumer that are under way, and what the server answers instead of messages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.client import Client

from jslab.connection import SILENT
from jslab.wire import Headers, headers_of, status_of

API = "$JS.API"
NANO = 1_000_000_000
# Seconds between two signs of life of a consumer that has nothing, and until one without any is given up.
HEARTBEAT, SILENCE = 0.5, 1.5
EXPIRES = 30.0
IDLE = 100
# Parts of a delivered message's reply subject; with a domain there are two more before the numbers.
ACK_FIELDS = 9
# Answers of a leader, a server or a connection that is on its way back.
PASSING = (*SILENT, nats.errors.ConnectionClosedError)


def numbers_at(reply: str) -> int:
    """Say which part of a delivery's reply subject is the first number.

    They are: deliveries so far, sequence in the stream, sequence in the consumer, stored time, pending.
    """
    return 4 if reply.count(".") < ACK_FIELDS else 6


@dataclass(slots=True)
class Pulls:
    """Keeps a consumer asked: for ``batch`` messages and ``max_bytes`` bytes a request, ``most`` in all."""

    nc: Client
    stream: str
    consumer: str
    reply: str
    batch: int
    max_bytes: int | None = None
    most: int | None = None
    to_come: int = 0
    """Messages asked for that have not come yet."""
    delivered: int = 0
    lost: str = ""
    """Why no request of ours is under way any more, in the server's words; empty while all is well."""

    async def top_up(self, expires: float = EXPIRES) -> None:
        """Ask for more before the last request is used up."""
        while self.to_come < self.batch:
            batch = self.batch
            if self.most is not None:
                batch = min(batch, self.most - self.delivered - self.to_come)
            if batch <= 0:
                return
            await self.ask(batch, expires)

    async def ask(self, batch: int, expires: float = EXPIRES) -> None:
        """Ask for some more; the server answers for ``expires`` seconds at most."""
        self.to_come += batch
        asked: dict[str, Any] = {"batch": batch, "expires": int(expires * NANO)}
        if expires >= 2 * HEARTBEAT:
            asked["idle_heartbeat"] = int(HEARTBEAT * NANO)
        if self.max_bytes is not None:
            asked["max_bytes"] = self.max_bytes
        api = f"{API}.CONSUMER.MSG.NEXT.{self.stream}.{self.consumer}"
        await self.nc.publish(api, json.dumps(asked).encode(), reply=self.reply)

    def forget(self) -> None:
        """Begin anew: no request is under way."""
        self.to_come, self.lost = 0, ""

    def took(self, messages: int) -> None:
        """Count messages that came."""
        self.to_come -= messages
        self.delivered += messages

    def heed(self, headers: Headers) -> None:
        """Take note of a status that came instead of a message."""
        code, text = status_of(headers) or (0, "")
        if code == IDLE:
            return
        left = headers_of(headers).get("Nats-Pending-Messages")
        if left is not None:  # one request has come to its end
            self.to_come -= int(left)
            return
        self.lost = f"{code} {text}".strip()
