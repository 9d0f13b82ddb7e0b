"""Records one at a time, from any iterable or async iterable, without ever waiting for one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Any, Final

# How many records an async iterable may be ahead of who takes them.
READ_AHEAD = 1_000


class _Mark:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


END: Final = _Mark("END")
NOT_YET: Final = _Mark("NOT_YET")


class Feed:
    """The records of an ordinary iterable: the next one is always there, or the end."""

    def __init__(self, records: Iterable[Any]) -> None:
        self._records = iter(records)

    def ready(self) -> bool:
        """Tell whether ``take`` would give something other than NOT_YET."""
        return True

    def take(self) -> Any:
        """Give the next record, or END; what the iterable raises passes through."""
        return next(self._records, END)

    async def close(self) -> None:
        """Stop reading."""


class AsyncFeed:
    """The records of an async iterable, read ahead by a task; ``on_more`` is called when one came."""

    def __init__(self, records: AsyncIterable[Any], on_more: Callable[[], None]) -> None:
        self._on_more = on_more
        self._read: deque[Any] = deque()
        self._space = asyncio.Event()
        self._task = asyncio.create_task(self._read_all(records))

    def ready(self) -> bool:
        """Tell whether ``take`` would give something other than NOT_YET."""
        return bool(self._read) or self._task.done()

    def take(self) -> Any:
        """Give the next record, NOT_YET, or in the end what the iterable raised, or END."""
        if self._read:
            self._space.set()
            return self._read.popleft()
        if not self._task.done():
            return NOT_YET
        self._task.result()  # raises what the iterable raised
        return END

    async def close(self) -> None:
        """Stop reading, and wait until the iterable has let go."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.exception()  # one that nobody took is no news any more

    async def _read_all(self, records: AsyncIterable[Any]) -> None:
        try:
            async for record in records:
                self._read.append(record)
                self._on_more()
                if len(self._read) >= READ_AHEAD:
                    self._space.clear()
                    await self._space.wait()
        finally:
            # The task is done only after this: whoever is woken must find it so.
            asyncio.get_running_loop().call_soon(self._on_more)


def feed(records: Iterable[Any] | AsyncIterable[Any], on_more: Callable[[], None]) -> Feed | AsyncFeed:
    """Read from whichever kind of iterable this is.

    Raises TypeError for what is one record rather than many: a mapping, text or bytes would be taken apart.
    """
    if isinstance(records, AsyncIterable):
        return AsyncFeed(records, on_more)
    if isinstance(records, Mapping | str | bytes | bytearray) or not isinstance(records, Iterable):
        raise TypeError(
            f"records are a list or another iterable of records, not one {type(records).__name__}"
        )
    return Feed(records)
