"""A copy of the manifests with a line changed, in a namespace of its own: what is that line for?"""

from __future__ import annotations

import difflib
import itertools
import shlex
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jslab import views
from jslab.deployment import Deployment, Server, diagnosis, rollout
from jslab.deployment.cluster import FORBIDDEN, OURS, Object, RefusalError
from jslab.deployment.kubernetes import KubernetesDeployment
from jslab.errors import DeploymentError, ManifestError, UnsupportedError
from jslab.settings import course_folder

# Namespaces of copies carry this, so that a lesson's clean-up finds those of a kernel that is gone.
MARK = "jslab/trial"
# Seconds until a copy works or it is plain why it does not.
PATIENCE = 90.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a copy of the manifests fared."""

    namespace: str
    works: bool
    seconds: float
    """From the question to the answer."""
    what: str
    seen: str

    def _view(self) -> views.View:
        text = f"{self.seen}\nafter {self.seconds:.0f} s".strip()
        return views.verdict(self.works, f"{self.namespace}: {self.what}", text)

    def __repr__(self) -> str:
        return self._view().text

    def _repr_html_(self) -> str:
        return self._view().html


class Trial:
    """An edited copy of the manifests, and a namespace beside the lab's to try it in."""

    def __init__(self, parent: KubernetesDeployment, name: str) -> None:
        self.name = name
        self.namespace = f"{parent.cluster.namespace}-{name}"
        """Where it is applied; with a number behind it while an earlier one of that name is still going."""
        self._parent = parent
        folder = tempfile.mkdtemp(prefix=f"jslab-{name}-")
        self._cleanup = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._path = Path(folder) / "manifests"
        shutil.copytree(course_folder("manifests"), self._path)
        self._deployment: KubernetesDeployment | None = None
        self._begun = False

    def drop(self, file: str, key: str) -> Trial:
        """Take ``key:`` out of a file, with all that is indented below it. Raises ManifestError."""
        lines = self._lines(file)
        (at,) = self._find(
            file, [n for n, line in enumerate(lines) if line.strip().startswith(f"{key}:")], key
        )
        depth = _depth(lines[at])
        end = at + 1
        while end < len(lines) and lines[end].strip() and _depth(lines[end]) > depth:
            end += 1
        self._write(file, lines[:at] + lines[end:])
        return self

    def change(self, file: str, old: str, new: str) -> Trial:
        """Replace the one line of a file that says ``old`` by one that says ``new``. Raises ManifestError."""
        lines = self._lines(file)
        (at,) = self._find(file, [n for n, line in enumerate(lines) if line.strip() == old], old)
        lines[at] = lines[at].replace(old, new)
        self._write(file, lines)
        return self

    def diff(self) -> views.View:
        """Show what differs from the course's own manifests."""
        return views.code(f"{self.namespace}: the copy", "\n".join(self._differences()) or "nothing differs")

    async def apply(self) -> None:
        """Make the namespace and apply the copy; does not wait for anything to work."""
        await self._begin()
        await (await self._other()).apply(_silent)

    async def outcome(self) -> Outcome:
        """Wait until the copy works as one cluster, or until it is plain why it never will."""
        started = time.monotonic()
        try:
            await (await self._other()).finish(_silent, PATIENCE)
        except DeploymentError as err:
            return Outcome(self.namespace, False, time.monotonic() - started, err.what, err.seen)
        return Outcome(self.namespace, True, time.monotonic() - started, "the servers are one cluster", "")

    async def open(self) -> tuple[Server, ...]:
        """Give each server of the copy an address on this machine, by a port-forward."""
        other = await self._other()
        await other.open()
        return other.servers()

    async def deployment(self) -> Deployment:
        """Return the copy's deployment, to ask and to break its servers."""
        return await self._other()

    async def kubectl(self, command: str) -> views.View:
        """Run kubectl in the copy's namespace and show what it printed. Raises ToolError."""
        return await kubectl(self._parent, command, self.namespace)

    async def remove(self) -> None:
        """Close what ``open`` opened and begin to delete the namespace."""
        if self._deployment is not None:
            await self._deployment.down()
        await rollout.delete_namespace(self._parent.cluster.beside(self.namespace))
        self._begun = False
        self._cleanup()

    async def _begin(self) -> None:
        """Find a namespace of ours for it, or make one that is marked; once found it stays."""
        if self._begun and await self._there():
            return
        if self._deployment is not None:
            await self._deployment.down()
        self._begun, self._deployment = True, None
        for number in itertools.count(1):
            self.namespace = f"{self._parent.cluster.namespace}-{self.name}" + (
                f"-{number}" if number > 1 else ""
            )
            cluster = self._parent.cluster.beside(self.namespace)
            found = await cluster.get("Namespace", self.namespace)
            if found is None:
                await rollout.make_namespace(cluster, {MARK: self.name})
            # One that is going takes ten seconds more, for its volumes.
            if found is None or not found["metadata"].get("deletionTimestamp"):
                return

    async def _there(self) -> bool:
        found = await self._parent.cluster.get("Namespace", self.namespace)
        return found is not None and not found["metadata"].get("deletionTimestamp")

    async def _other(self) -> KubernetesDeployment:
        if self._deployment is None:
            self._deployment = await self._parent.beside(self.namespace, self._path)
        return self._deployment

    def _lines(self, file: str) -> list[str]:
        if not (self._path / file).is_file():
            there = ", ".join(sorted(path.name for path in self._path.glob("*.yaml")))
            raise ManifestError(f"there is no {file} in the manifests", seen=there, do="name one of those")
        return (self._path / file).read_text(encoding="utf-8").splitlines()

    def _find(self, file: str, found: list[int], text: str) -> list[int]:
        if len(found) != 1:
            raise ManifestError(
                f"{file} should say {text!r} once",
                seen=f"{len(found)} lines of it do",
                do="compare with the manifests that came with the course",
            )
        return found

    def _write(self, file: str, lines: list[str]) -> None:
        (self._path / file).write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _differences(self) -> Iterator[str]:
        for path in sorted(self._path.glob("*.yaml")):
            old = (course_folder("manifests") / path.name).read_text(encoding="utf-8").splitlines()
            new = path.read_text(encoding="utf-8").splitlines()
            yield from difflib.unified_diff(old, new, path.name, path.name, lineterm="", n=1)


