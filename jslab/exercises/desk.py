"""What the learner's ``lab.lesson``, ``lab.check``, ``lab.hint`` and so on end up at."""

from __future__ import annotations

import contextlib
import datetime
import functools
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import nats.js.errors
from nats.js.api import StreamInfo

from jslab import connection, trial, views
from jslab.errors import ExerciseError
from jslab.exercises import definition
from jslab.exercises.definition import Exercise, Lesson, Wrong
from jslab.exercises.lablike import LabLike
from jslab.exercises.notes import STREAM as NOTES
from jslab.exercises.notes import Notes
from jslab.exercises.room import CLONE, Room, Witness
from jslab.faults import RECOVERY
from jslab.stream_config import LESSON_KEY, OWNED

VERDICT_TYPE = "application/vnd.jslab.verdict+json"
# A message to ourselves takes a millisecond; a connection that is moving to another server, seconds.
BACK_TIMEOUT = 10.0
PREDICTION_TYPE = "application/vnd.jslab.prediction+json"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found, or how a prediction fared; shown with ✓ or ✗ and words."""

    exercise: str
    ok: bool | None
    """None for a question that was left open."""
    key: str
    """The diagnosis, ``solved``, or ``prediction``."""
    title: str
    text: str

    def _view(self) -> views.View:
        return views.verdict(self.ok, self.title, self.text)

    def __repr__(self) -> str:
        return self._view().text

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        kind = PREDICTION_TYPE if self.key == "prediction" else VERDICT_TYPE
        # The last one is for programs: a run of the course reads it out of the executed notebook.
        return {
            "text/plain": repr(self),
            "text/html": self._view().html,
            kind: {"exercise": self.exercise, "ok": self.ok, "key": self.key, "text": self.text},
        }


@dataclass(frozen=True, slots=True)
class Prepared:
    """A lesson that is ready to begin."""

    lesson: str
    title: str
    removed: tuple[str, ...]
    exercises: tuple[str, ...]

    def _view(self) -> views.View:
        rows = [("exercises", ", ".join(self.exercises))]
        if self.removed:
            rows.append(("removed", f"{', '.join(self.removed)}, left by an earlier run"))
        return views.card(f"Lesson {self.lesson} · {self.title}: ready", rows)

    def __repr__(self) -> str:
        return self._view().text

    def _repr_html_(self) -> str:
        return self._view().html


class Desk:
    """One learner's work on the exercises of one lab."""

    def __init__(self, lab: LabLike) -> None:
        self._lab = lab
        self._witnesses: dict[str, Witness] = {}
        self._diagnoses: dict[str, str] = {}
        self._hints: dict[str, int] = {}
        self.lesson: str | None = None

    @property
    def _notes(self) -> Notes:
        return Notes(self._lab)

    async def prepare(self, number: str) -> Prepared:
        """Make a lesson ready: heal faults, remove what an earlier run of it left, set up."""
        lesson = definition.load(number)
        if lesson.needs_pods:
            trial.parent_of(self._lab.deployment)
        self.lesson = number
        # Of another lesson's too: an ear that listens hides from a publisher that there is no stream.
        for witness in self._witnesses.values():
            await witness.close()
        removed = await self._mend(lesson, lesson.owned(), everything=True)
        self._diagnoses, self._hints = {}, {}
        for kind in ("answer", "predict", "reveal"):
            await self._notes.forget(kind, f"{number}.>")
        await self._notes.write("prepared", number, lesson.title)
        if lesson.setup_function:
            await lesson.setup_function(Room(self._lab, number, Witness()))
        for exercise in lesson.exercises.values():
            await self._set_up(exercise)
        return Prepared(number, lesson.title, tuple(removed), tuple(lesson.exercises))

    async def clean(self, number: str) -> tuple[str, ...]:
        """Remove what a lesson made and stop listening."""
        lesson = definition.load(number)
        for exercise in lesson.exercises.values():
            await self._room(exercise).witness.close()
        if self.lesson == number:
            self.lesson = None
        return tuple(await self._mend(lesson, lesson.owned(), everything=True))

    async def _mend(self, lesson: Lesson, names: set[str], *, everything: bool) -> list[str]:
        """End all faults, remove streams of the lesson, and then wait for the rest to work.

        In this order, because a stream that lost its copies for good keeps its servers from being healthy.
        """
        await self._lab.faults.undo()
        await connection.until_answers(self._lab.nc, RECOVERY)
        removed = await self._remove(lesson, names, everything=everything)
        await self._lab.ready(RECOVERY)
        return removed

    async def check(self, number: str) -> Verdict:
        """Look, and change nothing."""
        _, exercise = definition.find(number)
        title = f"{number} · {exercise.title}"
        await self._all_heard()
        try:
            text = await exercise.check_function(self._room(exercise))
        except Wrong as wrong:
            if self._diagnoses.get(number) != wrong.text:
                self._hints.pop(number, None)  # a new diagnosis is the next hint
            self._diagnoses[number] = wrong.text
            return Verdict(number, False, wrong.key, title, wrong.text)
        self._diagnoses.pop(number, None)
        return Verdict(number, True, "solved", title, text)

    def hint(self, number: str) -> views.View:
        """Show the last diagnosis first, then the exercise's hints, one by one."""
        _, exercise = definition.find(number)
        last = self._diagnoses.get(number)
        shown = self._hints.get(number, 0)
        self._hints[number] = shown + 1
        notes = [("the last check said", f"{last} (Ask again for a hint.)")] if last else []
        notes += [(f"hint {n} of {len(exercise.hints)}", hint) for n, hint in enumerate(exercise.hints, 1)]
        notes += [("no more hints", f'lab.solution("{number}") shows one way to do it.')]
        title, text = notes[min(shown, len(notes) - 1)]
        return views.note(f"{number} · {title}", text)

    def solution(self, number: str) -> views.View:
        """Show the code that ``solve`` runs."""
        return views.code(f"{number} · one way to do it", definition.solution_source(number))

    async def solve(self, number: str) -> None:
        """Run the solution."""
        _, exercise = definition.find(number)
        await exercise.solution_function(self._lab)

    async def reset(self, number: str) -> None:
        """Remove what was made for the exercise and set it up again."""
        lesson, exercise = definition.find(number)
        await self._mend(lesson, set(exercise.streams), everything=False)
        await self._notes.forget("answer", number)
        self._diagnoses.pop(number, None)
        self._hints.pop(number, None)
        await self._set_up(exercise)

    async def answer(self, number: str, choice: str | int) -> views.View:
        """Keep an answer; the last one counts."""
        definition.find(number)
        choice = _in_words(choice)
        if not choice:
            return views.note(
                f"{number} · no answer yet", "Put your answer between the quotes and run the cell again."
            )
        await self._notes.write("answer", number, choice)
        return views.note(f"{number} · your answer", choice)

    async def predict(self, number: str, choice: str | int) -> views.View:
        """Seal a prediction; once the result is known it stays as it is."""
        prediction = _prediction(number)
        choice = _in_words(choice)
        choices = " · ".join(prediction.choices)
        if not choice:
            return views.note(f"Prediction {number}: {prediction.question}", f"Choose one: {choices}")
        if choice not in prediction.choices:
            raise ExerciseError(
                f"{choice!r} is none of the choices of prediction {number}",
                seen=choices,
                do="use one of them",
            )
        if await self._notes.text("reveal", number):
            sealed = await self._notes.text("predict", number)
            return views.note(
                f"Prediction {number}: the result is known", f"Sealed before it: {sealed or 'nothing'}."
            )
        await self._notes.write("predict", number, choice)
        return views.note(f"Prediction {number}, sealed", choice)

    async def reveal(self, number: str, observed: str) -> Verdict:
        """Hold what was observed against the prediction."""
        prediction = _prediction(number)
        if observed not in prediction.choices:
            raise ExerciseError(
                f"{observed!r} was observed, which is none of the choices of prediction {number}",
                seen=" · ".join(prediction.choices),
                do="run the lesson's cells again from its setup cell",
            )
        sealed = await self._notes.text("predict", number)
        await self._notes.write("reveal", number, observed)
        said = f"You said: {sealed}." if sealed else "You made no prediction."
        return Verdict(
            number,
            sealed == observed if sealed else None,
            "prediction",
            f"Prediction {number}: {prediction.question}",
            f"{said}\nThe cluster did: {observed}.",
        )

    def scenario(self, number: str) -> ScenarioRun:
        """Return the scenario of an exercise, to be entered with ``async with``."""
        _, exercise = definition.find(number)
        if exercise.scenario_function is None:
            raise ExerciseError(
                f"exercise {number} has no scenario", seen=exercise.title, do="write your code without it"
            )
        return ScenarioRun(contextlib.asynccontextmanager(exercise.scenario_function)(self._room(exercise)))

    async def _all_heard(self) -> None:
        """Wait until what the learner's cell has sent has passed the witness.

        ``nc.flush`` would not do: its PING may overtake publishes that wait in nats-py's buffer. A message
        of our own comes back after all that were sent before it.
        """
        inbox = self._lab.nc.new_inbox()
        own = await self._lab.nc.subscribe(inbox)
        await self._lab.nc.publish(inbox)
        await own.next_msg(timeout=BACK_TIMEOUT)
        await own.unsubscribe()

    def _room(self, exercise: Exercise) -> Room:
        witness = self._witnesses.setdefault(exercise.number, Witness())
        return Room(self._lab, exercise.number, witness)

    async def _set_up(self, exercise: Exercise) -> None:
        room = self._room(exercise)
        await room.witness.close()
        if exercise.setup_function:
            await exercise.setup_function(room)
        await room.witness.listen(self._lab.nc, exercise.witness)

    async def _remove(self, lesson: Lesson, names: set[str], *, everything: bool) -> list[str]:
        """Delete streams that lessons made: marked as such, or made under ``names`` since the setup."""
        prepared = await self._notes.read("prepared", lesson.number)
        doomed = []
        for info in await connection.patiently(self._lab.js.streams_info, "listed the streams"):
            name = str(info.config.name)
            if name == NOTES or not (name in names or everything or name.startswith(f"{CLONE}_")):
                continue
            if not _is_a_lessons(info) and name in names and not _made_since(info, prepared):
                raise ExerciseError(
                    f"lesson {lesson.number} needs the stream name {name}, and a stream of yours has it",
                    seen=f"{info.state.messages} messages, not made by a lesson",
                    do=f"keep it and use another lab, or delete it: await lab.js.delete_stream({name!r})",
                )
            if _is_a_lessons(info) or name in names:
                doomed.append(name)
        for name in doomed:
            with contextlib.suppress(nats.js.errors.NotFoundError):  # gone: only the answer was lost
                await connection.patiently(
                    functools.partial(self._lab.js.delete_stream, name), f"deleted {name}"
                )
        return doomed


