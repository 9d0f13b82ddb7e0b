"""What ``stream.replay(...)`` returns: iterate it, or ask it for a DataFrame."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from nats.js import JetStreamContext

from jslab.errors import ReplayError
from jslab.replay.clock import Pace
from jslab.replay.reader import Reader
from jslab.replay.report import ReplayReport
from jslab.replay.rows import Batch, Row, StoredMessage
from jslab.replay.span import DIRECT, Span, check_route, check_speed
from jslab.settings import check_seconds

if TYPE_CHECKING:
    import pandas as pd

# Sequences that a warning names.
NAMED = 5


class Replay:
    """A range of a stream, read anew at each use: ``async for message in replay``, ``await replay.frame()``.

    It reads by itself, on a connection of its own, and never by a durable: no consumer's position moves. It
    ends at the last sequence that the stream had when it began, unless it follows. ``report`` says what was
    read so far, also after Stop and after an error.
    """

    def __init__(
        self,
        js: JetStreamContext,
        stream: str,
        *,
        start_seq: int | None = None,
        end_seq: int | None = None,
        start_time: datetime.datetime | None = None,
        end_time: datetime.datetime | None = None,
        subject: str | None = None,
        last_per_subject: bool = False,
        clock: str | None = None,
        speed: float | None = None,
        follow: bool = False,
        timeout: float = 20.0,
        route: str | None = None,
        bulk: bool = True,
        on_report: Callable[[ReplayReport], object] = bool,
    ) -> None:
        self._span = Span(start_seq, end_seq, start_time, end_time, subject)
        check_speed(speed)
        check_route(route)
        check_seconds(timeout, "the timeout of a replay")
        _check_together(self._span, clock, speed, last_per_subject, follow)
        if follow and route == DIRECT:
            raise ReplayError(
                "direct gets wait for nothing new", seen="route='direct' with follow", do="leave route out"
            )
        self._clock = clock
        self._speed = speed
        self._last_per_subject = last_per_subject
        self._follow = follow
        self._on_report = on_report

        def reader() -> Reader:
            return Reader(js, stream, self._span, follow=follow, timeout=timeout, bulk=bulk, route=route)

        self._reader = reader
        self._reading = reader()

    @property
    def report(self) -> ReplayReport:
        """What was read so far."""
        return self._reading.report

    def __aiter__(self) -> AsyncIterator[StoredMessage]:
        return self._messages()

    async def _messages(self) -> AsyncGenerator[StoredMessage, None]:
        pace = Pace(self._speed, self._clock) if self._speed is not None else None
        async with aclosing(self._batches()) as batches:
            async for batch in batches:
                for row in batch:
                    if pace is not None:
                        await pace.until(row)
                    yield StoredMessage(row)

    async def frame(self, *, json: Sequence[str] | bool = False) -> pd.DataFrame:
        """Read all of it into a DataFrame: seq, subject, time (datetime64[ns, UTC]), headers and data.

        With ``json`` the payloads are parsed instead: the columns named, or with True all that occur. One
        that is no JSON object leaves its row without values; a warning names its sequence, and
        ``report.not_json`` all of them. ``speed`` has no part in it. Raises ReplayError for a column that
        would hide one of the message's own, and when the replay follows.
        """
        from jslab.replay.frame import Columns, check_columns

        if self._follow:
            raise ReplayError(
                "a replay that follows never ends, so it has no frame",
                seen="follow=True",
                do="leave follow out, or iterate it and break when you have enough",
            )
        check_columns(json)
        columns = Columns(json)
        async with aclosing(self._batches()) as batches:
            async for batch in batches:
                columns.add(batch)
        if columns.not_json:
            self.report.not_json = columns.not_json
            warnings.warn(_not_json(columns.not_json), stacklevel=2)
        if columns.nowhere:
            warnings.warn(_nowhere(columns.nowhere, columns.keys), stacklevel=2)
        return columns.frame()

    async def _batches(self) -> AsyncGenerator[Batch, None]:
        self._reading = self._reader()
        try:
            async with aclosing(self._reading.batches()) as batches:
                if self._last_per_subject:
                    last: dict[str, Row] = {}
                    async for batch in batches:
                        # In order, so the last one of a subject wins.
                        last.update(zip(batch.subjects, batch, strict=True))
                    if last:
                        yield Batch(*map(list, zip(*sorted(last.values()), strict=True)))
                else:
                    async for batch in batches:
                        yield batch
        finally:
            self._on_report(self.report)


def _check_together(
    span: Span, clock: str | None, speed: float | None, last_per_subject: bool, follow: bool
) -> None:
    if clock is not None and speed is None:
        raise ReplayError(
            "clock= says by which time a replay is paced, and this one has no pace",
            seen=f"clock={clock!r} without speed",
            do="add speed=, as 600; to begin or end at an event time: seq = await stream.seek(clock, moment)",
        )
    if follow and (span.end_seq is not None or span.end_time is not None):
        raise ReplayError(
            "a replay that follows has no end",
            seen="follow=True with " + ("end_seq" if span.end_seq is not None else "end_time"),
            do="leave one of the two out, or iterate it and break when you have enough",
        )
    if last_per_subject and (speed is not None or follow):
        raise ReplayError(
            "the last message of each subject is known at the end only",
            seen="last_per_subject with " + ("speed" if speed is not None else "follow"),
            do="leave one of the two out",
        )


def _not_json(sequences: Sequence[int]) -> str:
    named = ", ".join(f"{seq:,}" for seq in sequences[:NAMED])
    more = f" and {len(sequences) - NAMED:,} more" if len(sequences) > NAMED else ""
    return (
        f"not JSON objects, so their columns are empty: sequences {named}{more}; report.not_json has them all"
    )


def _nowhere(names: Sequence[str], keys: Sequence[str]) -> str:
    return f"no payload has {', '.join(names)}, so that column is empty; payloads have {', '.join(keys)}"