def parent_of(deployment: Deployment) -> KubernetesDeployment:
    """Return a deployment that a copy can stand beside. Raises UnsupportedError for embedded."""
    if isinstance(deployment, KubernetesDeployment):
        return deployment
    raise UnsupportedError(
        f"the backend {deployment.backend} has no pods, volumes or probes to look at",
        seen="three processes of this machine",
        do="install Docker and kind, run `jslab up --backend kind`, and start with jslab.start('kind')",
    )


async def kubectl(parent: KubernetesDeployment, command: str, namespace: str | None = None) -> views.View:
    """Run a kubectl command in a namespace and show it with what it printed. Raises ToolError."""
    printed = await parent.kubectl(*shlex.split(command), namespace=namespace)
    return views.code(f"kubectl {command}", printed.rstrip())


async def find(parent: Deployment, name: str) -> Trial | None:
    """Return the copy of that name that was applied last and is not going, None when there is none."""
    above = parent_of(parent)
    spaces = [space for space in await _spaces(above) if space["metadata"]["labels"][MARK] == name]
    alive = [space for space in spaces if not space["metadata"].get("deletionTimestamp")]
    if not alive:
        return None
    found = Trial(above, name)
    found.namespace = diagnosis.name_of(max(alive, key=lambda space: space["metadata"]["creationTimestamp"]))
    return found


async def remove_all(parent: Deployment, name: str | None = None) -> None:
    """Begin to delete the copies beside a lab, or those of one name, also of kernels that are gone."""
    if not isinstance(parent, KubernetesDeployment):
        return
    for space in await _spaces(parent):
        if name in (None, space["metadata"]["labels"][MARK]):
            await rollout.delete_namespace(parent.cluster.beside(diagnosis.name_of(space)))


async def _spaces(parent: KubernetesDeployment) -> list[Object]:
    try:
        ours = await parent.cluster.find("Namespace", OURS)
    except RefusalError as err:
        if err.status == FORBIDDEN:  # whoever may not list namespaces has made none
            return []
        raise
    beside = f"{parent.cluster.namespace}-"
    return [
        space
        for space in ours
        if MARK in space["metadata"]["labels"] and diagnosis.name_of(space).startswith(beside)
    ]


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _silent(_: str) -> None:
    """Say nothing: a lesson's cell shows the outcome."""
