"""Two ways to read a stream from some sequence on: batches of direct gets, and an ordered consumer.

Both give rows in the stream's order and end when they have no more, or when the server does not go on.
Neither decides whether that was all: a copy may lag and a consumer may be lost, so the reader asks the
leader.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

import nats.errors
import nats.js.errors
import numpy as np
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from jslab.pulls import API, SILENCE, Pulls, numbers_at
from jslab.replay.rows import Batch
from jslab.subjects import EVERYTHING
from jslab.wire import CRLF, HEADER_LINE, Frame, Headers, Wire, headers_of, status_of

# What one request may bring. Two are under way at a time: this bounds the memory of a replay.
BATCH, BATCH_BYTES = 20_000, 4 * 1024 * 1024
# Seconds after which the server removes a consumer that nobody pulls from, should we be killed.
ABANDONED = 5.0
END_OF_BATCH = 204
# Headers that a direct get adds to a message's own, in this order at the end.
STREAM_HEADER, SUBJECT, SEQUENCE, TIME, LAST = (
    "Nats-Stream",
    "Nats-Subject",
    "Nats-Sequence",
    "Nats-Time-Stamp",
    "Nats-Last-Sequence",
)
ADDED = frozenset({STREAM_HEADER, SUBJECT, SEQUENCE, TIME, LAST, "Nats-Num-Pending"})
OWN_END = f"\r\n{STREAM_HEADER}: ".encode()
# Lines from the subject's to the end of a header block, which ends with an empty line.
LINES_ADDED = 7


class Source(Protocol):
    """A way to read a stream."""

    name: str

    def read(self, seq: int, end: int | None) -> AsyncGenerator[Batch, None]:
        """Give messages from ``seq`` on, in order, until there are no more or the server does not go on.

        There may be some beyond ``end``; with None it waits for new ones.
        """

    async def close(self) -> None:
        """Leave nothing behind on the server."""


class DirectSource:
    """Batches of direct gets: any copy of the stream answers, no consumer is made."""

    name = "direct get"

    def __init__(self, wire: Wire, stream: str, subject: str) -> None:
        self._wire = wire
        self._api = f"{API}.DIRECT.GET.{stream}"
        self._subject = subject
        self._numbers = itertools.count()

    async def read(self, seq: int, end: int | None) -> AsyncGenerator[Batch, None]:
        """Ask for batch after batch; the next is under way while one is looked at."""
        assert end is not None, "direct gets wait for nothing"
        number = next(self._numbers)
        inbox = await self._wire.subscribe(f"{self._wire.nc.new_inbox()}.{number}")
        try:
            await self._ask(inbox.subject, seq, end)
            while frames := await inbox.take(SILENCE):
                status = status_of(frames[-1][2])
                last = frames.pop() if status else None
                goes_on = status is None
                if last and status and status[0] == END_OF_BATCH and (seq := _last_of(last[2]) + 1) <= end:
                    await self._ask(inbox.subject, seq, end)
                    goes_on = True
                if frames:
                    yield _of_direct(frames)
                if not goes_on:
                    return
        finally:
            await self._wire.unsubscribe(inbox)

    async def _ask(self, reply: str, seq: int, end: int) -> None:
        asked: dict[str, Any] = {"batch": min(BATCH, end - seq + 1), "max_bytes": BATCH_BYTES, "seq": seq}
        if self._subject != EVERYTHING:
            asked["next_by_subj"] = self._subject
        await self._wire.nc.publish(self._api, json.dumps(asked).encode(), reply=reply)

    async def close(self) -> None:
        """Nothing is left on the server by a direct get."""


class ConsumerSource:
    """An ordered consumer: ephemeral, without acks, in the leader's memory; one that is lost is made anew."""

    name = "ordered consumer"

    def __init__(
        self, wire: Wire, js: JetStreamContext, stream: str, subject: str, replicas: int | None
    ) -> None:
        self._wire = wire
        self._js = js
        self._stream = stream
        self._subject = subject
        self._replicas = replicas
        self._consumer: str | None = None

    async def read(self, seq: int, end: int | None) -> AsyncGenerator[Batch, None]:
        """Pull until nothing is pending; without an end until the server does not go on."""
        await self.close()
        pending = await self._make(seq)
        if not pending and end is not None:
            return
        inbox = await self._wire.subscribe(self._wire.nc.new_inbox())
        try:
            assert self._consumer is not None
            most = None if end is None else end - seq + 1
            pulls = Pulls(
                self._wire.nc, self._stream, self._consumer, inbox.subject, BATCH, BATCH_BYTES, most
            )
            deliveries = _Deliveries(pulls)
            await pulls.top_up()
            while frames := await inbox.take(SILENCE):
                if batch := deliveries.read(frames):
                    yield batch
                if pulls.lost or (deliveries.pending == 0 and end is not None):
                    return
                await pulls.top_up()
        finally:
            await self._wire.unsubscribe(inbox)

    async def _make(self, seq: int) -> int:
        """Make the consumer, and return how many messages wait for it."""
        info = await self._js.add_consumer(
            self._stream,
            ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=seq,
                ack_policy=AckPolicy.NONE,
                filter_subject=None if self._subject == EVERYTHING else self._subject,
                mem_storage=True,
                num_replicas=self._replicas,
                inactive_threshold=ABANDONED,
            ),
        )
        self._consumer = info.name
        return info.num_pending or 0

    async def close(self) -> None:
        """Remove the consumer; one that cannot be reached goes by itself."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with contextlib.suppress(nats.errors.Error, TimeoutError):
                async with asyncio.timeout(SILENCE):
                    await self._js.delete_consumer(self._stream, consumer)


class _Deliveries:
    """What one consumer has delivered, in its own order."""

    def __init__(self, pulls: Pulls) -> None:
        self._pulls = pulls
        self.pending = -1
        """Messages that wait behind the last one, by its own word; -1 before the first."""

    def read(self, frames: Sequence[Frame]) -> Batch:
        """Read messages, in the order in which the consumer delivered them, and heed statuses."""
        messages = [frame for frame in frames if frame[1]]
        if len(messages) < len(frames):
            for _, reply, headers, _ in frames:
                if not reply:
                    self._pulls.heed(headers)
        at = numbers_at(messages[0][1]) + 1 if messages else 0
        fields = [reply.split(".")[at:] for _, reply, _, _ in messages]
        delivered = [int(field[1]) for field in fields]
        first = self._pulls.delivered + 1
        if delivered != list(range(first, first + len(delivered))):
            # One was lost on the way. What came before it is left out too: it will be read again.
            self._pulls.lost = "a message was lost on the way"
            return Batch([], [], [], [], [])
        self._pulls.took(len(delivered))
        if fields:
            self.pending = int(fields[-1][3])
        return Batch(
            [int(field[0]) for field in fields],
            [subject for subject, _, _, _ in messages],
            [int(field[2]) for field in fields],
            [headers for _, _, headers, _ in messages],
            [data for _, _, _, data in messages],
        )


def _of_direct(frames: Sequence[Frame]) -> Batch:
    """Read the messages that a direct get answers with."""
    fields = [_added(headers) for _, _, headers, _ in frames]
    return Batch(
        [int(field[1][len(SEQUENCE) + 2 :]) for field in fields],
        [field[0][len(SUBJECT) + 2 :].decode() for field in fields],
        # The server's time stamps as they are, without the Z: numpy reads them in one go.
        np.array([field[2][len(TIME) + 2 : -1] for field in fields], "S")
        .astype("M8[ns]")
        .astype("i8")
        .tolist(),
        [_own(headers) for _, _, headers, _ in frames],
        [data for _, _, _, data in frames],
    )


def _added(headers: Headers) -> list[bytes]:
    """Return the lines with subject, sequence and time stamp, which the server added."""
    if isinstance(headers, bytes):
        return headers.rsplit(CRLF, LINES_ADDED)[1:4]
    assert headers is not None
    return [f"{name}: {headers[name]}".encode() for name in (SUBJECT, SEQUENCE, TIME)]


def _own(headers: Headers) -> Headers:
    """Return a message's own headers, without those that the server added."""
    if isinstance(headers, bytes):
        own = headers.rpartition(OWN_END)[0]
        return None if own == HEADER_LINE else own
    return {name: value for name, value in (headers or {}).items() if name not in ADDED} or None


def _last_of(headers: Headers) -> int:
    """Return the last sequence of a batch, as its end says it."""
    return int(headers_of(headers)[LAST])
