"""A stream while a cell runs: who leads, which copy lags, how many messages and acks a second.

``async with lab.live(board):`` shows it four times a second and records every look. The last one stays in the
notebook, and in a page made from it: HTML and SVG, nothing loaded from anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

import nats.errors
import nats.js.errors

from jslab import sparklines, views
from jslab.glance import Glance, Look
from jslab.screen import shown

if TYPE_CHECKING:
    import pandas as pd

# Seconds between two looks, and how many of them the curves show.
EVERY, SHOWN = 0.25, 120
# What happens while a stream has no leader that answers.
NO_ANSWER = (TimeoutError, nats.errors.Error, nats.js.errors.Error)


class Live:
    """What :meth:`jslab.lab.Lab.live` returns: shows while its block runs, and keeps what it saw."""

    def __init__(self, name: str, glance: Glance, every: float = EVERY) -> None:
        self.name = name
        self.looks: list[Look] = []
        self._glance = glance
        self._every = every
        self._task: asyncio.Task[None] | None = None
        self._handle: Any = None
        self._failure: Exception | None = None

    async def __aenter__(self) -> Live:
        await self._look()
        self._handle = shown(self)
        # A task belongs to the cell that made it, and what it shows later is dropped by whoever runs the
        # notebook without a screen; one with an empty context belongs to none.
        self._task = asyncio.get_running_loop().create_task(self._watch(), context=contextvars.Context())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        with contextlib.suppress(*NO_ANSWER):
            await self._look()
        self._update()
        if self._failure is not None and err is None:
            raise self._failure

    async def _watch(self) -> None:
        try:
            while True:
                begun = time.monotonic()
                await self._look()
                self._update()
                await asyncio.sleep(max(0.0, self._every - (time.monotonic() - begun)))
        except Exception as failure:  # raised at the end of the block, where somebody sees it
            self._failure = failure

    async def _look(self) -> None:
        self.looks.append(await self._glance())

    def _update(self) -> None:
        if self._handle is not None:
            self._handle.update(self)

    def frame(self) -> pd.DataFrame:
        """Return a row for each look: at, leader, term, messages, last_seq, both rates, each server's lag."""
        import pandas as pd

        rates, acks = self.rates()
        rows = [
            {
                "at": look.at,
                "leader": look.leader,
                "term": look.term,
                "messages": look.messages,
                "last_seq": look.last_seq,
                "messages_per_second": rate,
                "acks_per_second": ack,
                **{f"lag_{copy.server}": copy.lag for copy in look.copies},
            }
            for look, rate, ack in zip(self.looks, rates, acks, strict=True)
        ]
        return pd.DataFrame(rows)

    def rates(self) -> tuple[list[float], list[float]]:
        """Return messages and acks a second, for each look since the one before it."""
        return _rates(self.looks, "last_seq"), _rates(self.looks, "acked")

    @property
    def leaders(self) -> list[str | None]:
        """Who led, one after the other, each as often as it took over."""
        found: list[str | None] = []
        for look in self.looks:
            if not found or found[-1] != look.leader:
                found.append(look.leader)
        return found

    def _view(self) -> views.View:
        look = self.looks[-1]
        rates, acks = self.rates()
        curves = [("messages per second", rates[-SHOWN:])]
        if any(look.acked for look in self.looks):
            curves.append(("consumer acks per second", acks[-SHOWN:]))
        drawn = "".join(sparklines.curve(title, values) for title, values in curves)
        words = "\n".join(f"  {title}: {values[-1]:,.0f}" for title, values in curves)
        return views.table(
            f"{self.name} at {look.at:%H:%M:%S} UTC",
            ("server", "role", "state", "lag"),
            [(copy.server, copy.role, copy.state, copy.lag) for copy in look.copies],
            note=self._note(look),
            below=views.View(words, drawn),
        )

    def _note(self, look: Look) -> str:
        term = f", term {look.term}" if look.term is not None else ""
        led = " → ".join(leader or "none" for leader in self.leaders[-6:])
        return f"{look.messages:,} messages, last sequence {look.last_seq:,}{term}; led by {led}"

    def __repr__(self) -> str:
        return self._view().text if self.looks else f"<Live {self.name}>"

    def _repr_html_(self) -> str:
        return self._view().html if self.looks else views.panel(repr(self))


def _rates(looks: list[Look], counter: str) -> list[float]:
    rates = [0.0]
    for before, after in itertools.pairwise(looks):
        seconds = after.clock - before.clock
        # A stream that was purged or made anew counts from a lower number: nobody stored less than nothing.
        grown = max(0, getattr(after, counter) - getattr(before, counter))
        rates.append(grown / seconds if seconds > 0 else 0.0)
    return rates[: len(looks)]
