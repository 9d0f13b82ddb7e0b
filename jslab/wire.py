"""A nats-py connection of its own, whose messages arrive in bulk.

nats-py looks at each message on its way in with a regular expression, a task and a queue: some 25 us, where
the message itself is 128 bytes. Reading a stream needs none of that. So a :class:`Wire` opens a second
connection with everything that the first was given, and puts its own parser before nats-py's: frames of a
subscription that is read in bulk are cut out of the buffer, everything else goes on to nats-py, which keeps
connecting, TLS, credentials, PING and reconnecting.

This is the one module that reaches into nats-py: the names are in ``TOUCHED`` and are looked at before
use. Where they are not as expected, the wire is plain: the same frames, by nats-py's public subscriptions.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from jslab.connection import let_go_of_socket
from jslab.errors import StalledError

# A header block as it came, or as nats-py has read it; None where there is none.
Headers = bytes | dict[str, str] | None
# A message as it came: its subject, its reply subject, its headers, its payload.
Frame = tuple[str, str, Headers, bytes]

CRLF = b"\r\n"
HEADER_LINE = b"NATS/1.0"
STATUS, DESCRIPTION = "Status", "Description"
# What a header's name may be, and what becomes of line breaks in its value: as nats-py has it.
HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
ONE_LINE = str.maketrans({"\r": " ", "\n": " "})
# What of nats-py 2.16 is used beyond its public names, besides the parser's ``parse`` and ``reset``.
TOUCHED = ("_ps", "_send_command", "_flush_pending")
# Seconds that the last frames of an inbox may take.
MOST_DRAIN = 2
# What a connection was given and does not say in ``options``.
CREDENTIALS = ("_user_credentials", "_nkeys_seed", "_nkeys_seed_str", "_signature_cb", "_user_jwt_cb")


def headers_of(headers: Headers) -> dict[str, str]:
    """Read a header block as nats-py does: of several with one name the last counts, odd names do not."""
    if not isinstance(headers, bytes):
        return headers or {}
    found: dict[str, str] = {}
    for line in headers.split(CRLF)[1:]:
        name, colon, value = line.partition(b":")
        key = name.strip()
        if colon and key.isascii() and len(key.split()) == 1:
            found[key.decode()] = value.strip().decode(errors="replace")
    return found


def status_of(headers: Headers) -> tuple[int, str] | None:
    """Return the status with which a server answers instead of a message; None for a message."""
    if isinstance(headers, bytes):
        if headers[8:9] != b" ":
            return None
        code, _, description = headers[9 : headers.index(CRLF)].partition(b" ")
        return int(code), description.decode()
    if not headers or not headers.get(STATUS, "").isdigit():
        return None
    return int(headers[STATUS]), headers.get(DESCRIPTION, "")


def publication(subject: str, reply: str, headers: Mapping[str, str] | None, payload: bytes) -> bytes:
    """Write a message as nats-py does. Raises BadHeaderError for a name that no header can have."""
    if headers is None:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), len(payload), payload)
    lines = [HEADER_LINE]
    for name, value in headers.items():
        key = name.strip()
        if not key:
            continue
        if not HEADER_NAME.fullmatch(key):
            raise nats.errors.BadHeaderError(key)
        lines.append(f"{key}: {value.strip().translate(ONE_LINE)}".encode())
    block = CRLF.join(lines) + CRLF + CRLF
    numbers = len(block), len(block) + len(payload)
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject.encode(), reply.encode(), *numbers, block, payload)


class Inbox:
    """One subscription of a wire: its frames gather here until they are taken."""

    def __init__(self, subject: str, hear: Callable[[list[Frame]], None] | None = None) -> None:
        self.subject = subject
        self.frames: list[Frame] = []
        self._hear = hear
        self._arrived = asyncio.Event()

    def wake(self) -> None:
        """Let who waits for frames look, or give them to who hears them."""
        if self._hear is None:
            self._arrived.set()
            return
        frames, self.frames = self.frames, []
        self._hear(frames)

    async def take(self, timeout: float) -> list[Frame]:
        """Return what has arrived, waiting for it at most ``timeout`` seconds; [] when nothing came."""
        if not self.frames:
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._arrived.wait()
        taken, self.frames[:] = self.frames[:], []
        return taken


class BulkParser:
    """Stands before nats-py's parser and cuts the frames of known subscriptions out of the buffer itself."""

    def __init__(self, original: Any) -> None:
        self._original = original
        self._rest = b""
        self.inboxes: dict[bytes, Inbox] = {}

    def reset(self) -> None:
        """Forget half a frame: the connection begins anew."""
        self._rest = b""
        self._original.reset()

    async def parse(self, data: bytes = b"") -> None:
        """Take what the socket read."""
        buffer = self._rest + data if self._rest else data
        at, size = 0, len(buffer)
        woken: set[Inbox] = set()
        known, find = self.inboxes, buffer.find
        while at < size:
            eol = find(CRLF, at)
            if eol < 0:
                break
            parts = buffer[at:eol].split()
            kind = parts[0] if parts else b""
            begin = eol + 2
            if kind != b"MSG" and kind != b"HMSG":
                await self._original.parse(buffer[at:begin])
                at = begin
                continue
            end = begin + int(parts[-1])
            if end + 2 > size:
                break
            inbox = known.get(parts[2])
            if inbox is None:
                await self._original.parse(buffer[at : end + 2])
            elif kind == b"MSG":
                reply = parts[3].decode() if len(parts) == 5 else ""
                inbox.frames.append((parts[1].decode(), reply, None, buffer[begin:end]))
                woken.add(inbox)
            else:
                body = begin + int(parts[-2])
                reply = parts[3].decode() if len(parts) == 6 else ""
                inbox.frames.append((parts[1].decode(), reply, buffer[begin:body], buffer[body:end]))
                woken.add(inbox)
            at = end + 2
        self._rest = buffer[at:]
        for inbox in woken:
            inbox.wake()


