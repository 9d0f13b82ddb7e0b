"""Runs lessons as tests, each in a process of its own, and reports on them.

A lesson that raises, hangs or takes its kernel down spoils only its own result. Whatever happens, Ctrl-C
included, no process is left: the executor ends its kernel, and the kernel's end ends its servers.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jslab import pages, reports, results
from jslab.course import Lesson
from jslab.deployment import SHARED
from jslab.errors import ClusterError, DirectoryError, LeaseHeldError, MachineError
from jslab.executor import EXECUTED, Job, KernelStartError
from jslab.results import Result, Status

# An executor that says nothing for this many seconds beyond its own limits hangs, and is ended from outside.
SILENCE = 15
# Seconds an executor gets to end its kernel when asked; nbclient gives a kernel five before it kills.
FAREWELL = 10
# Seconds between two signs of life while a lesson runs.
TICK = 10
# A lesson that ends with one of these says that the machine, or the cluster it was given, cannot run labs
# now, not that the lesson is wrong.
_MACHINE: tuple[type[Exception], ...] = (
    MachineError,
    *MachineError.__subclasses__(),
    ClusterError,
    LeaseHeldError,
    KernelStartError,
)
MACHINE_ERRORS = {kind.__name__ for kind in _MACHINE}


@dataclass(frozen=True)
class Options:
    """How to run; times are seconds."""

    backends: tuple[str, ...] = ("embedded",)
    """Where to run, one after the other; each lesson gets the name as its parameter."""
    solutions: bool = False
    """Put the solutions into the exercises, and let a ✗ fail the lesson."""
    jobs: int = 1
    """Lessons at a time; a shared backend holds one, whatever this says."""
    cell_timeout: int = 60
    start_timeout: int = 60
    say: Callable[[str], None] = print


def run(lessons: Sequence[Lesson], options: Options, report: Path | None = None) -> list[Result]:
    """Run lessons and write the report's files into a folder when one is named.

    The results come backend by backend. With several backends each has a folder of its own in the report.
    Raises DirectoryError when the folder cannot be written, and KeyboardInterrupt on Ctrl-C and SIGTERM,
    after everything that was started has ended.
    """
    if report is not None:
        for backend in options.backends:
            _make(_folder(report, backend, options))
    with tempfile.TemporaryDirectory(prefix="jslab-run-") as work:
        try:
            ran = asyncio.run(_run_all(lessons, options, Path(work)))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        return ran if report is None else _keep(ran, options, report)


def _folder(report: Path, backend: str, options: Options) -> Path:
    return report / backend if len(options.backends) > 1 else report


def _make(report: Path) -> None:
    try:
        report.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=report).close()
    except OSError as err:
        raise DirectoryError(
            f"the report cannot be written to {report}", seen=str(err), do="name another folder: --report DIR"
        ) from err


def _keep(ran: Sequence[Result], options: Options, report: Path) -> list[Result]:
    kept = []
    for result in ran:
        if result.notebook is not None:
            target = _folder(report, result.backend, options) / f"{result.lesson.label}.ipynb"
            shutil.copyfile(result.notebook, target)
            kept.append(replace(result, notebook=target))
        else:
            kept.append(result)
    reports.write_junit(kept, report / "junit.xml")
    pages.write_pages(kept, report)
    return kept


async def _run_all(lessons: Sequence[Lesson], options: Options, work: Path) -> list[Result]:
    main = asyncio.current_task()
    assert main is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main.cancel)
    ran: list[Result] = []
    for backend in options.backends:
        ran += await _run_on(backend, lessons, options, work / backend)
    return ran


async def _run_on(backend: str, lessons: Sequence[Lesson], options: Options, work: Path) -> list[Result]:
    turn = asyncio.Semaphore(_at_a_time(backend, options))

    async def one(number: int, lesson: Lesson) -> Result:
        if lesson.needs and not offers(backend, lesson.needs):
            name = results.called(lesson, backend, options.backends)
            options.say(f"{name}: needs {lesson.needs}, not run")
            return Result(lesson, "elsewhere", reason=f"needs {lesson.needs}", backend=backend)
        async with turn:
            folder = work / str(number)
            folder.mkdir(parents=True)
            return await _Run(lesson, backend, options, folder).result()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number, lesson)) for number, lesson in enumerate(lessons)]
    return [task.result() for task in tasks]


def _at_a_time(backend: str, options: Options) -> int:
    if backend not in SHARED or options.jobs == 1:
        return options.jobs
    options.say(f"{backend} holds one lesson at a time: there --jobs {options.jobs} counts as 1")
    return 1


def offers(backend: str, need: str) -> bool:
    """Tell whether a backend offers what a lesson needs; kind is a Kubernetes cluster too."""
    return backend == need or (need == "kubernetes" and backend == "kind")


class _Run:
    """One lesson on one backend, in its executor."""

    def __init__(self, lesson: Lesson, backend: str, options: Options, folder: Path) -> None:
        self.lesson = lesson
        self.backend = backend
        self.name = results.called(lesson, backend, options.backends)
        self.options = options
        self.folder = folder
        self.kernel: int | None = None
        self.ended: dict[str, Any] | None = None
        self.started = time.monotonic()
        self.told = self.started

    async def result(self) -> Result:
        self.options.say(f"{self.name}: started")
        process = await self._start()
        try:
            await self._follow(process)
        finally:
            await self._end(process)
        result = replace(self._judge(), backend=self.backend)
        self.options.say(f"{self.name}: {reports.WORDS[result.status]} in {result.seconds:.1f} s")
        return result

    async def _start(self) -> asyncio.subprocess.Process:
        options = self.options
        Job(
            notebook=str(self.lesson.path.resolve()),
            parameters={"backend": self.backend},
            solutions=options.solutions,
            cell_timeout=options.cell_timeout,
            start_timeout=options.start_timeout,
        ).save(self.folder / "job.json")
        cwd = self.folder / "cwd"
        cwd.mkdir()
        with (self.folder / "log").open("wb") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "jslab.executor",
                str(self.folder),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=cwd,
                env=self._environment(),
                start_new_session=True,  # Ctrl-C in the terminal is for the runner, which ends its executors
            )

    def _environment(self) -> dict[str, str]:
        """The user's IPython start-up files and history are none of a test's business."""
        private = {"IPYTHONDIR": "ipython", "JUPYTER_RUNTIME_DIR": "runtime"}
        return os.environ | {name: str(self.folder / folder) for name, folder in private.items()}

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        """Read events until the executor closes its end, or keeps silent for too long."""
        assert process.stdout is not None
        limit = max(self.options.cell_timeout, self.options.start_timeout) + SILENCE
        with suppress(TimeoutError):
            while True:
                # Not asyncio.wait_for: on 3.11 it loses a cancellation that arrives together with a line.
                async with asyncio.timeout(limit):
                    line = await process.stdout.readline()
                if not line:
                    return
                self._note(json.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        if event["event"] == "kernel":
            self.kernel = event["pid"]
        elif event["event"] == "end":
            self.ended = event
        elif time.monotonic() - self.told > TICK:
            self.told = time.monotonic()
            self.options.say(f"{self.name}: cell {event['index'] + 1} of {event['total']}")

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """End the executor, which ends its kernel; when it does not, end both."""
        assert process.stdin is not None
        process.stdin.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), FAREWELL)
            return
        if self.kernel is not None and _parent(self.kernel) == process.pid:
            with suppress(ProcessLookupError):
                os.kill(self.kernel, signal.SIGKILL)
        process.kill()
        await process.wait()

    def _judge(self) -> Result:
        import nbformat

        seconds = time.monotonic() - self.started
        file = self.folder / EXECUTED
        if self.ended is None and self.kernel is None:
            return Result(self.lesson, "cannot", seconds, f"no kernel started\n{self._log()}".rstrip())
        if not file.exists():
            return Result(self.lesson, "failed", seconds, self._what_went_wrong())
        notebook = nbformat.read(file, as_version=4)  # type: ignore[no-untyped-call]
        verdicts = results.verdicts(notebook)
        status, reason = self._verdict(notebook, verdicts)
        return Result(self.lesson, status, seconds, reason, verdicts, results.slowest(notebook), file)

    def _verdict(self, notebook: Any, verdicts: Sequence[results.Verdict]) -> tuple[Status, str]:
        if wrong := self._what_went_wrong():
            machine = wrong.partition(":")[0] in MACHINE_ERRORS
            reason = f"{wrong}\n{results.where_it_stopped(notebook)}".rstrip()
            return "cannot" if machine else "failed", reason
        if not self.options.solutions:
            return "passed", ""
        known = {verdict.exercise for verdict in verdicts}
        unsolved = [verdict.line for verdict in verdicts if not verdict.ok]
        unsolved += [f"{name} was never checked" for name in results.exercises(notebook) if name not in known]
        if unsolved:
            return "failed", "\n".join(["not solved by its own solutions:", *unsolved])
        return "passed", ""

    def _what_went_wrong(self) -> str:
        if self.ended is None:
            return f"the lesson's process hung or died and was ended\n{self._log()}".rstrip()
        error = self.ended["error"]
        return f"{error['name']}: {error['text']}" if error else ""

    def _log(self) -> str:
        """The last lines that the executor or its kernel wrote, without the one about plain TCP."""
        lines = (self.folder / "log").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([line for line in lines if "TCP without encryption" not in line][-8:])


def _parent(pid: int) -> int | None:
    """Find a process's parent, to signal no stranger that got the pid of a dead kernel."""
    shown = subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return int(shown.stdout) if shown.stdout.strip() else None
