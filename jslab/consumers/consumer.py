"""Consumer: a handle on one pull consumer of a stream."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import fields
from typing import Any

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo

from jslab import replication
from jslab.connection import consumer_info
from jslab.consumers.dead import DeadLetters
from jslab.consumers.delivery import Delivery, deliveries, explain_acks, info_of
from jslab.consumers.message import Message
from jslab.consumers.worker import Worker, WorkReport
from jslab.drift import drift
from jslab.errors import ConsumerDriftError, SettingsError, StalledError
from jslab.settings import check_seconds
from jslab.waiting import until
from jslab.wire import Wire

NOT_FOUND = 10014
SETTINGS = frozenset(field.name for field in fields(ConsumerConfig)) - {"deliver_subject", "deliver_group"}
# Seconds beyond a fetch's timeout in which its end must be heard.
GRACE = 2.0
# Seconds in which a consumer's leader must have heard of a change.
NEWS = 10.0
# Messages that wait here while one is handled: they, too, must be acked within ack_wait.
PREFETCH = 100


class Consumer:
    """A handle on a consumer. Only its coroutines do I/O; ``config`` is as last seen."""

    def __init__(self, js: JetStreamContext, info: ConsumerInfo) -> None:
        self.js = js
        self.stream = info.stream_name
        self.name = info.name
        self.config = info.config
        self.ended = ""
        """Why the last ``messages`` or ``work`` came to its end."""
        self.last_work: WorkReport | None = None
        """What the last ``work`` achieved, also when it was stopped or raised."""

    def __repr__(self) -> str:
        what = self.config.filter_subject or ", ".join(self.config.filter_subjects or []) or ">"
        return f"<Consumer {self.name} of {self.stream}: {what}>"

    async def info(self) -> ConsumerInfo:
        """Ask the consumer's leader for configuration and state (nats-py: ``js.consumer_info``)."""
        info = await info_of(self.js, self.stream, self.name)
        self.config = info.config
        return info

    async def fetch(self, batch: int = 1, *, timeout: float = 1.0) -> list[Message]:
        """Return up to ``batch`` messages, as many as come in ``timeout`` seconds; [] when there are none.

        Raises StalledError when no server answers, NotFoundError when the consumer is gone, AckPendingError
        when it gives out nothing because too much is not acked yet.
        """
        check_seconds(timeout, "the timeout of fetch")
        found: list[Message] = []
        deadline = time.monotonic() + timeout
        async with self._delivery(batch=batch, most=batch, timeout=GRACE) as delivery:
            pulls, heard = delivery.pulls, False
            while len(found) < batch and (left := deadline - time.monotonic()) > 0:
                if pulls.to_come <= 0:
                    await pulls.ask(batch - len(found), max(left, 0.001))
                found += (taken := await delivery.take(left))
                heard = heard or bool(taken) or pulls.to_come <= 0
            # The server says when a request is over; when it says nothing, nobody is there.
            while not found and not heard and time.monotonic() < deadline + GRACE:
                found += await delivery.take(deadline + GRACE - time.monotonic())
                heard = bool(found) or pulls.to_come <= 0
            if not heard:
                raise StalledError(
                    f"consumer {self.name} of {self.stream} does not answer: waited {timeout + GRACE:g} s",
                    seen="neither a message nor the word that there is none",
                    do="see await lab.status(); await lab.faults.heal() ends all faults",
                )
        if not found:
            explain_acks(await self.info())
        return found

    async def messages(
        self, *, limit: int | None = None, idle: float = 2.0, forever: bool = False, timeout: float = 20.0
    ) -> AsyncGenerator[Message, None]:
        """Give messages as they come: ``async for m in consumer.messages(): await m.ack()``.

        It ends after ``limit`` messages, or when none came for ``idle`` seconds, and ``ended`` says which;
        ``forever`` waits for more instead. When the loop is left otherwise, by ``break``, Stop or an
        exception, what was not settled is nak'ed, so that it comes again at once. ``timeout`` is the seconds
        without a server's answer after which it is given up: StalledError. Raises AckPendingError when
        nothing comes because too much is not acked, NotFoundError when the consumer is gone.
        """
        check_seconds(idle, "idle of messages")
        given: list[Message] = []
        self.ended, count, normal = "", 0, False
        async with self._delivery(batch=PREFETCH, most=limit, timeout=timeout) as delivery:
            waiting: list[Message] = []
            delivery.keep = lambda: waiting
            try:
                arrived = time.monotonic()
                while limit is None or count < limit:
                    await delivery.pulls.top_up()
                    waiting = (await delivery.take(0.2))[::-1]
                    while waiting:
                        message = waiting.pop()
                        given = [m for m in given if not m.settled] if len(given) > PREFETCH else given
                        given.append(message)
                        count += 1
                        yield message
                        arrived = time.monotonic()
                    if not forever and time.monotonic() - max(arrived, delivery.anew) > idle:
                        explain_acks(await self.info())
                        self.ended = f"nothing came for {idle:g} s, after {count:,} messages"
                        break
                else:
                    self.ended = f"the limit of {limit:,} messages was reached"
                normal = True
            finally:
                delivery.give_back += [*waiting, *([] if normal else given)]

    async def work(
        self,
        handler: Callable[[Message], Awaitable[object]],
        *,
        concurrency: int = 1,
        limit: int | None = None,
        idle: float = 2.0,
        forever: bool = False,
        retry_delay: float = 1.0,
        poison: type[Exception] | Iterable[type[Exception]] = (),
        handler_timeout: float | None = None,
        timeout: float = 20.0,
    ) -> WorkReport:
        """Have ``handler`` handle messages, ``concurrency`` at a time, and ack each that it returned from.

        One that raises is nak'ed, to come again after ``retry_delay`` seconds; one that raises a ``poison``
        error is terminated and never comes again; a handler that takes longer than ``handler_timeout``
        seconds is cancelled and its message nak'ed. A slow handler's message is kept from being given to
        another worker. A handler may settle a message itself. It ends as ``messages`` does; the report also
        stands in ``last_work``. Acks are written many at a time and mean what they mean one by one: a message
        whose ack is lost comes again.
        """
        info = await self.info()
        wire = await Wire.open(self.js._nc, timeout=timeout)
        try:
            worker = Worker(
                handler,
                concurrency=concurrency,
                retry_delay=retry_delay,
                poison=poison,
                handler_timeout=handler_timeout,
            )
            self.last_work = worker.report
            await worker.run(
                self.js, wire, info, limit=limit, idle=idle, forever=forever, timeout=timeout, look=self.info
            )
        finally:
            await wire.close()
        self.ended = worker.report.ended
        return worker.report

    async def pause(self, seconds: float) -> None:
        """Have the consumer give out nothing for so many seconds (nats-py: ``js.pause_consumer``).

        The answer overtakes the news: the consumer's leader may give out messages for a moment more. So this
        waits until the leader has heard, as ``resume`` does. Raises NotReadyError.
        """
        check_seconds(seconds, "the seconds of pause")
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        await self.js.pause_consumer(self.stream, self.name, end.isoformat())
        await self._heard_of(pause=True)

    async def resume(self) -> None:
        """Have a paused consumer go on (nats-py: ``js.resume_consumer``)."""
        await self.js.resume_consumer(self.stream, self.name)
        await self._heard_of(pause=False)

    async def _heard_of(self, *, pause: bool) -> None:
        async def heard() -> bool:
            return bool((await self.info()).paused) is pause

        what = f"the leader of {self.name} to hear that it shall {'pause' if pause else 'go on'}"
        await until(heard, what=what, timeout=NEWS, every=0.01)

    async def reset(self, seq: int | None = None) -> None:
        """Put its position to ``seq``, or without one to where its acks end (``js.reset_consumer``)."""
        await self.js.reset_consumer(self.stream, self.name, seq=seq)

    async def step_down(self, to: str | None = None) -> str:
        """Have the consumer's leader hand over, to server ``to`` if named; return who leads then.

        A consumer is a raft group of its own: its leader need not be the stream's. Raises PlacementError.
        """
        return await replication.step_down(self.js._nc, self.stream, self.name, to=to)

    async def dead_letters(self, stream: str) -> DeadLetters:
        """Keep in ``stream`` what this consumer gives up, and return a handle to read it.

        The server says so in an advisory, once for each message that reached max_deliver or was terminated;
        it is lost when nobody listens. ``stream`` is made if it is not there, to store this consumer's.
        """
        return await DeadLetters.open(self.js, self.stream, self.name, stream)

    @contextlib.asynccontextmanager
    async def _delivery(self, *, batch: int, most: int | None, timeout: float) -> AsyncIterator[Delivery]:
        info = await self.info()
        wire = Wire(self.js._nc, None, "the lab's own connection")
        async with deliveries(
            self.js, wire, info, self.js._nc.publish, batch=batch, most=most, timeout=timeout
        ) as delivery:
            yield delivery


