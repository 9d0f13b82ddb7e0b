"""Work: messages go to a handler, and what became of them goes back to the server, many at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo

from jslab import views
from jslab.consumers.delivery import Delivery, deliveries, explain_acks
from jslab.consumers.message import Message
from jslab.errors import SettingsError
from jslab.pulls import Pulls
from jslab.wire import Wire

# Messages to have here ahead of the handler: what it handles in this many seconds, within these bounds.
AHEAD_SECONDS, AHEAD_MOST = 0.25, 2_000
NAP = 0.2
GIVEN_BACK = "nak'ed"

Handler = Callable[[Message], Awaitable[object]]


@dataclass(slots=True)
class WorkReport:
    """What a ``work`` has achieved so far; shown as a card."""

    consumer: str = ""
    handled: int = 0
    """Messages that the handler returned from; each was acked, unless the handler settled it itself."""
    retried: int = 0
    """Times that a handler raised, or took too long, and its message was nak'ed."""
    terminated: int = 0
    """Messages whose handler raised a poison error."""
    redelivered: int = 0
    """Deliveries that were not the first of their message."""
    given_back: int = 0
    """Messages that were here unhandled at the end, and were nak'ed."""
    seconds: float = 0.0
    ended: str = ""
    """Why it came to its end; empty when it was stopped, or raised."""
    last_error: str = ""
    """What a handler raised last."""

    @property
    def rate(self) -> float:
        """Handled messages per second."""
        return self.handled / self.seconds if self.seconds > 0 else 0.0

    def _view(self) -> views.View:
        rows = [
            ("handled", f"{self.handled:,}"),
            ("retried", f"{self.retried:,}"),
            ("terminated", f"{self.terminated:,}"),
            ("redelivered", f"{self.redelivered:,}"),
            ("given back", f"{self.given_back:,}"),
            ("took", f"{self.seconds:.2f} s, {self.rate:,.0f} handled per second"),
            ("ended", self.ended or "it was stopped"),
        ]
        if self.last_error:
            rows.insert(3, ("last error", self.last_error))
        return views.card(f"work of {self.consumer}", rows)

    def __repr__(self) -> str:
        return self._view().text

    def _repr_html_(self) -> str:
        return self._view().html


