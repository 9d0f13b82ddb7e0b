"""From a record to a message: which subject it may have, and which bytes and headers it becomes.

Nothing here talks to a server. ``publishing.py`` sends what this makes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from jslab.errors import RecordError
from jslab.subjects import token_fault

MSG_ID = "Nats-Msg-Id"

# A server ends the connection at a protocol line of 4,096 bytes; the line also carries the reply subject.
MAX_SUBJECT_BYTES = 3_900

# Distinct subjects whose check is remembered. Course data has 439; a subject per order id must not pile up.
REMEMBERED_SUBJECTS = 10_000


def _moment(value: object) -> str:
    """Write a datetime, alone or within JSON; one without a time zone says nothing to a reader elsewhere."""
    if not isinstance(value, datetime):
        raise TypeError(f"{type(value).__name__} is not JSON")
    if value.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone: give it one, as in datetime(..., tzinfo=UTC)")
    return value.isoformat()


_to_json = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_moment
).encode


class Message(NamedTuple):
    """What is sent for one record; ``size`` is what the server counts: payload and headers, in bytes."""

    subject: str
    payload: bytes
    headers: dict[str, str] | None
    msg_id: str | None
    size: int


def subject_fault(subject: object) -> str | None:
    """Say what keeps this from being a subject to publish to, or None when nothing does."""
    if fault := token_fault(subject):
        return fault
    assert isinstance(subject, str)
    tokens = subject.split(".")
    if "*" in tokens or ">" in tokens:
        return "`*` and `>` are wildcards, for reading only"
    if len(subject.encode(errors="replace")) > MAX_SUBJECT_BYTES:
        return f"it is longer than {MAX_SUBJECT_BYTES:,} bytes"
    return None


def subject_matches(pattern: str, subject: str) -> bool:
    """Tell whether a stream with this subject pattern captures the subject.

    ``*`` stands for exactly one token, ``>`` at the end for one or more.
    """
    wanted = pattern.split(".")
    tokens = subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(tokens) <= len(wanted):
            return False
    elif len(tokens) != len(wanted):
        return False
    return all(want in ("*", token) for want, token in zip(wanted, tokens, strict=False))


class CapturedSubjects:
    """The subjects that a stream captures; remembers its last answers."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)
        self._known: set[str] = set()

    def fault(self, subject: str) -> str | None:
        """Say why the stream does not take a message with this subject, or None when it does."""
        if isinstance(subject, str) and subject in self._known:
            return None
        if fault := subject_fault(subject):
            return fault
        if not any(subject_matches(pattern, subject) for pattern in self.patterns):
            return "the stream does not capture it"
        if len(self._known) >= REMEMBERED_SUBJECTS:
            self._known.clear()
        self._known.add(subject)
        return None


def to_bytes(value: object) -> bytes:
    """Turn a payload into bytes: bytes stay, text becomes UTF-8, anything else JSON.

    The JSON has no spaces, no ``NaN``, which is not JSON, and datetimes with their time zone.

    Raises:
        ValueError, TypeError, RecursionError: ``json`` cannot write it, or a datetime has no time zone.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        return value.encode()
    return _to_json(value).encode()


class Recipe:
    """How each record becomes a message, as the caller of ``publish_many`` described it."""

    def __init__(
        self,
        subject: str | Callable[[Any], str],
        data: Callable[[Any], object] | None,
        msg_id: Callable[[Any], object] | None,
        headers: Mapping[str, str] | Callable[[Any], Mapping[str, str] | None] | None,
    ) -> None:
        for name, function in (("data", data), ("msg_id", msg_id)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} is a function of a record, as {name}=lambda r: …; got {function!r}")
        self._subject = subject
        self._data = data
        self._msg_id = msg_id
        self._headers = headers
        self._plain = isinstance(subject, str) and data is None and msg_id is None and headers is None

    def message(self, record: Any, position: int) -> Message:
        """Make the message of the record at this position; what the caller's callables raise passes through.

        Raises:
            RecordError: the payload or a header cannot be written.
        """
        if self._plain and type(record) is bytes:  # the way of the fastest publishers, kept short
            return Message(self._subject, record, None, None, len(record))  # type: ignore[arg-type]
        subject = self._subject if isinstance(self._subject, str) else self._subject(record)
        value = record if self._data is None else self._data(record)
        try:
            payload = to_bytes(value)
        except (ValueError, TypeError, RecursionError) as error:
            raise RecordError(
                f"record {position} cannot be sent: {error}",
                seen=f"a payload of type {type(value).__name__}, which JSON cannot hold as it is",
                do="let data= return bytes, text, or what json.dumps can write: None for an unknown number, "
                "datetimes with their time zone",
            ) from error
        headers = self._make_headers(record, position)
        if headers is None:
            return Message(subject, payload, None, None, len(payload))
        try:
            size = len(payload) + _headers_size(headers)
        except (AttributeError, TypeError, UnicodeEncodeError) as error:
            raise RecordError(
                f"record {position} has a header that is not text",
                seen=f"{headers!r}: {error}",
                do="make names and values of headers text, as in {'Event-Time': moment.isoformat()}",
            ) from error
        return Message(subject, payload, headers, headers.get(MSG_ID), size)

    def _make_headers(self, record: Any, position: int) -> dict[str, str] | None:
        given = self._headers(record) if callable(self._headers) else self._headers
        msg_id = None if self._msg_id is None else self._msg_id(record)
        if not given and msg_id is None:
            return None
        headers = dict(given or {})
        if msg_id is not None:
            headers[MSG_ID] = str(msg_id)
        if MSG_ID in headers and not str(headers[MSG_ID]).strip():
            raise RecordError(
                f"record {position} has an empty message id",
                seen=f"{MSG_ID}: {headers[MSG_ID]!r}",
                do="let msg_id= return what identifies the record, or None to send it without an id",
            )
        return headers


def _headers_size(headers: dict[str, str]) -> int:
    """The bytes on the wire: a version line, a line for each header, an empty line."""
    return 12 + sum(len(name.encode()) + len(value.encode()) + 4 for name, value in headers.items())
