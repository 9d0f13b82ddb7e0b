"""How a configuration that is there differs from the one that was asked for."""

from __future__ import annotations

import enum
from typing import Any


def drift(asked: dict[str, Any], has: object) -> dict[str, tuple[object, object]]:
    """Return setting → (asked, has) for every given setting that is otherwise there."""
    differences: dict[str, tuple[object, object]] = {}
    for setting, value in asked.items():
        theirs = getattr(has, setting)
        if setting == "metadata":
            theirs = {key: (theirs or {}).get(key) for key in value or {}}
        if _comparable(value) != _comparable(theirs):
            differences[setting] = (value, theirs)
    return differences


def _comparable(value: object) -> object:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, list | tuple):
        if all(isinstance(each, int | float) for each in value):
            return list(map(float, value))  # a backoff: 1 is 1.0, and the order is what it says
        return sorted(map(str, value))
    if isinstance(value, int | float):
        return float(value)
    return value or None
