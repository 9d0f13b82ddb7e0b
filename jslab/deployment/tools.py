"""Runs docker and kind, the two programs that a kind cluster is made with."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from jslab.errors import ToolError

INSTALL = {
    "docker": "install Docker Engine or Docker Desktop, or use the backend embedded, which needs none",
    "kubectl": "install it (https://kubernetes.io/docs/tasks/tools, one file to put on PATH)",
    "kind": "install it (https://kind.sigs.k8s.io, one file to put on PATH), or use the backend embedded",
}
# What the docker command says when its daemon does not answer, or is not for this user.
NO_DAEMON = (
    "failed to connect to the docker API",
    "Cannot connect to the Docker daemon",
    "error during connect",
    "Is the docker daemon running",
)
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
# Eight nodes use up 128, which is what Linux gives by default; kind recommends this.
ENOUGH_INOTIFY = 512
NO_RIGHT = "permission denied"


async def run(
    program: str,
    *arguments: str,
    timeout: float = 30.0,
    stdin: bytes | None = None,
    started: Callable[[int], object] = bool,
) -> str:
    """Run a program to its end and return what it wrote to stdout.

    ``started`` is told its process id, which is its group's, too.

    Interrupted, or after ``timeout`` seconds, it and its children are ended. Raises ToolError when it is not
    there, fails, or takes too long.
    """
    path = find(program)
    process = await asyncio.create_subprocess_exec(
        path,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Stop and Ctrl-C are for us; it is ended below
    )
    said = f"{program} {' '.join(arguments[:3])}"
    try:
        started(process.pid)
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(stdin)
    except TimeoutError:
        raise ToolError(
            f"`{said}` did not end",
            seen=f"waited {timeout:g} s",
            do=f"does it end when you run it yourself? If not, restart {program}",
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
    if process.returncode:
        raise _failed(program, said, (err or out).decode(errors="replace").strip())
    return out.decode(errors="replace")


def find(program: str) -> str:
    """Return the path of a program. Raises ToolError when it is not on PATH."""
    path = shutil.which(program)
    if path is None:
        raise ToolError(
            f"there is no {program} on this machine",
            seen=f"not on PATH: {os.environ.get('PATH', '')}",
            do=INSTALL[program],
        )
    return path


def _failed(program: str, said: str, output: str) -> ToolError:
    # In what kind says there are logs of its nodes, where this may mean anything.
    denied = program == "docker" and NO_RIGHT in output
    if denied or any(mark in output for mark in NO_DAEMON):
        return ToolError(
            "Docker does not let you use it" if denied else "Docker is not running",
            seen=output.splitlines()[-1],
            do="join the group docker and log in again"
            if denied
            else "start it: sudo systemctl start docker, or open Docker Desktop",
        )
    if program == "kind":
        # kind quotes pages of another program's log after its own sentence.
        own = [line for line in output.splitlines() if line.startswith("ERROR: ")]
        return ToolError(f"`{said}` failed", seen=(own or [output[-600:]])[-1], do=_kind_remedy(output))
    return ToolError(f"`{said}` failed", seen=output[-600:] or "no output", do="correct what it names")


def _kind_remedy(output: str) -> str:
    remedy = "correct what it names; https://kind.sigs.k8s.io/docs/user/known-issues has the usual causes"
    with contextlib.suppress(OSError, ValueError):
        limit = int(INOTIFY.read_text())
        # systemd, containerd and the kubelet of each node take from one pool for the whole machine.
        if "kubelet" in output and limit < ENOUGH_INOTIFY:
            return (
                f"nodes may have run out of inotify instances, of which this machine has {limit}: "
                "delete a kind cluster you no longer use, or "
                f"sudo sysctl fs.inotify.max_user_instances={ENOUGH_INOTIFY}"
            )
    return remedy
