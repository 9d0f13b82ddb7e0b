"""The lab's nats-py connection: quick to notice a dead server, quiet about it, never giving up."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo, StorageType, StreamInfo

from jslab.errors import DeploymentError
from jslab.waiting import LONGEST_NAP, until

T = TypeVar("T")

# nats-py pings every 120 s by default, so a client of a frozen server waits four minutes.
PING_INTERVAL = 2
MAX_PINGS = 2
RECONNECT_WAIT = 0.25
EVENTS_KEPT = 200
PROBE = "JSLAB_READY"
PROBE_TIMEOUT = 2.0
MOST_REPLICAS = 5
# Seconds for one question about a stream, and for asking it again: who loses its leadership with the question
# in hand never answers it, and nobody else has heard it.
QUESTION = 2.0
QUESTIONS = 12.0
# "stream is offline": what the meta leader says once it knows that none of a stream's servers is there.
OFFLINE = 10118
# How a question ends that no server answered.
SILENT = (
    TimeoutError,
    nats.errors.NoRespondersError,
    nats.errors.ConnectionReconnectingError,
    nats.js.errors.ServiceUnavailableError,
)
# Seconds that a socket has to write what is left when it closes.
LAST_WORDS = 1.0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the connection, such as a reconnect."""

    at: datetime.datetime
    text: str


class _Client(Client):
    """nats-py's client, which gives up on the last bytes for a server that does not read.

    To leave a server, nats-py 2.16 closes its socket and waits until everything is written. A frozen server
    never reads it, so the client would neither reconnect nor close. Here such a socket is cut after a while.
    """

    async def _attempt_reconnect(self) -> None:
        self._cut_later()
        await super()._attempt_reconnect()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        self._cut_later()
        await super()._close(status, do_cbs)

    def _cut_later(self) -> None:
        # TLS and TCP have a writer; a WebSocket has none, and is left to nats-py.
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            asyncio.get_running_loop().call_later(LAST_WORDS, writer.transport.abort)


class Connection:
    """One nats-py client with callbacks that write down what nats-py would print."""

    def __init__(self) -> None:
        self.nc: Client = _Client()
        self.events: collections.deque[Event] = collections.deque(maxlen=EVENTS_KEPT)
        self._opened = False
        self._closing: asyncio.Future[None] | None = None

    async def open(self, urls: Sequence[str], timeout: float) -> None:
        """Connect to the first server that answers, in the order given."""
        self._opened = True
        await self.nc.connect(
            servers=list(urls),
            name="jslab",
            dont_randomize=True,
            connect_timeout=2,
            ping_interval=PING_INTERVAL,
            max_outstanding_pings=MAX_PINGS,
            reconnect_time_wait=RECONNECT_WAIT,  # type: ignore[arg-type]  # asyncio.sleep takes it
            max_reconnect_attempts=-1,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnect,
            reconnected_cb=self._on_reconnect,
            lame_duck_mode_cb=self._on_lame_duck,
        )
        await until_answers(self.nc, timeout)

    async def enter(self, url: str, timeout: float = 10.0) -> None:
        """Move the connection to the server at ``url``; the other servers stay known for later."""
        others = [server.geturl() for server in self.nc.servers if server.geturl() != url]
        self.nc.set_server_pool([url, *others])
        await self.nc.force_reconnect()
        await until(
            lambda: self.nc.is_connected and self.url == url,
            what=f"the connection to move to {url}",
            timeout=timeout,
            seen=lambda: f"connected to {self.url}",
            error=DeploymentError,
        )

    @property
    def url(self) -> str | None:
        """URL of the server the connection enters by, None while there is none."""
        url = self.nc.connected_url
        return url.geturl() if url else None

    async def close(self) -> None:
        """Close the connection; safe to call twice, before it was opened, and to interrupt."""
        if self._closing is None and self._opened:
            # nats-py calls itself closed first and lets go of its socket last: it must come to its end.
            self._closing = asyncio.ensure_future(self._close())
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _close(self) -> None:
        # A close in the middle of a reconnect may find that the server has hung up: that is closed, too.
        with contextlib.suppress(OSError):
            await self.nc.close()

    def _note(self, text: str) -> None:
        self.events.append(Event(datetime.datetime.now(datetime.UTC), text))

    async def _on_error(self, err: Exception) -> None:
        name = type(err).__name__
        self._note(str(err) if name in str(err) else f"{name}: {err}")
        let_go_of_socket(self.nc)

    async def _on_disconnect(self) -> None:
        self._note("disconnected")

    async def _on_reconnect(self) -> None:
        self._note(f"reconnected to {self.url}")

    async def _on_lame_duck(self) -> None:
        self._note("the server is in lame duck mode: it will leave")


def let_go_of_socket(nc: Client) -> None:
    """Close the socket of a handshake that failed, as each one with a frozen server does: nats-py forgets it.

    To be called at every error of a connection.
    """
    if not nc.is_connected and nc._transport is not None:
        nc._transport.close()  # type: ignore[no-untyped-call]


