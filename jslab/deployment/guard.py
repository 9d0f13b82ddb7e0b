"""The guard: a small process that plays the kubelet for the servers of one embedded lab.

It runs as a script, outside the kernel's session, with nothing but the standard library. It starts the
servers, starts a crashed one again, and when the kernel is gone, however that came about, it ends them
and removes the lab's folder. Only the guard signals servers: as their parent it alone knows that a pid
is still theirs.

The kernel writes one command a line to stdin: ``crash NAME``, ``terminate NAME``, ``wipe NAME``,
``hold NAME``, ``release NAME``, ``pause NAME``, ``resume NAME``. What came of it stands in ``state.json``,
which is replaced as a whole at every change. stdin closed, or another parent than the kernel, means: end.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any

# A kernel's child made by fork keeps our pipe open when the kernel dies, so the parent is watched too.
PARENT_CHECK = 0.5
# A crash that was asked for is a deleted pod: it returns at once, without counting as a crash loop.
RETURN_DELAY = 0.5
# One that was not asked for backs off as the kubelet does, on a scale that suits a lesson.
BACKOFF_FIRST, BACKOFF_MOST, BACKOFF_RESET = 0.5, 30.0, 10.0
GRACE = 5.0
MARKER = "lab.json"
SIGNALS = {
    "crash": signal.SIGKILL,
    "hold": signal.SIGKILL,
    "terminate": signal.SIGTERM,
    "wipe": signal.SIGKILL,
}


def die_with_parent() -> None:
    """Linux: have the kernel of the system kill this child when the guard itself is killed."""
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


class Child:
    """One server: how to start it, its process, and what happened to it."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.state = "starting"
        self.starts = 0
        self.exits = 0
        self.code: int | None = None
        self.started = 0.0
        self.start_at: float | None = 0.0
        self.backoff = BACKOFF_FIRST
        self.asked = False
        self.wiping = False
        self.wipes = 0

    def start(self) -> None:
        """Start the process; its output is added to its log."""
        with open(self.spec["log"], "ab") as log:
            self.process = subprocess.Popen(
                self.spec["argv"],
                env=self.spec["env"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.spec["cwd"],
                preexec_fn=die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            )
        self.state, self.start_at, self.started = "running", None, time.monotonic()
        self.asked = False
        self.starts += 1

    def look(self) -> bool:
        """Notice that the process has stopped or ended; for one that ended, decide when it starts again."""
        if self.process is None:
            return False
        if self.process.returncode is None:
            pid, status = os.waitpid(self.process.pid, os.WNOHANG | os.WUNTRACED)
            if pid == 0:
                return False
            if os.WIFSTOPPED(status):
                # Told by the system once the last thread stands still; SIGSTOP itself only asks for it.
                self.state = "paused" if self.state == "running" else self.state
                return True
            self.process.returncode = os.waitstatus_to_exitcode(status)
        self.code, self.process = self.process.returncode, None
        self.exits += 1
        self.wipe()
        now = time.monotonic()
        if self.state == "held":
            return True
        if self.asked:
            self.asked, delay = False, RETURN_DELAY
        else:
            if now - self.started > BACKOFF_RESET:
                self.backoff = BACKOFF_FIRST
            delay, self.backoff = self.backoff, min(self.backoff * 2, BACKOFF_MOST)
        self.state, self.start_at = "backoff", now + delay
        return True

    def wipe(self) -> None:
        """Empty the disks, if that was asked for; the server does not run."""
        if not self.wiping:
            return
        for disk in self.spec["disks"]:
            for entry in os.scandir(disk):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)
        self.wiping = False
        self.wipes += 1

    def obey(self, command: str) -> None:
        """Do what the kernel asked for; what it came to stands in ``report``."""
        if command == "release":
            if self.state == "held" and self.process is None:
                self.state, self.start_at, self.backoff = "backoff", 0.0, BACKOFF_FIRST
            elif self.state == "held":
                self.state = "running"  # killed, not yet gone: it returns like one that was crashed
            return
        if command == "hold":
            self.state, self.start_at = "held", None
        self.wiping = self.wiping or command == "wipe"
        if self.process is None:
            self.wipe()
            return
        if command == "pause":
            self.process.send_signal(signal.SIGSTOP)
        elif command == "resume":
            self.process.send_signal(signal.SIGCONT)
            self.state = "running" if self.state == "paused" else self.state
        elif command in SIGNALS:
            self.asked = True
            self.process.send_signal(SIGNALS[command])
            # A frozen process takes TERM only once it runs again.
            self.process.send_signal(signal.SIGCONT)

    def report(self) -> dict[str, Any]:
        """Return what ``state.json`` says about this server."""
        return {
            "state": self.state,
            "pid": self.process.pid if self.process else None,
            "starts": self.starts,
            "exits": self.exits,
            "code": self.code,
            "wipes": self.wipes,
        }


