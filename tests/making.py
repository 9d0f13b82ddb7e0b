"""Small notebooks for tests, in the shape that the lessons have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def cell(source: str, *tags: str, kind: str = "code", **metadata: Any) -> dict[str, Any]:
    made = {
        "cell_type": kind,
        "metadata": metadata | ({"tags": list(tags)} if tags else {}),
        "source": source.splitlines(keepends=True),
    }
    return made | ({"outputs": [], "execution_count": None} if kind == "code" else {})


def write_notebook(path: Path, *sources: str | dict[str, Any], needs: str | None = None) -> Path:
    """Write a lesson with a title, a parameters cell, and one code cell for each source."""
    cells = [
        cell(f"# The lesson {path.stem}", kind="markdown"),
        cell("backend = None", "parameters"),
        *(source if isinstance(source, dict) else cell(source) for source in sources),
    ]
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"},
            "jslab": {"needs": needs} if needs else {},
        },
        "cells": [made | {"id": f"cell-{number}"} for number, made in enumerate(cells)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path
