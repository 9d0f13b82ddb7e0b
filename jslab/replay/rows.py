"""Messages as they are read from a stream: columns for bulk, a row for one, an object for a loop."""

from __future__ import annotations

import bisect
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from jslab.pulls import NANO
from jslab.wire import Headers, headers_of

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class Row(NamedTuple):
    """A stored message, with nothing in it worked out yet."""

    seq: int
    subject: str
    time: int
    """When the server stored it: nanoseconds since 1970, UTC."""
    headers: Headers
    data: bytes


@dataclass(slots=True)
class Batch:
    """Stored messages in the stream's order, by columns.

    A few hundred thousand messages a second leave no time for an object each: the collector of garbage, which
    walks over every tuple and dict that lives, would take more than the reading.
    """

    seqs: list[int]
    subjects: list[str]
    times: list[int]
    headers: list[Headers]
    data: list[bytes]

    def __len__(self) -> int:
        return len(self.seqs)

    def __iter__(self) -> Iterator[Row]:
        return map(Row, self.seqs, self.subjects, self.times, self.headers, self.data)

    def within(self, start: int, end: int | None) -> Batch:
        """Return the part of it from ``start`` to ``end``, both inclusive."""
        if not self.seqs or (self.seqs[0] >= start and (end is None or self.seqs[-1] <= end)):
            return self
        first = bisect.bisect_left(self.seqs, start)
        last = len(self.seqs) if end is None else bisect.bisect_right(self.seqs, end)
        columns = (self.seqs, self.subjects, self.times, self.headers, self.data)
        return Batch(*(column[first:last] for column in columns))  # type: ignore[arg-type]


class StoredMessage:
    """A message of a replay: sequence, subject, stored time, headers and data. It cannot be acked."""

    __slots__ = ("_headers", "data", "seq", "subject", "time_ns")

    def __init__(self, row: Row) -> None:
        self.seq, self.subject, self.time_ns, self._headers, self.data = row

    @property
    def time(self) -> datetime.datetime:
        """When the server stored it, UTC, to the microsecond; ``time_ns`` has the nanoseconds."""
        return moment(self.time_ns)

    @property
    def headers(self) -> dict[str, str]:
        """The message's own headers; empty when it has none."""
        return headers_of(self._headers)

    def __repr__(self) -> str:
        return f"<{self.seq} {self.subject} stored {self.time:%Y-%m-%d %H:%M:%S} UTC: {self.data[:60]!r}>"


def moment(nanoseconds: int) -> datetime.datetime:
    """Return a stored time as a datetime, exactly to the microsecond."""
    seconds, rest = divmod(nanoseconds, NANO)
    return EPOCH + datetime.timedelta(seconds=seconds, microseconds=rest // 1000)


def nanoseconds(when: datetime.datetime) -> int:
    """Return a datetime as stored times are counted."""
    since = when - EPOCH
    return (since.days * 86_400 + since.seconds) * NANO + since.microseconds * 1000
