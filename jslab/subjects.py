"""Subjects and the patterns that match them; no I/O."""

from __future__ import annotations

import re

EVERYTHING = ">"
_WHITE_SPACE = re.compile(r"[\x00-\x20]")


def overlap(one: str, other: str) -> bool:
    """Tell whether some subject matches both patterns."""
    left, right = one.split("."), other.split(".")
    for a, b in zip(left, right, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(left) == len(right)


def pattern_fault(pattern: object) -> str | None:
    """Say what keeps this from being a pattern to read by, or None when nothing does."""
    if not isinstance(pattern, str):
        return f"it is {type(pattern).__name__}, not text"
    if not pattern:
        return "it is empty"
    if _WHITE_SPACE.search(pattern):
        return "it contains white space"
    tokens = pattern.split(".")
    if "" in tokens:
        return "it has an empty token"
    if ">" in tokens[:-1]:
        return "`>` may only be the last token"
    return None
