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
    if fault := token_fault(pattern):
        return fault
    return "`>` may only be the last token" if ">" in str(pattern).split(".")[:-1] else None


def token_fault(text: object) -> str | None:
    """Say what keeps this from being tokens joined by dots, which subjects and patterns are; else None."""
    if not isinstance(text, str):
        return f"it is {type(text).__name__}, not text"
    if not text:
        return "it is empty"
    if _WHITE_SPACE.search(text):
        return "it contains white space"
    return "it has an empty token" if "" in text.split(".") else None
