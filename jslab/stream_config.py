"""What was written for a stream, checked before it is sent: the server would answer with words about JSON."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StoreCompression, StreamConfig

# Streams that carry this are the lab's own; a lesson's setup and clean-up touch no others.
OWNED = {"managed-by": "jslab"}
LESSON_KEY = "jslab-lesson"
SECONDS = frozenset({"max_age", "duplicate_window", "subject_delete_marker_ttl"})
NUMBERS = frozenset({"max_msgs", "max_bytes", "max_msg_size", "max_consumers", "max_msgs_per_subject"})
CHOICES: Mapping[str, type[enum.Enum]] = {
    "retention": RetentionPolicy,
    "storage": StorageType,
    "discard": DiscardPolicy,
    "compression": StoreCompression,
}
REPLICAS = range(1, 6)


def check(config: Mapping[str, Any]) -> None:
    """Look at StreamConfig fields given by name. Raises TypeError or ValueError that says what to write."""
    known = {field.name for field in fields(StreamConfig)}
    if unknown := sorted(set(config) - known):
        raise TypeError(
            f"no such stream setting: {', '.join(unknown)}; nats-py knows {', '.join(sorted(known))}"
        )
    for name, value in config.items():
        if value is not None:
            _check_one(name, value)


def _check_one(name: str, value: Any) -> None:
    if name in SECONDS and not _number(value, float):
        raise TypeError(f"{name} is a number of seconds, such as 3600; got {value!r}")
    if name in NUMBERS and not _number(value, int):
        raise TypeError(f"{name} is a whole number; got {value!r}")
    if name == "num_replicas" and not (_number(value, int) and value in REPLICAS):
        raise ValueError(f"num_replicas is a whole number from 1 to {REPLICAS[-1]}; got {value!r}")
    if name == "subjects":
        _check_subjects(value)
    if name in CHOICES:
        choices = [choice.value for choice in CHOICES[name]]
        if getattr(value, "value", value) not in choices:
            raise ValueError(f"{name} is one of {', '.join(choices)}; got {value!r}")


def _check_subjects(value: Any) -> None:
    if isinstance(value, str) or not all(isinstance(subject, str) for subject in value):
        raise TypeError(f"subjects is a list of texts, such as ['flights.>']; got {value!r}")
    for subject in value:
        tokens = subject.split(".")
        if "" in tokens or ">" in tokens[:-1] or any(space in subject for space in " \t\r\n"):
            raise ValueError(
                f"{subject!r} is no subject: tokens with single dots between them, no spaces, "
                "`*` for one token, `>` for the rest, at the end only"
            )


def _number(value: Any, kind: type) -> bool:
    wanted = (int, float) if kind is float else int
    return isinstance(value, wanted) and not isinstance(value, bool)
