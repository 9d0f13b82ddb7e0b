"""The backend kind on a machine that lacks something: one clear error, whichever command it is.

Needs neither Docker nor kind: where a test needs the program, it is a script that says what Docker says.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jslab import cli
from jslab.errors import ToolError
from jslab.lab import start

Put = Callable[[str, str], None]

# What each version of the docker command says when no daemon listens, and when it may not be asked.
NO_DAEMON = {
    "20": "Cannot connect to the Docker daemon at unix:///nowhere. Is the docker daemon running?",
    "29": "failed to connect to the docker API at unix:///nowhere; check if the path is correct and if the "
    "daemon is running: dial unix /nowhere: connect: no such file or directory",
    "desktop": "error during connect: this error may indicate that the docker daemon is not running",
}
NO_RIGHT = {
    "20": "permission denied while trying to connect to the Docker daemon socket at unix:///nowhere",
    "29": "permission denied while trying to connect to the docker API at unix:///nowhere",
}
# Standing in for a program that works.
FINE = "exit 0"


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Let PATH hold nothing but the programs that the test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("JSLAB_STATE", str(tmp_path / "state"))

    def program(name: str, does: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / name).chmod(0o755)

    return program


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], state: Path) -> str:
    """Run a command that must fail, and return what it says, which must be all there is."""
    assert cli.main([*arguments, "--backend", "kind"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jslab: ")
    assert [line.split(":")[0].strip() for line in err.splitlines()[1:]] == ["seen", "do"]
    assert not list(state.glob("*.creating"))
    return err


COMMANDS = [["up"], ["up", "--offline"], ["status"], ["down"], ["down", "--yes"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_docker(command: list[str], put: Put, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    put("kind", FINE)
    said = refused(command, capsys, tmp_path / "state")
    assert "there is no docker on this machine" in said
    assert f"not on PATH: {os.environ['PATH']}" in said
    assert "embedded" in said


@pytest.mark.parametrize("version", NO_DAEMON)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_docker_does_not_run(
    command: list[str], version: str, put: Put, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    put("docker", f"echo '{NO_DAEMON[version]}' >&2; exit 1")
    put("kind", FINE)
    said = refused(command, capsys, tmp_path / "state")
    assert "Docker is not running" in said
    assert NO_DAEMON[version] in said
    assert "start it" in said


@pytest.mark.parametrize("version", NO_RIGHT)
def test_docker_is_not_for_this_user(
    version: str, put: Put, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    put("docker", f"echo '{NO_RIGHT[version]}' >&2; exit 1")
    put("kind", FINE)
    said = refused(["up"], capsys, tmp_path / "state")
    assert "Docker does not let you use it" in said
    assert NO_RIGHT[version] in said
    assert "join the group docker" in said


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_kind(command: list[str], put: Put, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    put("docker", FINE)
    said = refused(command, capsys, tmp_path / "state")
    assert "there is no kind on this machine" in said
    assert "https://kind.sigs.k8s.io" in said


@pytest.mark.asyncio(loop_scope="function")
async def test_a_notebook_is_told_the_same(put: Put) -> None:
    put("docker", FINE)
    with pytest.raises(ToolError, match="there is no kind on this machine"):
        await start("kind")


def test_a_program_that_fails_is_quoted(put: Put, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    put("docker", FINE)
    put("kind", "echo 'ERROR: no space left on device' >&2; exit 1")
    said = refused(["up"], capsys, tmp_path / "state")
    assert "`kind get clusters` failed" in said
    assert "no space left on device" in said


def test_a_create_that_fails_leaves_no_intent_behind(
    put: Put, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """It would make the next jslab take a cluster of that name for its own, and delete it."""
    put("docker", FINE)
    put("kind", '[ "$1" = get ] || { echo "ERROR: no such image" >&2; echo "its log" >&2; exit 1; }')
    assert cli.main(["up", "--backend", "kind"]) == 2
    said = capsys.readouterr().err
    assert "`kind create cluster --config` failed" in said
    assert "no such image" in said
    assert "its log" not in said
    assert not list((tmp_path / "state").glob("*.creating"))
