"""What a check looks through: the live cluster, a witness, and clones that can be probed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import StreamConfig, StreamInfo

from jslab import replication
from jslab.connection import stream_info
from jslab.exercises.definition import BLANK, Wrong
from jslab.exercises.lablike import LabLike
from jslab.exercises.notes import Notes
from jslab.replay import Replay, StoredMessage
from jslab.stream_config import LESSON_KEY, OWNED

CLONE = "CHK"


@dataclass(frozen=True, slots=True)
class Seen:
    """A message that went by the witness. ``reply`` is empty when nobody asked for an ack."""

    subject: str
    reply: str
    data: bytes
    headers: dict[str, str]
    at: datetime.datetime
    """When it came by, UTC, by this machine's clock."""


class Witness:
    """Listens with core subscriptions, because the end state alone does not tell how it came about.

    It listens to an exercise's subjects and to the servers' advisories, which hold every JetStream API
    call with its answer. Its interest has a side effect that the lessons speak of: while somebody
    listens, the server cannot tell a publisher that there is no stream.
    """

    def __init__(self) -> None:
        self.messages: list[Seen] = []
        self.advisories: list[dict[str, Any]] = []
        self._subscriptions: list[Subscription] = []

    async def listen(self, nc: Client, subjects: Sequence[str]) -> None:
        """Begin to listen; what was seen before is forgotten."""
        self.messages, self.advisories = [], []
        for subject in subjects:
            self._subscriptions.append(await nc.subscribe(subject, cb=self._on_message))
        self._subscriptions.append(await nc.subscribe("$JS.EVENT.ADVISORY.>", cb=self._on_advisory))
        await nc.flush()

    async def close(self) -> None:
        """Stop listening."""
        for subscription in self._subscriptions:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()
        self._subscriptions = []

    def api_calls(self, operation: str, name: str = "") -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Return (request, response) of JetStream API calls, such as ``STREAM.CREATE``, oldest first."""
        subject = f"$JS.API.{operation}" + (f".{name}" if name else "")
        return [
            (_json(event.get("request")), _json(event.get("response")))
            for event in self.advisories
            if str(event.get("subject", "")).startswith(subject)
        ]

    async def _on_message(self, msg: Msg) -> None:
        now = datetime.datetime.now(datetime.UTC)
        self.messages.append(Seen(msg.subject, msg.reply, msg.data, dict(msg.headers or {}), now))

    async def _on_advisory(self, msg: Msg) -> None:
        self.advisories.append(_json(msg.data.decode()))


def _json(text: object) -> dict[str, Any]:
    # A request in an advisory may still carry the block of headers it arrived with.
    body = str(text).rpartition("\r\n\r\n")[2]
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


class Clone:
    """A copy of a stream's configuration under other subjects, to be probed and thrown away."""

    def __init__(self, room: Room, name: str) -> None:
        self._room = room
        self.name = name

    async def publish(
        self, messages: Iterable[tuple[str, bytes]], headers: dict[str, str] | None = None
    ) -> list[str | None]:
        """Publish (subject, payload) in order; each result is None, or why it was not stored.

        A subject that the clone does not capture is ``no stream``.
        """
        limit = asyncio.Semaphore(500)

        async def one(subject: str, payload: bytes) -> str | None:
            async with limit:
                try:
                    await self._room.js.publish(f"{CLONE}.{subject}", payload, headers=headers)
                except nats.js.errors.NoStreamResponseError:
                    return "no stream"
                except nats.js.errors.APIError as err:
                    return f"{err.err_code}: {err.description}"
            return None

        return list(await asyncio.gather(*(one(subject, payload) for subject, payload in messages)))

    async def info(self) -> StreamInfo:
        """Return the clone's configuration and state."""
        return await stream_info(self._room.js, self.name)

    async def messages(self) -> list[StoredMessage]:
        """Return what the clone holds, with the subjects as the learner knows them."""
        found = await self._room.messages(self.name)
        for message in found:
            message.subject = message.subject.removeprefix(f"{CLONE}.")
        return found


class Room:
    """Everything a check, a setup or a scenario may touch. Checks only look; clones may be probed."""

    def __init__(self, lab: LabLike, number: str, witness: Witness) -> None:
        self.lab = lab
        self.number = number
        self.witness = witness

    @property
    def js(self) -> JetStreamContext:
        """nats-py's JetStream context of the lab."""
        return self.lab.js

    async def answer(self) -> str | None:
        """Return the last ``lab.answer`` to this exercise, None if there is none."""
        return await Notes(self.lab).text("answer", self.number)

    async def info(self, stream: str) -> StreamInfo:
        """Return a stream's info; without the stream the exercise has not been begun."""
        try:
            return await stream_info(self.js, stream)
        except nats.js.errors.NotFoundError:
            raise Wrong(BLANK, f"There is no stream {stream} yet.") from None

    async def lead(self, stream: str, server: str) -> None:
        """Move a stream's leader to ``server``, in a setup or a scenario."""
        await replication.step_down(self.lab.nc, stream, to=server)

    async def messages(self, stream: str) -> list[StoredMessage]:
        """Return every message of a stream in order; no consumer of the learner's notices."""
        return [message async for message in Replay(self.js, stream)]

    @contextlib.asynccontextmanager
    async def clone(self, config: StreamConfig) -> AsyncIterator[Clone]:
        """Copy ``config`` to a stream of its own, its subjects behind the token ``CHK``.

        The learner's stream, its consumers and their positions stay as they are.
        """
        name = f"{CLONE}_{config.name}"
        await self._drop(name)
        copy = dataclasses.replace(
            config,
            name=name,
            subjects=[f"{CLONE}.{subject}" for subject in config.subjects or []],
            num_replicas=1,
            metadata={**OWNED, LESSON_KEY: self.number.partition(".")[0]},
        )
        await self.lab.settle(await self.js.add_stream(copy))
        try:
            yield Clone(self, name)
        finally:
            await self._drop(name)

    async def _drop(self, stream: str) -> None:
        with contextlib.suppress(nats.js.errors.NotFoundError):
            await self.js.delete_stream(stream)