def write_state(folder: str, children: dict[str, Child]) -> None:
    """Replace ``state.json`` as a whole, so that nobody reads half of it."""
    path = os.path.join(folder, "state.json")
    with open(path + ".new", "w") as file:
        json.dump({"guard": os.getpid(), "servers": {n: c.report() for n, c in children.items()}}, file)
    os.replace(path + ".new", path)


def end(children: dict[str, Child]) -> None:
    """CONT, TERM, after GRACE seconds KILL: a frozen server must wake to take its leave."""
    running = [child.process for child in children.values() if child.process is not None]
    for process in running:
        process.send_signal(signal.SIGCONT)
        process.terminate()
    deadline = time.monotonic() + GRACE
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def read_commands(buffer: bytearray, children: dict[str, Child]) -> bool:
    """Carry out the whole lines that arrived on stdin; False when it was closed."""
    chunk = os.read(0, 4096)
    if not chunk:
        return False
    buffer += chunk
    while b"\n" in buffer:
        line, _, rest = bytes(buffer).partition(b"\n")
        buffer[:] = rest
        command, _, name = line.decode().partition(" ")
        if name in children:
            children[name].obey(command)
    return True


def guard(folder: str, kernel: int, children: dict[str, Child]) -> None:
    """Look after the servers until the kernel is gone or somebody ends the guard."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    leaving = []
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: leaving.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    buffer = bytearray()
    while not leaving and os.getppid() == kernel:
        now = time.monotonic()
        changed = [child.look() for child in children.values()]
        for child in children.values():
            if child.start_at is not None and child.start_at <= now:
                child.start()
                changed.append(True)
        if any(changed):
            write_state(folder, children)
        starts = [child.start_at - now for child in children.values() if child.start_at is not None]
        ready, _, _ = select.select([0, wake_read], [], [], max(0.0, min([PARENT_CHECK, *starts])))
        if wake_read in ready:
            os.read(wake_read, 4096)
        if 0 in ready:
            if not read_commands(buffer, children):
                return
            write_state(folder, children)


def keep_ports(folder: str) -> list[socket.socket]:
    """Linux: bind the lab's ports without listening, so that nobody is given one while its server is away.

    There, two sockets that both allow reuse may be bound to one port as long as one of them listens; who
    looks for a free port, without that option, finds it taken.
    """
    kept: list[socket.socket] = []
    if sys.platform != "linux":
        return kept
    with contextlib.suppress(OSError, ValueError), open(os.path.join(folder, MARKER)) as file:
        for port in json.load(file)["ports"]:
            holder = socket.socket()
            kept.append(holder)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", port))
    return kept


def main() -> None:
    """Run as ``guard.py FOLDER KERNEL``, with the kernel's end of the pipe as stdin."""
    folder, kernel = sys.argv[1], int(sys.argv[2])
    with open(os.path.join(folder, "servers.json")) as file:
        children = {spec["name"]: Child(spec) for spec in json.load(file)}
    kept = keep_ports(folder)
    try:
        guard(folder, kernel, children)
    finally:
        end(children)
        for holder in kept:
            holder.close()
        if os.path.exists(os.path.join(folder, MARKER)):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
