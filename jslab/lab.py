"""Lab: a deployment and a connection to it. Everything here is a thin delegation."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import time
import weakref
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo, StreamInfo

from jslab import connection, deployment, exercises, live, replication, settings, streams, trial, views
from jslab.deployment import Deployment, Server
from jslab.errors import SettingsError
from jslab.faults import Faults
from jslab.glance import Glance, all_hold
from jslab.live import Live
from jslab.player import Player
from jslab.settings import Settings
from jslab.streams import Stream
from jslab.trial import Trial
from jslab.waiting import LONGEST_NAP, until

if TYPE_CHECKING:
    import pandas as pd

# The server's default duplicate_window: after this pause a repeated Msg-Id is stored again.
DEDUP_WINDOW = 120.0


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One stream in a Status."""

    name: str
    leader: str | None
    replicas: int
    messages: int


@dataclass(frozen=True, slots=True)
class Status:
    """What a lab looked like at one moment; shown as a card."""

    backend: str
    version: str
    ephemeral: bool
    servers: tuple[Server, ...]
    meta_leader: str | None
    entry: str | None
    """The server that this lab's connection enters by."""
    streams: tuple[StreamStatus, ...] | None
    """None when the JetStream API gave no answer, as without a quorum of servers."""
    as_of: datetime.datetime

    def _view(self) -> views.View:
        rows = [(server.name, f"{server.client_url}  {self._roles(server)}") for server in self.servers]
        rows += [
            (s.name, f"{s.messages:,} messages, {s.replicas} replicas, leader {s.leader or 'none'}")
            for s in self.streams or ()
        ]
        if self.streams is None:
            rows.append(("streams", "no answer from JetStream; await lab.faults.heal() ends all faults"))
        keeps = "ends with this kernel, with its data" if self.ephemeral else "keeps its data"
        note = f"as of {self.as_of:%H:%M:%S} UTC; `await lab.status()` looks again; this lab {keeps}"
        return views.card(f"jslab · {self.backend} · nats-server {self.version}", rows, note=note)

    def _roles(self, server: Server) -> str:
        roles = [server.state]
        if server.name == self.meta_leader:
            roles.append("meta leader")
        if server.name == self.entry:
            roles.append("your connection")
        return ", ".join(roles)

    def __repr__(self) -> str:
        return self._view().text

    def _repr_html_(self) -> str:
        return self._view().html


