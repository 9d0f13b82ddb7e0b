"""Runs docker and kind, the two programs that a kind cluster is made with."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal

from jslab.errors import ToolError

INSTALL = {
    "docker": "install Docker Engine or Docker Desktop, or use the backend embedded, which needs none",
    "kind": "install it (https://kind.sigs.k8s.io, one file to put on PATH), or use the backend embedded",
}
# What the docker command says when its daemon does not answer, or is not for this user.
NO_DAEMON = ("Cannot connect to the Docker daemon", "error during connect", "Is the docker daemon running")
NO_RIGHT = "permission denied"


async def run(program: str, *arguments: str, timeout: float = 30.0, stdin: bytes | None = None) -> str:
    """Run a program to its end and return what it wrote to stdout.

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
    if any(mark in output for mark in NO_DAEMON) or ("docker" in output and NO_RIGHT in output):
        denied = NO_RIGHT in output
        return ToolError(
            "Docker does not let you use it" if denied else "Docker is not running",
            seen=output.splitlines()[-1],
            do="join the group docker and log in again"
            if denied
            else "start it: sudo systemctl start docker, or open Docker Desktop",
        )
    return ToolError(f"`{said}` failed", seen=output[-600:] or "no output", do="correct what it names")
