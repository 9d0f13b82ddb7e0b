"""What a run of the course found, as a table for the terminal and as JUnit XML."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from jslab import results
from jslab.results import Result, Status

COLUMNS = ("lesson", "result", "needs", "seconds", "exercises", "slowest cell")
# The parity table's columns: the second row's stand once for each backend, before the last of the first.
PARITY_COLUMNS = ("lesson", "needs", "parity")
BACKEND_COLUMNS = ("result", "seconds", "exercises")
WORDS: dict[Status, str] = {
    "passed": "passed",
    "failed": "FAILED",
    "cannot": "CANNOT RUN",
    "elsewhere": "-",
}


def table(ran: Sequence[Result]) -> str:
    """Lay the results out for a terminal, with the reason under each lesson that did not pass.

    A run on several backends becomes a parity table: one line a lesson, and whether its results agree.
    """
    backends = results.backends(ran)
    lines = _parity_lines(ran) if len(backends) > 1 else _aligned([COLUMNS, *(row(one) for one in ran)])
    for one in ran:
        if one.status in ("failed", "cannot"):
            name = results.called(one.lesson, one.backend, backends)
            lines += ["", f"{name}:", textwrap.indent(one.reason, "  ")]
    return "\n".join([*lines, "", *summary(ran)])


def _parity_lines(ran: Sequence[Result]) -> list[str]:
    backends = results.backends(ran)
    # A terminal has one line for the head: the backend's name stands where its result does.
    head = [text for backend in backends for text in (backend, *BACKEND_COLUMNS[1:])]
    lesson, needs, parity = PARITY_COLUMNS
    return _aligned([(lesson, needs, *head, parity), *map(parity_row, results.by_lesson(ran))])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pad the cells to columns and put a rule under the head; seconds stand to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            text.rjust(width) if name == "seconds" else text.ljust(width)
            for name, text, width in zip(rows[0], line, widths, strict=True)
        ).rstrip()
        for line in rows
    ]
    return [lines[0], "  ".join("─" * width for width in widths), *lines[1:]]


def summary(ran: Sequence[Result]) -> list[str]:
    """Count the results in one line; with several backends a line for each, and one for their parity."""
    backends = results.backends(ran)
    if len(backends) < 2:
        return [_count(ran)]
    counted = [f"{backend}: {_count([one for one in ran if one.backend == backend])}" for backend in backends]
    verdicts = Counter(results.parity(group).partition(":")[0] for group in results.by_lesson(ran))
    return [*counted, "parity: " + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())]


def _count(ran: Sequence[Result]) -> str:
    words = {"passed": "passed", "failed": "failed", "cannot": "could not run here"}
    counts = Counter({"passed": 0, "failed": 0})
    counts.update(words.get(one.status, f"need {one.lesson.needs}") for one in ran)
    return ", ".join(f"{count} {word}" for word, count in counts.items())


def parity_row(group: Sequence[Result]) -> tuple[str, ...]:
    """Describe one lesson's results: lesson and needs, three columns a backend, the parity."""
    needs = next((_needs(one) for one in group if _needs(one)), "")
    cells = [text for one in group for text in backend_cells(one)]
    return group[0].lesson.label, needs, *cells, results.parity(group)


def backend_cells(result: Result) -> tuple[str, str, str]:
    """Describe a result in a backend's three columns: result, seconds, exercises."""
    seconds = "" if result.status == "elsewhere" else f"{result.seconds:.1f}"
    return WORDS[result.status], seconds, _marks(result)


def row(result: Result) -> tuple[str, str, str, str, str, str]:
    """Describe a result in the table's six columns."""
    status, seconds, exercises = backend_cells(result)
    cell = f"{result.slowest.seconds:.1f} s: {result.slowest.first_line[:40]}" if result.slowest else ""
    return result.lesson.label, status, _needs(result), seconds, exercises, cell


def _needs(result: Result) -> str:
    return result.lesson.needs or "" if result.status == "elsewhere" else ""


def _marks(result: Result) -> str:
    good = sum(verdict.ok for verdict in result.verdicts)
    bad = len(result.verdicts) - good
    return "  ".join(f"{count} {mark}" for count, mark in ((good, "✓"), (bad, "✗")) if count)


def write_junit(ran: Sequence[Result], path: Path) -> None:
    """Write JUnit XML: a test case for each lesson that ran here, a property for each that needs more.

    With several backends a case's class name ends in its backend, and a property tells each lesson's parity.
    """
    backends = results.backends(ran)
    here = [one for one in ran if one.status != "elsewhere"]
    suite = ElementTree.Element(
        "testsuite",
        name="jslab course",
        tests=str(len(here)),
        failures=str(sum(one.status == "failed" for one in here)),
        errors=str(sum(one.status == "cannot" for one in here)),
        skipped="0",
        time=f"{sum(one.seconds for one in here):.3f}",
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in _properties(ran):
        ElementTree.SubElement(properties, "property", name=name, value=value)
    for one in here:
        classname = f"jslab.course.{one.backend}" if len(backends) > 1 else "jslab.course"
        _add_case(suite, one, classname)
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def _properties(ran: Sequence[Result]) -> Iterator[tuple[str, str]]:
    backends = results.backends(ran)
    for one in ran:
        if one.status == "elsewhere":
            yield f"needs {one.lesson.needs}", results.called(one.lesson, one.backend, backends)
    if len(backends) > 1:
        for group in results.by_lesson(ran):
            yield f"parity {group[0].lesson.label}", results.parity(group)


def _add_case(suite: ElementTree.Element, one: Result, classname: str) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", classname=classname, name=one.lesson.label, time=f"{one.seconds:.3f}"
    )
    if one.status != "passed":
        kind = "failure" if one.status == "failed" else "error"
        problem = ElementTree.SubElement(case, kind, message=plain(one.reason.partition("\n")[0]))
        problem.text = plain(one.reason)
    told = "\n".join(verdict.line for verdict in one.verdicts)
    ElementTree.SubElement(case, "system-out").text = plain(told)


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def plain(text: str) -> str:
    """Drop colour codes and whatever XML cannot carry."""
    return _NOT_XML.sub("", _COLOUR.sub("", text))
