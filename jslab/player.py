"""A cursor on a stream: go to a sequence or a moment, play from there, pause. Each step is an awaitable.

The widgets of ``controls`` do what the awaitables do, for who likes to drag; a notebook that runs without a
screen uses the awaitables alone.
"""

from __future__ import annotations

import asyncio
import contextvars
import datetime
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from nats.js import JetStreamContext

from jslab import sparklines, views
from jslab.errors import ReplayError
from jslab.replay.clock import event_time, seek
from jslab.replay.leader import Leader
from jslab.replay.rows import Row, StoredMessage
from jslab.replay.span import check_moment, check_speed
from jslab.screen import shown
from jslab.subjects import EVERYTHING

# Messages that a scene shows, and seconds between two scenes while it plays.
WINDOW, EVERY = 8, 0.25
STEPS = 1_000


@dataclass(frozen=True, slots=True)
class Scene:
    """What stands under the cursor: the next messages of a stream from one sequence on."""

    stream: str
    seq: int
    """The first sequence that is shown; one behind the last when there is none."""
    first_seq: int
    last_seq: int
    clock: str | None
    moment: datetime.datetime | None
    """Event time of the first message shown, or stored time without a clock; None behind the end."""
    messages: tuple[StoredMessage, ...]
    seconds: float
    """How long it took to get here."""

    @property
    def progress(self) -> float:
        """How far the cursor is between the first and the last sequence, from 0 to 1."""
        return min(1.0, (self.seq - self.first_seq) / max(1, self.last_seq - self.first_seq))

    def _view(self) -> views.View:
        at = self.moment.isoformat(sep=" ", timespec="seconds") if self.moment else "behind the end"
        rows = [
            (m.seq, m.headers.get(self.clock or "", f"{m.time:%H:%M:%S}"), m.subject) for m in self.messages
        ]
        table = views.table(
            f"{self.stream} from {self.seq:,} of {self.last_seq:,}: {at}",
            ("seq", self.clock or "stored", "subject"),
            rows,
            note=f"found in {self.seconds * 1000:.0f} ms",
        )
        return views.View(table.text, f"{sparklines.bar(self.progress, at)}{table.html}")

    def __repr__(self) -> str:
        return self._view().text

    def _repr_html_(self) -> str:
        return self._view().html


class Player:
    """A cursor on one stream. ``scene`` is what stands under it."""

    def __init__(
        self, js: JetStreamContext, stream: str, clock: str | None = None, window: int = WINDOW
    ) -> None:
        self.stream = stream
        self.clock = clock
        self._leader = Leader(js, stream)
        self._window = window
        self._paused = True
        self._handle: Any = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._wanted: int | None = None
        self._slider: Any = None
        self._led = False
        self.scene: Scene | None = None

    async def goto(self, to: int | datetime.datetime) -> Scene:
        """Move to a sequence, or to the first message at or after a moment.

        The moment is of the event time in the header ``clock``, and of the stored time without one. Raises
        ReplayError for a moment without a time zone, ClockError for a stream not in the clock's order.
        """
        begun = time.monotonic()
        state = (await self._leader.info()).state
        seq = await self._find(to)
        rows: list[Row] = []
        while len(rows) < self._window and (row := await self._leader.next(seq, EVERYTHING)):
            rows.append(row)
            seq = row.seq + 1
        first = rows[0] if rows else None
        moment = (
            (event_time(first, self.clock) if self.clock else StoredMessage(first).time) if first else None
        )
        self.scene = Scene(
            stream=self.stream,
            seq=first.seq if first else state.last_seq + 1,
            first_seq=state.first_seq,
            last_seq=state.last_seq,
            clock=self.clock,
            moment=moment,
            messages=tuple(StoredMessage(row) for row in rows),
            seconds=time.monotonic() - begun,
        )
        if self._handle is not None:
            self._handle.update(self.scene)
        self._lead()
        return self.scene

    async def _find(self, to: int | datetime.datetime) -> int:
        if isinstance(to, int):
            return max(1, to)
        check_moment("the moment", to)
        if self.clock:
            return await seek(self._leader, self.clock, to)
        row = await self._leader.at_or_after(to)
        return row.seq if row else (await self._leader.info()).state.last_seq + 1

    async def play(self, speed: float, *, seconds: float | None = None) -> Scene:
        """Let the clock run from the cursor on, ``speed`` times as fast as it happened.

        It ends at the stream's end, after ``seconds``, or at ``pause``, and returns what is there.
        """
        check_speed(speed)
        scene = self.scene or await self.goto(1)
        self._paused, begun, start = False, time.monotonic(), scene.moment
        while start is not None and scene.moment is not None and not self._paused:
            elapsed = time.monotonic() - begun
            if seconds is not None and elapsed >= seconds:
                break
            scene = await self.goto(start + datetime.timedelta(seconds=elapsed * speed))
            await asyncio.sleep(EVERY)
        self._paused = True
        return scene

    def pause(self) -> None:
        """Have ``play`` end."""
        self._paused = True

    async def show(self) -> None:
        """Show the scene in this cell; it moves with the cursor."""
        self._handle = shown(self.scene or await self.goto(1))

    def controls(self, speed: float = 600) -> Any:
        """Return a slider over the stream and buttons to play and pause: they call the awaitables above."""
        import ipywidgets

        if self.scene is None:
            raise ReplayError(
                "the controls need to know where the stream begins and ends",
                seen="the player was nowhere yet",
                do="go somewhere first: await player.goto(1)",
            )
        slider = ipywidgets.IntSlider(
            value=self.scene.seq,
            min=self.scene.first_seq,
            max=self.scene.last_seq,
            description="sequence",
            continuous_update=True,
            layout=ipywidgets.Layout(width="36em"),
        )
        play, pause = ipywidgets.Button(description="play"), ipywidgets.Button(description="pause")
        said = ipywidgets.Label()
        slider.observe(lambda change: self._drag(change["new"], said), "value")
        self._slider = slider
        play.on_click(lambda _: self._do(self.play(speed), said))
        pause.on_click(lambda _: self.pause())
        return ipywidgets.VBox([slider, ipywidgets.HBox([play, pause, said])])

    def _lead(self) -> None:
        """Have the slider stand where the cursor does, unless somebody is dragging it."""
        if self._slider is not None and self.scene is not None and self._wanted is None:
            self._led = True
            try:
                self._slider.value = self.scene.seq
            finally:
                self._led = False

    def _drag(self, to: int, said: Any) -> None:
        """Follow a slider: while one step is under way, of all that come meanwhile the last one counts."""
        if self._led:
            return
        moving, self._wanted = self._wanted is not None, to

        async def follow() -> Scene:
            while True:
                going = self._wanted
                assert going is not None
                scene = await self.goto(going)
                if self._wanted == going:
                    self._wanted = None
                    return scene

        if not moving:
            self._do(follow(), said)

    def _do(self, step: Coroutine[Any, Any, Scene], said: Any) -> None:
        """Take a step for a widget; an error, which nobody would see, stands beside the buttons."""

        async def take() -> None:
            try:
                await step
                said.value = ""
            except Exception as err:
                self._wanted = None
                said.value = f"{type(err).__name__}: {str(err).partition(chr(10))[0]}"

        task = asyncio.get_running_loop().create_task(take(), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
