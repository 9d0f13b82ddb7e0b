"""Every exercise's check, on a live cluster: blank, each wrong answer with its diagnosis, the solution.

The checks are measured while they look: one with a branch that no answer takes would print a diagnosis that
nobody has ever seen. Answers are not measured, since that slows them down and some are about speed.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import coverage
import pytest

from jslab import departures
from jslab.exercises import definition
from jslab.exercises.definition import Exercise
from jslab.exercises.desk import Verdict
from jslab.lab import Lab
from jslab.settings import course_folder

Look = Callable[[Exercise], Awaitable[Verdict]]

FOLDER = course_folder("exercises")


class Case(NamedTuple):
    exercise: Exercise
    key: str
    attempt: Any

    @property
    def name(self) -> str:
        return f"{self.exercise.number}-{self.key}-{self.attempt.__name__}"


EXERCISES = {
    number: exercise
    for lesson in definition.numbers()
    for number, exercise in definition.load(lesson).exercises.items()
}
CASES = [
    Case(exercise, key, attempt)
    for exercise in EXERCISES.values()
    for key, attempts in exercise.wrong_functions.items()
    for attempt in attempts
]


def where(exercise: Exercise) -> pytest.MarkDecorator:
    """Checks look at servers, which are the same everywhere, or at pods: each is tried on one backend."""
    return pytest.mark.kind if definition.lesson_of(exercise.number).needs_pods else pytest.mark.embedded


ON_THEIR_BACKEND = [
    pytest.param(exercise, id=number, marks=where(exercise)) for number, exercise in EXERCISES.items()
]


@pytest.fixture(scope="module")
def measured() -> coverage.Coverage:
    """Measures the branches of the lessons' files, when it is told to."""
    return coverage.Coverage(branch=True, include=[f"{FOLDER}/*.py"], data_file=None, config_file=False)


@pytest.fixture(scope="module")
async def classroom(shared_lab: Lab) -> AsyncIterator[dict[str, str]]:
    """Says which lesson is prepared; one at a time, as for a learner."""
    open_lesson: dict[str, str] = {}
    yield open_lesson
    for number in open_lesson.values():
        await shared_lab.clean(number)


@pytest.fixture
async def desk(shared_lab: Lab, classroom: dict[str, str], request: pytest.FixtureRequest) -> Lab:
    """The lab, with the lesson of the exercise prepared and the exercise as the learner finds it."""
    exercise: Exercise = request.getfixturevalue("exercise")
    lesson = exercise.number.partition(".")[0]
    if classroom.get("open") != lesson:
        if "open" in classroom:
            await shared_lab.clean(classroom["open"])
        await shared_lab.lesson(lesson)
        classroom["open"] = lesson
    await shared_lab.reset(exercise.number)
    return shared_lab


@pytest.fixture
def look(desk: Lab, measured: coverage.Coverage) -> Look:
    """``lab.check``, measured."""

    async def look(exercise: Exercise) -> Verdict:
        measured.start()
        try:
            return await desk.check(exercise.number)
        finally:
            measured.stop()

    return look


@pytest.mark.parametrize("exercise", ON_THEIR_BACKEND)
async def test_a_blank_exercise_is_not_solved_and_says_so(look: Look, exercise: Exercise) -> None:
    verdict = await look(exercise)
    assert not verdict.ok
    assert verdict.text


@pytest.mark.parametrize(
    ("exercise", "case"),
    [pytest.param(case.exercise, case, id=case.name, marks=where(case.exercise)) for case in CASES],
)
async def test_a_wrong_answer_gets_its_diagnosis(
    desk: Lab, look: Look, exercise: Exercise, case: Case
) -> None:
    await case.attempt(desk)
    first = await look(exercise)
    assert (first.ok, first.key) == (False, case.key), first.text
    again = await look(exercise)
    assert again.key == first.key, "looking changed something"


@pytest.mark.parametrize("exercise", ON_THEIR_BACKEND)
async def test_the_solution_is_accepted_also_after_a_look(desk: Lab, look: Look, exercise: Exercise) -> None:
    await look(exercise)
    await desk.solve(exercise.number)
    for _ in range(2):
        verdict = await look(exercise)
        assert verdict.ok, verdict.text


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_every_diagnosis_has_a_wrong_answer(exercise: Exercise) -> None:
    assert exercise.diagnoses() == set(exercise.wrong_functions)


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_answers_use_only_the_lab_and_names_of_their_own(exercise: Exercise) -> None:
    """What ``lab.solution`` shows must run in a cell of the learner's."""
    tree = ast.parse(f"async def attempt(lab):\n{indented(exercise.source())}")
    bound = {"lab", *dir(builtins)} | {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        if isinstance(node, ast.arg):
            bound.add(node.arg)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        if isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert used - bound == set()


def test_the_year_has_the_repeated_ids_that_a_check_speaks_of() -> None:
    """Found at the time of the check, they would take a second each time."""
    said = vars(inspect.getmodule(EXERCISES["04.1"].check_function))["YEAR_REPEATS"]
    year = departures.frame()
    year["date"] = year["event_time"].dt.date
    assert said == {fields: year.duplicated(list(fields)).sum() for fields in said}


def indented(source: str) -> str:
    return "\n".join(f"    {line}" for line in source.splitlines())


def check_bodies(file: Path, checks: set[str]) -> set[int]:
    """Number the lines in checks and in the file's functions that they call."""
    tree = ast.parse(file.read_text())
    functions = {
        node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    reached: set[str] = set()
    waiting = [*checks]
    while waiting:
        name = waiting.pop()
        if name in functions and name not in reached:
            reached.add(name)
            waiting += [node.id for node in ast.walk(functions[name]) if isinstance(node, ast.Name)]
    nodes = [functions[name] for name in reached]
    return {line for node in nodes for line in range(node.body[0].lineno, (node.end_lineno or 0) + 1)}


@pytest.mark.parametrize(
    "lesson",
    [
        pytest.param(number, marks=where(next(iter(definition.load(number).exercises.values()))))
        for number in definition.numbers()
    ],
)
def test_every_branch_of_every_check_was_taken(
    measured: coverage.Coverage, lesson: str, tmp_path: Path
) -> None:
    """Last of all: it judges what the tests above have run."""
    (file,) = FOLDER.glob(f"{lesson}_*.py")
    measured.json_report(morfs=[str(file)], outfile=str(tmp_path / "coverage.json"))
    (seen,) = json.loads((tmp_path / "coverage.json").read_text())["files"].values()
    checks = {exercise.check_function.__name__ for exercise in definition.load(lesson).exercises.values()}
    inside = check_bodies(file, checks)
    assert [line for line in seen["missing_lines"] if line in inside] == []
    assert [branch for branch in seen["missing_branches"] if branch[0] in inside] == []
