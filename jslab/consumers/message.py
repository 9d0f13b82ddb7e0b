"""A message that a consumer delivered, to be acked, nak'ed or terminated once."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable

from jslab.errors import AckedError
from jslab.pulls import NANO, numbers_at
from jslab.replay.rows import moment
from jslab.wire import Frame, headers_of

ACK, NAK, PROGRESS, TERM = b"+ACK", b"-NAK", b"+WPI", b"+TERM"

Send = Callable[[str, bytes], Awaitable[None]]


class Message:
    """A delivery: subject, data, headers, and where it stands in stream and consumer."""

    __slots__ = ("_headers", "_numbers", "_reply", "_send", "data", "settled", "subject")

    def __init__(self, frame: Frame, send: Send) -> None:
        self.subject, self._reply, self._headers, self.data = frame
        self._send = send
        self._numbers: tuple[int, int, int, int, int] | None = None
        self.settled = ""
        """What became of it here: ``acked``, ``nak'ed``, ``terminated``; empty while it is yours."""

    @property
    def headers(self) -> dict[str, str]:
        """The message's headers; empty when it has none."""
        return headers_of(self._headers)

    @property
    def deliveries(self) -> int:
        """How often it has been delivered, this time included."""
        return self._metadata()[0]

    @property
    def seq(self) -> int:
        """Its sequence in the stream."""
        return self._metadata()[1]

    @property
    def consumer_seq(self) -> int:
        """Which delivery of the consumer this is."""
        return self._metadata()[2]

    @property
    def time(self) -> datetime.datetime:
        """When the server stored it, UTC, to the microsecond."""
        return moment(self._metadata()[3])

    @property
    def pending(self) -> int:
        """Messages that waited behind it for the consumer when it was delivered."""
        return self._metadata()[4]

    def _metadata(self) -> tuple[int, int, int, int, int]:
        if self._numbers is None:
            fields = self._reply.split(".")
            at = numbers_at(self._reply)
            deliveries, seq, consumer_seq, time, pending = map(int, fields[at : at + 5])
            self._numbers = deliveries, seq, consumer_seq, time, pending
        return self._numbers

    async def ack(self) -> None:
        """Say that it is handled. A lost ack means that it comes again. Raises AckedError the second time."""
        await self._settle("acked", ACK)

    async def nak(self, delay: float = 0.0) -> None:
        """Give it back, to come again after ``delay`` seconds: at once, if you name none."""
        await self._settle("nak'ed", b'-NAK {"delay": %d}' % int(delay * NANO) if delay else NAK)

    async def term(self, reason: str = "") -> None:
        """Say that it never shall come again; the server's advisory carries the reason."""
        await self._settle("terminated", b"%b %b" % (TERM, reason.encode()) if reason else TERM)

    async def in_progress(self) -> None:
        """Begin its ack_wait anew."""
        self._must_be_yours()
        await self._send(self._reply, PROGRESS)

    async def _settle(self, how: str, word: bytes) -> None:
        self._must_be_yours()
        self.settled = how
        await self._send(self._reply, word)

    def _must_be_yours(self) -> None:
        if self.settled:
            raise AckedError(
                f"message {self.seq:,} was {self.settled} already",
                seen=f"{self.subject}, delivery {self.deliveries}",
                do="ack, nak or terminate a message once",
            )

    def __repr__(self) -> str:
        again = f", delivery {self.deliveries}" if self.deliveries > 1 else ""
        return f"<{self.seq} {self.subject}{again}: {self.data[:60]!r}>"
