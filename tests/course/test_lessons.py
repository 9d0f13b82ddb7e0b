"""Every lesson as a learner meets it: run blank, run with its exercises solved, run twice in one kernel."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jslab import course, reports, runner
from jslab.exercises import definition
from jslab.results import Result

LESSONS = {lesson.label: lesson for lesson in course.lessons()}
LONGEST = 60  # seconds a lesson may take
NBMAKE = ["--nbmake", f"--nbmake-timeout={LONGEST}", "-q", "-c", os.devnull, "-p", "no:cacheprovider"]

pytestmark = pytest.mark.timeout(600)


def run(backend: str, folder: Path, *, solutions: bool) -> dict[str, Result]:
    options = runner.Options(backend=backend, solutions=solutions, jobs=2)
    ran = runner.run(list(LESSONS.values()), options, folder)
    return {result.lesson.label: result for result in ran}


@pytest.fixture(scope="module")
def blank(backend: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    return run(backend, tmp_path_factory.mktemp("blank"), solutions=False)


@pytest.fixture(scope="module")
def solved(backend: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    return run(backend, tmp_path_factory.mktemp("solved"), solutions=True)


def its_exercises(label: str) -> list[str]:
    number = LESSONS[label].number
    return sorted(definition.load(number).exercises) if number in definition.numbers() else []


@pytest.mark.parametrize("label", LESSONS)
def test_a_blank_lesson_runs_and_each_exercise_says_what_is_missing(
    label: str, blank: dict[str, Result]
) -> None:
    result = blank[label]
    if result.status == "elsewhere":
        return  # its own column says so; tests of that backend run it
    assert result.status == "passed", result.reason
    assert {verdict.exercise: verdict.ok for verdict in result.verdicts} == dict.fromkeys(
        its_exercises(label), False
    )
    assert result.seconds <= LONGEST


@pytest.mark.parametrize("label", LESSONS)
def test_a_lessons_own_solutions_solve_it(label: str, solved: dict[str, Result]) -> None:
    result = solved[label]
    if result.status == "elsewhere":
        return
    assert result.status == "passed", result.reason
    assert {verdict.exercise: verdict.ok for verdict in result.verdicts} == dict.fromkeys(
        its_exercises(label), True
    )
    assert result.seconds <= LONGEST


@pytest.mark.parametrize("label", LESSONS)
def test_a_lesson_runs_twice_in_one_kernel_and_under_another_runner(
    label: str, backend: str, tmp_path: Path
) -> None:
    """nbmake is the second opinion: it shares no code with the runner above."""
    lesson = LESSONS[label]
    if lesson.needs and lesson.needs != backend:
        return
    notebook = json.loads(lesson.path.read_text(encoding="utf-8"))
    again = copy.deepcopy(notebook["cells"])
    for cell in again:
        cell["id"] += "-again"
    notebook["cells"] += again
    twice = tmp_path / f"{label}.ipynb"
    twice.write_text(json.dumps(notebook), encoding="utf-8")
    nbmake = subprocess.run(
        [sys.executable, "-m", "pytest", *NBMAKE, "--rootdir", tmp_path, twice],
        env=os.environ | {"JSLAB_BACKEND": backend, "JUPYTER_PREFER_ENV_PATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert nbmake.returncode == 0, reports.plain(nbmake.stdout)