async def until_placed(nc: Client, servers: int, timeout: float) -> None:
    """Wait until a stream with a copy on each server can be made, which is what a lesson does first.

    The API answers earlier. For half a second after its election the meta leader may not know its peers
    well enough to place a stream on them, and refuses one with 10005, "peer offline" (1 of 60 starts on a
    busy machine). So a stream in memory is made, and removed at once. Raises NotReadyError.
    """
    js = nc.jetstream(timeout=PROBE_TIMEOUT)
    copies = min(servers, MOST_REPLICAS)
    said = ""

    async def placed() -> bool:
        nonlocal said
        try:
            await js.add_stream(name=PROBE, subjects=[PROBE], num_replicas=copies, storage=StorageType.MEMORY)
            await js.delete_stream(PROBE)
        except nats.js.errors.BadRequestError as err:
            # Any other refusal comes from a leader that knows its peers, as when there is no room at all.
            said = str(err)
            return "offline" not in (err.description or "")
        except (nats.errors.Error, TimeoutError) as err:
            said = str(err)
            return False
        return True

    await until(
        placed,
        what=f"the servers to take a stream with {copies} copies",
        timeout=timeout,
        seen=lambda: said,
        do="`jslab doctor` checks this machine",
    )


async def until_answers(nc: Client, timeout: float) -> None:
    """Wait until ``$JS.API.INFO`` answers, which it does once a meta leader serves requests."""
    js = nc.jetstream(timeout=2)

    async def answers() -> bool:
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            await js.account_info()
            return True
        return False

    await until(
        answers,
        what="the JetStream API to answer",
        timeout=timeout,
        do="see await lab.status(); `jslab doctor` checks this machine",
    )


async def until_led(nc: Client, timeout: float) -> None:
    """Wait until every stream and consumer has a leader that answers and calls all its peers current.

    A crashed server that is back can be healthy, and so can its peers, before they have noticed that the
    streams it led have no leader: until their election, some seconds later, nobody answers for those. And a
    leader that has not heard of a peer yet may still lose its place: a server that was cut off for long
    has voted for itself again and again, and comes back with a higher term.
    """

    async def led() -> bool:
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            names = (await ask(nc, "STREAM.NAMES")).get("streams") or []
            return all(await asyncio.gather(*(_stream_led(nc, name) for name in names)))
        return False

    await until(
        led,
        what="every stream and consumer to have a leader, and copies that are current",
        timeout=timeout,
        do="see await lab.status()",
    )


async def _stream_led(nc: Client, stream: str) -> bool:
    if not _all_current(await ask(nc, f"STREAM.INFO.{stream}")):
        return False
    consumers = (await ask(nc, f"CONSUMER.NAMES.{stream}")).get("consumers") or []
    infos = [await ask(nc, f"CONSUMER.INFO.{stream}.{consumer}") for consumer in consumers]
    return all(_all_current(info) for info in infos)


def _all_current(info: dict[str, Any]) -> bool:
    peers = info.get("cluster", {}).get("replicas") or []
    return all(peer.get("current") and not peer.get("offline") for peer in peers)


async def stream_info(js: JetStreamContext, name: str) -> StreamInfo:
    """Ask a stream's leader for configuration and state, again while an election leaves it unanswered.

    Raises NotFoundError when there is no such stream; otherwise as :func:`patiently`.
    """
    return await patiently(lambda: js.stream_info(name), f"told about stream {name}")


async def consumer_info(js: JetStreamContext, stream: str, name: str) -> ConsumerInfo:
    """Ask a consumer's leader, as :func:`stream_info` asks a stream's."""
    return await patiently(lambda: js.consumer_info(stream, name), f"told about consumer {name} of {stream}")


async def patiently(question: Callable[[], Awaitable[T]], what: str) -> T:
    """Ask a leader what may be asked twice, again while an election leaves it unanswered.

    nats-py asks once and waits 5 s. ``what`` ends the sentence "nobody …". Raises nats-py's own error
    (mostly TimeoutError), with a note, when there was no answer within ``QUESTIONS`` seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + QUESTIONS
    while True:
        try:
            async with asyncio.timeout(QUESTION):
                return await question()
        except (TimeoutError, nats.errors.Error) as err:
            if not unanswered(err):
                raise
            silence = err if isinstance(err, nats.errors.Error) else nats.errors.TimeoutError()
        if loop.time() >= deadline:
            silence.add_note(
                f"jslab: nobody {what} within {QUESTIONS:g} s. What has copies answers by its leader, and "
                f"needs most of them for one: look with `await lab.status()`."
            )
            raise silence
        await asyncio.sleep(LONGEST_NAP)


def unanswered(error: Exception) -> bool:
    """Say whether a question failed because nobody answers it now, in an election or a fault: no refusal."""
    if isinstance(error, nats.js.errors.ServerError):
        return error.err_code == OFFLINE
    return isinstance(error, SILENT)


async def ask(
    nc: Client, api: str, asked: dict[str, Any] | None = None, timeout: float = 1.0
) -> dict[str, Any]:
    """Ask the JetStream API for what nats-py has no call for. Raises APIError, TimeoutError."""
    payload = json.dumps(asked).encode() if asked else b""
    reply: dict[str, Any] = json.loads((await nc.request(f"$JS.API.{api}", payload, timeout=timeout)).data)
    if "error" in reply:
        raise nats.js.errors.APIError.from_error(reply["error"])
    return reply
