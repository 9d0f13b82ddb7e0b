"""What every lesson file must be: clean, small cells, a lesson of prose, nothing that breaks a kernel."""

from __future__ import annotations

import copy
import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FORBIDDEN = {
    r"\basyncio\.run\(": "a notebook already runs a loop: await instead",
    r"\bnest_asyncio": "nested loops drop queued cells",
    r"\btime\.sleep\(": "it stops every task in the kernel; wait for a condition instead",
    r"\bwith\s+[\w.]*Output\(": "an Output context swallows exceptions",
}
WORDS = range(600, 1501)

Notebook = dict[str, Any]


def source(cell: Notebook) -> str:
    return "".join(cell["source"])


def lines(cell: Notebook) -> int:
    return len([line for line in source(cell).splitlines() if line.strip()])


def structure(notebook: Notebook) -> list[str]:
    wrong = []
    if (notebook["nbformat"], notebook["nbformat_minor"]) != (4, 5):
        wrong.append("not nbformat 4.5")
    ids = [cell.get("id") for cell in notebook["cells"]]
    if None in ids or len(set(ids)) != len(ids):
        wrong.append("cell ids are missing or not unique")
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        wrong.append("the kernel is not python3")
    if notebook["metadata"].get("kernelspec", {}).get("language") != "python":
        wrong.append("the metadata names no language, so papermill refuses it")
    if "widgets" in notebook["metadata"]:
        wrong.append("widget state is saved")
    return wrong


def cleanliness(notebook: Notebook) -> list[str]:
    wrong = []
    for cell in notebook["cells"]:
        if cell.get("outputs") or cell.get("execution_count"):
            wrong.append(f"{cell['id']}: outputs or an execution count are saved")
        if "raises-exception" in cell["metadata"].get("tags", []):
            wrong.append(f"{cell['id']}: the runners disagree about raises-exception; catch it in the cell")
        if not source(cell).strip():
            wrong.append(f"{cell['id']}: an empty cell")
        if cell["cell_type"] == "code":
            wrong += [
                f"{cell['id']}: {why}" for what, why in FORBIDDEN.items() if re.search(what, source(cell))
            ]
    return wrong


def parameters(notebook: Notebook) -> list[str]:
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    if tagged != code[:1]:
        return ["the first code cell, and no other, must be tagged parameters"]
    assigned = re.search(r"^backend = None\b", source(code[0]), re.MULTILINE)
    return [] if assigned else ["the parameters cell does not say backend = None"]


