"""Streams: create or bind, look at, purge, publish into."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo, StreamConfig, StreamInfo

from jslab import consumers, publishing, replication, stream_config, views
from jslab.connection import stream_info
from jslab.consumers import Consumer
from jslab.drift import drift
from jslab.errors import StreamDriftError
from jslab.publishing import PublishReport
from jslab.replay import Replay, ReplayReport
from jslab.replay.clock import seek
from jslab.replay.leader import Leader
from jslab.replay.span import check_moment
from jslab.stream_config import LESSON_KEY, OWNED
from jslab.subjects import EVERYTHING, overlap
from jslab.waiting import LONGEST_NAP

R = TypeVar("R")
Settle = Callable[[StreamInfo | ConsumerInfo], Awaitable[None]]

# Where a stream's messages come from: without one of these there is nothing to create.
SOURCES = frozenset({"subjects", "mirror", "sources"})
NOT_FOUND = 10059
NAME_IN_USE = 10058
OVERLAP = 10065
NO_PEERS = 10005
NO_STORAGE = 10047
NO_STORE = 10049
# Seconds that making a stream may take: a server removes the files of a deleted one, or an election loses the
# request, which nats-py gives up after five.
MADE = 8.0
NOTES = {
    NO_PEERS: "The cluster has fewer servers than replicas were asked for; a lab has three.",
    NO_STORAGE: "The servers' storage limit (max_file_store) is smaller than what this stream reserves.",
}


@dataclass(frozen=True, slots=True)
class Replica:
    """One copy of a stream, as the stream's leader sees it."""

    server: str
    leader: bool
    current: bool
    offline: bool
    lag: int
    """Operations that this copy has yet to apply."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Which servers hold a stream, and who leads it."""

    stream: str
    leader: str | None
    replicas: tuple[Replica, ...]

    def _view(self) -> views.View:
        rows = [(r.server, "leader" if r.leader else "follower", _health(r), r.lag) for r in self.replicas]
        return views.table(f"{self.stream}: copies", ("server", "role", "state", "lag"), rows)

    def __repr__(self) -> str:
        return self._view().text

    def _repr_html_(self) -> str:
        return self._view().html


def _health(replica: Replica) -> str:
    if replica.offline:
        return "offline"
    return "current" if replica.current else "catching up"


