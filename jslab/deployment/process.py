"""The kernel's side of the guard: start it, talk to it, and find what a killed one left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from jslab.deployment import guard
from jslab.errors import DeploymentError
from jslab.waiting import until

# CONT, TERM, five seconds, KILL: a guard that needs longer than this is stuck itself.
ENDING = guard.GRACE + 5.0


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to start one server; ``log`` is appended to, never a pipe; ``disks`` can be emptied."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    disks: Sequence[Path] = ()

    def plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "name": self.name,
            "argv": list(self.argv),
            "env": dict(self.env),
            "cwd": str(self.cwd),
            "log": str(self.log),
            "disks": [str(disk) for disk in self.disks],
        }


@dataclass(frozen=True, slots=True)
class ChildState:
    """What the guard last wrote about one server."""

    state: str
    """``running``, ``paused``, ``held``, ``backoff`` or ``starting``."""
    pid: int | None
    starts: int
    exits: int
    code: int | None
    """Exit code of the last process that ended; negative for a signal."""
    wipes: int = 0
    """How often its disks were emptied."""


class Guard:
    """A running guard and the servers it looks after; see :mod:`jslab.deployment.guard`."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self.folder = folder
        self._process = process
        self._log = log
        self._states: dict[str, ChildState] = {}

    @classmethod
    def launch(cls, folder: Path, children: Sequence[ChildSpec], keep_open: Sequence[int] = ()) -> Guard:
        """Start the guard of ``folder``, which then belongs to it, and with it the servers.

        ``keep_open`` are file descriptors, such as a lock, that stay open as long as the guard lives.
        """
        (folder / "servers.json").write_text(json.dumps([child.plain() for child in children]))
        log = (folder / "guard.log").open("w+b")
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(folder), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd="/",
            # Jupyter's Stop goes to the whole process group of the kernel, the servers must not hear it.
            start_new_session=True,
            pass_fds=keep_open,
        )
        return cls(folder, process, log)

    @property
    def pid(self) -> int:
        """The guard's process id."""
        return self._process.pid

    def alive(self) -> bool:
        """Tell whether the guard still runs."""
        return self._process.poll() is None

    def states(self) -> dict[str, ChildState]:
        """Return what the guard last wrote, by server; empty before its first word.

        Raises DeploymentError when the guard is gone: what it wrote is true no more.
        """
        if not self.alive():
            raise self.gone()
        with contextlib.suppress(FileNotFoundError):
            self._states = read_states(self.folder)
        return self._states

    def command(self, command: str, name: str) -> None:
        """Tell the guard to do ``command`` to server ``name``. Raises DeploymentError when it is gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{command} {name}\n".encode())
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError) as err:
            raise self.gone() from err

    def gone(self) -> DeploymentError:
        """Return the error for a guard that is not there any more, with its last words."""
        return DeploymentError(
            "the servers of this lab are gone: the process that looks after them ended",
            seen=self._last_words() or f"exit code {self._process.poll()}, no message",
            do="start a new lab: await lab.stop(), then await jslab.start(); "
            "`jslab clean` removes what may be left",
        )

    async def end(self) -> None:
        """End the servers, then the guard, and wait until both are gone and the folder with them."""
        self.let_go()
        await until(
            lambda: not self.alive(), what="the servers to end", timeout=ENDING, error=DeploymentError
        )
        self._log.close()
        # A guard that was killed could not clean up itself.
        await asyncio.to_thread(_remove, _look_at(self.folder))

    def let_go(self) -> None:
        """Close the guard's stdin: it ends everything by itself, nobody has to wait."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


def read_states(folder: Path) -> dict[str, ChildState]:
    """Read a lab folder's ``state.json``. Raises FileNotFoundError before the guard's first word."""
    servers = json.loads((folder / "state.json").read_text())["servers"]
    return {name: ChildState(**state) for name, state in servers.items()}


@dataclass(frozen=True, slots=True)
class LabFolder:
    """A folder with our marker, found on this machine."""

    path: Path
    kernel: int
    """Process id of the kernel that started it."""
    ports: tuple[int, ...]
    running: tuple[int, ...]
    """Process ids that still belong to it: the guard and its servers."""
    guarded: bool
    """Whether a guard looks after it; it ends everything when the kernel is gone."""


def lab_folders(state: Path) -> list[LabFolder]:
    """Return every lab folder below ``state``, in use or left behind."""
    return [_look_at(marker.parent) for marker in sorted(state.glob(f"*/{guard.MARKER}"))]


def _look_at(folder: Path) -> LabFolder:
    marker: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        marker = json.loads((folder / guard.MARKER).read_text())
    pids: list[int] = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        pids = [state.pid for state in read_states(folder).values() if state.pid]
    # The folder's own path stands in each command line: a pid that was given anew cannot be mistaken.
    ours = tuple(pid for pid in pids if str(folder) in command_line(pid))
    guards = tuple(pid for pid in [_guard_pid(folder)] if pid and str(folder) in command_line(pid))
    return LabFolder(
        path=folder,
        kernel=int(marker.get("kernel", 0)),
        ports=tuple(marker.get("ports", ())),
        running=guards + ours,
        guarded=bool(guards),
    )


def _guard_pid(folder: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, KeyError):
        return int(json.loads((folder / "state.json").read_text())["guard"])
    return None


def command_line(pid: int) -> str:
    """Return a process's command line, empty when it is gone or a zombie."""
    proc = Path("/proc")
    if (proc / "self").exists():
        with contextlib.suppress(OSError):
            return (proc / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return ""
    ps = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return ps.stdout


def leftovers(state: Path) -> list[LabFolder]:
    """Return the lab folders that nobody looks after any more: no guard, and the kernel is gone."""
    return [lab for lab in lab_folders(state) if not lab.guarded and not _alive(lab.kernel)]


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return bool(command_line(pid))


def clean(state: Path) -> list[LabFolder]:
    """End what a hard kill left behind, remove its folders, and return what was found.

    Labs in use are left alone. Every process is checked to be ours before it is signalled.
    """
    found = leftovers(state)
    for lab in found:
        _remove(lab)
    return found


def _remove(lab: LabFolder) -> None:
    for pid in lab.running:
        _end_process(pid, lab.path)
    shutil.rmtree(lab.path, ignore_errors=True)


def _end_process(pid: int, folder: Path) -> None:
    for signals, patience in (((signal.SIGCONT, signal.SIGTERM), guard.GRACE), ((signal.SIGKILL,), 1.0)):
        for number in signals:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + patience
        while str(folder) in command_line(pid):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            return