class Wire:
    """A connection like another one, made for reading or writing much."""

    def __init__(self, nc: Client, parser: BulkParser | None, why_plain: str) -> None:
        self.nc = nc
        self.why_plain = why_plain
        """Why frames come by nats-py's public subscriptions; empty when they come in bulk."""
        self._parser = parser
        self._subscriptions: dict[Inbox, Any] = {}

    @classmethod
    async def open(cls, nc: Client, *, bulk: bool = True, timeout: float = 20.0) -> Wire:
        """Connect as ``nc`` is connected: the same servers, beginning with its own, and credentials.

        Raises StalledError when no server takes the connection within ``timeout`` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                made = await another(nc)
        except TimeoutError as err:
            raise StalledError(
                f"no server takes a connection: waited {timeout:g} s",
                seen=f"tried {', '.join(server.netloc for server in nc.servers)}",
                do="see await lab.status(); await lab.faults.heal() ends all faults",
            ) from err
        why = "asked for" if not bulk else cannot_touch(made)
        parser = None
        if not why:
            parser = BulkParser(made._ps)
            made._ps = parser  # type: ignore[assignment]
        return cls(made, parser, why)

    async def subscribe(self, subject: str, hear: Callable[[list[Frame]], None] | None = None) -> Inbox:
        """Have what is published to ``subject`` gather in an inbox, or be given to ``hear`` as it arrives."""
        inbox = Inbox(subject, hear)

        async def plain(msg: Msg) -> None:
            inbox.frames.append((msg.subject, msg.reply, msg.headers, msg.data))
            inbox.wake()

        # No limit: who reads in bulk bounds what is asked for, and a frame dropped here would be lost unseen.
        subscription = await self.nc.subscribe(
            subject, cb=plain, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        self._subscriptions[inbox] = subscription
        if self._parser is not None:
            self._parser.inboxes[str(subscription._id).encode()] = inbox
        return inbox

    async def unsubscribe(self, inbox: Inbox, *, drain: bool = False) -> None:
        """End an inbox. What is under way for it is dropped; with ``drain`` it still arrives."""
        subscription = self._subscriptions.pop(inbox, None)
        if subscription is None:
            return
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            if drain and self.nc.is_connected and self._parser is None:
                await subscription.drain()
            else:
                await subscription.unsubscribe()
                if drain and self.nc.is_connected:
                    # The server answers to the PING behind what it sent before the UNSUB.
                    await self.nc.flush(MOST_DRAIN)
        if self._parser is not None:
            self._parser.inboxes.pop(str(subscription._id).encode(), None)

    async def send(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish many small messages at once."""
        if self._parser is None:
            for subject, payload in messages:
                await self.nc.publish(subject, payload)
            return
        await self.write([publication(subject, "", None, payload) for subject, payload in messages])

    async def write(self, publications: Sequence[bytes]) -> None:
        """Write what :func:`publication` made; on a wire that is not plain."""
        assert self._parser is not None, self.why_plain
        await self.nc._send_command(b"".join(publications))
        await self.nc._flush_pending()

    async def close(self) -> None:
        """Close the connection; safe to call twice."""
        with contextlib.suppress(OSError):
            await self.nc.close()


async def another(nc: Client) -> Client:
    """Open a connection like ``nc``, which enters by the server that ``nc`` is connected to."""
    first = nc.connected_url
    urls = [server.geturl() for server in nc.servers]
    if first is not None:
        urls.sort(key=lambda url: url != first.geturl())
    given = {name.lstrip("_"): getattr(nc, name, None) for name in CREDENTIALS}
    made = type(nc)()

    async def on_error(_: Exception) -> None:
        """Errors show in what does not arrive; nats-py would print them."""
        let_go_of_socket(made)

    try:
        await made.connect(
            servers=urls,
            inbox_prefix=bytes(nc._inbox_prefix),
            error_cb=on_error,
            **{**nc.options, **given, "dont_randomize": True},
        )
    except BaseException:
        let_go_of_socket(made)
        raise
    return made


def cannot_touch(nc: Client) -> str:
    """Say which of nats-py's internals is not as this module expects it; empty when all are."""
    missing = [name for name in TOUCHED if not hasattr(nc, name)]
    if missing:
        return f"this nats-py has no {', '.join(missing)}"
    parser = nc._ps
    if not inspect.iscoroutinefunction(getattr(parser, "parse", None)) or not callable(
        getattr(parser, "reset", None)
    ):
        return "this nats-py's parser has no coroutine parse and no reset"
    return ""
