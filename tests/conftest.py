"""Fixtures for every test: one option picks the backend, and nothing is left behind."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from jslab import settings
from jslab.deployment.process import lab_folders
from jslab.lab import Lab, start

# Each process of a run on kind has a cluster of its own, as one notebook at a time has a cluster's lab. Said
# here, before tests/kind/support.py reads it.
if "PYTEST_XDIST_WORKER" in os.environ and "JSLAB_KIND_CLUSTER" in os.environ:
    os.environ["JSLAB_KIND_CLUSTER"] += f"-{os.environ['PYTEST_XDIST_WORKER']}"


# Files that take half a minute and more, the longest first. They begin first in a parallel run: a process
# that gets one of them last keeps the others waiting.
SLOW = [
    "test_lessons.py",
    "test_own_clusters.py",
    "test_publishing.py",
    "test_replay.py",
    "test_consumers.py",
    "test_plain_context.py",
    "test_lifecycle.py",
    "test_exercises.py",
    "test_runner.py",
    "test_report_page.py",
    "test_live_views.py",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend", default="embedded", help="the backend that contract and course tests run on"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, and count as deselected, what is about another backend than this run's."""
    chosen = config.getoption("--backend")
    others = {"embedded", "kind"} - {chosen}
    elsewhere = [item for item in items if any(item.get_closest_marker(other) for other in others)]
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if item not in set(elsewhere)]
    items.sort(key=lambda item: SLOW.index(item.path.name) if item.path.name in SLOW else len(SLOW))


class Together(LoadScopeScheduling):
    """Gives a process of a parallel run whole files, each with a lab, and of the exercises whole lessons."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        lesson = re.search(r"\[(\d\d)[.\]]", test) if file.endswith("test_exercises.py") else None
        return f"{file}::{lesson[1]}" if lesson else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    config.option.loadscopereorder = False  # by the number of tests, which says little about the time
    return Together(config, log)


@pytest.fixture(scope="session", autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder of the test run's own, which must be empty again at its end."""
    folder = tmp_path_factory.mktemp("state")
    os.environ["JSLAB_STATE"] = str(folder)
    yield folder
    left = lab_folders(folder)
    assert not left, f"labs were left behind: {left}"


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> str:
    """The backend that this run is about."""
    return str(request.config.getoption("--backend"))


@pytest.fixture(scope="module")
async def shared_lab(state: Path, backend: str) -> AsyncIterator[Lab]:
    """One lab for all tests of a file; a shared deployment has one at a time."""
    async with start(backend) as lab:
        yield lab


@pytest.fixture
async def lab(shared_lab: Lab) -> AsyncIterator[Lab]:
    """The shared lab, without streams; faults are healed and streams removed afterwards."""
    yield shared_lab
    await shared_lab.faults.heal()
    await shared_lab.ready()
    for info in await shared_lab.js.streams_info():
        await shared_lab.js.delete_stream(str(info.config.name))


@pytest.fixture
def embedded_settings() -> settings.Settings:
    """Settings of an embedded lab in this run's state folder."""
    return settings.read()


@pytest.fixture
def edited(tmp_path: Path) -> Callable[[str, str, str], Path]:
    """Copy the course's manifests and replace a text in one file: ``edited("configmap.yaml", old, new)``."""

    def edit(file: str, old: str, new: str) -> Path:
        folder = tmp_path / "manifests"
        if not folder.exists():
            shutil.copytree(settings.course_folder("manifests"), folder)
        text = (folder / file).read_text(encoding="utf-8")
        assert old in text, f"{file} has no {old!r} to replace"
        (folder / file).write_text(text.replace(old, new, 1) if old else text, encoding="utf-8")
        return folder

    return edit
