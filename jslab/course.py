"""The lessons, and the learner's own copy of them.

The copy remembers the hash of every version of a lesson it was given. A file that still has one of those
hashes is as we gave it and may be replaced by a newer version; any other file, even one that was only run
and saved, is the learner's and is never written over.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from jslab.errors import CourseError, DirectoryError, ExerciseError
from jslab.settings import course_folder

DEFAULT_COPY = "jslab-course"
STATE = ".jslab"  # in the copy: what was given, and JupyterLab's open tabs


_LESSON_FILE = re.compile(r"(\d\d)_(\w+)\.ipynb")


@dataclass(frozen=True)
class Lesson:
    """One notebook of the course, or a notebook somebody named by its path."""

    number: str
    name: str
    path: Path

    @property
    def label(self) -> str:
        """The lesson in one word: ``00_start_here``."""
        return f"{self.number}_{self.name}" if self.number else self.name

    @cached_property
    def title(self) -> str:
        """The notebook's first heading, or the label when it has none."""
        for cell in self._notebook()["cells"]:
            heading = re.match(r"#+ +(.+)", "".join(cell.get("source", "")))
            if cell.get("cell_type") == "markdown" and heading:
                return heading[1].strip()
        return self.label

    @cached_property
    def needs(self) -> str | None:
        """The backend without which the lesson makes no sense, or None."""
        needs = self._notebook().get("metadata", {}).get("jslab", {}).get("needs")
        return needs if isinstance(needs, str) else None

    def _notebook(self) -> dict[str, Any]:
        try:
            loaded = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as err:
            raise CourseError(
                f"lesson {self.label} cannot be read",
                seen=f"{self.path}: {err}",
                do="install jslab again" if self.number else "name another notebook",
            ) from err
        cells = loaded.get("cells") if isinstance(loaded, dict) else None
        if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
            raise CourseError(f"{self.path} is not a notebook", do="name another notebook")
        return dict(loaded)


def lessons() -> list[Lesson]:
    """List the course's lessons in order.

    Raises CourseError when the installation has none.
    """
    folder = course_folder("notebooks")
    found = [
        Lesson(match[1], match[2], path)
        for path in sorted(folder.glob("*.ipynb"))
        if (match := _LESSON_FILE.fullmatch(path.name))
    ]
    if not found:
        raise CourseError(
            "no lessons are installed", seen=f"no NN_name.ipynb in {folder}", do="install jslab again"
        )
    return found


def choose(names: Sequence[str]) -> list[Lesson]:
    """Find lessons by number, by name or by the path of any notebook; no names mean the whole course.

    Raises ExerciseError for a lesson the course does not have.
    """
    return [_one(name) for name in names] if names else lessons()


def _one(name: str) -> Lesson:
    if name.endswith(".ipynb") and Path(name).is_file():
        path = Path(name).resolve()
        return Lesson("", path.stem, path)
    asked = name.removesuffix(".ipynb")
    known = lessons()
    for lesson in known:
        if asked in (lesson.number, lesson.label, lesson.name, lesson.number.removeprefix("0")):
            return lesson
    raise ExerciseError(
        f"there is no lesson {name!r}",
        seen="the course has " + ", ".join(lesson.label for lesson in known),
        do="name a lesson by its number, or give the path of a notebook",
    )


@dataclass
class CopyReport:
    """What a copy did: lists of file names."""

    directory: Path
    added: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    yours: list[str] = field(default_factory=list)
    """Edited or run by the learner; nothing newer exists."""
    outdated: list[str] = field(default_factory=list)
    """Edited or run by the learner, while the course now has another version."""

    def text(self) -> str:
        """Say what happened, a line a kind; one line when nothing did."""
        lines = [f"your copy of the course: {self.directory}"]
        if self.added:
            lines.append(f"  new:     {', '.join(self.added)}")
        if self.updated:
            lines.append(f"  updated: {', '.join(self.updated)}")
        if self.yours:
            lines.append(f"  yours:   {', '.join(self.yours)} (edited or run, left alone)")
        lines += [
            f"  kept:    {name} is yours and was left alone; there is a newer one: jslab reset {name[:2]}"
            for name in self.outdated
        ]
        return "\n".join(lines)