async def open_consumer(
    js: JetStreamContext,
    stream: str,
    name: str | None,
    *,
    settle: Callable[[ConsumerInfo], Awaitable[None]] | None = None,
    **config: Any,
) -> Consumer:
    """Create a pull consumer, or bind to the one of that name, and return a handle.

    Without a name it is ephemeral: the server removes it when nobody has pulled for ``inactive_threshold``
    seconds. ``config`` takes nats-py's ConsumerConfig names; only what is given is compared. Raises
    ConsumerDriftError with the differences: nats-py itself would bind and drop the new configuration
    without a word. TypeError for a setting that there is not.
    """
    if unknown := sorted(config.keys() - SETTINGS):
        raise TypeError(f"a pull consumer has no setting {', '.join(unknown)}")
    if name is not None:
        found = await _find(js, stream, name)
        if found is not None and (differences := drift(config, found.config)):
            raise ConsumerDriftError(stream, name, differences)
        if found is not None:
            return Consumer(js, found)
    wanted = ConsumerConfig(durable_name=name, **{"ack_policy": AckPolicy.EXPLICIT, **config})
    made = await js.add_consumer(stream, wanted)
    if settle is not None:
        await settle(made)
    return Consumer(js, made)


async def _find(js: JetStreamContext, stream: str, name: str) -> ConsumerInfo | None:
    if not name or any(char in name for char in " .*>/\\"):
        raise SettingsError(
            f"{name!r} cannot name a consumer",
            seen="spaces, dots, `*`, `>` and slashes stand for something else in a subject",
            do="use letters, digits, - and _",
        )
    try:
        return await consumer_info(js, stream, name)
    except nats.js.errors.NotFoundError as err:
        if err.err_code == NOT_FOUND:
            return None
        raise