class Stream:
    """A handle on one stream. Only its coroutines do I/O; ``config`` is as last seen."""

    def __init__(
        self,
        js: JetStreamContext,
        info: StreamInfo,
        settle: Settle | None = None,
        held: replication.Held | None = None,
    ) -> None:
        self.js = js
        self._settle = settle
        self._held = held
        self.config = info.config
        self.last_report: PublishReport | None = None
        """What the last ``publish_many`` achieved, also when it was stopped or raised."""
        self.last_replay: ReplayReport | None = None
        """What the last replay read, also when it was stopped or raised."""

    @property
    def name(self) -> str:
        """The stream's name."""
        assert self.config.name is not None
        return self.config.name

    def __repr__(self) -> str:
        subjects = ", ".join(self.config.subjects or ["no subjects"])
        return f"<Stream {self.name}: {subjects}; {self.config.num_replicas} replicas>"

    async def info(self) -> StreamInfo:
        """Ask the stream's leader for configuration and state (nats-py: ``js.stream_info``).

        Asks again while an election leaves it unanswered; see :func:`jslab.connection.stream_info`.
        """
        info = await stream_info(self.js, self.name)
        self.config = info.config
        return info

    async def placement(self) -> Placement:
        """Ask the stream's leader who holds copies; followers would call healthy peers not current."""
        return placement(await self.info())

    async def step_down(self, to: str | None = None) -> str:
        """Have the leader hand over, to server ``to`` if named; return who leads then.

        See :func:`jslab.replication.step_down`. Raises PlacementError.
        """
        return await replication.step_down(self.js._nc, self.name, to=to)

    async def scale(self, replicas: int, timeout: float = replication.COPIED) -> Placement:
        """Give the stream, and its consumers, so many copies, and return when each has all there is.

        ``timeout`` in seconds. See :func:`jslab.replication.scale`. Raises PlacementError.
        """
        await replication.scale(self.js, (await self.info()).config, replicas, timeout, self._held)
        return await self.placement()

    async def purge(
        self, *, subject: str | None = None, seq: int | None = None, keep: int | None = None
    ) -> None:
        """Remove messages (nats-py: ``js.purge_stream``); sequences go on, they never start again.

        All of them, or those of ``subject``, those below ``seq``, or all but the last ``keep``.
        """
        await self.js.purge_stream(self.name, subject=subject, seq=seq, keep=keep)

    async def publish_many(
        self,
        records: Iterable[R] | AsyncIterable[R],
        *,
        subject: str | Callable[[R], str],
        data: Callable[[R], object] | None = None,
        msg_id: Callable[[R], str] | None = None,
        headers: dict[str, str] | Callable[[R], dict[str, str]] | None = None,
        window: int = 4000,
        **options: Any,
    ) -> PublishReport:
        """Publish many records, keeping up to ``window`` unacknowledged, and report what became of each.

        See :func:`jslab.publishing.publish_many`, which this calls; the report also stands in
        ``last_report``, even when the cell was stopped.
        """
        return await publishing.publish_many(
            self.js,
            self.name,
            records,
            subject=subject,
            data=data,
            msg_id=msg_id,
            headers=headers,
            window=window,
            on_report=self._keep_report,
            **options,
        )

    def replay(
        self,
        *,
        start_seq: int | None = None,
        end_seq: int | None = None,
        start_time: datetime.datetime | None = None,
        end_time: datetime.datetime | None = None,
        subject: str | None = None,
        last_per_subject: bool = False,
        clock: str | None = None,
        speed: float | None = None,
        follow: bool = False,
        timeout: float = 20.0,
        **options: Any,
    ) -> Replay:
        """Read a range again: ``async for message in board.replay()`` or ``await board.replay().frame()``.

        ``start_seq`` and ``end_seq`` are sequences, both inclusive. ``start_time`` and ``end_time`` are times
        at which the server *stored* messages, the end exclusive; for event times see :meth:`seek`.
        ``subject`` is a filter with ``*`` and ``>``; ``last_per_subject`` leaves the last message of each
        subject in the range. With ``speed`` messages come as far apart as they were stored, divided by it;
        with ``clock``, too, as far apart as the event times in that header. ``follow`` goes on with new
        messages. ``timeout`` is the seconds without progress after which it is given up: StalledError.

        It ends at the last sequence that the stream had when it began. See :class:`jslab.replay.Replay`.
        """
        return Replay(
            self.js,
            self.name,
            start_seq=start_seq,
            end_seq=end_seq,
            start_time=start_time,
            end_time=end_time,
            subject=subject,
            last_per_subject=last_per_subject,
            clock=clock,
            speed=speed,
            follow=follow,
            timeout=timeout,
            on_report=self._keep_replay,
            **options,
        )

    async def consumer(self, name: str | None = None, **config: Any) -> Consumer:
        """Create a pull consumer of this stream, or bind to the one of that name.

        ``config`` takes nats-py's ConsumerConfig names, and only what is given is compared; without a name it
        is ephemeral. Raises ConsumerDriftError, listing the differences.
        See :func:`jslab.consumers.open_consumer`.
        """
        return await consumers.open_consumer(self.js, self.name, name, settle=self._settle, **config)

    async def seek(self, clock: str, moment: datetime.datetime, *, subject: str = EVERYTHING) -> int:
        """Return the first sequence at or after an event time, which messages carry in the header ``clock``.

        One behind the stream's last when there is none. By bisection, so the stream must be in that order:
        ClockError names two messages that are not. Raises ReplayError for a moment without a time zone.
        """
        check_moment("the moment", moment)
        return await seek(Leader(self.js, self.name), clock, moment, subject)

    def _keep_report(self, report: PublishReport) -> None:
        self.last_report = report

    def _keep_replay(self, report: ReplayReport) -> None:
        self.last_replay = report


def placement(info: StreamInfo) -> Placement:
    """Return the copies that a stream's info lists: the leader first, then the others by name."""
    assert info.config.name is not None
    cluster = info.cluster
    leader = cluster.leader if cluster else None
    replicas = [Replica(leader, True, True, False, 0)] if leader else []
    for peer in sorted(cluster.replicas or [], key=lambda p: str(p.name)) if cluster else []:
        health = bool(peer.current), bool(peer.offline), int(peer.lag or 0)
        replicas += [Replica(str(peer.name), False, *health)]
    return Placement(info.config.name, leader, tuple(replicas))