def find_copy(directory: str | os.PathLike[str] | None = None) -> Path:
    """Say where the learner's copy is or will be: as named, else here if this is one, else below."""
    if directory is not None:
        return Path(directory).expanduser().resolve()
    here = Path.cwd()
    return here if (here / STATE).is_dir() else here / DEFAULT_COPY


def copy_course(directory: str | os.PathLike[str] | None = None) -> CopyReport:
    """Bring the learner's copy up to date without ever writing over the learner's work.

    Adds what is missing and replaces what is still exactly as given. Safe to interrupt at any moment and
    to call again.

    Raises DirectoryError when the directory cannot be written.
    """
    target = find_copy(directory)
    report = CopyReport(target)
    with _writing(target) as given:
        for lesson in lessons():
            _bring(lesson, target / lesson.path.name, given, report)
    return report


def _bring(lesson: Lesson, file: Path, given: _Given, report: CopyReport) -> None:
    new = lesson.path.read_bytes()
    here = file.read_bytes() if file.exists() else None
    if here == new:
        given.add(file.name, new)
    elif here is None or given.has(file.name, here):
        # First remembered, then written: whatever interrupts us, the file has a remembered hash.
        given.add(file.name, new)
        _replace(file, new, given.folder)
        (report.added if here is None else report.updated).append(file.name)
    else:
        (report.yours if given.has(file.name, new) else report.outdated).append(file.name)


def reset(name: str, directory: str | os.PathLike[str] | None = None) -> str:
    """Put a lesson's original back and keep the learner's file beside it, with the time in its name.

    Returns what was done, in one sentence.

    Raises ExerciseError for an unknown lesson, DirectoryError when there is no copy or it cannot be written.
    """
    lesson = _one(name)
    target = find_copy(directory)
    if not (target / STATE).is_dir():
        raise DirectoryError(
            f"{target} is not a copy of the course",
            seen=f"no {STATE} folder in it",
            do=f"go to where your copy is, name it (jslab reset {name} --dir DIR), or make one: jslab lab",
        )
    file = target / lesson.path.name
    original = lesson.path.read_bytes()
    with _writing(target) as given:
        here = file.read_bytes() if file.exists() else None
        if here == original:
            return f"{file.name} is the original already"
        kept = None if here is None else _keep(file)
        given.add(file.name, original)
        _replace(file, original, given.folder)
    return f"{file.name} is the original again" + (f"; yours is {kept.name}" if kept else "")


def _keep(file: Path) -> Path:
    """Move the learner's file out of the way, never onto another."""
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    kept = file.with_name(f"{file.stem}.{stamp}.ipynb")
    for number in count(2):
        if not kept.exists():
            break
        kept = file.with_name(f"{file.stem}.{stamp}-{number}.ipynb")
    return file.rename(kept)


@dataclass
class _Given:
    """The hashes of every version of every file that this copy was given."""

    folder: Path
    hashes: dict[str, list[str]]

    @classmethod
    def load(cls, folder: Path) -> _Given:
        try:
            hashes = json.loads((folder / "given.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            hashes = {}  # unknown: every file that differs counts as the learner's
        return cls(folder, hashes if isinstance(hashes, dict) else {})

    def has(self, name: str, content: bytes) -> bool:
        return _hash(content) in self.hashes.get(name, [])

    def add(self, name: str, content: bytes) -> None:
        if not self.has(name, content):
            self.hashes.setdefault(name, []).append(_hash(content))
            _replace(self.folder / "given.json", json.dumps(self.hashes, indent=1).encode(), self.folder)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _replace(file: Path, content: bytes, parts: Path) -> None:
    """Write a file so that it is the old one or the new one at every moment, never a half."""
    handle, name = tempfile.mkstemp(dir=parts, prefix=file.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as part:
            part.write(content)
        os.chmod(name, 0o644)
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise


@contextmanager
def _writing(target: Path) -> Iterator[_Given]:
    """Open a copy for writing; an OSError on the way becomes an error that names the directory."""
    try:
        (target / STATE).mkdir(parents=True, exist_ok=True)
        yield _Given.load(target / STATE)
    except OSError as err:
        raise DirectoryError(
            f"the course cannot be written to {target}",
            seen=str(err),
            do="name a directory that you may write to: jslab lab DIR",
        ) from err
