"""What a file in ``exercises/`` is made of: a lesson, its exercises, and its predictions.

    lesson = Lesson("00", streams=("TOWER",))
    tower = lesson.exercise("00.1", "TOWER outlives any machine", hints=("…",))

    @tower.check
    async def check_tower(room: Room) -> str:
        info = await room.info("TOWER")
        if info.config.num_replicas < 3:
            raise Wrong("one-copy", f"One copy, on {info.cluster.leader}. …")
        return "Three copies."

    @tower.solution
    async def solve_tower(lab): ...

    @tower.wrong("one-copy")
    async def default_replicas(lab): ...

A check returns a sentence on what it saw, or raises Wrong. Every diagnosis has a wrong answer of the same
key, and the tests run them all. Solutions and wrong answers use only ``lab`` and names of their own.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from jslab.errors import ExerciseError
from jslab.settings import course_folder

if TYPE_CHECKING:
    from jslab.exercises.room import Room

Check: TypeAlias = "Callable[[Room], Awaitable[str]]"
Setup: TypeAlias = "Callable[[Room], Awaitable[None]]"
Scenario: TypeAlias = "Callable[[Room], AsyncIterator[Any]]"
Attempt: TypeAlias = Callable[[Any], Awaitable[None]]

F = TypeVar("F", bound=Callable[..., Any])

BLANK = "blank"
"""The diagnosis of an exercise that nobody has begun."""


class Wrong(Exception):  # noqa: N818 - the outcome of a check, not a failure of the program
    """A diagnosis: what is wrong with an answer, and what it would cost in production."""

    def __init__(self, key: str, text: str) -> None:
        self.key = key
        self.text = text
        super().__init__(text)


class Exercise:
    """One exercise: check, solution, wrong answers, hints, and what it needs."""

    def __init__(
        self, number: str, title: str, *, hints: Sequence[str], streams: Sequence[str], witness: Sequence[str]
    ) -> None:
        self.number = number
        self.title = title
        self.hints = tuple(hints)
        self.streams = tuple(streams)
        self.witness = tuple(witness)
        self.check_function: Check
        self.solution_function: Attempt
        self.setup_function: Setup | None = None
        self.scenario_function: Scenario | None = None
        self.wrong_functions: dict[str, list[Attempt]] = {}

    def check(self, function: Check) -> Check:
        """Decorate the check."""
        self.check_function = function
        return function

    def solution(self, function: Attempt) -> Attempt:
        """Decorate the solution; its body is what the learner is shown."""
        self.solution_function = function
        return function

    def wrong(self, key: str) -> Callable[[Attempt], Attempt]:
        """Decorate an answer that the check must refuse with diagnosis ``key``."""

        def keep(function: Attempt) -> Attempt:
            self.wrong_functions.setdefault(key, []).append(function)
            return function

        return keep

    def setup(self, function: Setup) -> Setup:
        """Decorate what prepares this exercise, at the lesson's setup and at ``reset``."""
        self.setup_function = function
        return function

    def scenario(self, function: Scenario) -> Scenario:
        """Decorate the traffic and faults of ``lab.scenario``: an async generator that yields once."""
        self.scenario_function = function
        return function

    def source(self) -> str:
        """Return the body of the solution, ready for a notebook cell."""
        return _body(self.solution_function)

    def diagnoses(self) -> set[str]:
        """Return the keys of every Wrong that the check and its helpers can raise, BLANK not counted."""
        module = inspect.getmodule(self.check_function)
        assert module is not None
        return _wrong_keys(self.check_function.__name__, ast.parse(inspect.getsource(module))) - {BLANK}


class Prediction:
    """A question to settle before the run that answers it."""

    def __init__(self, number: str, question: str, choices: Sequence[str]) -> None:
        self.number = number
        self.question = question
        self.choices = tuple(choices)


