"""Lessons run as tests: whatever a lesson does, its result is told and nothing of it stays behind."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from jslab import cli, reports, results, runner
from jslab.course import Lesson
from jslab.errors import DirectoryError
from jslab.results import Result
from tests.making import cell, write_notebook
from tests.offline import loads
from tests.waits import processes, until

VERDICT = """
from IPython.display import display
def verdict(exercise, ok, text):
    told = {"exercise": exercise, "ok": ok, "text": text}
    display({"application/vnd.jslab.verdict+json": told, "text/html": f"<b>{text}</b>"}, raw=True)
"""

LESSONS = {
    "good": [
        "import sys\nprint(sys.executable, backend)",
        "from IPython.display import HTML, SVG, display\n"
        "display(HTML('<table><tr><td>nats-1 leads</td></tr></table>'))\n"
        "display(SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"><title>lag</title></svg>'))",
        "import ipywidgets\nipywidgets.IntSlider()",
    ],
    "judged": [VERDICT, "verdict('00.1', False, 'one copy')", "verdict('00.1', True, 'three copies')"],
    "wrong": [VERDICT, "verdict('00.1', False, 'one <copy>')"],
    "unasked": [cell("1", jslab={"exercise": "00.1"})],
    "raises": ["print('so far')\nraise KeyError('gone')", "print('never')"],
    "hangs": ["import asyncio\nprint('partial')\nawait asyncio.sleep(600)"],
    "dies": ["import os\nos._exit(3)"],
    "unable": ["from jslab.errors import ServerBinaryError\nraise ServerBinaryError('no nats-server')"],
    "held": ["from jslab.errors import LeaseHeldError\nraise LeaseHeldError('another notebook has it')"],
    "refused": ["from jslab.errors import ClusterError\nraise ClusterError('no such namespace')"],
    "toolless": ["from jslab.errors import ToolError\nraise ToolError('no docker')"],
    "elsewhere": ["1 / 0"],
}


def notebook(folder: Path, name: str, sources: Sequence[str | dict]) -> Path:
    needs = "kubernetes" if name == "elsewhere" else None
    return write_notebook(folder / f"{name}.ipynb", *sources, needs=needs)


def lesson(folder: Path, name: str) -> Lesson:
    return Lesson("", name, notebook(folder, name, LESSONS[name]))


@pytest.fixture(scope="module")
def course_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Result], Path, list[str]]:
    """Every lesson above, blank, two at a time, with a kernel planted that is not this environment's."""
    folder = tmp_path_factory.mktemp("run")
    planted = folder / "data" / "kernels" / "python3"
    planted.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "another", "language": "python"}
    (planted / "kernel.json").write_text(json.dumps(spec))
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_DATA_DIR", str(folder / "data"))
        patch.setenv("TMPDIR", str(folder))
        patch.setattr("tempfile.tempdir", str(folder))
        options = runner.Options(jobs=2, cell_timeout=3, say=said.append)
        report = folder / "report {with braces}"
        ran = runner.run([lesson(folder, name) for name in LESSONS], options, report)
        assert processes(str(folder)) == []
        assert list(folder.glob("jslab-run-*")) == []
    return {result.lesson.name: result for result in ran}, report, said


def outputs(result: Result) -> str:
    assert result.notebook is not None
    return result.notebook.read_text(encoding="utf-8")


def test_a_lesson_runs_in_this_environment_with_its_parameters(course_run) -> None:
    good = course_run[0]["good"]
    assert good.status == "passed"
    assert f"{sys.executable} embedded" in outputs(good)


def test_the_last_verdict_on_an_exercise_counts(course_run) -> None:
    (verdict,) = course_run[0]["judged"].verdicts
    assert (verdict.exercise, verdict.ok, verdict.text) == ("00.1", True, "three copies")


