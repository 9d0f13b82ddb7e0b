"""The one way to wait: ask, sleep a little, ask again, and say what was seen when time is up."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast, overload

from jslab.errors import LabError, NotReadyError

T = TypeVar("T")

# An interrupt reaches a cell only when its event loop wakes, so no wait of ours sleeps longer.
LONGEST_NAP = 0.2


@overload
async def until(
    probe: Callable[[], Awaitable[T]],
    *,
    what: str,
    timeout: float,
    every: float = ...,
    seen: Callable[[], str] = ...,
    do: str = ...,
    error: type[LabError] = ...,
) -> T: ...
@overload
async def until(
    probe: Callable[[], T],
    *,
    what: str,
    timeout: float,
    every: float = ...,
    seen: Callable[[], str] = ...,
    do: str = ...,
    error: type[LabError] = ...,
) -> T: ...
async def until(
    probe: Callable[[], Awaitable[T]] | Callable[[], T],
    *,
    what: str,
    timeout: float,
    every: float = 0.05,
    seen: Callable[[], str] = str,
    do: str = "",
    error: type[LabError] = NotReadyError,
) -> T:
    """Ask ``probe`` until it answers something truthy, and return that answer.

    ``what`` ends the sentence "waited 30 s for …"; ``seen`` is called only when time is up. ``timeout``
    and ``every`` are seconds. Raises ``error``; what the probe raises goes straight through.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        answer = probe()
        found = cast(T, await answer if inspect.isawaitable(answer) else answer)
        if found:
            return found
        left = deadline - loop.time()
        if left <= 0:
            raise error(f"waited {timeout:g} s for {what}", seen=seen(), do=do)
        await asyncio.sleep(min(every, left, LONGEST_NAP))
