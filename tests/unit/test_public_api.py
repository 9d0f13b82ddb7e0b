"""What ``import jslab`` gives, and that everything public says what it does."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jslab
from jslab import errors

PACKAGE = Path(jslab.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "_course" not in path.parts)


def test_all_is_sorted_and_everything_in_it_is_there() -> None:
    assert jslab.__all__ == sorted(jslab.__all__)
    assert dir(jslab) == jslab.__all__
    for name in jslab.__all__:
        assert getattr(jslab, name) is not None


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'jslab' has no attribute 'begin'"):
        jslab.begin  # noqa: B018


def test_every_all_of_the_package_resolves_and_is_sorted() -> None:
    for path in MODULES:
        name = ".".join(["jslab", *path.relative_to(PACKAGE).with_suffix("").parts])
        module = importlib.import_module(name.removesuffix(".__init__"))
        listed = getattr(module, "__all__", [])
        assert listed == sorted(listed), name
        assert all(hasattr(module, entry) for entry in listed), name


def test_import_needs_neither_nats_nor_pandas() -> None:
    heavy = "{'nats', 'pandas', 'yaml', 'asyncio', 'IPython'}"
    code = f"import sys, jslab; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"


def test_help_needs_neither_nats_nor_pandas() -> None:
    code = (
        "import sys\nfrom jslab.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'nats', 'pandas', 'yaml', 'papermill', 'kubernetes'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert "usage:" in done.stdout
    assert done.stderr.strip() == "[]"


def definitions(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """Every public class, function and method of a module, and the module itself."""
    where = str(path.relative_to(PACKAGE))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield where, tree

    def inside(node: ast.AST, name: str) -> Iterator[tuple[str, ast.AST]]:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if child.name.startswith("_") or _says_it_elsewhere(child):
                continue
            yield f"{name}:{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from inside(child, f"{name}:{child.name}")

    yield from inside(tree, where)


def _says_it_elsewhere(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """An overload, a setter, and a signature of a Protocol that only repeats a class of ours."""
    names = {ast.unparse(decorator) for decorator in node.decorator_list}
    bare = len(node.body) == 1 and ast.unparse(node.body[0]) == "..."
    return bare or any(name.endswith(".setter") for name in names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_everything_public_says_what_it_does_in_its_first_line(path: Path) -> None:
    silent = []
    for name, node in definitions(path):
        assert isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        said = ast.get_docstring(node) or ""
        if isinstance(node, ast.Module) and not node.body:
            continue
        first = said.partition("\n")[0]
        if not re.fullmatch(r"\S.*[.:?)]", first):
            silent.append(f"{name}: {first!r}")
    assert silent == []


def tree_in_docstring() -> dict[str, tuple[str, set[str]]]:
    """The tree as drawn: name → (parent, other bases)."""
    found: dict[str, tuple[str, set[str]]] = {}
    ancestors = {0: "LabError"}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    ([│ ]*)[├└]── (\w+)\s+(?:\((\w+)\))?", line)
        if match:
            depth = len(match[1]) // 4 + 1
            ancestors[depth] = match[2]
            found[match[2]] = (ancestors[depth - 1], {match[3]} if match[3] else set())
    return found


def test_the_tree_drawn_in_errors_is_the_tree_of_its_classes() -> None:
    real = {
        name: (cls.__bases__[0].__name__, {base.__name__ for base in cls.__bases__[1:]})
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if cls is not errors.LabError
    }
    assert tree_in_docstring() == real
    assert issubclass(errors.LabError, Exception)


def test_an_error_says_what_was_seen_and_what_to_do() -> None:
    error = errors.DirectoryError("it failed", seen="this", do="that")
    assert str(error) == "it failed\n  seen: this\n  do:   that"
    assert str(errors.LabError("it failed")) == "it failed"
    assert (error.what, error.seen, error.do) == ("it failed", "this", "that")


def test_a_drift_lists_what_was_asked_and_what_there_is() -> None:
    error = errors.StreamDriftError("FLIGHTS", {"num_replicas": (3, 1), "max_age": (60, 0)})
    assert error.seen == (
        "num_replicas: you asked for 3, the stream has 1; max_age: you asked for 60, the stream has 0"
    )
    assert "update_stream(stream.config, max_age=60); await stream.scale(3)" in error.do
    assert "delete_stream('FLIGHTS')" in error.do