def test_a_blank_lesson_passes_with_an_unsolved_exercise(course_run) -> None:
    wrong = course_run[0]["wrong"]
    assert wrong.status == "passed"
    assert not wrong.verdicts[0].ok


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("raises", "failed", "KeyError: 'gone'"),
        ("hangs", "failed", "the cell ran longer than 3 s"),
        ("dies", "failed", "the kernel died"),
        ("unable", "cannot", "ServerBinaryError: no nats-server"),
        ("held", "cannot", "LeaseHeldError: another notebook has it"),
        ("refused", "cannot", "ClusterError: no such namespace"),
        ("toolless", "cannot", "ToolError: no docker"),
        ("elsewhere", "elsewhere", "needs kubernetes"),
    ],
)
def test_what_went_wrong_is_told(course_run, name: str, status: str, reason: str) -> None:
    result = course_run[0][name]
    assert result.status == status
    assert reason in result.reason


def test_the_output_up_to_the_failure_is_kept(course_run) -> None:
    by_name = course_run[0]
    assert "so far" in outputs(by_name["raises"])
    assert "never" not in json.loads(outputs(by_name["raises"]))["cells"][-1]["outputs"]
    assert "partial" in outputs(by_name["hangs"])
    assert "printed: partial" in by_name["hangs"].reason


def test_it_says_where_it_stopped_and_which_cell_was_slowest(course_run) -> None:
    by_name = course_run[0]
    assert "in cell cell-2: print('so far')" in by_name["raises"].reason
    slowest = by_name["hangs"].slowest
    assert slowest is not None
    assert slowest.first_line == "import asyncio"
    assert slowest.seconds >= 3


def test_progress_is_told_for_every_lesson(course_run) -> None:
    said = "\n".join(course_run[2])
    for name in LESSONS:
        assert f"{name}: started" in said or name == "elsewhere"
    assert "elsewhere: needs kubernetes, not run" in said


def test_the_table_has_a_column_for_what_needs_another_backend(course_run) -> None:
    table = reports.table(list(course_run[0].values()))
    (row,) = [line for line in table.splitlines() if line.startswith("elsewhere")]
    assert "kubernetes" in row
    assert "passed" not in row
    assert "skip" not in table
    assert table.endswith("4 passed, 3 failed, 4 could not run here, 1 need kubernetes")
    assert "KeyError: 'gone'" in table


