"""The sending side: ``publish_many`` and what keeps it going.

One publish at a time waits a round trip for every message. Here up to ``window`` messages wait for their acks
at once: each is sent with a reply subject of its own, and one wildcard subscription hears all the acks. Many
records go by a :class:`jslab.wire.Wire`, written and heard in bulk; a few by ``nc.publish``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sized
from time import monotonic
from typing import Any, TypeVar

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import StreamInfo

from jslab.errors import StalledError
from jslab.publishing import explaining
from jslab.publishing.feeds import END, NOT_YET, AsyncFeed, Feed, feed
from jslab.publishing.outcomes import Outcomes, parse_answer
from jslab.publishing.payloads import CapturedSubjects, Message, Recipe
from jslab.publishing.report import PublishReport
from jslab.waiting import LONGEST_NAP
from jslab.wire import Frame, Headers, Inbox, Wire, publication, status_of

T = TypeVar("T")

# Payloads and headers that may wait for their acks at once, whatever the window.
MAX_UNACKED_BYTES = 32 * 1024 * 1024

# After so many messages, bytes or seconds the event loop gets a turn, to write and to read acks.
BURST_MESSAGES = 256
BURST_BYTES = 256 * 1024
BURST_SECONDS = 0.01

# Records that are as quick by the connection that there is: another takes 1 ms here, and some round trips.
FEW = 500
# Seconds that a connection of their own may take; without one, they go by the connection that there is.
OPENED = 2.0

# nats-py stops and waits at 2 MiB of unwritten data, and loses a cancellation that arrives in that wait.
MAX_UNWRITTEN_BYTES = 1024 * 1024


async def publish_many(
    js: JetStreamContext,
    stream: str,
    records: Iterable[T] | AsyncIterable[T],
    *,
    subject: str | Callable[[T], str],
    data: Callable[[T], object] | None = None,
    msg_id: Callable[[T], object] | None = None,
    headers: Mapping[str, str] | Callable[[T], Mapping[str, str] | None] | None = None,
    window: int = 4000,
    ack_timeout: float = 5.0,
    deadline: float = 30.0,
    on_report: Callable[[PublishReport], None] | None = None,
) -> PublishReport:
    """Publish every record to the stream, many at once, and report what became of each.

    ``records`` may be any iterable or async iterable; a generator is read as messages leave. ``subject``,
    ``msg_id`` and ``headers`` may be functions of a record. ``data`` makes the payload of a record, by
    default the record itself: bytes, text, or what ``json`` can write. At most ``window`` messages and 32 MiB
    wait for their acks at once. ``ack_timeout`` and ``deadline`` are seconds.

    Each record sent ends as one of

    - **acked**: stored, by the stream's word;
    - **duplicate**: the stream had its ``Nats-Msg-Id`` before this call sent it;
    - **refused**: not stored; the report has the server's error code and text;
    - **unknown**: sent, and no answer settled it.

    What the servers say they did not store (no responders, temporarily unavailable, too many requests) is
    sent again until ``deadline`` after its first attempt. What got no answer within ``ack_timeout``, or lost
    its connection, may be stored: it is sent again only when it has a ``Nats-Msg-Id``, and only within half
    of the stream's duplicate window. Messages stand in the stream in the order of the records, except those
    in ``report.retried``; with ``window=1`` without exception.

    ``on_report`` gets the report however this ends: also on an error and when it is cancelled. Before an
    error about a record leaves, what was in flight is awaited.

    More than 500 records, and those of which nobody knows how many there are, go by a connection of their
    own, made like that of ``js``; the server may put them before what was published a moment ago. Where a
    second connection is not to be had, they go by the first, at two thirds of the speed.

    Calls ``js.stream_info``, ``nc.subscribe`` and ``nc.publish``; on its own connection it writes in bulk.

    Raises:
        SubjectError: a subject is illegal, or the stream does not capture it; that record is not sent.
        RecordError: a record cannot become a message.
        nats.errors.MaxPayloadError: a record is larger than the server accepts.
        nats.js.errors.NotFoundError: there is no such stream.
        nats.errors.TimeoutError, nats.js.errors.NoStreamResponseError: for ``deadline`` seconds no record
            could be settled, and there are records that were not sent.
        Exception: what ``records`` or one of the functions raises, with a note that names the record.
    """
    if window < 1 or ack_timeout <= 0 or deadline <= 0:
        raise ValueError(
            f"window must be at least 1, ack_timeout and deadline more than 0 seconds; "
            f"got window={window}, ack_timeout={ack_timeout}, deadline={deadline}"
        )
    recipe = Recipe(subject, data, msg_id, headers)
    outcomes = Outcomes(stream, ack_timeout=ack_timeout, deadline=deadline)
    publisher = _Publisher(js, recipe, outcomes, window)
    try:
        await publisher.publish(records)
    except BaseException as error:
        outcomes.end(f"{type(error).__name__} ended the call before an answer came")
        raise
    finally:
        await publisher.close()
        report = outcomes.report(publisher.seconds)
        if on_report is not None:
            on_report(report)
    return report


class _Publisher:
    """The sending side: it reads records, keeps the window full, and sends again what must be."""

    def __init__(self, js: JetStreamContext, recipe: Recipe, outcomes: Outcomes, window: int) -> None:
        self.seconds = 0.0
        self._js = js
        self._nc = js._nc
        self._recipe = recipe
        self._outcomes = outcomes
        self._window = window
        self._captured = CapturedSubjects(())
        self._position = 0
        self._ended = False
        self._fault: Exception | None = None
        self._wire = Wire(self._nc, None, "a few messages")
        self._subscription: Inbox | None = None
        self._inbox = f"{self._nc.new_inbox()}."
        self._ack_start = b"unlike any ack"
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._ticked = monotonic()
        self._waiter: asyncio.Future[None] | None = None
        self._wake_at = 0
        self._reconnects = self._nc.stats["reconnects"]
        self._cancels = _cancels()

    async def publish(self, records: Iterable[Any] | AsyncIterable[Any]) -> None:
        """Send all records and wait until each is settled, or raise."""
        self._tick()
        await self._open(many=not isinstance(records, Sized) or len(records) > FEW)
        started = monotonic()
        source = feed(records, self._wake)
        try:
            while not self._ended:
                await self._look_after()
                if self._may_send() and source.ready():
                    await self._burst(source)
                    await asyncio.sleep(0)
                else:
                    if not source.ready() and not self._outcomes.open:
                        self._outcomes.silent_since = None  # the source is silent, not the servers
                    await self._sleep()
            while self._outcomes.open:
                await self._look_after()
                await self._sleep()
        finally:
            self.seconds = monotonic() - started
            await source.close()
        if self._fault is not None:
            raise await self._explained(self._fault)

    async def close(self) -> None:
        """Leave nothing behind: no subscription, no timer, no task."""
        if self._timer is not None:
            self._timer.cancel()
        if self._subscription is not None:
            await self._wire.unsubscribe(self._subscription)
            await asyncio.sleep(0)  # its task ends in this turn of the loop
        if self._nc is not self._js._nc:
            await self._wire.close()

    async def _open(self, many: bool) -> None:
        info = await self._stream_info()
        self._captured = CapturedSubjects(info.config.subjects or ())
        # Half of the window, because the server's clock starts when it stores and ours when we send.
        self._outcomes.resend_within = (info.config.duplicate_window or 0.0) / 2
        if many:
            with contextlib.suppress(StalledError, nats.errors.Error, OSError):
                self._wire = await Wire.open(self._nc, timeout=OPENED)
                self._nc = self._wire.nc
                self._reconnects = self._nc.stats["reconnects"]
        self._subscription = await self._wire.subscribe(f"{self._inbox}*", self._on_replies)

    async def _stream_info(self) -> StreamInfo:
        """Ask for the stream, again and again while there is no connection or no leader to answer."""
        until = monotonic() + self._outcomes.deadline
        while True:
            self._check_cancelled()
            left = max(until - monotonic(), 0.001)
            try:
                if self._nc.is_connected or self._nc.is_closed:
                    return await asyncio.wait_for(self._js.stream_info(self._outcomes.stream), left)
                trouble: Exception = nats.errors.ConnectionReconnectingError()
            except nats.js.errors.NotFoundError as error:
                error.add_note(
                    f"jslab: there is no stream {self._outcomes.stream}; nothing was published. "
                    f"Create it first, or correct the name."
                )
                raise
            except TimeoutError:
                trouble = nats.errors.TimeoutError()
            except nats.js.errors.ServiceUnavailableError as error:
                trouble = error
            if monotonic() >= until:
                trouble.add_note(
                    f"jslab: no server told about stream {self._outcomes.stream} within "
                    f"{self._outcomes.deadline:g} s; nothing was published. Are enough servers up?"
                )
                raise trouble
            await self._sleep()

    # -- sending

    def _may_send(self) -> bool:
        outcomes = self._outcomes
        return (
            outcomes.open < self._window
            and outcomes.unacked_bytes < MAX_UNACKED_BYTES
            and not (outcomes.paused and outcomes.open)
            and self._may_write()
        )

    def _may_write(self) -> bool:
        # While disconnected nats-py would only buffer, and refuse when its buffer is full.
        return self._nc.is_connected and self._nc.pending_data_size < MAX_UNWRITTEN_BYTES

    async def _burst(self, source: Feed | AsyncFeed) -> None:
        """Send some records, without giving the event loop a turn."""
        outcomes, bulk = self._outcomes, not self._wire.why_plain
        now = started = monotonic()
        room = 1 if outcomes.paused else min(BURST_MESSAGES, self._window - outcomes.open)
        size = 0
        written: list[bytes] = []
        while room > 0 and size < BURST_BYTES and now - started < BURST_SECONDS and not self._ended:
            position = self._position
            try:
                record = source.take()
                if record is NOT_YET:
                    break
                if record is END:
                    self._ended = True
                    break
                message = self._message(record, position)
                if bulk:
                    reply = self._inbox + str(position)
                    written.append(publication(message.subject, reply, message.headers, message.payload))
            except Exception as error:
                self._stop_at(error)
                break
            outcomes.send(position, message, now)
            if not bulk and not await self._publish(position, message, now):
                break
            self._position = position + 1
            size += message.size
            room -= 1
            now = monotonic()
        if written:
            await self._wire.write(written)

    async def _publish(self, position: int, message: Message, now: float) -> bool:
        """Send one record by nats-py; False when that is the end."""
        try:
            await self._nc.publish(
                message.subject, message.payload, self._inbox + str(position), message.headers
            )
        except nats.errors.OutboundBufferLimitError:
            self._outcomes.never_left(position, now)  # the connection went away a moment ago
        except Exception as error:
            self._outcomes.not_sent(position)
            self._stop_at(error)
            return False
        return True

    def _message(self, record: Any, position: int) -> Message:
        message = self._recipe.message(record, position)
        if fault := self._captured.fault(message.subject):
            raise explaining.UnfitSubjectError(position, message.subject, fault)
        if message.size > self._nc.max_payload:
            raise explaining.too_large(message, position, self._nc.max_payload)
        return message

    async def _send_again(self, position: int, now: float) -> None:
        again = self._outcomes.send_again(position, now)
        if again is None:
            return
        message, attempt = again
        reply = f"{self._inbox}{position}-{attempt}"
        try:
            await self._nc.publish(message.subject, message.payload, reply, message.headers)
        except nats.errors.Error:
            self._outcomes.never_left(position, now)

    async def _look_after(self) -> None:
        """Do what a turn of the loop may have made necessary: react to faults, send again what is due."""
        outcomes = self._outcomes
        now = monotonic()
        self._check_cancelled()
        if self._nc.is_closed or self._js._nc.is_closed:
            raise explaining.closed(outcomes)
        if self._nc.stats["reconnects"] != self._reconnects:
            self._reconnects = self._nc.stats["reconnects"]
            outcomes.connection_lost(now)
        if outcomes.foreign is not None and self._fault is None:
            self._stop_at(explaining.stored_elsewhere(outcomes))
        if self._nc.is_connected:
            outcomes.cut_off_since = None
        elif outcomes.cut_off_since is None:
            outcomes.cut_off_since = now
        # By the clock of the last tick: what came while something blocked the loop is not heard yet.
        if not self._ended and outcomes.silent(self._ticked):
            raise explaining.silence(outcomes, self._nc.is_connected, self._position)
        if outcomes.waiting and self._nc.is_connected:
            for position in outcomes.due(now):
                if not self._may_write():
                    break
                await self._send_again(position, now)

    # -- hearing

    def _on_replies(self, frames: list[Frame]) -> None:
        """Take answers. Nearly all are plain acks that differ in their number only: no need to parse."""
        skip, ack = len(self._inbox), self._outcomes.ack
        for subject, _, headers, data in frames:
            token = subject[skip:]
            if data.startswith(self._ack_start) and token.isdigit():
                number = data[len(self._ack_start) : -1]
                seq = int(number) if number.isdigit() and data.endswith(b"}") else 0
                if seq and ack(int(token), seq):
                    continue
            self._on_other_reply(token, data, headers)
        if self._outcomes.open <= self._wake_at:
            self._wake()

    def _on_other_reply(self, token: str, data: bytes, headers: Headers) -> None:
        position, _, attempt = token.partition("-")
        answer = parse_answer(data, status_of(headers))
        self._outcomes.answer(int(position), int(attempt or 1), answer, monotonic())
        if answer.stream == self._outcomes.stream and data.endswith(b'"seq":%d}' % answer.seq):
            self._ack_start = data[: data.rindex(b":") + 1]
        self._wake()

    # -- waiting

    async def _sleep(self) -> None:
        """Wait for acks that make room, or for anything else to look after, at most one tick."""
        full = self._outcomes.open >= self._window and not self._ended
        room = min(self._window, BURST_MESSAGES) if full else 1
        self._wake_at = 0 if self._ended else self._outcomes.open - room
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _tick(self) -> None:
        """Look at the clock, five times a second; also what lets an interrupt reach a waiting cell."""
        now = monotonic()
        gap = now - self._ticked
        self._ticked = now
        if gap > 2 * LONGEST_NAP:  # something blocked the loop, and acks lie unread
            self._outcomes.resume_at(now)
        self._outcomes.expire(now)
        self._wake()
        self._timer = self._loop.call_later(LONGEST_NAP, self._tick)

    def _check_cancelled(self) -> None:
        """Notice a cancellation that nats-py swallowed while it waited for its socket."""
        if _cancels() > self._cancels:
            raise asyncio.CancelledError

    # -- explaining

    def _stop_at(self, error: Exception) -> None:
        """Send nothing more; what is in flight is awaited before the error leaves."""
        self._fault = error
        self._ended = True

    async def _explained(self, error: Exception) -> Exception:
        if isinstance(error, explaining.UnfitSubjectError):
            error = await explaining.subject_error(self._js, self._outcomes.stream, self._captured, error)
        error.add_note(
            f"jslab: publishing ended at record {self._position}. {explaining.so_far(self._outcomes)}"
        )
        return error


def _cancels() -> int:
    """How often the current task was asked to cancel."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0
