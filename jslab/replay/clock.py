"""Event time: read from a header, sought in a stream, and kept as a pace."""

from __future__ import annotations

import asyncio
import datetime
import time

from jslab.errors import ClockError
from jslab.replay.leader import Leader
from jslab.replay.rows import Row, moment
from jslab.subjects import EVERYTHING
from jslab.wire import headers_of


def event_time(row: Row, header: str) -> datetime.datetime:
    """Return the event time that a message carries. Raises ClockError, naming its sequence."""
    text = headers_of(row.headers).get(header)
    if text is None:
        raise ClockError(
            f"message {row.seq:,} has no header {header}",
            seen=f"its headers: {', '.join(headers_of(row.headers)) or 'none'}",
            do="name the header that carries the event time, or filter for the subjects that have it",
        )
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ClockError(
            f"the header {header} of message {row.seq:,} is no time with a time zone",
            seen=repr(text),
            do="publish ISO 8601 with an offset, as 2013-01-01T05:15:00-05:00",
        )
    return found


class Pace:
    """Holds messages back until their moment has come, ``speed`` times as fast as it happened."""

    def __init__(self, speed: float, header: str | None) -> None:
        self._speed = speed
        self._header = header
        self._begun: tuple[float, datetime.datetime] | None = None
        self._before: tuple[datetime.datetime, int] | None = None

    def of(self, row: Row) -> datetime.datetime:
        """Return the moment by which a message is paced. Raises ClockError."""
        return moment(row.time) if self._header is None else event_time(row, self._header)

    async def until(self, row: Row) -> None:
        """Wait until a message is due."""
        now = self.of(row)
        if self._before and now < self._before[0] and self._header:
            raise out_of_order(self._header, self._before[1], self._before[0], row.seq, now)
        self._before = now, row.seq
        if self._begun is None:
            self._begun = time.monotonic(), now
        begun, first = self._begun
        due = begun + (now - first).total_seconds() / self._speed
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def seek(leader: Leader, header: str, when: datetime.datetime, subject: str = EVERYTHING) -> int:
    """Return the first sequence at or after an event time, by bisection: some twenty questions to the leader.

    One behind the last when there is none. Raises ClockError when the messages looked at are not in order.
    """
    state = (await leader.info()).state
    low, high = max(state.first_seq, 1), state.last_seq + 1
    early: tuple[datetime.datetime, int] | None = None
    late: tuple[datetime.datetime, int] | None = None
    while low < high:
        middle = (low + high) // 2
        found = await leader.next(middle, subject)
        if found is None or found.seq >= high:
            high = middle
            continue
        at = event_time(found, header)
        for one, other in ((early, (at, found.seq)), ((at, found.seq), late)):
            if one and other and one[0] > other[0]:
                raise out_of_order(header, one[1], one[0], other[1], other[0])
        if at < when:
            low, early = found.seq + 1, (at, found.seq)
        else:
            high, late = middle, (at, found.seq)
    return late[1] if late else state.last_seq + 1


def out_of_order(
    header: str, first: int, earlier: datetime.datetime, second: int, later: datetime.datetime
) -> ClockError:
    """Return the error about two messages whose event times are not in the stream's order."""
    return ClockError(
        f"the stream is not in the order of {header}",
        seen=f"message {first:,} says {earlier.isoformat()}, and {second:,} behind it {later.isoformat()}",
        do="take a frame and sort it; by the stored time, which is in order, no clock is needed",
    )
