"""Messages from one consumer, as they come, over one subscription; withdrawn and given back when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo

from jslab.connection import consumer_info
from jslab.consumers.message import PROGRESS, Message, Send
from jslab.errors import AckPendingError, StalledError
from jslab.pulls import PASSING, SILENCE, Pulls
from jslab.wire import Frame, Inbox, Wire

NAP = 0.05
# Seconds that a reader who leaves waits for what is on its way to it: in all, and while nothing comes.
LAST_WORDS, QUIET = 2.0, 0.25
# The server's default ack_wait in seconds, and parts of it after which what waits here is kept.
ACK_WAIT, KEEP = 30.0, 3


class Delivery:
    """What a consumer delivers to one reader."""

    def __init__(
        self, js: JetStreamContext, wire: Wire, pulls: Pulls, inbox: Inbox, send: Send, timeout: float
    ) -> None:
        self._js = js
        self._wire = wire
        self._inbox = inbox
        self._send = send
        self._timeout = timeout
        self._heard = time.monotonic()
        self._last = 0
        self.anew = self._heard
        """When it last had to begin anew: the time before that does not count as idle."""
        self.pulls = pulls
        self.keep: Callable[[], Iterable[Message]] = tuple
        """Gives the messages that are here and not handled yet: none of them shall come again elsewhere."""
        self.give_back: list[Message] = []
        """Messages that are nak'ed at the end, if nobody has settled them by then."""

    async def take(self, timeout: float) -> list[Message]:
        """Return what has come, waiting at most ``timeout`` seconds; [] when nothing did.

        Raises NotFoundError when the consumer is gone, StalledError when nobody has answered for too long.
        """
        frames = await self._inbox.take(timeout)
        now = time.monotonic()
        if frames:
            self._heard = now
        messages = self._sort(frames)
        if self.pulls.lost or (not frames and self.pulls.to_come and now - self._heard > SILENCE):
            await self._look()
        return messages

    def _sort(self, frames: list[Frame]) -> list[Message]:
        """Take note of what the server says about our requests, and return the messages."""
        messages = []
        for frame in frames:
            if frame[1]:
                messages.append(Message(frame, self._send))
            else:
                self.pulls.heed(frame[2])
        self.pulls.took(len(messages))
        if messages:
            self._last = messages[-1].consumer_seq
        return messages

    async def last_words(self) -> None:
        """Take what is on its way, to be given back.

        A request cannot be withdrawn. The server goes on with it until it hears that nobody listens to the
        answers, and what it sends in the meantime reaches nobody: it would come again after ack_wait only.
        """
        with contextlib.suppress(*PASSING, nats.errors.Error, nats.js.errors.Error):
            async with asyncio.timeout(LAST_WORDS):
                while self.pulls.to_come > 0 and not await self._all_here():
                    frames = await self._inbox.take(QUIET)
                    self.give_back += self._sort(frames)
                    if not frames:
                        return

    async def _all_here(self) -> bool:
        """Say whether nothing waits for our requests, and the last that the consumer gave out is here."""
        info = await self._js.consumer_info(self.pulls.stream, self.pulls.consumer, timeout=LAST_WORDS)
        return not info.num_pending and self._last == (info.delivered.consumer_seq if info.delivered else 0)

    async def _look(self) -> None:
        """Ask what became of the consumer; when it is there, begin anew."""
        try:
            await info_of(self._js, self.pulls.stream, self.pulls.consumer)
        except PASSING as err:
            if time.monotonic() - self._heard > self._timeout:
                raise self._stalled(str(err) or type(err).__name__) from err
        if self.pulls.lost:
            await asyncio.sleep(NAP)
        self.pulls.forget()
        self.anew = time.monotonic()

    async def keep_waiting(self, every: float) -> None:
        """Begin the ack_wait anew, again and again, of what waits here and what is not even taken yet."""
        while True:
            await asyncio.sleep(every)
            for message in list(self.keep()):
                if not message.settled:
                    await message.in_progress()
            for _, reply, _, _ in list(self._inbox.frames):
                if reply:
                    await self._send(reply, PROGRESS)

    def _stalled(self, seen: str) -> StalledError:
        return StalledError(
            f"consumer {self.pulls.consumer} does not answer: waited {self._timeout:g} s",
            seen=seen,
            do="see await lab.status(); await lab.faults.heal() ends all faults",
        )


@contextlib.asynccontextmanager
async def deliveries(
    js: JetStreamContext,
    wire: Wire,
    info: ConsumerInfo,
    send: Send,
    *,
    batch: int,
    most: int | None,
    timeout: float,
) -> AsyncIterator[Delivery]:
    """Open a subscription for a consumer's messages; at the end it is gone, and with it every open pull."""
    inbox = await wire.subscribe(wire.nc.new_inbox())
    pulls = Pulls(wire.nc, info.stream_name, info.name, inbox.subject, batch, most=most)
    delivery = Delivery(js, wire, pulls, inbox, send, timeout)
    keeping = asyncio.get_running_loop().create_task(
        delivery.keep_waiting((info.config.ack_wait or ACK_WAIT) / KEEP)
    )
    try:
        yield delivery
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})
        await delivery.last_words()
        # First nothing more may come: what is given back would be given to us again.
        await wire.unsubscribe(inbox, drain=True)
        delivery.give_back += [Message(frame, send) for frame in inbox.frames if frame[1]]
        for message in delivery.give_back:
            if not message.settled:
                await message.nak()


async def info_of(js: JetStreamContext, stream: str, consumer: str) -> ConsumerInfo:
    """Ask for a consumer, again while an election leaves it unanswered. Raises NotFoundError with a note."""
    try:
        return await consumer_info(js, stream, consumer)
    except nats.js.errors.NotFoundError as err:
        err.add_note(
            f"The consumer {consumer} of {stream} is not there: it was deleted, or was ephemeral and unused "
            "for longer than its inactive_threshold."
        )
        raise


def explain_acks(info: ConsumerInfo) -> None:
    """Raise AckPendingError when the consumer gives out nothing because it waits for acks."""
    limit, out = info.config.max_ack_pending or 0, info.num_ack_pending or 0
    if info.num_pending and 0 < limit <= out:
        raise AckPendingError(
            f"consumer {info.name} waits for acks: it gives out nothing more",
            seen=f"{out:,} messages are out and not acked, which is its max_ack_pending; "
            f"{info.num_pending:,} wait",
            do="ack what you have, or wait until ack_wait has passed and it comes again; for larger batches "
            "make the consumer with a larger max_ack_pending",
        )
