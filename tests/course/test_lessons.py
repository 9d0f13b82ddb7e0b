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
from jslab.deployment import SHARED
from jslab.exercises import definition
from jslab.results import Result, Verdict, verdicts
from tests.offline import loads

LESSONS = {lesson.label: lesson for lesson in course.lessons()}

# Seconds that a lesson may take: on embedded, and on a shared backend, where a killed server is a new pod.
LONGEST, LONGEST_SHARED = 60, 120
# Lessons mostly wait for servers: more than one fits on a processor. A shared backend has one at a time.
JOBS = 4
# Lessons that may take longer there: 02 deploys what the others find deployed.
LONGER = {"02": 180}

NBMAKE = f"--nbmake --overwrite -q -c {os.devnull} -p no:cacheprovider"

REPORTS = Path(__file__).parents[2] / "reports" / "course"


def chosen(backend: str) -> list[str]:
    """Name the lessons of a run on this backend; what needs another is for the tests of that one."""
    return [
        label for label, lesson in LESSONS.items() if not lesson.needs or runner.offers(backend, lesson.needs)
    ]


def as_they_are(backend: str) -> list[str]:
    """Name the lessons to run without solutions: on a shared backend those that run nowhere else."""
    return [label for label in chosen(backend) if backend not in SHARED or LESSONS[label].needs]


def longest(backend: str, label: str) -> int:
    if backend not in SHARED:
        return LONGEST
    return LONGER.get(LESSONS[label].number, LONGEST_SHARED)


def patience(backend: str) -> int:
    """Seconds for one test: the first of all waits until every lesson has run, with its cells twice."""
    return max(600, 2 * sum(longest(backend, label) for label in chosen(backend)))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have each test once for every lesson that this run's backend can run."""
    if "label" in metafunc.fixturenames:
        backend = metafunc.config.getoption("--backend")
        limit = pytest.mark.timeout(patience(backend))
        labels = as_they_are(backend) if "twice" in metafunc.fixturenames else chosen(backend)
        metafunc.parametrize("label", [pytest.param(label, marks=limit) for label in labels])


@pytest.fixture(scope="module")
def solved(backend: str) -> dict[str, Result]:
    """The course run by jslab's own runner, with the solutions where the learner would write."""
    labels = chosen(backend)
    options = runner.Options(
        backends=(backend,),
        solutions=True,
        jobs=JOBS,
        cell_timeout=max(longest(backend, label) for label in labels),
    )
    ran = runner.run([LESSONS[label] for label in labels], options, REPORTS)
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
        notebook = doubled(label, folder, backend)
        limit = f"--nbmake-timeout={longest(backend, label)}"
        nbmake = subprocess.run(
            [sys.executable, "-m", "pytest", *NBMAKE.split(), limit, "--rootdir", folder, notebook],
            env=os.environ | {"JSLAB_BACKEND": backend, "JUPYTER_PREFER_ENV_PATH": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        complaint = reports.plain(nbmake.stdout + nbmake.stderr) if nbmake.returncode else ""
        return Twice(complaint, verdicts(nbformat.read(notebook, as_version=4)))

    labels = as_they_are(backend)
    with ThreadPoolExecutor(1 if backend in SHARED else JOBS) as pool:
        return dict(zip(labels, pool.map(run, labels), strict=True))


def doubled(label: str, folder: Path, backend: str) -> Path:
    """Write a lesson with its cells twice; once on a shared backend, where pods take their time."""
    notebook = json.loads(LESSONS[label].path.read_text(encoding="utf-8"))
    again = [] if backend in SHARED else copy.deepcopy(notebook["cells"])
    for cell in again:
        cell["id"] += "-again"
    notebook["cells"] += again
    file = folder / f"{label}.ipynb"
    file.write_text(json.dumps(notebook), encoding="utf-8")
    return file


def its_exercises(label: str) -> list[str]:
    number = LESSONS[label].number
    return sorted(definition.load(number).exercises) if number in definition.numbers() else []


def test_a_lesson_runs_blank_and_twice_in_one_kernel_and_each_exercise_says_what_is_missing(
    label: str, twice: dict[str, Twice]
) -> None:
    assert not twice[label].complaint, twice[label].complaint
    assert {verdict.exercise: verdict.ok for verdict in twice[label].verdicts} == dict.fromkeys(
        its_exercises(label), False
    )


def test_a_lessons_own_solutions_solve_it(label: str, backend: str, solved: dict[str, Result]) -> None:
    result = solved[label]
    assert result.status == "passed", result.reason
    assert {verdict.exercise: verdict.ok for verdict in result.verdicts} == dict.fromkeys(
        its_exercises(label), True
    )
    assert result.seconds <= longest(backend, label)


def test_a_lessons_page_loads_nothing(label: str, solved: dict[str, Result]) -> None:
    notebook = solved[label].notebook
    assert notebook is not None
    assert loads(notebook.with_suffix(".html").read_text(encoding="utf-8")) == []
