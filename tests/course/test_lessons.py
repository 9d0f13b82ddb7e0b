"""Every lesson as a learner meets it: as it is, twice in one kernel, and with its exercises solved."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

from jslab import course, reports, runner
from jslab.exercises import definition
from jslab.results import Result, Verdict, verdicts
from tests.offline import loads

# A lesson that needs a cluster is for the tests of that backend; reports have a column for it.
LESSONS = {lesson.label: lesson for lesson in course.lessons() if not lesson.needs}
LONGEST = 60  # seconds a lesson may take
# Lessons mostly wait for servers: more than one fits on a processor.
JOBS = 4
NBMAKE = f"--nbmake --overwrite --nbmake-timeout={LONGEST} -q -c {os.devnull} -p no:cacheprovider"

REPORTS = Path(__file__).parents[2] / "reports" / "course"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def solved(backend: str) -> dict[str, Result]:
    """The course run by jslab's own runner, with the solutions where the learner would write."""
    options = runner.Options(backend=backend, solutions=True, jobs=JOBS)
    ran = runner.run(list(LESSONS.values()), options, REPORTS)
    print(reports.table(ran))
    return {result.lesson.label: result for result in ran}


class Twice(NamedTuple):
    """What nbmake says of a lesson with all its cells twice; nothing where it is content."""

    complaint: str
    verdicts: tuple[Verdict, ...]


@pytest.fixture(scope="module")
def twice(backend: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Twice]:
    """The course as it is, by nbmake: a second opinion, for jslab's runner has no part in it."""
    folder = tmp_path_factory.mktemp("twice")

    def run(label: str) -> Twice:
        notebook = doubled(label, folder)
        nbmake = subprocess.run(
            [sys.executable, "-m", "pytest", *NBMAKE.split(), "--rootdir", folder, notebook],
            env=os.environ | {"JSLAB_BACKEND": backend, "JUPYTER_PREFER_ENV_PATH": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        complaint = reports.plain(nbmake.stdout + nbmake.stderr) if nbmake.returncode else ""
        return Twice(complaint, verdicts(nbformat.read(notebook, as_version=4)))

    with ThreadPoolExecutor(JOBS) as pool:
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
def test_a_lesson_runs_blank_and_twice_in_one_kernel_and_each_exercise_says_what_is_missing(
    label: str, twice: dict[str, Twice]
) -> None:
    assert not twice[label].complaint, twice[label].complaint
    assert {verdict.exercise: verdict.ok for verdict in twice[label].verdicts} == dict.fromkeys(
        its_exercises(label), False
    )


@pytest.mark.parametrize("label", LESSONS)
def test_a_lessons_own_solutions_solve_it(label: str, solved: dict[str, Result]) -> None:
    result = solved[label]
    assert result.status == "passed", result.reason
    assert {verdict.exercise: verdict.ok for verdict in result.verdicts} == dict.fromkeys(
        its_exercises(label), True
    )
    assert result.seconds <= LONGEST


@pytest.mark.parametrize("label", LESSONS)
def test_a_lessons_page_loads_nothing(label: str, solved: dict[str, Result]) -> None:
    assert solved[label].notebook is not None
    assert loads((REPORTS / f"{label}.html").read_text(encoding="utf-8")) == []
