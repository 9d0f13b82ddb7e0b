"""``jslab lab`` itself, without a browser: what it serves, what it leaves alone, and that it ends."""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jslab import course
from tests.labs import LabServer
from tests.waits import processes, until


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a kernel ``python3`` of another environment in it."""
    planted = tmp_path / ".local" / "share" / "jupyter" / "kernels" / "python3"
    planted.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "another", "language": "python"}
    (planted / "kernel.json").write_text(json.dumps(spec))
    return tmp_path


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., LabServer]]:
    started: list[LabServer] = []

    def start(*arguments: str) -> LabServer:
        started.append(LabServer(home, *arguments))
        return started[-1]

    yield start
    for server in started:
        server.stop()
    until(lambda: not processes(str(home)), 10)


def test_the_first_lesson_opens_with_this_environments_kernel_and_nothing_pops_up(
    start: Callable[..., LabServer], home: Path
) -> None:
    server = start()
    server.ready()

    address = server.address()
    assert address is not None
    assert address[2] == course.lessons()[0].path.name
    assert {path.name for path in (home / "copy").glob("*.ipynb")} == {
        lesson.path.name for lesson in course.lessons()
    }

    kernels = server.ask("/api/kernelspecs")
    assert (kernels["default"], list(kernels["kernelspecs"])) == ("python3", ["python3"])
    assert kernels["kernelspecs"]["python3"]["spec"]["argv"][0] == sys.executable

    news = server.ask("/lab/api/settings/@jupyterlab/apputils-extension:notification")
    defaults = {name: value["default"] for name, value in news["schema"]["properties"].items()}
    assert defaults["fetchNews"] == "false"
    assert defaults["checkForUpdates"] is False

    assert not (home / ".jupyter").exists(), "the user's own configuration was touched"


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_at_once_with_its_kernels(
    start: Callable[..., LabServer], home: Path, ending: signal.Signals
) -> None:
    server = start("--no-browser")
    server.ready()
    kernel = server.ask("/api/kernels", {"name": "python3"})["id"]
    assert len(processes(kernel)) == 1
    server.process.send_signal(ending)
    assert server.process.wait(20) == 0, server.log.read_text()
    assert processes(kernel) == []


def test_a_killed_server_takes_its_kernels_along(start: Callable[..., LabServer], home: Path) -> None:
    server = start("--no-browser")
    server.ready()
    kernel = server.ask("/api/kernels", {"name": "python3"})["id"]
    server.process.kill()
    until(lambda: not processes(kernel), 10)


def test_another_port_is_taken_when_8888_is_not_free(start: Callable[..., LabServer]) -> None:
    try:
        taken = socket.create_server(("127.0.0.1", 8888))
    except OSError:  # somebody's JupyterLab has it already, which is the case in question
        taken = socket.socket()
    with taken:
        server = start("--no-browser")
        server.ready()
        address = server.address()
        assert address is not None
        assert address[1] != "8888"


def test_a_named_port_that_is_taken_is_one_clear_error(start: Callable[..., LabServer]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start("--port", str(port))
        assert server.process.wait(30) == 2
    said = server.log.read_text()
    assert f"port {port} is taken" in said
    assert not (server.log.parent / "copy").exists(), "nothing is copied for nothing"
    assert "Traceback" not in said


def test_a_directory_that_cannot_be_written_is_one_clear_error(
    start: Callable[..., LabServer], home: Path
) -> None:
    (home / "copy").write_text("in the way")
    server = start("--no-browser")
    assert server.process.wait(30) == 2
    assert str(home / "copy") in server.log.read_text()
