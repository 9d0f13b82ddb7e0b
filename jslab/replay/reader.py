"""Reads a range of a stream to its end, whatever happens to servers and connections meanwhile."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StreamInfo

from jslab.errors import ReplayError, StalledError
from jslab.pulls import PASSING
from jslab.replay.leader import Leader
from jslab.replay.report import ReplayReport
from jslab.replay.rows import Batch, Row, moment, nanoseconds
from jslab.replay.sources import ConsumerSource, DirectSource, Source
from jslab.replay.span import DIRECT, Span
from jslab.wire import Wire

T = TypeVar("T")

# What a reading outlasts: it takes its time, so its connection may also have more to write than it holds.
OUTLASTED = (*PASSING, nats.errors.OutboundBufferLimitError)
NAP = 0.1
# Sequences up to which a range is read by direct gets.
SHORT = 20_000
# A work queue takes no consumer without acks, and none that begins in the middle.
WORK_QUEUE = (10084, 10101)


class Reader:
    """One reading of one range. ``report`` is filled as it goes."""

    def __init__(
        self,
        js: JetStreamContext,
        stream: str,
        span: Span,
        *,
        follow: bool,
        timeout: float,
        bulk: bool,
        route: str | None,
    ) -> None:
        self._js = js
        self._leader = Leader(js, stream)
        self._stream = stream
        self._span = span
        self._follow = follow
        self._timeout = timeout
        self._bulk = bulk
        self._route = route
        self.report = ReplayReport(stream, 0, None)

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """Give every message of the range once, in order, in batches. Raises StalledError, ReplayError."""
        begun = time.monotonic()
        info = await self._patiently(self._leader.info)
        start, end = await self._bounds(info)
        report = self.report = ReplayReport(
            self._stream, start, end, asked=self._span.times, notes=self.report.notes
        )
        if end is not None and start > end:
            report.missing = 0
            return
        wire = await Wire.open(self._js._nc, bulk=self._bulk, timeout=self._timeout)
        source = self._source(wire, info)
        report.route = f"{source.name}, {_how(wire)}"
        try:
            async with aclosing(self._through(source, start, end)) as through:
                async for batch in through:
                    _count(report, batch)
                    report.seconds = time.monotonic() - begun
                    yield batch
            await self._look_back(info)
        finally:
            report.seconds = time.monotonic() - begun
            await source.close()
            await wire.close()

    def _source(self, wire: Wire, info: StreamInfo) -> Source:
        if self._route == DIRECT and not info.config.allow_direct:
            raise ReplayError(
                f"{self._stream} allows no direct gets",
                seen="its configuration has allow_direct off",
                do="leave route out, or: await lab.js.update_stream(stream.config, allow_direct=True)",
            )
        if self._route == DIRECT or (self._route is None and self._fits_direct(info)):
            return DirectSource(wire, self._stream, self._span.filter)
        # A stream that keeps messages for its consumers wants as many copies of each consumer as of itself.
        replicas = 1 if info.config.retention == RetentionPolicy.LIMITS else None
        return ConsumerSource(wire, self._js, self._stream, self._span.filter, replicas)

    def _fits_direct(self, info: StreamInfo) -> bool:
        """Tell whether direct gets are the better way: for little, and where no consumer may be made.

        A direct get needs no consumer, which takes some milliseconds to make; but the server writes five
        headers for each message, and we read them (docs/decisions.md has the figures).
        """
        if not info.config.allow_direct or self._follow:
            return False
        report = self.report
        few = report.end is not None and report.end - report.start < SHORT
        return few or info.config.retention == RetentionPolicy.WORK_QUEUE

    # -- what is asked for, in sequences

    async def _bounds(self, info: StreamInfo) -> tuple[int, int | None]:
        self._span.check_against(self._stream, info.config.subjects or [])
        last, span = info.state.last_seq, self._span
        start = span.start_seq or 1
        if span.start_time is not None:
            found = await self._first_from(span.start_time)
            start = found.seq if found else last + 1
            if found and found.seq <= info.state.first_seq and nanoseconds(span.start_time) < found.time:
                self._note(
                    f"start_time lies before the first message, stored {_told(found)}: you get all from there"
                )
        if start > last and not self._follow:
            self._note(f"the stream ends at sequence {last:,}: there is nothing from {start:,} on")
        if self._follow:
            return start, None
        end = min(span.end_seq or last, last)
        if span.end_time is not None:
            found = await self._first_from(span.end_time)
            end = min(end, found.seq - 1) if found else end
            if found and found.seq <= info.state.first_seq:
                self._note(f"end_time lies before the first message, stored {_told(found)}: there is nothing")
        return start, end

    async def _first_from(self, when: datetime.datetime) -> Row | None:
        return await self._patiently(lambda: self._leader.at_or_after(when))

    def _note(self, text: str) -> None:
        self.report.notes.append(text)

    # -- reading on

    async def _through(self, source: Source, start: int, end: int | None) -> AsyncGenerator[Batch, None]:
        """Read from start to end; where the source stops short, go on behind the last message."""
        position, progress = start, time.monotonic()
        while end is None or position <= end:
            async for given in self._pass(source, position, end):
                if batch := given.within(position, end):
                    position, progress = batch.seqs[-1] + 1, time.monotonic()
                    yield batch
                    progress = time.monotonic()  # what the loop that reads us does takes its own time
                if end is not None and position > end:
                    return
            if end is None:
                await self._patiently(self._leader.info)
            elif not await self._more(position, end):
                return
            elif time.monotonic() - progress > self._timeout:
                raise self._stalled(f"sequence {position:,} is there, and no server gives it out")
            self.report.interruptions += 1
            await asyncio.sleep(NAP)

    async def _pass(self, source: Source, position: int, end: int | None) -> AsyncGenerator[Batch, None]:
        """Let the source read until it stops, or until a passing trouble stops it."""
        try:
            async with aclosing(source.read(position, end)) as batches:
                async for batch in batches:
                    yield batch
        except nats.js.errors.BadRequestError as err:
            if err.err_code in WORK_QUEUE:
                err.add_note(
                    "A work queue hands out each message once: no consumer can read it beside its workers. "
                    "Direct gets can: await lab.js.update_stream(stream.config, allow_direct=True)."
                )
            raise
        except OUTLASTED:
            return

    async def _more(self, position: int, end: int) -> bool:
        """Ask the leader whether a message is still to come: a copy that lags must not shorten the replay."""
        found = await self._patiently(lambda: self._leader.next(position, self._span.filter))
        return found is not None and found.seq <= end

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the leader, again while there is none. Raises StalledError, NotFoundError with a note."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                async with asyncio.timeout(max(deadline - time.monotonic(), NAP)):
                    return await ask()
            except nats.js.errors.NotFoundError as err:
                err.add_note(f"The stream {self._stream} is not there, or was deleted while it was read.")
                raise
            except OUTLASTED as err:
                if time.monotonic() > deadline:
                    raise self._stalled(str(err) or type(err).__name__) from err
            await asyncio.sleep(NAP)

    def _stalled(self, seen: str) -> StalledError:
        last = (
            f"the last message read is {self.report.last_seq:,}"
            if self.report.last_seq
            else "nothing was read"
        )
        return StalledError(
            f"the replay of {self._stream} does not go on: waited {self._timeout:g} s",
            seen=f"{seen}; {last}",
            do="see await lab.status(); await lab.faults.heal() ends all faults. Then go on with start_seq, "
            "or give it longer: timeout=",
        )

    # -- afterwards

    async def _look_back(self, before: StreamInfo) -> None:
        """Say what became of the stream meanwhile. Raises ReplayError when it is not the same any more."""
        now = await self._patiently(self._leader.info)
        report, end = self.report, self.report.end
        if now.created != before.created:
            raise ReplayError(
                f"the stream {self._stream} was deleted and made again while it was read",
                seen=f"created {before.created}, now {now.created}",
                do="replay the new one from its start",
            )
        if now.state.first_seq > max(before.state.first_seq, report.start):
            self._note(f"messages below {now.state.first_seq:,} were removed while it was read")
        if end is None:
            return
        if self._span.subject is None:
            report.missing = end - report.start + 1 - report.messages
        if new := now.state.last_seq - before.state.last_seq:
            self._note(f"{new:,} messages were stored after it began, and are not part of it")


def _count(report: ReplayReport, batch: Batch) -> None:
    report.messages += len(batch)
    report.bytes += sum(map(len, batch.data))
    report.first_seq = report.first_seq or batch.seqs[0]
    report.last_seq = batch.seqs[-1]


def _how(wire: Wire) -> str:
    return f"through nats-py's subscriptions ({wire.why_plain})" if wire.why_plain else "parsed in bulk"


def _told(row: Row) -> str:
    return f"{moment(row.time):%Y-%m-%d %H:%M:%S} UTC"
