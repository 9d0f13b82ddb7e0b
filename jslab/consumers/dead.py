"""Messages that a consumer gave up, found by the server's advisories."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from typing import Any

import nats.js.errors
from nats.js import JetStreamContext

from jslab import replay
from jslab.stream_config import OWNED

ADVISORY = "$JS.EVENT.ADVISORY.CONSUMER"
KINDS = {"MAX_DELIVERIES": "max_deliver reached", "MSG_TERMINATED": "terminated"}


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that will not come again by itself."""

    seq: int
    """Its sequence in the consumer's stream."""
    why: str
    deliveries: int
    at: datetime.datetime
    """When the server gave it up."""
    subject: str
    """Empty, as ``data``, when the stream does not hold it any more."""
    data: bytes


class DeadLetters:
    """A stream that keeps a consumer's advisories, and the way from them to the messages."""

    def __init__(self, js: JetStreamContext, stream: str, consumer: str, kept_in: str) -> None:
        self._js = js
        self._stream = stream
        self._consumer = consumer
        self.kept_in = kept_in
        """The stream with the advisories."""

    @classmethod
    async def open(cls, js: JetStreamContext, stream: str, consumer: str, kept_in: str) -> DeadLetters:
        """Make the stream if it is not there."""
        subjects = [f"{ADVISORY}.{kind}.{stream}.{consumer}" for kind in KINDS]
        try:
            await js.stream_info(kept_in)
        except nats.js.errors.NotFoundError:
            copies = (await js.stream_info(stream)).config.num_replicas
            await js.add_stream(name=kept_in, subjects=subjects, num_replicas=copies, metadata=OWNED)
        return cls(js, stream, consumer, kept_in)

    async def list(self) -> list[DeadLetter]:
        """Return what was given up so far, each message once, in the order of giving up."""
        found: dict[int, DeadLetter] = {}
        async for advisory in replay.Replay(self._js, self.kept_in):
            kind, stream, consumer = advisory.subject.removeprefix(f"{ADVISORY}.").split(".")
            if (stream, consumer) == (self._stream, self._consumer):
                told = json.loads(advisory.data)
                found.setdefault(told["stream_seq"], await self._letter(kind, told))
        return list(found.values())

    async def _letter(self, kind: str, told: dict[str, Any]) -> DeadLetter:
        seq, subject, data = told["stream_seq"], "", b""
        try:
            message = await self._js.get_msg(self._stream, seq)
            subject, data = message.subject or "", message.data or b""
        except nats.js.errors.NotFoundError:
            pass
        why = KINDS[kind] + (f": {told['reason']}" if told.get("reason") else "")
        at = datetime.datetime.fromisoformat(told["timestamp"])
        return DeadLetter(seq, why, told["deliveries"], at, subject, data)