def size(notebook: Notebook) -> list[str]:
    wrong = []
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    wrong += [f"{cell['id']}: {lines(cell)} lines, at most 12" for cell in code if lines(cell) > 12]
    median = statistics.median(lines(cell) for cell in code)
    if median > 4:
        wrong.append(f"the median code cell has {median} lines, at most 4")
    words = sum(len(source(cell).split()) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    if words not in WORDS:
        wrong.append(f"{words} words of prose, from {WORDS.start} to {WORDS.stop - 1}")
    return wrong


def self_contained(notebook: Notebook) -> list[str]:
    """The learner gets the notebook alone: a file beside it would be missing in the copy."""
    wrong = []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "markdown":
            continue
        images = re.findall(r"!\[[^]]*\]\(([^)]+)\)|<img[^>]*src=[\"']?([^\"' >]+)", source(cell))
        targets = [target for pair in images for target in pair if target]
        wrong += [f"{cell['id']}: the picture {t[:40]} is not in it" for t in targets if t[:5] != "data:"]
    return wrong


RULES = [structure, cleanliness, parameters, size, self_contained]


def wrong_with(notebook: Notebook) -> list[str]:
    return [problem for rule in RULES for problem in rule(notebook)]


def test_there_are_lessons_numbered_without_a_double() -> None:
    numbers = [path.name[:3] for path in NOTEBOOKS]
    assert numbers, "notebooks/ is empty"
    assert all(re.fullmatch(r"\d\d_", number) for number in numbers)
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_lesson_keeps_the_rules(path: Path) -> None:
    assert wrong_with(json.loads(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_exercises_are_the_lessons_own_and_marked_once(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    marks = [cell["metadata"].get("jslab", {}).get("exercise") for cell in cells]
    exercises = [mark for mark in marks if mark]
    assert exercises == [f"{path.name[:2]}.{n}" for n in range(1, len(exercises) + 1)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_readme_promises_the_minutes_that_the_lesson_does(path: Path) -> None:
    title = source(json.loads(path.read_text(encoding="utf-8"))["cells"][0])
    (minutes,) = re.findall(r"About (\d+) minutes", title)
    row = rf"^\| \[{path.name[:2]} .*\]\(notebooks/{path.name}\) \| .* \| {minutes} \| "
    assert re.search(row, (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)


def good_notebook() -> Notebook:
    def cell(kind: str, cell_id: str, text: str, **metadata: Any) -> Notebook:
        made = {
            "cell_type": kind,
            "id": cell_id,
            "metadata": metadata,
            "source": text.splitlines(keepends=True),
        }
        return made | ({"outputs": [], "execution_count": None} if kind == "code" else {})

    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}},
        "cells": [
            cell("markdown", "title", "# A lesson\n\n" + "word " * 700),
            cell("code", "params", "backend = None  # the tests pass one", tags=["parameters"]),
            cell("code", "run", "1 + 1"),
        ],
    }


def test_a_good_notebook_has_nothing_wrong() -> None:
    assert wrong_with(good_notebook()) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda n: n.update(nbformat_minor=4), "nbformat 4.5"),
        (lambda n: n["cells"][1].update(id="title"), "not unique"),
        (lambda n: n["cells"][1].update(id=None), "missing"),
        (lambda n: n["metadata"]["kernelspec"].pop("language"), "no language"),
        (lambda n: n["metadata"].update(kernelspec={"name": "mine", "language": "python"}), "not python3"),
        (lambda n: n["metadata"].update(widgets={}), "widget state"),
        (lambda n: n["cells"][2].update(outputs=[{}]), "outputs"),
        (lambda n: n["cells"][2].update(execution_count=3), "execution count"),
        (lambda n: n["cells"][2].update(metadata={"tags": ["raises-exception"]}), "raises-exception"),
        (lambda n: n["cells"][2].update(source=[" "]), "empty cell"),
        (lambda n: n["cells"][2].update(source=["asyncio.run(f())"]), "already runs a loop"),
        (lambda n: n["cells"][2].update(source=["import nest_asyncio"]), "nested loops"),
        (lambda n: n["cells"][2].update(source=["time.sleep(1)"]), "stops every task"),
        (lambda n: n["cells"][2].update(source=["with widgets.Output() as o:"]), "swallows"),
        (lambda n: n["cells"][2].update(source=["with Output():"]), "swallows"),
        (lambda n: n["cells"][1].update(metadata={}), "tagged parameters"),
        (lambda n: n["cells"][2].update(metadata={"tags": ["parameters"]}), "no other"),
        (lambda n: n["cells"][1].update(source=["backend = 'kind'"]), "backend = None"),
        (lambda n: n["cells"][2].update(source=["a = 1\n"] * 13), "at most 12"),
        (lambda n: [cell.update(source=["a = 1\n"] * 5) for cell in n["cells"][1:]], "median"),
        (lambda n: n["cells"][0].update(source=["word " * 599]), "599 words"),
        (lambda n: n["cells"][0].update(source=["word " * 1501]), "1501 words"),
        (lambda n: n["cells"][0]["source"].append("![map](map.png)"), "map.png"),
        (lambda n: n["cells"][0]["source"].append("<img alt='x' src='https://host/a.png'>"), "https://host"),
    ],
)
def test_each_rule_finds_its_fault(change: Any, complaint: str) -> None:
    notebook = copy.deepcopy(good_notebook())
    change(notebook)
    assert any(complaint in problem for problem in wrong_with(notebook))