def test_junit_counts_only_what_ran(course_run) -> None:
    suite = ElementTree.parse(course_run[1] / "junit.xml").getroot()
    counts = [suite.get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert counts == ["11", "3", "4", "0"]
    names = [case.get("name") for case in suite.iter("testcase")]
    assert names == [name for name in LESSONS if name != "elsewhere"]
    assert {case.get("classname") for case in suite.iter("testcase")} == {"jslab.course"}
    (needs,) = suite.iter("property")
    assert (needs.get("name"), needs.get("value")) == ("needs kubernetes", "elsewhere")
    hanging = suite.find("testcase[@name='hangs']/failure")
    assert hanging is not None
    assert "longer than 3 s" in (hanging.text or "")


def test_the_pages_load_nothing_and_show_everything(course_run) -> None:
    report = course_run[1]
    pages = {path.stem: path.read_text(encoding="utf-8") for path in report.glob("*.html")}
    assert set(pages) == {"index", *LESSONS} - {"elsewhere"}
    for page in pages.values():
        assert loads(page) == []
        assert "default-src 'none'" in page
    assert "nats-1 leads" in pages["good"]
    assert "data:image/svg+xml" in pages["good"]
    assert "IntSlider" in pages["good"], "a widget without its manager still shows its text"
    assert "three copies" in pages["judged"]
    assert "longer than 3 s" in pages["hangs"]
    assert "one &lt;copy&gt;" in pages["index"]
    assert 'href="good.html"' in pages["index"]


# What each notebook finds on embedded and on kind; none of them asks for a server.
ON_BOTH = {
    "agrees": [VERDICT, "verdict('00.1', True, f'seen on {backend}')"],
    "judges": [
        VERDICT,
        "for exercise in ('00.1', '00.2'):\n    verdict(exercise, backend == 'embedded', 'a <copy>')",
        "verdict('00.3', False, 'on both')",
    ],
    "breaks": [VERDICT, "assert backend == 'embedded', 'not here'", "verdict('00.1', True, 'fine')"],
    "holds": [
        "from jslab.errors import LeaseHeldError\nif backend == 'kind':\n    raise LeaseHeldError('held')"
    ],
    "elsewhere": ["assert backend == 'kind'"],
}


class OnBoth(NamedTuple):
    """What ``jslab run`` printed, its exit code and its report."""

    code: int
    printed: str
    report: Path

    def row(self, name: str) -> str:
        """Find a lesson's line in the table, with S for its seconds and single spaces."""
        table = self.printed.split("\n\n")[1]
        (found,) = [line for line in table.splitlines() if line.startswith(f"{name} ")]
        return re.sub(" +", " ", re.sub(r"\b(?!0\d)\d+\.\d\b", "S", found))


@pytest.fixture(scope="module")
def on_both(tmp_path_factory: pytest.TempPathFactory) -> OnBoth:
    """The notebooks above on two backends, as a person asks for it."""
    folder = tmp_path_factory.mktemp("both")
    report = folder / "report"
    notebooks = [str(notebook(folder, name, sources)) for name, sources in ON_BOTH.items()]
    named = ["--backend", "embedded", "--backend", "kind", "--backend", "embedded"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = cli.main(["run", *notebooks, *named, "--jobs", "2", "--report", str(report)])
    return OnBoth(code, printed.getvalue(), report)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("agrees", "agrees passed S 1 ✓ passed S 1 ✓ same"),
        (
            "judges",
            "judges passed S 2 ✓ 1 ✗ passed S 3 ✗ differs: 00.1 00.2 ✓ on embedded, ✗ on kind",
        ),
        (
            "breaks",
            "breaks passed S 1 ✓ FAILED S "
            "differs: passed on embedded, failed on kind; 00.1 ✓ on embedded, not checked on kind",
        ),
        ("holds", "holds passed S CANNOT RUN S not compared: cannot run on kind"),
        ("elsewhere", "elsewhere kubernetes - passed S only on kind"),
    ],
)
def test_the_parity_table_has_a_row_for_each_lesson(on_both: OnBoth, name: str, row: str) -> None:
    assert on_both.row(name) == row


def test_the_parity_table_is_headed_by_backends_and_followed_by_counts(on_both: OnBoth) -> None:
    assert on_both.row("lesson") == "lesson needs embedded seconds exercises kind seconds exercises parity"
    assert "\nembedded: 4 passed, 0 failed, 1 need kubernetes\n" in on_both.printed
    assert "\nkind: 3 passed, 1 failed, 1 could not run here\n" in on_both.printed
    assert "\nparity: 1 same, 2 differs, 1 not compared, 1 only on kind\n" in on_both.printed
    assert "\nbreaks on kind:\n  AssertionError: not here\n" in on_both.printed
    assert on_both.code == 1


def test_a_shared_backend_runs_lessons_one_by_one_and_says_so(on_both: OnBoth) -> None:
    lines = on_both.printed.splitlines()
    assert lines.count("kind holds one lesson at a time: there --jobs 2 counts as 1") == 1
    told = [line for line in lines if re.search(r" on kind: (started|.* in \d)", line)]
    assert [line.endswith(": started") for line in told] == [True, False] * len(ON_BOTH)
    assert [line.endswith(" on embedded: started") for line in lines[:2]] == [True, True]


def test_notebooks_and_pages_of_several_backends_are_kept_apart(on_both: OnBoth) -> None:
    kept = {path.relative_to(on_both.report).as_posix() for path in on_both.report.rglob("*.ipynb")}
    ran = {f"embedded/{name}.ipynb" for name in ON_BOTH if name != "elsewhere"}
    assert kept == ran | {f"kind/{name}.ipynb" for name in ON_BOTH}
    for backend in ("embedded", "kind"):
        page = (on_both.report / backend / "agrees.html").read_text(encoding="utf-8")
        assert f"seen on {backend}" in page
        assert 'href="../index.html"' in page
        assert loads(page) == []


