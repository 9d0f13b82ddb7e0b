"""Every lesson as a learner meets it: run blank, run with its exercises solved, run twice in one kernel."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jslab import course, reports, runner
from jslab.exercises import definition
from jslab.results import Result
from tests.offline import loads

# A lesson that needs a cluster is for the tests of that backend; reports have a column for it.
LESSONS = {lesson.label: lesson for lesson in course.lessons() if not lesson.needs}
LONGEST = 60  # seconds a lesson may take
NBMAKE = ["--nbmake", f"--nbmake-timeout={LONGEST}", "-q", "-c", os.devnull, "-p", "no:cacheprovider"]

REPORTS = Path(__file__).parents[2] / "reports" / "course"

pytestmark = pytest.mark.timeout(600)


def run(backend: str, name: str, *, solutions: bool, jobs: int) -> dict[str, Result]:
    """Run the course into a report that is kept for people to look at."""
    options = runner.Options(backend=backend, solutions=solutions, jobs=jobs)
    ran = runner.run(list(LESSONS.values()), options, REPORTS / name)
    print(reports.table(ran))
    return {result.lesson.label: result for result in ran}


@pytest.fixture(scope="module")
def blank(backend: str) -> dict[str, Result]:
    return run(backend, "blank", solutions=False, jobs=2)


@pytest.fixture(scope="module")
def solved(backend: str) -> dict[str, Result]:
    return run(backend, "solved", solutions=True, jobs=3)  # lessons mostly wait: three fit on two cores


@pytest.fixture(scope="module")
def twice(backend: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What nbmake says of each lesson with all its cells twice; nothing where it is content.

    It is the second opinion: it shares no code with the runner above.
    """
    folder = tmp_path_factory.mktemp("twice")

    def run(label: str) -> str:
        nbmake = subprocess.run(
            [sys.executable, "-m", "pytest", *NBMAKE, "--rootdir", folder, doubled(label, folder)],
            env=os.environ | {"JSLAB_BACKEND": backend, "JUPYTER_PREFER_ENV_PATH": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        return reports.plain(nbmake.stdout + nbmake.stderr) if nbmake.returncode else ""

    with ThreadPoolExecutor(3) as pool:
        return dict(zip(LESSONS, pool.map(run, LESSONS), strict=True))


def doubled(label: str, folder: Path) -> Path:
    notebook = json.loads(LESSONS[label].path.read_text(encoding="utf-8"))
    again = copy.deepcopy(notebook["cells"])
    for cell in again:
        cell["id"] += "-again"
    notebook["cells"] += again
    file = folder / f"{label}.ipynb"
    file.write_text(json.dumps(notebook), encoding="utf-8")
    return file


def its_exercises(label: str) -> list[str]:
    number = LESSONS[label].number
    return sorted(definition.load(number).exercises) if number in definition.numbers() else []


@pytest.mark.parametrize("label", LESSONS)
def test_a_blank_lesson_runs_and_each_exercise_says_what_is_missing(
    label: str, blank: dict[str, Result]
) -> None:
    result = blank[label]
    assert result.status == "passed", result.reason
    assert {verdict.exercise: verdict.ok for verdict in result.verdicts} == dict.fromkeys(
        its_exercises(label), False
    )
    assert result.seconds <= LONGEST


@pytest.mark.parametrize("label", LESSONS)
def test_a_lessons_own_solutions_solve_it(label: str, solved: dict[str, Result]) -> None:
    result = solved[label]
    assert result.status == "passed", result.reason
    assert {verdict.exercise: verdict.ok for verdict in result.verdicts} == dict.fromkeys(
        its_exercises(label), True
    )
    assert result.seconds <= LONGEST


@pytest.mark.parametrize("label", LESSONS)
def test_a_lesson_runs_twice_in_one_kernel_and_under_another_runner(
    label: str, twice: dict[str, str]
) -> None:
    assert not twice[label], twice[label]


@pytest.mark.parametrize("label", LESSONS)
def test_a_lessons_page_loads_nothing(label: str, blank: dict[str, Result]) -> None:
    assert blank[label].notebook is not None
    assert loads((REPORTS / "blank" / f"{label}.html").read_text(encoding="utf-8")) == []
