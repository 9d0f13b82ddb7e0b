"""What can be set from outside, and what happens when it makes no sense."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from jslab import settings
from jslab.errors import CourseError, DirectoryError, SettingsError
from jslab.lab import start
from jslab.settings import Settings


def test_nothing_set_is_the_embedded_lab() -> None:
    assert settings.read({}) == Settings()
    assert Settings().backend == "embedded"


def test_everything_set(tmp_path: Path) -> None:
    read = settings.read(
        {
            "JSLAB_BACKEND": "kubernetes",
            "JSLAB_CONTEXT": "team",
            "JSLAB_NAMESPACE": "course",
            "JSLAB_MANIFESTS": str(tmp_path / "manifests"),
            "JSLAB_DATA": str(tmp_path / "data"),
            "JSLAB_TIMEOUT": "2.5",
            "JSLAB_SERVER": str(tmp_path / "nats-server"),
            "JSLAB_STATE": str(tmp_path / "state"),
        }
    )
    assert read == Settings(
        backend="kubernetes",
        context="team",
        namespace="course",
        manifests=tmp_path / "manifests",
        data=tmp_path / "data",
        timeout=2.5,
        server=tmp_path / "nats-server",
        state=tmp_path / "state",
    )


def test_an_empty_variable_is_an_unset_one() -> None:
    assert settings.read(dict.fromkeys(("JSLAB_BACKEND", "JSLAB_DATA", "JSLAB_TIMEOUT"), "")) == Settings()


def test_paths_are_made_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert settings.read({"JSLAB_DATA": "here"}).data == tmp_path / "here"
    assert settings.read({"JSLAB_DATA": "~/there"}).data == tmp_path / "home" / "there"


def test_an_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="JSLAB_BACKEND names no backend") as caught:
        settings.read({"JSLAB_BACKEND": "docker"})
    assert caught.value.seen == "'docker'"
    assert caught.value.do == "use one of embedded, kind, kubernetes"
    with pytest.raises(SettingsError, match=r"start\(\) names no backend"):
        start("docker")


@pytest.mark.parametrize("value", ["soon", "0", "-1", "inf", "nan"])
def test_a_timeout_that_is_no_number_of_seconds(value: str) -> None:
    with pytest.raises(SettingsError, match="JSLAB_TIMEOUT is no number of seconds") as caught:
        settings.read({"JSLAB_TIMEOUT": value})
    assert caught.value.seen == (repr(value) if value == "soon" else repr(float(value)))


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_timeout_argument_that_is_no_number_of_seconds(seconds: float) -> None:
    with pytest.raises(SettingsError, match="timeout"):
        start(timeout=seconds)


def test_the_state_folder_is_made_private(tmp_path: Path) -> None:
    folder = settings.state_dir(Settings(state=tmp_path / "a" / "b"))
    assert folder == tmp_path / "a" / "b"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert settings.state_dir(Settings(state=folder)) == folder


def test_by_default_it_is_one_folder_per_user_in_the_temp_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert settings.state_dir(Settings()) == tmp_path / f"jslab-{os.getuid()}"


@pytest.mark.parametrize("place", ["file/state", "file", "/proc/jslab"])
def test_a_state_folder_that_cannot_be_made(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    wanted = tmp_path / place  # an absolute place stays as it is
    with pytest.raises(DirectoryError) as caught:
        settings.state_dir(Settings(state=wanted))
    assert str(wanted) in caught.value.what
    assert caught.value.seen
    assert "JSLAB_STATE" in caught.value.do


def test_a_state_folder_nobody_can_write_to() -> None:
    # Permission bits do not bind root, and root owns this one; still nobody can make a file there.
    with pytest.raises(DirectoryError, match="cannot be written to"):
        settings.state_dir(Settings(state=Path(f"/proc/{os.getpid()}/net")))


def test_a_link_put_where_the_state_folder_should_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In a temp directory that everyone can write to, the link may be somebody else's.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"jslab-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DirectoryError, match="is not yours") as caught:
        settings.state_dir(Settings())
    assert "a link" in caught.value.seen


def test_a_state_folder_of_somebody_else(tmp_path: Path) -> None:
    folder, owner = Path("/"), 0
    if os.getuid() == 0:  # only root can give a folder away
        folder, owner = tmp_path, 12345
        os.chown(folder, owner, -1)
    with pytest.raises(DirectoryError, match="is not yours") as caught:
        settings.state_dir(Settings(state=folder))
    assert caught.value.seen == f"owner {owner}, you are {os.getuid()}"


@pytest.mark.parametrize("name", ["notebooks", "exercises", "manifests"])
def test_the_course_is_found(name: str) -> None:
    assert any(settings.course_folder(name).iterdir())


def test_a_part_of_the_course_that_is_missing_is_named() -> None:
    with pytest.raises(CourseError, match="the course's songs are not installed") as caught:
        settings.course_folder("songs")
    assert "songs" in caught.value.seen
