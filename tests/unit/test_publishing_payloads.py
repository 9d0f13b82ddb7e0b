"""From a record to a message: subjects, payloads, headers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jslab import departures
from jslab.errors import RecordError
from jslab.publishing import payloads
from jslab.publishing.payloads import CapturedSubjects, Recipe, subject_fault, subject_matches, to_bytes

TOKENS = st.lists(st.sampled_from(["a", "b", "flights", "JFK", "x-1"]), min_size=1, max_size=5)
PATTERN_TOKENS = st.lists(st.sampled_from(["a", "b", "flights", "JFK", "x-1", "*"]), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("pattern", "subject", "captured"),
    [
        ("flights.>", "flights.JFK.AA.LAX", True),
        ("flights.>", "flights", False),
        ("flights.*", "flights.JFK", True),
        ("flights.*", "flights.JFK.AA", False),
        ("flights.*.AA.*", "flights.JFK.AA.LAX", True),
        ("flights.*.AA.*", "flights.JFK.UA.LAX", False),
        (">", "anything.at.all", True),
        ("*", "one", True),
        ("*", "one.two", False),
        ("tower.line", "tower.line", True),
        ("tower.line", "tower.lines", False),
        ("*.>", "a", False),
        ("*.>", "a.b.c", True),
    ],
)
def test_a_pattern_captures_what_the_server_would(pattern: str, subject: str, captured: bool) -> None:
    assert subject_matches(pattern, subject) is captured


@given(TOKENS)
def test_every_subject_matches_itself_and_every_prefix_with_a_tail(tokens: list[str]) -> None:
    subject = ".".join(tokens)
    assert subject_matches(subject, subject)
    assert subject_matches(">", subject)
    for length in range(1, len(tokens)):
        assert subject_matches(".".join([*tokens[:length], ">"]), subject)
    assert not subject_matches(subject + ".>", subject)


@given(TOKENS, PATTERN_TOKENS)
def test_without_a_tail_a_pattern_matches_token_by_token(tokens: list[str], pattern: list[str]) -> None:
    fits = len(tokens) == len(pattern) and all(p in ("*", t) for p, t in zip(pattern, tokens, strict=True))
    assert subject_matches(".".join(pattern), ".".join(tokens)) is fits


@pytest.mark.parametrize(
    ("subject", "fault"),
    [
        ("", "empty"),
        ("flights JFK", "white space"),
        ("flights.JFK\r\nPUB x", "white space"),
        ("flights..JFK", "empty token"),
        (".flights", "empty token"),
        ("flights.", "empty token"),
        ("flights.*", "wildcards"),
        ("flights.>", "wildcards"),
        ("f" * 5_000, "longer than"),
        (None, "NoneType, not text"),
        (b"flights", "bytes, not text"),
        (["flights"], "list, not text"),
    ],
)
def test_an_illegal_subject_is_named_with_what_is_wrong(subject: Any, fault: str) -> None:
    assert fault in (subject_fault(subject) or "")
    assert fault in (CapturedSubjects(["flights.>"]).fault(subject) or "")


def test_a_literal_star_inside_a_token_is_legal() -> None:
    assert subject_fault("flights.a*b") is None


def test_subjects_of_a_stream_are_checked_against_all_its_patterns() -> None:
    captured = CapturedSubjects(["flights.JFK.>", "tower.*"])
    assert captured.fault("flights.JFK.AA.LAX") is None
    assert captured.fault("tower.line") is None
    assert captured.fault("flights.LGA.AA.ORD") == "the stream does not capture it"


def test_what_is_remembered_of_subjects_stays_bounded() -> None:
    captured = CapturedSubjects(["orders.*"])
    for number in range(payloads.REMEMBERED_SUBJECTS * 2 + 1):
        assert captured.fault(f"orders.{number}") is None
    assert len(captured._known) <= payloads.REMEMBERED_SUBJECTS


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (b"raw", b"raw"),
        (bytearray(b"raw"), b"raw"),
        (memoryview(b"raw"), b"raw"),
        ("Zürich", "Zürich".encode()),
        ({"gate": "B22", "late": None}, b'{"gate":"B22","late":null}'),
        ([1, 2.5, True], b"[1,2.5,true]"),
        (None, b"null"),
        (0, b"0"),
    ],
)
def test_a_payload_is_bytes_text_or_json(value: object, sent: bytes) -> None:
    assert to_bytes(value) == sent


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
).filter(lambda value: not isinstance(value, str))


@given(json_values)
def test_json_comes_back_as_it_went(value: object) -> None:
    try:
        sent = to_bytes(value)
    except UnicodeEncodeError:  # text with half a surrogate pair has no UTF-8
        return
    assert json.loads(sent) == value


@pytest.mark.parametrize("value", [{1, 2}, object(), float("nan"), {"delay": float("inf")}, "\ud800", 1j])
def test_what_cannot_be_written_is_a_record_error_that_names_the_record(value: object) -> None:
    with pytest.raises(RecordError, match="record 17 cannot be sent") as caught:
        Recipe("a", None, None, None).message(value, 17)
    assert type(value).__name__ in caught.value.seen
    assert "data=" in caught.value.do


def test_a_structure_that_contains_itself_is_a_record_error() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(RecordError, match="record 3 cannot be sent"):
        Recipe("a", None, None, None).message(circle, 3)


def test_a_departure_becomes_a_message_by_callables() -> None:
    flight = next(departures.day(1, 1))
    recipe = Recipe(
        lambda f: f.subject,
        lambda f: f.payload,
        lambda f: f.id,
        lambda f: {"Event-Time": f.event_time.isoformat()},
    )
    message = recipe.message(flight, 0)
    assert message.subject == "flights.EWR.UA.IAH"
    assert message.payload == flight.payload
    assert message.msg_id == flight.id
    assert message.headers == flight.headers


def test_an_id_among_the_headers_counts_as_the_message_id() -> None:
    flight = next(departures.day(1, 1))
    message = Recipe("a", lambda f: f.payload, None, lambda f: f.headers).message(flight, 0)
    assert message.msg_id == flight.id


def test_a_record_without_an_id_is_sent_without_one() -> None:
    recipe = Recipe("a", None, lambda record: None, None)
    assert recipe.message(b"x", 0).headers is None
    assert recipe.message(b"x", 0).msg_id is None


def test_an_id_that_is_a_number_becomes_text() -> None:
    assert Recipe("a", None, lambda record: 7, None).message(b"x", 0).msg_id == "7"


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_id_is_refused_because_the_server_would_take_it_for_none(empty: str) -> None:
    with pytest.raises(RecordError, match="record 5 has an empty message id"):
        Recipe("a", None, lambda record: empty, None).message(b"x", 5)


@pytest.mark.parametrize("headers", [{"Delay": 3}, {"Delay": None}, {3: "x"}, {"Delay": "\ud800"}])
def test_a_header_that_is_not_text_is_a_record_error(headers: Any) -> None:
    with pytest.raises(RecordError, match="record 5 has a header that is not text"):
        Recipe("a", None, None, headers).message(b"x", 5)


def test_headers_of_the_caller_are_not_changed() -> None:
    headers = {"Source": "tower"}
    message = Recipe("a", None, lambda record: "1", headers).message(b"x", 0)
    assert headers == {"Source": "tower"}
    assert message.headers == {"Source": "tower", "Nats-Msg-Id": "1"}


def test_the_size_of_a_message_is_what_the_server_counts() -> None:
    assert Recipe("a", None, None, None).message(b"x" * 10, 0).size == 10
    headers = {"Event-Time": "2013", "Ort": "Zürich"}
    wire = b"NATS/1.0\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()).encode() + b"\r\n"
    assert Recipe("a", None, None, headers).message(b"x" * 10, 0).size == len(wire) + 10


def test_the_short_way_of_plain_bytes_makes_the_same_message() -> None:
    record = b"x" * 10
    assert Recipe("a", None, None, None).message(record, 0) == Recipe("a", lambda r: r, None, None).message(
        record, 0
    )


def test_what_a_function_of_the_caller_raises_passes_through() -> None:
    with pytest.raises(AttributeError, match="no attribute 'id'"):
        Recipe("a", lambda record: b"x", lambda record: record.id, None).message(SimpleNamespace(), 0)


def test_a_datetime_keeps_its_time_zone_in_json() -> None:
    noon = datetime(2013, 1, 1, 12, tzinfo=UTC)
    assert to_bytes({"at": noon}) == b'{"at":"2013-01-01T12:00:00+00:00"}'


def test_a_naive_datetime_is_an_error_that_names_the_record() -> None:
    noon = datetime(2013, 1, 1, 12)  # noqa: DTZ001 - the point of the test
    with pytest.raises(RecordError, match=r"record 7 cannot be sent: .* has no time zone"):
        Recipe("flights.x", None, None, None).message({"at": noon}, 7)


@pytest.mark.parametrize("name", ["data", "msg_id"])
def test_a_value_where_a_function_belongs_is_told_so(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}=lambda r"):
        Recipe("a", **{"data": None, "msg_id": None, "headers": None, name: "same"})
