"""What part of a stream is asked for: checked before any server is; no I/O."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable
from dataclasses import dataclass

from jslab.errors import ReplayError
from jslab.subjects import EVERYTHING, overlap, pattern_fault

DIRECT, CONSUMER = ROUTES = ("direct", "consumer")


@dataclass(frozen=True, slots=True)
class Span:
    """A range of a stream by sequence or by stored time, and which subjects of it."""

    start_seq: int | None = None
    end_seq: int | None = None
    """Inclusive."""
    start_time: datetime.datetime | None = None
    end_time: datetime.datetime | None = None
    """Exclusive, so that one range ends where the next begins."""
    subject: str | None = None

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            if getattr(self, f"{name}_seq") is not None and getattr(self, f"{name}_time") is not None:
                raise ReplayError(
                    f"a replay has one {name}",
                    seen=f"both {name}_seq and {name}_time",
                    do=f"give {name}_seq or {name}_time",
                )
        _check_sequence("start_seq", self.start_seq)
        _check_sequence("end_seq", self.end_seq)
        check_moment("start_time", self.start_time)
        check_moment("end_time", self.end_time)
        _check_order(self.start_seq, self.end_seq, "start_seq", "end_seq")
        _check_order(self.start_time, self.end_time, "start_time", "end_time")
        if self.subject is not None and (fault := pattern_fault(self.subject)):
            raise ReplayError(
                f"{self.subject!r} cannot be a subject filter",
                seen=fault,
                do="tokens are joined by dots; `*` stands for one token, `>` at the end for the rest",
            )

    @property
    def filter(self) -> str:
        """The subject filter, `>` for all."""
        return self.subject or EVERYTHING

    @property
    def times(self) -> str:
        """The stored times in words; empty where there are none."""
        start = f"from {self.start_time} on" if self.start_time else ""
        end = f"before {self.end_time}" if self.end_time else ""
        return f"stored {' and '.join(filter(None, (start, end)))}" if start or end else ""

    def check_against(self, stream: str, subjects: Iterable[str]) -> None:
        """Raise ReplayError when no message of the stream can ever match the filter."""
        patterns = list(subjects)
        if self.subject is None or not patterns or any(overlap(self.subject, p) for p in patterns):
            return
        raise ReplayError(
            f"nothing in {stream} can match {self.subject!r}",
            seen=f"{stream} stores {', '.join(patterns)}",
            do="correct the filter, or replay the stream that stores those subjects",
        )


def check_moment(name: str, moment: object) -> None:
    """Raise ReplayError for what is not a datetime with a time zone; None is fine."""
    if moment is None or (isinstance(moment, datetime.datetime) and moment.tzinfo is not None):
        return
    naive = isinstance(moment, datetime.datetime)
    raise ReplayError(
        f"{name} {'has no time zone' if naive else 'is not a datetime'}",
        seen=repr(moment),
        do="say where its clock hangs: datetime(2026, 1, 1, 12, tzinfo=ZoneInfo('America/New_York'))",
    )


def check_speed(speed: object) -> None:
    """Raise ReplayError for a speed that is no positive number; None is fine."""
    if speed is None:
        return
    if isinstance(speed, int | float) and not isinstance(speed, bool) and 0 < speed < math.inf:
        return
    raise ReplayError(
        "a replay's speed is a number above 0",
        seen=f"speed={speed!r}",
        do="1 is as it happened, 600 makes ten minutes a second; leave it out to have everything at once",
    )


def check_route(route: object) -> None:
    """Raise ReplayError for a way to read that there is not; None is fine, and chooses."""
    if route not in (None, *ROUTES):
        raise ReplayError(
            "there is no such way to read a stream",
            seen=f"route={route!r}",
            do=f"leave it out, or name one: {', '.join(ROUTES)}",
        )


def _check_sequence(name: str, seq: object) -> None:
    if seq is None or (isinstance(seq, int) and not isinstance(seq, bool) and seq >= 1):
        return
    raise ReplayError(
        f"{name} is not a sequence", seen=f"{name}={seq!r}", do="sequences are whole numbers from 1"
    )


def _check_order(start: object, end: object, name: str, other: str) -> None:
    # For times the end is exclusive, so equal ones are an empty range, which is no mistake.
    if start is None or end is None or start <= end:  # type: ignore[operator]
        return
    raise ReplayError(f"{name} lies after {other}", seen=f"{start} and {end}", do="exchange them")
