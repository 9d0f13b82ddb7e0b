"""What needs Kubernetes says so on embedded, in a sentence, and how to get there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from jslab.errors import UnsupportedError
from jslab.lab import Lab

pytestmark = pytest.mark.embedded


async def make_a_copy(lab: Lab) -> None:
    lab.trial("depot")


NEEDS_PODS = {
    "a lesson about pods": lambda lab: lab.lesson("02"),
    "a copy of the manifests": make_a_copy,
    "kubectl": lambda lab: lab.kubectl("get pods"),
}


@pytest.mark.parametrize("ask", NEEDS_PODS.values(), ids=NEEDS_PODS)
async def test_what_needs_pods_names_the_backend_that_has_them(
    lab: Lab, ask: Callable[[Lab], Awaitable[object]]
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        await ask(lab)
    assert caught.value.what == "the backend embedded has no pods, volumes or probes to look at"
    assert "jslab up --backend kind" in caught.value.do


async def test_the_lesson_that_was_open_stays_so(lab: Lab) -> None:
    await lab.lesson("00")
    with pytest.raises(UnsupportedError):
        await lab.lesson("02")
    assert (await lab.check("00.1")).key == "blank"
    await lab.clean("00")