async def open_stream(
    js: JetStreamContext,
    name: str,
    *,
    lesson: str | None = None,
    settle: Settle | None = None,
    held: replication.Held | None = None,
    **config: Any,
) -> Stream:
    """Create a stream, or bind to the one of that name, and return a handle.

    ``config`` takes nats-py's StreamConfig names; only what is given is compared, and without ``subjects``,
    ``mirror`` or ``sources`` nothing is created. A stream made for ``lesson`` is marked as that lesson's,
    which will remove it. ``settle`` is awaited after a stream was created, to let the news of it reach the
    server that the connection enters by; ``held`` is what ``scale`` asks the servers with. Raises
    StreamDriftError with the differences when the stream exists otherwise, TypeError or ValueError for a
    setting that makes no sense; the server's own errors get a note with cause and remedy.
    """
    wanted = _wanted(name, config, lesson)
    info = await _find(js, name, config)
    if info is None:
        made = await _create(js, wanted)
        if settle is not None:
            await settle(made)
        return Stream(js, made, settle, held)
    differences = drift(config, info.config)
    if differences:
        raise StreamDriftError(name, differences)
    return Stream(js, info, settle, held)


async def _find(js: JetStreamContext, name: str, config: dict[str, Any]) -> StreamInfo | None:
    """Ask for a stream; None when there is none and ``config`` says enough to create it."""
    try:
        return await stream_info(js, name)
    except nats.js.errors.NotFoundError as err:
        if err.err_code == NOT_FOUND and SOURCES & config.keys():
            return None
        if err.err_code == NOT_FOUND:
            there = ", ".join(sorted(str(info.config.name) for info in await js.streams_info()))
            err.add_note(
                f"There is no stream {name} to bind to; there are: {there or 'none'}. "
                f"To create it, say what it captures: subjects=['{name.lower()}.>']."
            )
        raise
    except ValueError as err:
        err.add_note(
            f"{name!r} cannot name a stream: no spaces, dots, `*`, `>` or slashes. Try {tidy(name)!r}."
        )
        raise


def listens_to(info: StreamInfo | ConsumerInfo) -> set[str]:
    """Give the subjects on which the leader of a stream, or of a pull consumer, listens."""
    if isinstance(info, ConsumerInfo):
        return {f"$JS.API.CONSUMER.MSG.NEXT.{info.stream_name}.{info.name}"}
    return set(info.config.subjects or [])


def _wanted(name: str, config: dict[str, Any], lesson: str | None) -> StreamConfig:
    stream_config.check(config)
    marks = {**OWNED, LESSON_KEY: lesson} if lesson else OWNED
    return StreamConfig(name=name, **{**config, "metadata": {**(config.get("metadata") or {}), **marks}})


async def _create(js: JetStreamContext, wanted: StreamConfig) -> StreamInfo:
    try:
        return await _when_the_old_one_is_gone(js, wanted)
    except nats.js.errors.APIError as err:
        if err.err_code == OVERLAP:
            err.add_note(await _who_overlaps(js, wanted))
        elif note := _remedy(err):
            err.add_note(note)
        raise


async def _when_the_old_one_is_gone(js: JetStreamContext, wanted: StreamConfig) -> StreamInfo:
    """Create a stream, again for a moment while a server still removes the files of one of that name.

    Seen once, on a busy machine, after a crash and right after a stream of that name was deleted: 10049,
    "error creating store for stream". Nothing is made then. A request that nobody answered (nats-py waits
    5 s) is made once more: it finds the stream if it was only the answer that was lost.
    """
    deadline = time.monotonic() + MADE
    while True:
        try:
            return await js.add_stream(wanted)
        except nats.errors.TimeoutError:
            if time.monotonic() > deadline:
                raise
        except nats.js.errors.ServerError as err:
            if err.err_code != NO_STORE or time.monotonic() > deadline:
                raise
        await asyncio.sleep(LONGEST_NAP)


def _remedy(err: nats.js.errors.APIError) -> str | None:
    # A replicated stream that is too big finds no peers: the same code as too few servers, another cause.
    too_big = err.err_code == NO_PEERS and "insufficient storage" in (err.description or "")
    return NOTES.get(NO_STORAGE if too_big else err.err_code or 0)


async def _who_overlaps(js: JetStreamContext, wanted: StreamConfig) -> str:
    found = [
        f"{info.config.name} has {theirs!r}, you asked for {ours!r}"
        for info in await js.streams_info()
        for ours in wanted.subjects or []
        for theirs in info.config.subjects or []
        if overlap(ours, theirs)
    ]
    return (
        f"A subject belongs to one stream: {'; '.join(found)}. Choose other subjects, "
        "or change that stream first."
    )


def tidy(name: str) -> str:
    """Return a name that a stream can have: what may not stand in it becomes an underscore."""
    return "".join(char if char.isalnum() or char in "-_" else "_" for char in name) or "STREAM"