class Lesson:
    """The exercises and predictions of one lesson.

    ``streams`` are names that the lesson's own cells create; exercises name theirs themselves. A lesson that
    ``needs_pods`` makes no sense on embedded.
    """

    def __init__(
        self, number: str, title: str, *, streams: Sequence[str] = (), needs_pods: bool = False
    ) -> None:
        self.number = number
        self.title = title
        self.streams = tuple(streams)
        self.needs_pods = needs_pods
        self.exercises: dict[str, Exercise] = {}
        self.predictions: dict[str, Prediction] = {}
        self.setup_function: Setup | None = None

    def exercise(
        self,
        number: str,
        title: str,
        *,
        hints: Sequence[str],
        streams: Sequence[str] = (),
        witness: Sequence[str] = (),
    ) -> Exercise:
        """Add an exercise. ``streams`` are names it owns, ``witness`` subjects it listens to."""
        exercise = Exercise(number, title, hints=hints, streams=streams, witness=witness)
        self.exercises[number] = exercise
        return exercise

    def prediction(self, number: str, question: str, choices: Sequence[str]) -> Prediction:
        """Add a prediction with the choices that can be sealed."""
        prediction = Prediction(number, question, choices)
        self.predictions[number] = prediction
        return prediction

    def setup(self, function: Setup) -> Setup:
        """Decorate what prepares the whole lesson, before its exercises' setups."""
        self.setup_function = function
        return function

    def owned(self) -> set[str]:
        """Return every stream name that belongs to the lesson and its exercises."""
        return set(self.streams).union(*(exercise.streams for exercise in self.exercises.values()))


def numbers() -> list[str]:
    """Return the numbers of the lessons that have exercises."""
    return sorted(path.name[:2] for path in course_folder("exercises").glob("[0-9][0-9]_*.py"))


def load(number: str) -> Lesson:
    """Load the exercises of lesson ``number``, such as ``"03"``. Raises ExerciseError if there is none."""
    _check_number(number)
    return _load(number)


def _check_number(number: object) -> None:
    """Refuse what looks like a number and is none of ours: 3.1, "3.1", "3"."""
    whole, dot, part = str(number).partition(".")
    meant = f"{whole.zfill(2)}{dot}{part}"
    if number != meant and whole.isdigit():
        raise ExerciseError(
            f"{number!r} is no number of a lesson or exercise",
            seen=f"a {type(number).__name__}" if not isinstance(number, str) else "one digit",
            do=f'write it in quotes and with two digits: "{meant}"',
        )


@functools.cache
def _load(number: str) -> Lesson:
    found = sorted(course_folder("exercises").glob(f"{number}_*.py")) if number.isdigit() else []
    if not found:
        raise ExerciseError(
            f"there is no lesson {number!r} with exercises",
            seen=f"lessons: {', '.join(numbers())}",
            do='name one of them, as in lab.lesson("03")',
        )
    return _lesson_in(found[0])


def lesson_of(number: str) -> Lesson:
    """Load the lesson that exercise or prediction ``number``, such as ``"03.2"``, belongs to."""
    _check_number(number)
    return _load(number.partition(".")[0])


def find(number: str) -> tuple[Lesson, Exercise]:
    """Return lesson and exercise for ``"03.2"``. Raises ExerciseError naming what there is."""
    lesson = lesson_of(number)
    if number not in lesson.exercises:
        raise ExerciseError(
            f"there is no exercise {number!r}",
            seen=f"lesson {lesson.number} has {', '.join(lesson.exercises)}",
            do="name one of them",
        )
    return lesson, lesson.exercises[number]


def solution_source(number: str) -> str:
    """Return the code of an exercise's solution, ready for a notebook cell."""
    return find(number)[1].source()


def _lesson_in(path: Path) -> Lesson:
    spec = importlib.util.spec_from_file_location(f"jslab_exercises_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # inspect finds the module of a check by its name.
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    lesson = module.lesson
    assert isinstance(lesson, Lesson)
    return lesson


def _body(function: Callable[..., Any]) -> str:
    source = textwrap.dedent(inspect.getsource(function))
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.AsyncFunctionDef)
    statements = definition.body
    if isinstance(statements[0], ast.Expr) and isinstance(statements[0].value, ast.Constant):
        statements = statements[1:]
    lines = source.splitlines()
    # Comments before the first statement belong to the solution too.
    first = (
        definition.body[0].end_lineno or 0
        if statements is not definition.body
        else definition.body[0].lineno - 1
    )
    while statements is definition.body and first > 0 and lines[first - 1].strip().startswith("#"):
        first -= 1
    return textwrap.dedent("\n".join(lines[first : definition.end_lineno])).strip("\n") + "\n"


def _wrong_keys(function: str, module: ast.Module, seen: frozenset[str] = frozenset()) -> set[str]:
    """Collect the literal keys of ``Wrong(...)`` in a function and in the module's functions it calls."""
    definitions = {
        node.name: node for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    keys: set[str] = set()
    if function not in definitions or function in seen:
        return keys
    for node in ast.walk(definitions[function]):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "Wrong":
                assert isinstance(node.args[0], ast.Constant), "a diagnosis is a literal key"
                keys.add(str(node.args[0].value))
            keys |= _wrong_keys(node.func.id, module, seen | {function})
    return keys