class Outbox:
    """Acks on their way: written together, as soon as the loop has a moment."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._waiting: list[tuple[str, bytes]] = []
        self._flushing: asyncio.Task[None] | None = None

    async def put(self, reply: str, word: bytes) -> None:
        """Have an ack written soon."""
        self._waiting.append((reply, word))
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self.flush())

    async def flush(self) -> None:
        """Write what waits."""
        self._flushing = None
        waiting, self._waiting = self._waiting, []
        if waiting:
            await self._wire.send(waiting)


class Worker:
    """Hands messages to a handler and settles them by what it does."""

    def __init__(
        self,
        handler: Handler,
        *,
        concurrency: int,
        retry_delay: float,
        poison: type[Exception] | Iterable[type[Exception]],
        handler_timeout: float | None,
    ) -> None:
        self._handler = handler
        self._concurrency = concurrency
        self._retry_delay = retry_delay
        self._poison = _classes(poison)
        self._handler_timeout = handler_timeout
        self._held: set[Message] = set()
        self._broken: Exception | None = None
        self._ahead = concurrency
        self.report = WorkReport()

    async def run(
        self,
        js: JetStreamContext,
        wire: Wire,
        info: ConsumerInfo,
        *,
        limit: int | None,
        idle: float,
        forever: bool,
        timeout: float,
        look: Callable[[], Awaitable[ConsumerInfo]],
    ) -> None:
        """Work until the limit is reached, or nothing has come for ``idle`` seconds."""
        self.report.consumer = f"{info.name} of {info.stream_name}"
        begun = time.monotonic()
        outbox = Outbox(wire)
        delivery: Delivery | None = None
        try:
            async with deliveries(
                js, wire, info, outbox.put, batch=self._concurrency, most=limit, timeout=timeout
            ) as delivery:
                delivery.keep = lambda: self._held
                try:
                    await self._work(delivery, limit, idle, forever, look)
                finally:
                    delivery.give_back += self._held
        finally:
            if delivery is not None:
                self.report.given_back = sum(m.settled == GIVEN_BACK for m in delivery.give_back)
            self.report.seconds = time.monotonic() - begun
            await outbox.flush()
            with contextlib.suppress(Exception):
                await wire.nc.flush(2)

    async def _work(
        self,
        delivery: Delivery,
        limit: int | None,
        idle: float,
        forever: bool,
        look: Callable[[], Awaitable[ConsumerInfo]],
    ) -> None:
        taken, arrived = 0, time.monotonic()
        async with self._lanes() as hand_over:
            while limit is None or taken < limit:
                await self._ask(delivery.pulls, limit, taken)
                messages = await delivery.take(NAP)
                if self._broken is not None:
                    raise self._broken
                if messages:
                    taken += len(messages)
                    self._held |= set(messages)
                    await self._ask(delivery.pulls, limit, taken)  # on its way while these are handled
                    await hand_over(messages)
                elif not self._held and not forever and time.monotonic() - max(arrived, delivery.anew) > idle:
                    explain_acks(await look())
                    self.report.ended = f"nothing came for {idle:g} s"
                    return
                if messages or self._held:
                    arrived = time.monotonic()
        self.report.ended = f"the limit of {limit:,} messages was reached"

    async def _ask(self, pulls: Pulls, limit: int | None, taken: int) -> None:
        """Have so many messages asked for that the handler need not wait, and not more."""
        want = self._ahead if limit is None else min(self._ahead, limit - taken)
        if self._concurrency > 1:
            want -= max(0, len(self._held) - self._concurrency)
        if want > 0 and pulls.to_come < (want + 1) // 2:
            await pulls.ask(want - pulls.to_come)

    @contextlib.asynccontextmanager
    async def _lanes(self) -> AsyncIterator[Callable[[list[Message]], Awaitable[None]]]:
        """Give the function that messages are handed to; at the end all of them are handled."""
        if self._concurrency == 1:
            yield self._one_by_one
            return
        waiting: asyncio.Queue[Message | None] = asyncio.Queue()

        async def lane() -> None:
            while (message := await waiting.get()) is not None:
                begun = time.monotonic()
                try:
                    await self._handle(message)
                except Exception as err:  # no handler's: whoever waits for this lane would wait for ever
                    self._broken = err
                    raise
                self._look_ahead(self._concurrency, time.monotonic() - begun)

        async def hand_over(messages: list[Message]) -> None:
            for message in messages:
                waiting.put_nowait(message)

        lanes = [asyncio.ensure_future(lane()) for _ in range(self._concurrency)]
        try:
            yield hand_over
            for _ in lanes:
                waiting.put_nowait(None)
            await asyncio.gather(*lanes)
        finally:
            for each in lanes:
                each.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)

    async def _one_by_one(self, messages: list[Message]) -> None:
        begun = time.monotonic()
        for message in messages:
            await self._handle(message)
        self._look_ahead(len(messages), time.monotonic() - begun)

    def _look_ahead(self, count: int, seconds: float) -> None:
        able = int(count / max(seconds, 1e-6) * AHEAD_SECONDS)
        self._ahead = max(self._concurrency, min(able, self._ahead * 2, AHEAD_MOST))

    async def _handle(self, message: Message) -> None:
        try:
            if self._handler_timeout is None:
                await self._handler(message)
            else:
                async with asyncio.timeout(self._handler_timeout):
                    await self._handler(message)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # Stop, and not the handler's own
                raise
            await self._retry(message, "the handler was cancelled")
        except self._poison as err:
            self.report.terminated += 1
            self.report.last_error = f"{type(err).__name__}: {err}"
            if not message.settled:
                await message.term(f"{type(err).__name__}: {err}"[:200])
        except Exception as err:  # whatever a handler raises, its message comes again
            await self._retry(message, f"{type(err).__name__}: {err}")
        else:
            self.report.handled += 1
            if not message.settled:
                await message.ack()
        if message.deliveries > 1:
            self.report.redelivered += 1
        self._held.discard(message)

    async def _retry(self, message: Message, why: str) -> None:
        self.report.retried += 1
        self.report.last_error = why
        if not message.settled:
            await message.nak(self._retry_delay)


def _classes(poison: Any) -> tuple[type[Exception], ...]:
    """Check the errors called poison. Raises SettingsError: Python itself would say so at the first error."""
    several = isinstance(poison, Iterable) and not isinstance(poison, type | str)
    given: tuple[Any, ...] = tuple(poison) if several else (poison,)
    for each in given:
        if not (isinstance(each, type) and issubclass(each, Exception)):
            raise SettingsError(
                "poison takes classes of exceptions",
                seen=repr(each),
                do="write poison=(KeyError, ValueError)",
            )
    return given
