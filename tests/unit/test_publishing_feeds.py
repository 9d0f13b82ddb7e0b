"""Records from any iterable, without ever waiting for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from jslab.publishing.feeds import END, NOT_YET, READ_AHEAD, AsyncFeed, Feed, feed
from jslab.waiting import until


async def count(numbers: int) -> AsyncIterator[int]:
    for number in range(numbers):
        yield number


async def drain(source: AsyncFeed) -> list[int]:
    taken: list[int] = []
    while True:
        await until(source.ready, what="a record", timeout=5, every=0)
        record = source.take()
        if record is END:
            return taken
        assert record is not NOT_YET
        taken.append(record)


def test_an_ordinary_iterable_is_read_one_by_one() -> None:
    def numbers() -> Iterator[int]:
        read.append("asked")
        yield 1
        read.append("asked")
        yield 2

    read: list[str] = []
    source = feed(numbers(), lambda: None)
    assert isinstance(source, Feed)
    assert read == []
    assert source.ready()
    assert [source.take(), source.take(), source.take(), source.take()] == [1, 2, END, END]


async def test_an_async_iterable_gives_all_its_records_in_order() -> None:
    source = feed(count(READ_AHEAD * 3), lambda: None)
    assert isinstance(source, AsyncFeed)
    assert source.take() is NOT_YET
    assert await drain(source) == list(range(READ_AHEAD * 3))
    await source.close()


async def test_an_async_iterable_is_not_read_further_ahead_than_promised() -> None:
    read = 0

    async def endless() -> AsyncIterator[int]:
        nonlocal read
        while True:
            read += 1
            yield read

    source = AsyncFeed(endless(), lambda: None)
    await until(lambda: read >= READ_AHEAD, what="the reader to run ahead", timeout=5, every=0)
    for _ in range(10):
        await asyncio.sleep(0)
    assert read == READ_AHEAD
    source.take()
    await until(lambda: read > READ_AHEAD, what="the reader to go on", timeout=5, every=0)
    await source.close()


async def test_what_an_async_iterable_raises_comes_after_the_records_before_it() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise RuntimeError("the source broke")

    source = AsyncFeed(broken(), lambda: None)
    await until(source.ready, what="a record", timeout=5, every=0)
    assert source.take() == 1
    await until(source.ready, what="the end", timeout=5, every=0)
    with pytest.raises(RuntimeError, match="the source broke"):
        source.take()
    await source.close()


async def test_closing_ends_the_reader_and_its_iterable() -> None:
    closed = asyncio.Event()

    async def waits() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.set()

    before = asyncio.all_tasks()
    source = AsyncFeed(waits(), lambda: None)
    await until(source.ready, what="a record", timeout=5, every=0)
    await source.close()
    assert closed.is_set()
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("records", [{"a": 1}, "one", b"one", 5, None], ids=lambda r: type(r).__name__)
async def test_one_record_is_not_taken_apart(records: Any) -> None:
    # A mapping was published key by key, and every one of them acknowledged.
    with pytest.raises(TypeError, match=f"not one {type(records).__name__}"):
        feed(records, lambda: None)
