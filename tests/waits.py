"""Waiting for a condition, and finding processes, in tests that start real ones."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import psutil
from nats.js.api import ConsumerInfo

from jslab.connection import consumer_info
from jslab.lab import Lab
from jslab.waiting import until as until_async


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait until the condition holds; fail when it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.02)


async def until_waiting(lab: Lab, stream: str, consumer: str, count: int) -> ConsumerInfo:
    """Wait until so many messages wait for a consumer: its server may have them later than the leader."""

    async def all_wait() -> ConsumerInfo | None:
        info = await consumer_info(lab.js, stream, consumer)
        return info if info.num_pending == count else None

    info = await until_async(all_wait, what=f"{count} messages to wait for {consumer}", timeout=10)
    assert info is not None
    return info


def processes(text: str) -> list[psutil.Process]:
    """Find living processes, other than this one, with a text in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if text in line and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
            found.append(process)
    return found
