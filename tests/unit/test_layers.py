"""Imports go downward only. The order below is the architecture; a module in no layer fails."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "jslab"

# Bottom first. A module may import from the layers below its own, never from its own or from above.
LAYERS = [
    {"errors"},
    {"settings", "waiting", "subjects", "drift"},
    {"views", "departures", "connection"},
    {"wire"},
    {"pulls"},
    {"deployment"},
    {"publishing", "replay", "stream_config", "replication"},
    {"consumers"},
    {"streams", "faults", "trial"},
    {"glance", "sparklines", "screen"},
    {"live", "player", "ledger", "exercises", "monitoring"},
    {"lab"},
    {"course", "kernels"},
    {"results", "executor", "labserver"},
    {"reports"},
    {"pages"},
    {"runner", "servers", "doctor"},
    {"shared", "doctor_docker"},
    {"doctor_cluster"},
    {"cli"},
    {"__main__"},
]
LAYER = {module: number for number, layer in enumerate(LAYERS) for module in layer}


def modules(package: Path) -> Iterator[tuple[str, Path]]:
    """Every module file with the layer name it belongs to; a subpackage is one layer."""
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts[0] != "_course":
            yield parts[0], path


def imported(path: Path, package: Path) -> Iterator[tuple[str, int]]:
    """Each jslab module that a file imports, wherever in the file, with its line."""
    here = ["jslab", *path.relative_to(package).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{source}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "jslab":
                yield (parts[1] if len(parts) > 1 else "__init__"), node.lineno


def wrong_imports(package: Path) -> list[str]:
    found = []
    for module, path in modules(package):
        where = path.relative_to(package)
        if module == "__init__":
            continue  # it names the public API lazily, and nobody below may import it: see the last branch
        if module not in LAYER:
            found.append(f"{where}: module {module} is in no layer; give it one in {Path(__file__).name}")
            continue
        for name, line in imported(path, package):
            if name == module:
                continue
            if name not in LAYER:
                found.append(f"{where}:{line}: imports jslab.{name}, which is in no layer")
            elif LAYER[name] >= LAYER[module]:
                found.append(f"{where}:{line}: {module} imports {name}, which is not below it")
    return found


def test_imports_go_downward_only() -> None:
    assert wrong_imports(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("views.py", "from jslab import lab", "views imports lab, which is not below it"),
        ("views.py", "from . import lab", "views imports lab, which is not below it"),
        ("views.py", "def f():\n    import jslab.lab", "views imports lab, which is not below it"),
        (
            "views.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .lab import Lab",
            "views imports lab, which is not below it",
        ),
        ("deployment/embedded.py", "from ..streams import Stream", "deployment imports streams"),
        ("deployment/embedded.py", "from jslab.streams import Stream", "deployment imports streams"),
        ("streams.py", "import jslab", "imports jslab.__init__, which is in no layer"),
        ("helpers.py", "", "module helpers is in no layer"),
    ],
)
def test_an_upward_import_is_found_wherever_it_hides(
    tmp_path: Path, file: str, source: str, complaint: str
) -> None:
    package = tmp_path / "jslab"
    (package / file).parent.mkdir(parents=True)
    (package / file).write_text(source)
    (found,) = wrong_imports(package)
    assert complaint in found


def test_a_downward_import_and_one_inside_a_subpackage_are_fine(tmp_path: Path) -> None:
    package = tmp_path / "jslab"
    (package / "deployment").mkdir(parents=True)
    (package / "deployment" / "embedded.py").write_text("from .process import Child\nfrom .. import errors\n")
    (package / "deployment" / "process.py").write_text("")
    (package / "lab.py").write_text("import asyncio\nfrom jslab.streams import Stream\n")
    assert wrong_imports(package) == []
