"""The built wheel in an environment of its own, far from any checkout: the course travels inside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from jslab import course
from tests.labs import LabServer
from tests.waits import processes, until

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(240)


def call(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it; dependencies come from this one, jslab does not."""
    folder = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("jslab-*.whl")
    call(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel, cwd=folder)
    own = Path(
        call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    os.symlink(Path(sysconfig.get_path("scripts")) / "nats-server", python.parent / "nats-server")
    home = call(python, "-c", "import jslab; print(jslab.__file__)", cwd=folder)
    assert home.startswith(str(own)), home
    return python


def test_the_wheel_has_the_whole_course(python: Path, tmp_path: Path) -> None:
    listed = call(python, "-c", "from jslab import course; print(*course.lessons())", cwd=tmp_path)
    for lesson in course.lessons():
        assert lesson.path.name in listed
    shown = json.loads(call(python.parent / "jslab", "doctor", "--json", cwd=tmp_path))
    assert shown["ok"], shown
    assert len(shown["manifests"]) > 50


def test_the_wheel_runs_a_lesson_and_solves_it_from_an_empty_directory(python: Path, tmp_path: Path) -> None:
    said = call(python.parent / "jslab", "run", "00", "--solutions", cwd=tmp_path)
    assert "1 passed, 0 failed" in said
    assert list(tmp_path.iterdir()) == []


def test_the_wheel_opens_the_lab_from_an_empty_directory(python: Path, tmp_path: Path) -> None:
    server = LabServer(tmp_path, "--no-browser", python=python)
    try:
        server.ready()
        kernels = server.ask("/api/kernelspecs")["kernelspecs"]
        assert kernels["python3"]["spec"]["argv"][0] == str(python)
        listed = {entry["name"] for entry in server.ask("/api/contents")["content"]}
        assert listed == {lesson.path.name for lesson in course.lessons()}
        server.process.terminate()
        assert server.process.wait(20) == 0
    finally:
        server.stop()
    until(lambda: not processes(str(tmp_path)), 10)
