"""What a run of the course found, as a table for the terminal and as JUnit XML."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from jslab.results import Result, Status

COLUMNS = ("lesson", "result", "needs", "seconds", "exercises", "slowest cell")
WORDS: dict[Status, str] = {
    "passed": "passed",
    "failed": "FAILED",
    "cannot": "CANNOT RUN",
    "elsewhere": "-",
}


def table(results: Sequence[Result]) -> str:
    """Lay the results out for a terminal, with the reason under each lesson that did not pass."""
    rows = [COLUMNS]
    rows += [row(result) for result in results]
    widths = [max(len(line[column]) for line in rows) for column in range(6)]
    lines = [
        "  ".join(
            text.rjust(width) if column == 3 else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in rows
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    for result in results:
        if result.status in ("failed", "cannot"):
            lines += ["", f"{result.lesson.label}:", textwrap.indent(result.reason, "  ")]
    return "\n".join([*lines, "", summary(results)])


def summary(results: Sequence[Result]) -> str:
    """Count the results in one line."""
    words = {"passed": "passed", "failed": "failed", "cannot": "could not run here"}
    counts = Counter({"passed": 0, "failed": 0})
    counts.update(words.get(result.status, f"need {result.lesson.needs}") for result in results)
    return ", ".join(f"{count} {word}" for word, count in counts.items())


def row(result: Result) -> tuple[str, str, str, str, str, str]:
    """Describe a result in the table's six columns."""
    ran = result.status != "elsewhere"
    cell = f"{result.slowest.seconds:.1f} s: {result.slowest.first_line[:40]}" if result.slowest else ""
    return (
        result.lesson.label,
        WORDS[result.status],
        "" if ran else result.lesson.needs or "",
        f"{result.seconds:.1f}" if ran else "",
        _marks(result),
        cell,
    )


def _marks(result: Result) -> str:
    good = sum(verdict.ok for verdict in result.verdicts)
    bad = len(result.verdicts) - good
    return "  ".join(f"{count} {mark}" for count, mark in ((good, "✓"), (bad, "✗")) if count)


def write_junit(results: Sequence[Result], path: Path) -> None:
    """Write JUnit XML: a test case for each lesson that ran here, a property for each that needs more."""
    ran = [result for result in results if result.status != "elsewhere"]
    suite = ElementTree.Element(
        "testsuite",
        name="jslab course",
        tests=str(len(ran)),
        failures=str(sum(result.status == "failed" for result in ran)),
        errors=str(sum(result.status == "cannot" for result in ran)),
        skipped="0",
        time=f"{sum(result.seconds for result in ran):.3f}",
    )
    properties = ElementTree.SubElement(suite, "properties")
    for result in results:
        if result.status == "elsewhere":
            ElementTree.SubElement(
                properties, "property", name=f"needs {result.lesson.needs}", value=result.lesson.label
            )
    for result in ran:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname="jslab.course",
            name=result.lesson.label,
            time=f"{result.seconds:.3f}",
        )
        if result.status != "passed":
            kind = "failure" if result.status == "failed" else "error"
            problem = ElementTree.SubElement(case, kind, message=plain(result.reason.partition("\n")[0]))
            problem.text = plain(result.reason)
        told = "\n".join(verdict.line for verdict in result.verdicts)
        ElementTree.SubElement(case, "system-out").text = plain(told)
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def plain(text: str) -> str:
    """Drop colour codes and whatever XML cannot carry."""
    return _NOT_XML.sub("", _COLOUR.sub("", text))