class ScenarioRun:
    """``async with lab.scenario("04.2") as given:`` runs traffic and faults around your code."""

    def __init__(self, context: contextlib.AbstractAsyncContextManager[Any]) -> None:
        self._context = context

    def __enter__(self) -> None:
        raise TypeError("a scenario is entered with `async with lab.scenario(…):`; here `async` is missing")

    def __exit__(self, *_: object) -> None:
        """There only so that Python gets as far as ``__enter__``, which says what is missing."""

    async def __aenter__(self) -> Any:
        return await self._context.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._context.__aexit__(kind, err, trace)


def _in_words(choice: object) -> str:
    """Take a number for its digits. Raises ExerciseError for what is neither text nor a number."""
    if isinstance(choice, str | int) and not isinstance(choice, bool):
        return str(choice)
    raise ExerciseError("an answer is a text", seen=repr(choice), do="write it between quotes")


def _prediction(number: str) -> definition.Prediction:
    lesson = definition.lesson_of(number)
    if number not in lesson.predictions:
        raise ExerciseError(
            f"there is no prediction {number!r}",
            seen=f"lesson {lesson.number} has {', '.join(lesson.predictions) or 'none'}",
            do="name one of them",
        )
    return lesson.predictions[number]


def _is_a_lessons(info: StreamInfo) -> bool:
    metadata = info.config.metadata or {}
    return LESSON_KEY in metadata and all(metadata.get(key) == value for key, value in OWNED.items())


def _made_since(info: StreamInfo, prepared: tuple[str, datetime.datetime] | None) -> bool:
    created = info.created
    return prepared is not None and created is not None and created >= prepared[1]