class Lab:
    """A live JetStream cluster and a connection to it; made by :func:`start`.

    ``nc`` and ``js`` are nats-py's own objects. Shown in a cell, the lab is a card with what was last
    seen, without I/O.
    """

    def __init__(self, config: Settings) -> None:
        self.settings = config
        self.deployment: Deployment = deployment.choose(config)
        self.faults = Faults(self.deployment, self.ready)
        self.last_used = time.monotonic()
        self._connection = connection.Connection()
        self._status: Status | None = None
        self._desk = exercises.Desk(self)
        self._heartbeat: asyncio.TimerHandle | None = None
        self._trials: list[Trial] = []

    @property
    def nc(self) -> Client:
        """nats-py's connection."""
        return self._connection.nc

    @property
    def js(self) -> JetStreamContext:
        """nats-py's JetStream context of the connection."""
        return self._js

    @property
    def backend(self) -> str:
        """``embedded``, ``kind`` or ``kubernetes``."""
        return self.deployment.backend

    @property
    def events(self) -> tuple[connection.Event, ...]:
        """The connection's last 200 events: disconnects, reconnects, errors nats-py would print."""
        return tuple(self._connection.events)

    async def up(self) -> None:
        """Bring the deployment up and connect; on any failure nothing is left behind."""
        self._beat()
        try:
            await self.deployment.up()
            urls = [server.client_url for server in self.deployment.servers()]
            await self._connection.open(urls, self.settings.timeout)
            await connection.until_placed(self.nc, len(urls), self.settings.timeout)
            self._js = self.nc.jetstream()
            await self.status()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the connection and end what this lab started; safe to call twice."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        try:
            await self._connection.close()
            if self._trials:
                await self._end_trials()
        finally:
            _forget(self)
            await self.deployment.down()

    def _beat(self) -> None:
        """Wake the event loop five times a second, so that Stop reaches a cell that waits for a server."""
        self._heartbeat = asyncio.get_running_loop().call_later(LONGEST_NAP, self._beat)

    async def status(self) -> Status:
        """Look at servers, leaders and streams now, and remember it for the card."""
        await self.deployment.look()
        servers = self.deployment.servers()
        self._status = Status(
            backend=self.backend,
            version=self.deployment.version,
            ephemeral=self.deployment.ephemeral,
            servers=servers,
            meta_leader=await self.meta_leader(),
            entry=self.entry,
            streams=await self._stream_status(),
            as_of=datetime.datetime.now(datetime.UTC),
        )
        return self._status

    async def meta_leader(self) -> str | None:
        """Name the leader of the meta group, which decides where streams live; None if there is none."""
        names = [server.name for server in self.deployment.servers()]
        answers = await asyncio.gather(*(self.deployment.get(name, "/jsz") for name in names))
        claims = [
            body["meta_cluster"].get("leader") for _, body in answers if body and "meta_cluster" in body
        ]
        return next((leader for leader in claims if leader), None)

    @property
    def _open_desk(self) -> exercises.Desk:
        """The desk, for what asks the servers. Raises DeploymentError when this lab has ended."""
        self.deployment.servers()
        return self._desk

    @property
    def entry(self) -> str | None:
        """Name of the server that the connection enters by, None while disconnected."""
        urls = {server.client_url: server.name for server in self.deployment.servers()}
        return urls.get(self._connection.url or "")

    async def leaders(self) -> pd.DataFrame:
        """Return a row for each copy of each stream and consumer: group, kind, server, role, current, lag.

        What nobody leads at the moment has one row, with role ``no leader`` and no server.
        """
        return replication.frame(await replication.groups(self.nc))

    async def move_leaders_off(self, server: str) -> list[str]:
        """Have other servers lead what ``server`` leads, and return the names of what moved.

        Streams and consumers alike, as before its maintenance; what has a single copy stays.
        """
        self._url_of(server)
        return await replication.move_leaders_off(self.nc, server)

    async def enter(self, server: str) -> None:
        """Move the connection to ``server``; it stays there until that server goes away."""
        await self._connection.enter(self._url_of(server))

    def _url_of(self, server: str) -> str:
        urls = {s.name: s.client_url for s in self.deployment.servers()}
        if server not in urls:
            raise SettingsError(f"there is no server {server!r}", seen=", ".join(urls), do="use one of those")
        return urls[server]

    async def ready(self, timeout: float = 60.0) -> None:
        """Wait until every server is healthy again and every stream and consumer has a leader."""
        await self.deployment.ready(timeout)
        await connection.until_answers(self.nc, timeout)
        await connection.until_led(self.nc, timeout)

    async def stream(self, name: str, **config: Any) -> Stream:
        """Create stream ``name``, or bind to it; ``config`` takes nats-py's StreamConfig names.

        Without ``subjects``, ``mirror`` or ``sources`` it only binds. Only what is given is compared. Raises
        StreamDriftError, listing the differences.
        See :func:`jslab.streams.open_stream`.
        """
        self.last_used = time.monotonic()
        return await streams.open_stream(
            self.js, name, lesson=self._desk.lesson, settle=self.settle, held=self._held, **config
        )

    async def _held(self, stream: str, servers: Sequence[str], last_seq: int) -> bool:
        return await all_hold(self.deployment, stream, servers, last_seq)

    async def settle(self, info: StreamInfo | ConsumerInfo) -> None:
        """Wait until the server that this connection enters by has heard of a new stream or consumer.

        The answer to "create" may arrive before the news of its subjects does, and a publish, or a fetch,
        between the two finds no responders (8 of 300 publishes and 4 of 400 fetches when measured).
        ``lab.stream`` does this by itself. Raises NotReadyError.
        """
        leader, entry = info.cluster.leader if info.cluster else None, self.entry
        if leader is None or entry is None or leader == entry:
            return
        subjects = streams.listens_to(info)

        async def known() -> bool:
            _, body = await self.deployment.get(entry, "/routez?subs=1")
            routes = [route for route in (body or {}).get("routes", []) if route.get("remote_name") == leader]
            return subjects <= {subject for r in routes for subject in r.get("subscriptions_list", [])}

        await until(known, what=f"{entry} to hear of {', '.join(subjects)}", timeout=10, every=0.005)

    async def lesson(self, number: str) -> exercises.Prepared:
        """Prepare lesson ``number``: remove what an earlier run of it left, create what it needs."""
        await self._end_trials()
        prepared = await self._open_desk.prepare(number)
        await self.status()  # the card that a lesson shows next is of now
        return prepared

    async def clean(self, number: str) -> tuple[str, ...]:
        """Remove the streams that lesson ``number`` made, heal what it broke, return their names."""
        await self._end_trials()
        return await self._open_desk.clean(number)

    async def check(self, exercise: str) -> exercises.Verdict:
        """Look at the live cluster and say whether ``exercise`` is solved, and if not, why."""
        return await self._open_desk.check(exercise)

    def hint(self, exercise: str) -> views.View:
        """Show a hint; called again, the next one."""
        return self._desk.hint(exercise)

    def solution(self, exercise: str) -> views.View:
        """Show the solution's code."""
        return self._desk.solution(exercise)

    async def solve(self, exercise: str) -> None:
        """Run the solution that ``solution`` shows."""
        await self._open_desk.solve(exercise)

    async def reset(self, exercise: str) -> None:
        """Put an exercise back to where it began."""
        await self._open_desk.reset(exercise)

    async def answer(self, exercise: str, choice: str | int) -> views.View:
        """Publish an answer to the lab's own stream, where ``check`` reads it."""
        return await self._open_desk.answer(exercise, choice)

    async def predict(self, prediction: str, choice: str | int) -> views.View:
        """Seal a prediction before the run that shows what happens."""
        return await self._open_desk.predict(prediction, choice)

    async def reveal(self, prediction: str, observed: str) -> exercises.Verdict:
        """Hold what was observed against the sealed prediction."""
        return await self._open_desk.reveal(prediction, observed)

    def trial(self, name: str) -> Trial:
        """Return a copy of the manifests to change, and to try in a namespace beside the lab's.

        Needs pods: raises UnsupportedError on embedded. ``lesson``, ``clean`` and ``stop`` remove all copies.
        """
        made = Trial(trial.parent_of(self.deployment), name)
        self._trials.append(made)
        return made

    async def kubectl(self, command: str) -> views.View:
        """Run kubectl in the lab's namespace and show what it printed: ``await lab.kubectl("get pods")``.

        Raises UnsupportedError on embedded, and ToolError with kubectl's own words.
        """
        return await trial.kubectl(trial.parent_of(self.deployment), command)

    async def _end_trials(self) -> None:
        trials, self._trials = self._trials, []
        for made in trials:
            await made.remove()
        await trial.remove_all(self.deployment)

    def live(self, stream: Stream, *, every: float = live.EVERY) -> Live:
        """Show who leads a stream, how its copies lag, and its rates, while a block runs.

        ``async with lab.live(board) as seen: …``; then ``seen.frame()`` has a row for each look, one every
        ``every`` seconds. The last look stays in the notebook.
        """
        settings.check_seconds(every, "every of live")
        return Live(stream.name, Glance(self.nc, self.deployment, stream.name), every)

    async def player(self, stream: Stream, *, clock: str | None = None) -> Player:
        """Return a cursor at a stream's beginning: ``await player.goto(moment)``, ``await player.play(600)``.

        Moments are event times in the header ``clock``, or stored times without one.
        """
        made = Player(self.js, stream.name, clock)
        await made.goto(1)
        return made

    def scenario(self, exercise: str) -> exercises.ScenarioRun:
        """Run an exercise's traffic and faults around your code: ``async with lab.scenario("04.2")``."""
        return self._open_desk.scenario(exercise)

    def __repr__(self) -> str:
        return repr(self._status) if self._status else f"<Lab {self.backend}, not started>"

    def _repr_html_(self) -> str:
        return self._status._repr_html_() if self._status else views.panel(repr(self))

    async def _stream_status(self) -> tuple[StreamStatus, ...] | None:
        try:
            infos = await self.js.streams_info()
        except (TimeoutError, nats.errors.Error) as err:
            if not connection.unanswered(err):
                raise
            return None
        return tuple(
            StreamStatus(
                name=str(info.config.name),
                leader=info.cluster.leader if info.cluster else None,
                replicas=info.config.num_replicas or 1,
                messages=info.state.messages,
            )
            for info in infos
        )