def test_the_index_of_several_backends_shows_parity_and_loads_nothing(on_both: OnBoth) -> None:
    index = (on_both.report / "index.html").read_text(encoding="utf-8")
    assert loads(index) == []
    assert index.count('colspan="3"') == 2
    for told in (
        '<td class="passed"><b><a href="embedded/judges.html">passed</a></b></td>',
        '<td class="failed"><b><a href="kind/breaks.html">FAILED</a></b></td>',
        '<td class="elsewhere"><b>-</b></td>',
        '<td class="differs"><b>differs: 00.1 00.2 ✓ on embedded, ✗ on kind</b></td>',
        "only on kind",
        "<h4>kind</h4><ul><li>✗ 00.1 a &lt;copy&gt;</li>",
        "<h4>kind</h4><pre>AssertionError: not here",
        "parity: 1 same, 2 differs",
    ):
        assert told in index


def test_junit_has_a_case_for_each_lesson_and_backend(on_both: OnBoth) -> None:
    suite = ElementTree.parse(on_both.report / "junit.xml").getroot()
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["9", "1", "1", "0"]
    cases = {(case.get("classname"), case.get("name")) for case in suite.iter("testcase")}
    on_kind = {("jslab.course.kind", name) for name in ON_BOTH}
    assert cases == on_kind | {("jslab.course.embedded", name) for name in ON_BOTH if name != "elsewhere"}
    properties = {told.get("name"): told.get("value") for told in suite.iter("property")}
    assert properties["needs kubernetes"] == "elsewhere on embedded"
    assert properties["parity elsewhere"] == "only on kind"
    assert (properties["parity agrees"], len(properties)) == ("same", 1 + len(ON_BOTH))


@pytest.mark.parametrize(
    ("statuses", "told"),
    [
        (["passed", "passed", "passed"], "same"),
        (["failed", "failed", "failed"], "same"),
        (["passed", "failed", "passed"], "differs: passed on embedded, failed on kind, passed on kubernetes"),
        (["elsewhere", "passed", "passed"], "same on kind and kubernetes"),
        (["elsewhere", "passed", "failed"], "differs: passed on kind, failed on kubernetes"),
        (["elsewhere", "passed", "elsewhere"], "only on kind"),
        (["elsewhere", "elsewhere", "elsewhere"], "needs kubernetes"),
        (["passed", "cannot", "cannot"], "not compared: cannot run on kind and kubernetes"),
        (["passed", "cannot", "failed"], "differs: passed on embedded, failed on kubernetes"),
    ],
)
def test_parity_is_told_in_words(tmp_path: Path, statuses: list, told: str) -> None:
    """Times never count, and what did not run says nothing about a lesson."""
    one = Lesson("", "one", write_notebook(tmp_path / "one.ipynb", needs="kubernetes"))
    backends = ["embedded", "kind", "kubernetes"]
    ran = [
        Result(one, status, seconds=len(backend), backend=backend)
        for backend, status in zip(backends, statuses, strict=True)
    ]
    assert results.parity(ran) == told
    assert results.by_lesson(ran) == [tuple(ran)]


@pytest.mark.parametrize(
    "fault",
    [
        "<script>1</script>",
        '<script src="https://cdn.example/a.js"></script>',
        '<link rel="stylesheet" href="//cdn.example/a.css">',
        '<img src="https://host/a.png">',
        '<img src="beside.png">',
        '<img srcset="https://host/a.png 2x">',
        '<iframe src="https://host"></iframe>',
        '<object data="https://host/a.svg"></object>',
        '<svg><image xlink:href="https://host/a.png"/></svg>',
        '<style>@import "https://host/a.css";</style>',
        "<style>a { background: url('https://host/a.png') }</style>",
        '<p style="background: url(https://host/a.png)">',
    ],
)
def test_the_checker_finds_whatever_a_page_would_load(fault: str) -> None:
    assert len(loads(f"<html><body><p>text</p>{fault}</body></html>")) >= 1


