"""Waiting for a condition, and finding processes, in tests that start real ones."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import psutil


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait until the condition holds; fail when it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.02)


def processes(text: str) -> list[psutil.Process]:
    """Find living processes, other than this one, with a text in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if text in line and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
            found.append(process)
    return found
