"""How a lesson went: read from its executed notebook, kept as plain records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jslab.course import Lesson

VERDICT = "application/vnd.jslab.verdict+json"

Status = Literal["passed", "failed", "cannot", "elsewhere"]


@dataclass(frozen=True)
class Verdict:
    """What a check said about an exercise, the last time it was asked."""

    exercise: str
    ok: bool
    text: str

    @property
    def mark(self) -> str:
        """The verdict in one character."""
        return "✓" if self.ok else "✗"

    @property
    def line(self) -> str:
        """The verdict as one line: mark, exercise, text."""
        return f"{self.mark} {self.exercise} {self.text}"


@dataclass(frozen=True)
class Cell:
    """A code cell that ran: its first line and how long it took, in seconds."""

    first_line: str
    seconds: float


@dataclass(frozen=True)
class Result:
    """How one lesson went on one backend."""

    lesson: Lesson
    status: Status
    """``cannot``: this machine cannot run labs. ``elsewhere``: the lesson needs another backend."""
    seconds: float = 0.0
    reason: str = ""
    verdicts: tuple[Verdict, ...] = ()
    slowest: Cell | None = None
    notebook: Path | None = None
    """The executed notebook, as far as it came."""
    backend: str = "embedded"


def backends(results: Sequence[Result]) -> list[str]:
    """Name the backends of a run, in its order."""
    return list(dict.fromkeys(result.backend for result in results))


def called(lesson: Lesson, backend: str, backends: Sequence[str]) -> str:
    """Name a lesson where a run reports on it: with its backend where that is one of several."""
    return f"{lesson.label} on {backend}" if len(backends) > 1 else lesson.label


def by_lesson(results: Sequence[Result]) -> list[tuple[Result, ...]]:
    """Put together, lesson by lesson, what a run found on each of its backends."""
    # By position, not by label: somebody may run a lesson twice, or two notebooks of one name.
    columns = [[result for result in results if result.backend == backend] for backend in backends(results)]
    return list(zip(*columns, strict=True))


def parity(ran: Sequence[Result]) -> str:
    """Say in words whether a lesson's results on several backends agree; times are not compared."""
    compared = [result for result in ran if result.status in ("passed", "failed")]
    where = [result.backend for result in compared]
    unable = [result.backend for result in ran if result.status == "cannot"]
    if differences := _differences(compared):
        return f"differs: {'; '.join(differences)}"
    if unable:  # a missing tool or a held lease says nothing about the lesson
        return f"not compared: cannot run on {' and '.join(unable)}"
    if not compared:
        return f"needs {ran[0].lesson.needs}"
    if len(compared) == 1:
        return f"only on {where[0]}"
    return "same" if len(compared) == len(ran) else f"same on {' and '.join(where)}"


def _differences(compared: Sequence[Result]) -> list[str]:
    """Say where results differ: in their status, and in the verdicts on their exercises."""
    statuses = _across(compared, [result.status for result in compared])
    marks = [{verdict.exercise: verdict.mark for verdict in result.verdicts} for result in compared]
    alike: dict[str, list[str]] = {}  # exercises that differ in the same way are told together
    for exercise in sorted({exercise for marked in marks for exercise in marked}):
        told = _across(compared, [marked.get(exercise, "not checked") for marked in marks])
        alike.setdefault(told, []).append(exercise)
    alike.pop("", None)
    told_together = [f"{' '.join(names)} {told}" for told, names in alike.items()]
    return [statuses, *told_together] if statuses else told_together


def _across(compared: Sequence[Result], words: Sequence[str]) -> str:
    """Give each backend its word; nothing where all have the same."""
    if len(set(words)) < 2:
        return ""
    return ", ".join(f"{word} on {result.backend}" for result, word in zip(compared, words, strict=True))


def exit_code(results: Sequence[Result]) -> int:
    """Answer 0 when what can run here passed, 1 when a lesson failed, 2 when this machine cannot run them."""
    statuses = [result.status for result in results]
    if "failed" in statuses:
        return 1
    return 0 if "passed" in statuses and "cannot" not in statuses else 2


def verdicts(notebook: Any) -> tuple[Verdict, ...]:
    """Read the last verdict on each exercise from an executed notebook's outputs."""
    last: dict[str, Verdict] = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if told := output.get("data", {}).get(VERDICT):
                last[told["exercise"]] = Verdict(told["exercise"], bool(told["ok"]), str(told["text"]))
    return tuple(last[exercise] for exercise in sorted(last))


def slowest(notebook: Any) -> Cell | None:
    """Find the code cell that took longest."""
    cells = [Cell(_first_line(cell), _duration(cell)) for cell in notebook.cells if cell.cell_type == "code"]
    return max(cells, key=lambda cell: cell.seconds, default=None)


def _duration(cell: Any) -> float:
    return float(cell.metadata.get("papermill", {}).get("duration") or 0.0)


def exercises(notebook: Any) -> list[str]:
    """Name the exercises whose cells a notebook marks."""
    marks = [cell.metadata.get("jslab", {}).get("exercise") for cell in notebook.cells]
    return [mark for mark in marks if mark]


def where_it_stopped(notebook: Any) -> str:
    """Say which cell failed, by its number and first line, and what it printed last."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.metadata.get("papermill", {}).get("status") == "failed":
            printed = "".join(out.text for out in cell.outputs if out.output_type == "stream").splitlines()
            lines = [
                f"in cell {cell.id}: {_first_line(cell)}",
                *(f"printed: {line}" for line in printed[-3:]),
            ]
            return "\n".join(lines)
    return ""


def _first_line(cell: Any) -> str:
    return str(cell.source).strip().partition("\n")[0]