def test_the_checker_lets_links_and_data_pass() -> None:
    page = '<a href="https://nats.io">x</a><a href="#top">x</a><img src="data:image/png;base64,AA==">'
    assert loads(page + "<style>a { background: url(data:image/png;base64,AA==) }</style>") == []


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["passed"], 0),
        (["passed", "elsewhere"], 0),
        (["passed", "failed", "cannot"], 1),
        (["passed", "cannot"], 2),
        (["elsewhere"], 2),
    ],
)
def test_the_exit_code_tells_a_wrong_lesson_from_a_wrong_machine(statuses: list, code: int) -> None:
    one = Lesson("", "one", Path("one.ipynb"))
    assert results.exit_code([Result(one, status) for status in statuses]) == code


@pytest.mark.parametrize(("backend", "runs"), [("embedded", False), ("kind", True)])
def test_what_needs_kubernetes_runs_on_any_kubernetes(tmp_path: Path, backend: str, runs: bool) -> None:
    made = Lesson("", "x", write_notebook(tmp_path / "x.ipynb", "print(backend)", needs="kubernetes"))
    (result,) = runner.run([made], runner.Options(backends=(backend,), say=lambda line: None))
    assert result.status == ("passed" if runs else "elsewhere")


def test_with_solutions_an_unsolved_and_an_unasked_exercise_fail(tmp_path: Path) -> None:
    options = runner.Options(solutions=True, jobs=2, say=lambda line: None)
    named = [lesson(tmp_path, name) for name in ("wrong", "judged")]
    wrong, judged = runner.run(named, options)
    assert (wrong.status, judged.status) == ("failed", "passed")
    assert "✗ 00.1 one <copy>" in wrong.reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, "No language found"),
        ({"cells": [{"cell_type": "code"}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, ""),
    ],
)
def test_a_notebook_that_cannot_be_run_fails_and_says_why(tmp_path: Path, content: dict, reason: str) -> None:
    file = tmp_path / "odd.ipynb"
    file.write_text(json.dumps(content))
    (result,) = runner.run([Lesson("", "odd", file)], runner.Options(say=lambda line: None))
    assert result.status == "failed"
    assert reason in result.reason


def test_a_report_folder_that_cannot_be_written_is_named_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said: list[str] = []
    with pytest.raises(DirectoryError, match="--report"):
        runner.run([lesson(tmp_path, "good")], runner.Options(say=said.append), tmp_path / "file" / "report")
    assert said == []


def test_an_executor_that_is_stopped_is_ended_with_its_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SILENCE", 1)
    monkeypatch.setattr(runner, "FAREWELL", 1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    freeze = "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)"
    made = Lesson("", "frozen", write_notebook(tmp_path / "frozen.ipynb", freeze))
    options = runner.Options(cell_timeout=5, start_timeout=6, say=lambda line: None)
    (result,) = runner.run([made], options)
    assert result.status == "failed"
    assert "hung or died" in result.reason
    until(lambda: not processes(str(tmp_path)), 10)


# A shell starts what it puts in the background with SIGINT ignored, and children inherit that.
RUN = """
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
from jslab import runner
from jslab.course import Lesson
file = Path(sys.argv[1])
runner.run([Lesson("", "hangs", file)], runner.Options(say=lambda line: None))
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_runner_that_ends_midway_leaves_no_process(tmp_path: Path, ending: signal.Signals) -> None:
    here = write_notebook(
        tmp_path / "hangs.ipynb",
        f"from pathlib import Path\nPath({str(tmp_path / 'started')!r}).touch()",
        "import asyncio\nawait asyncio.sleep(600)",
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", RUN, here], env=environment, stderr=subprocess.PIPE)
    try:
        until((tmp_path / "started").exists)
        process.send_signal(ending)
        process.wait(20)
    finally:
        process.kill()
        process.communicate()
    until(lambda: not processes(str(tmp_path)), 10)
    if ending != signal.SIGKILL:
        assert list(tmp_path.glob("jslab-run-*")) == []