class Start:
    """What :func:`start` returns: ``await`` it for the lab, or ``async with`` it to stop at the end."""

    def __init__(self, bring_up: Callable[[], Awaitable[tuple[Lab, bool]]]) -> None:
        self._bring_up = bring_up
        self._lab: Lab | None = None
        self._made = False

    def __await__(self) -> Generator[Any, None, Lab]:
        return self._open().__await__()

    async def __aenter__(self) -> Lab:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What was made here ends here; a lab that ran already is left running.
        if self._lab is not None and self._made:
            await self._lab.stop()

    async def _open(self) -> Lab:
        self._lab, self._made = await self._bring_up()
        return self._lab


_running: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Lab] = weakref.WeakKeyDictionary()
_doors: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()


def start(
    backend: str | None = None,
    *,
    context: str | None = None,
    namespace: str | None = None,
    manifests: str | Path | None = None,
    data: str | Path | None = None,
    timeout: float | None = None,
    take_over: bool = False,
) -> Start:
    """Start a three-server JetStream lab: ``lab = await jslab.start()``.

    In one kernel it returns the same lab each time. Arguments win over the ``JSLAB_*`` variables.
    ``manifests`` is a folder with an edited copy of the course's manifests; ``data`` a folder that keeps
    the streams of an embedded lab, which otherwise go with the kernel; ``timeout`` is in seconds.

    ``"kind"`` and ``"kubernetes"`` join the servers that `jslab up` made, or make them, and leave them there.
    They hold one notebook at a time; ``take_over`` takes them from another that has them.

    Raises SettingsError, ManifestError, ServerBinaryError, DirectoryError, PortTakenError, NotReadyError,
    and on Kubernetes ToolError, ClusterError, LeaseHeldError; after any of them, and after Stop, nothing that
    belongs to this notebook is left running.
    """
    config = settings.read()
    given: dict[str, Any] = {
        "backend": backend,
        "context": context,
        "namespace": namespace,
        "manifests": _folder(manifests),
        "data": _folder(data),
        "timeout": timeout,
        "take_over": take_over,
    }
    config = dataclasses.replace(config, **{key: value for key, value in given.items() if value is not None})
    settings.check_backend(config.backend, "start()")
    settings.check_seconds(config.timeout, "the timeout of start()")

    async def bring_up() -> tuple[Lab, bool]:
        loop = asyncio.get_running_loop()
        async with _doors.setdefault(loop, asyncio.Lock()):
            running = _running.get(loop)
            if running is not None:
                return _join(running, config), False
            lab = Lab(config)
            await lab.up()
            _running[loop] = lab
            return lab, True

    return Start(bring_up)


def _folder(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path).expanduser().resolve()


def _join(lab: Lab, config: Settings) -> Lab:
    if lab.settings != dataclasses.replace(config, timeout=lab.settings.timeout):
        raise SettingsError(
            "this kernel already has a lab, started with other settings",
            seen=f"{lab.settings}, asked for {config}",
            do="stop it first: await lab.stop()",
        )
    idle = time.monotonic() - lab.last_used
    if idle > DEDUP_WINDOW:
        print(
            f"{idle / 60:.0f} minutes passed since this lab was last used, more than the "
            f"{DEDUP_WINDOW / 60:.0f} minutes for which a stream remembers Msg-Ids: "
            "run this lesson's setup cell before you go on, unless this is it."
        )
    lab.last_used = time.monotonic()
    return lab


def _forget(lab: Lab) -> None:
    for loop, running in list(_running.items()):
        if running is lab:
            del _running[loop]
