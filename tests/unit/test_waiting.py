"""The one way to wait."""

from __future__ import annotations

import asyncio

import pytest

from jslab.errors import DeploymentError, LabError, NotReadyError
from jslab.waiting import LONGEST_NAP, until


async def test_it_returns_the_first_true_answer() -> None:
    answers = iter([0, "", None, "here"])
    assert await until(lambda: next(answers), what="an answer", timeout=5, every=0.001) == "here"


async def test_it_takes_coroutines_as_well() -> None:
    answers = iter([False, True])

    async def probe() -> bool:
        return next(answers)

    assert await until(probe, what="an answer", timeout=5, every=0.001)


async def test_it_asks_at_least_once() -> None:
    assert await until(lambda: True, what="nothing", timeout=0)


async def test_when_time_is_up_it_says_what_was_seen() -> None:
    with pytest.raises(NotReadyError) as caught:
        await until(lambda: None, what="rain", timeout=0.01, seen=lambda: "a blue sky", do="wait for April")
    assert str(caught.value) == "waited 0.01 s for rain\n  seen: a blue sky\n  do:   wait for April"
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, LabError)


async def test_seen_is_only_asked_when_time_is_up() -> None:
    def seen() -> str:
        raise AssertionError("asked too early")

    answers = iter([False, True])
    assert await until(lambda: next(answers), what="an answer", timeout=5, every=0.001, seen=seen)


async def test_the_error_can_be_chosen() -> None:
    with pytest.raises(DeploymentError):
        await until(lambda: False, what="nothing", timeout=0, error=DeploymentError)


async def test_what_the_probe_raises_goes_straight_through() -> None:
    def probe() -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await until(probe, what="nothing", timeout=5)


async def test_it_never_naps_so_long_that_stop_would_not_get_through() -> None:
    woken = 0

    def probe() -> bool:
        nonlocal woken
        woken += 1
        return woken > 3

    loop = asyncio.get_running_loop()
    began = loop.time()
    await until(probe, what="three naps", timeout=60, every=60)
    assert loop.time() - began < 3 * LONGEST_NAP + 1
