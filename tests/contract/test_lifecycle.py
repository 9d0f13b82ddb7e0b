"""How an embedded lab begins, lives through crashes, and ends, however its kernel does.

Everything here is real: nats-server processes, Jupyter kernels, signals. A test's lab lives in a state
folder of its own, so that "nothing is left" can be looked up.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import nats.errors
import psutil
import pytest
from jupyter_client.manager import KernelManager

from jslab import connection, settings
from jslab.deployment import binary, guard, ports, process
from jslab.deployment.embedded import EmbeddedDeployment
from jslab.deployment.health import all_routed
from jslab.deployment.process import ChildSpec, ChildState, Guard
from jslab.errors import DeploymentError, SettingsError, UnsupportedError
from jslab.lab import Lab, start
from jslab.waiting import until as until_async
from tests.waits import processes, until

NAMES = ("nats-0", "nats-1", "nats-2")

pytestmark = pytest.mark.embedded

# start() gives one lab per event loop: a test that starts its own needs a loop of its own.
own_loop = pytest.mark.asyncio(loop_scope="function")

Edit = Callable[..., Path]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder for the labs of one test, which leaves no process and no folder behind."""
    folder = tmp_path / "state"
    monkeypatch.setenv("JSLAB_STATE", str(folder))
    yield folder
    assert left(folder) == []


def left(state: Path) -> list[object]:
    """Processes and lab folders that are there now."""
    return [*processes(str(state)), *process.lab_folders(state)]


def embedded(lab: Lab) -> EmbeddedDeployment:
    if not isinstance(lab.deployment, EmbeddedDeployment):
        pytest.skip("this looks at processes and files of the embedded backend")
    return lab.deployment


def server_pids(lab: Lab) -> dict[str, int]:
    return {name: child.pid for name, child in embedded(lab).guard.states().items() if child.pid}


# -- what a running lab is


def test_servers_read_the_very_bytes_of_the_configmap(shared_lab: Lab) -> None:
    text = (settings.course_folder("manifests") / "configmap.yaml").read_bytes()
    block = textwrap.dedent(text.partition(b"  nats.conf: |\n")[2].decode()).encode()
    conf = embedded(shared_lab).folder / "nats.conf"
    assert conf.read_bytes() == block
    for pid in server_pids(shared_lab).values():
        assert str(conf) in psutil.Process(pid).cmdline()


def listeners(pid: int) -> set[tuple[str, int]]:
    """The addresses and ports that a process listens on: on Linux as /proc has them, in all families."""
    if sys.platform != "linux":
        found = psutil.Process(pid).net_connections(kind="tcp")
        return {tuple(c.laddr) for c in found if c.status == psutil.CONN_LISTEN}
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            sockets |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(descriptor)))
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    addresses = [fields[1].split(":") for fields in lines if fields[3] == "0A" and fields[9] in sockets]
    # 127.0.0.1 stands there as one number, little end first; an address of IPv6 would be four of them.
    loopback = socket.inet_aton("127.0.0.1")[::-1].hex().upper()
    return {("127.0.0.1" if at == loopback else at, int(port, 16)) for at, port in addresses}


def test_nothing_listens_outside_loopback(shared_lab: Lab) -> None:
    assert set(server_pids(shared_lab)) == set(NAMES)
    for name, pid in server_pids(shared_lab).items():
        address = dataclasses.astuple(embedded(shared_lab)._addresses[name])
        assert listeners(pid) == {("127.0.0.1", port) for port in address}
    assert listeners(embedded(shared_lab).guard.pid) == set()


def test_ports_are_none_that_are_lent_to_clients(shared_lab: Lab) -> None:
    first, last = ports.ephemeral_range()
    chosen = [port for a in embedded(shared_lab)._addresses.values() for port in dataclasses.astuple(a)]
    assert len(set(chosen)) == 9
    assert [port for port in chosen if first <= port <= last] == []


def test_servers_are_out_of_reach_of_the_kernels_stop(shared_lab: Lab) -> None:
    for pid in [embedded(shared_lab).guard.pid, *server_pids(shared_lab).values()]:
        assert os.getsid(pid) != os.getsid(0)
        assert os.getpgid(pid) != os.getpgid(0)


# -- starting and stopping


@own_loop
async def test_start_twice_is_one_lab_and_a_guest_does_not_end_it(home: Path) -> None:
    async with start() as lab:
        async with start() as again:
            assert again is lab
        assert await start(timeout=5) is lab, "another timeout is no other lab"
        assert (await lab.js.account_info()).streams == 0
    assert left(home) == []


@own_loop
async def test_start_with_other_settings_is_an_error_that_names_them(home: Path, tmp_path: Path) -> None:
    async with start():
        with pytest.raises(SettingsError, match="already has a lab") as caught:
            await start(data=tmp_path / "data")
        assert str(tmp_path / "data") in caught.value.seen
        assert "lab.stop()" in caught.value.do
    async with start(data=tmp_path / "data") as lab:
        assert not lab.deployment.ephemeral


@own_loop
async def test_a_check_after_the_end_says_that_the_lab_has_ended(home: Path) -> None:
    async with start() as lab:
        await lab.lesson("00")
    with pytest.raises(DeploymentError, match="this lab is not running") as caught:
        await lab.check("00.1")
    assert "jslab.start()" in caught.value.do


@own_loop
async def test_two_tasks_that_start_get_one_lab(home: Path) -> None:
    one, two = await asyncio.gather(start(), start())
    assert one is two
    await one.stop()


@own_loop
async def test_stop_twice_and_a_new_lab_afterwards(home: Path) -> None:
    tasks = asyncio.all_tasks()
    lab = await start()
    await lab.stop()
    await lab.stop()
    assert left(home) == []
    assert asyncio.all_tasks() == tasks
    again = await start()
    assert again is not lab
    await again.stop()


@own_loop
async def test_a_stopped_lab_says_so(home: Path) -> None:
    lab = await start()
    card = repr(lab)
    await lab.stop()
    assert repr(lab) == card, "the card is what was last seen, and takes no I/O"
    for use in (lab.status, lab.ready, lambda: lab.faults.crash("nats-0"), lambda: lab.enter("nats-0")):
        with pytest.raises(DeploymentError, match="this lab is not running") as caught:
            await use()
        assert "jslab.start()" in caught.value.do
    with pytest.raises(nats.errors.ConnectionClosedError):
        await lab.js.publish("a", b"")


def test_a_lab_that_was_not_started_says_so(home: Path) -> None:
    lab = Lab(settings.read())
    assert repr(lab) == "<Lab embedded, not started>"
    assert "not started" in lab._repr_html_()


@own_loop
async def test_a_start_that_is_cancelled_leaves_nothing(home: Path, edited: Edit) -> None:
    # A probe that never answers 200: without the cancellation this start would take a minute.
    never = edited("statefulset.yaml", "path: /healthz\n", "path: /nowhere\n")
    tasks = asyncio.all_tasks()
    starting = asyncio.ensure_future(_await(start(manifests=never, timeout=60)))
    await until_async(lambda: len(processes(str(home))) == 4, what="guard and servers", timeout=10)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert left(home) == []
    assert asyncio.all_tasks() == tasks
    async with start() as lab:
        assert lab.nc.is_connected


@own_loop
@pytest.mark.parametrize("moment", range(6))
async def test_a_start_cancelled_at_any_moment_leaves_nothing(home: Path, moment: int) -> None:
    tasks = asyncio.all_tasks()
    starting = asyncio.ensure_future(_await(start()))
    await asyncio.wait([starting], timeout=moment * 0.06)
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await (await starting).stop()  # it was quicker
    assert left(home) == []
    assert asyncio.all_tasks() == tasks


@own_loop
async def test_a_second_stop_while_stopping_still_ends_the_servers(home: Path) -> None:
    lab = await start()
    stopping = asyncio.ensure_future(lab.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await stopping
    await until_async(lambda: not left(home), what="the servers to end", timeout=10)
    await lab.stop()


async def _await(starting: Any) -> Lab:
    lab: Lab = await starting
    return lab


OTHER_LAB = """
import asyncio, sys, jslab
async def main():
    async with jslab.start() as lab:
        stream = await lab.stream("SAME", subjects=["same.>"], num_replicas=3)
        report = await stream.publish_many([b"other"] * 10, subject="same.other")
        urls = [url for s in lab.deployment.servers() for url in (s.client_url, s.monitor_url)]
        print(report.acked, *urls, flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


@own_loop
async def test_two_labs_at_once_have_nothing_in_common(home: Path) -> None:
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OTHER_LAB, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert other.stdout is not None
    try:
        async with start() as lab:
            stream = await lab.stream("SAME", subjects=["same.>"], num_replicas=3)
            await lab.js.publish("same.ours", b"ours")
            acked, *urls = (await other.stdout.readline()).decode().split()
            ours = [url for s in lab.deployment.servers() for url in (s.client_url, s.monitor_url)]
            assert acked == "10"
            assert not set(ours) & set(urls)
            assert (await stream.info()).state.messages == 1
            assert len(process.lab_folders(home)) == 2
        assert len(process.lab_folders(home)) == 1, "the other lab goes on"
    finally:
        await other.communicate(b"")
    assert other.returncode == 0


@own_loop
async def test_data_outlives_the_lab_and_is_never_deleted(home: Path, tmp_path: Path) -> None:
    data = tmp_path / "kept" / "here"
    async with start(data=data) as lab:
        assert "keeps its data" in repr(lab)
        stream = await lab.stream("ORDERS", subjects=["orders.>"], num_replicas=3)
        await stream.publish_many((b"%d" % n for n in range(1000)), subject="orders.new")
    assert {path.name for path in data.iterdir()} >= {f"data-{name}" for name in NAMES}
    async with start(data=data) as lab:
        stream = await lab.stream("ORDERS")
        assert (await stream.info()).state.messages == 1000
        assert (await lab.js.get_msg("ORDERS", 1000)).data == b"999"
    assert process.clean(home) == []
    assert data.is_dir()


@own_loop
async def test_a_folder_given_as_data_is_never_wiped(home: Path, tmp_path: Path) -> None:
    async with start(data=tmp_path / "data") as lab:
        stream = await lab.stream("ORDERS", subjects=["orders.>"])
        await stream.publish_many([b"x"] * 10, subject="orders.new")
        with pytest.raises(UnsupportedError, match="embedded cannot wipe a server") as caught:
            await lab.faults.wipe((await stream.placement()).leader or "")
        assert "data=" in caught.value.seen
        assert (await stream.info()).state.messages == 10


async def test_a_missing_route_is_not_ready(shared_lab: Lab) -> None:
    # Healthy servers, current peers, one leader, and still the first stream timed out: one of the routes
    # that an account's messages take was not there yet.
    await shared_lab.ready()
    _, facts = await embedded(shared_lab).get("nats-0", "/varz")
    routes = {name: (await embedded(shared_lab).get(name, "/routez"))[1] for name in NAMES}
    assert all_routed(facts, routes)
    for name in NAMES:
        for missing in range(len(routes[name]["routes"])):
            rest = [route for number, route in enumerate(routes[name]["routes"]) if number != missing]
            assert not all_routed(facts, routes | {name: {"routes": rest}})
    assert not all_routed(facts, routes | {"nats-1": None})


@own_loop
async def test_ten_starts_each_followed_at_once_by_a_stream_and_a_publish(home: Path) -> None:
    # Ready means ready: no retry anywhere. `make bench` does a hundred.
    for number in range(10):
        async with start() as lab:
            stream = await lab.stream("A", subjects=["a.>"], num_replicas=3)
            ack = await lab.js.publish(f"a.{number}", b"first", stream=stream.name)
            assert ack.seq == 1


# -- Stop, restart and death of a real kernel


class Kernel:
    """A Jupyter kernel, used as a notebook uses it."""

    def __init__(self) -> None:
        self.manager = KernelManager()
        self.manager.start_kernel(stderr=subprocess.DEVNULL)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    @property
    def pid(self) -> int:
        return int(self.manager.provisioner.pid)

    def run(self, code: str) -> str:
        """Run a cell and return what it printed; an exception in it fails the test."""
        printed: list[str] = []

        def hook(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])

        reply = self.client.execute_interactive(code, output_hook=hook, timeout=60)["content"]
        assert reply["status"] == "ok", "\n".join(reply["traceback"])
        return "".join(printed).strip()

    def stop(self, code: str, when: Callable[[], object]) -> tuple[str, float]:
        """Run a cell and press Stop as soon as ``when`` holds; return the error's name and the seconds."""
        # Otherwise the kernel also drops what it is sent shortly after the error.
        sent = self.client.execute(code, stop_on_error=False)
        until(when)
        pressed = time.monotonic()
        self.manager.interrupt_kernel()
        while True:
            reply = self.client.get_shell_msg(timeout=30)
            if reply["parent_header"].get("msg_id") == sent:
                return reply["content"].get("ename", ""), time.monotonic() - pressed

    def tasks(self) -> set[str]:
        """The tasks of the kernel, but for the cell that asks."""
        names = self.run(
            "import asyncio\n"
            "print(*sorted(t.get_coro().__qualname__ for t in asyncio.all_tasks()"
            " if t is not asyncio.current_task()))"
        )
        return set(names.split())

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@pytest.fixture
def kernel(home: Path) -> Iterator[Kernel]:
    """A kernel that finds its labs in this test's state folder."""
    made = Kernel()
    yield made
    made.close()
    until(lambda: not left(home), seconds=10)


START = "import jslab; lab = await jslab.start()"


def test_stop_in_a_cell_that_starts_publishes_or_waits(kernel: Kernel, home: Path, edited: Edit) -> None:
    never = edited("statefulset.yaml", "path: /healthz\n", "path: /nowhere\n")
    before = kernel.tasks()

    error, seconds = kernel.stop(
        f"import jslab; lab = await jslab.start(manifests={str(never)!r}, timeout=60)",
        when=lambda: len(processes(str(home))) == 4,
    )
    assert (error, seconds < 2) == ("CancelledError", True), seconds
    assert left(home) == []
    assert kernel.tasks() == before

    kernel.run(START)
    kernel.run("import itertools\nstream = await lab.stream('A', subjects=['a.>'], num_replicas=3)")
    started = kernel.tasks()
    progress = home / "progress"
    error, seconds = kernel.stop(
        "def records():\n"
        "    for n in itertools.count():\n"
        f"        if n == 20_000: open({str(progress)!r}, 'w').close()\n"
        "        yield b'%d' % n\n"
        "await stream.publish_many(records(), subject='a.b')",
        when=progress.exists,
    )
    assert (error, seconds < 2) == ("CancelledError", True), seconds
    report = "report = stream.last_report; print(report.acked, report.sent)"
    acked, sent = map(int, kernel.run(report).split())
    assert 0 < acked <= sent
    assert int(kernel.run("print((await stream.info()).state.messages)")) >= acked
    assert kernel.tasks() == started

    kernel.run("await lab.faults.hold('nats-1')")
    mark = home / "waiting"
    waiting = f"open({str(mark)!r}, 'w').close(); await lab.ready(60)"
    error, seconds = kernel.stop(waiting, when=mark.exists)
    assert (error, seconds < 2) == ("CancelledError", True), seconds
    assert kernel.tasks() == started
    kernel.run("await lab.faults.heal(); await lab.js.publish('a.c', b'the next cell works')")


def test_stop_reaches_a_cell_that_waits_for_a_frozen_server(kernel: Kernel, home: Path) -> None:
    # nats-py waits in one long sleep here; the lab's heartbeat lets the interrupt through.
    kernel.run(START)
    kernel.run(
        "await lab.stream('A', subjects=['a.>'], num_replicas=3)\nawait lab.faults.pause('nats-1', 'nats-2')"
    )
    mark = home / "waiting"
    publish = f"open({str(mark)!r}, 'w').close(); await lab.js.publish('a.b', b'', timeout=30)"
    error, seconds = kernel.stop(publish, when=mark.exists)
    assert (error, seconds < 2) == ("CancelledError", True), seconds
    kernel.run("await lab.faults.heal()")


def test_a_restarted_kernel_leaves_nothing(kernel: Kernel, home: Path) -> None:
    kernel.run(START)
    assert len(processes(str(home))) == 4
    kernel.manager.restart_kernel(now=False)
    kernel.client.wait_for_ready(timeout=60)
    until(lambda: not left(home), seconds=10)
    kernel.run(START)
    assert kernel.run("print(lab.nc.is_connected)") == "True"


@pytest.mark.parametrize("paused", [False, True], ids=["plain", "with a paused server"])
def test_a_killed_kernel_leaves_nothing(kernel: Kernel, home: Path, paused: bool) -> None:
    kernel.run(START)
    if paused:
        kernel.run("await lab.faults.pause('nats-1')")
    assert len(processes(str(home))) == 4
    os.kill(kernel.pid, signal.SIGKILL)
    until(lambda: not left(home), seconds=10)


def test_a_killed_kernel_whose_child_still_holds_the_pipe_leaves_nothing(kernel: Kernel, home: Path) -> None:
    # multiprocessing's fork copies the pipe to the guard: it does not close when the kernel dies.
    kernel.run(START)
    child = kernel.run(
        "import multiprocessing, time, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))\n"
        "child.start()\nprint(child.pid)"
    )
    try:
        os.kill(kernel.pid, signal.SIGKILL)
        until(lambda: not left(home), seconds=10)
        assert psutil.pid_exists(int(child))
    finally:
        os.kill(int(child), signal.SIGKILL)


@pytest.mark.parametrize("paused", [False, True], ids=["plain", "with a paused server"])
def test_a_kernel_killed_with_its_guard_leaves_what_clean_removes(
    kernel: Kernel, home: Path, paused: bool
) -> None:
    kernel.run(START)
    if paused:
        kernel.run("await lab.faults.pause('nats-1')")
    guard_pid = int(kernel.run("print(lab.deployment.guard.pid)"))
    os.kill(guard_pid, signal.SIGKILL)
    os.kill(kernel.pid, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(guard_pid) and not alive(kernel.pid))
    (found,) = process.clean(home)
    assert not found.guarded
    assert left(home) == []
    assert process.clean(home) == []


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


# -- clean


def test_clean_ends_orphaned_servers_frozen_ones_too(home: Path) -> None:
    # Where the system does not end a dead guard's servers (macOS), they run on.
    folder = home / "lab-orphaned"
    folder.mkdir(parents=True)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    servers = [
        subprocess.Popen(
            [binary.find(), "--addr", "127.0.0.1", "--port", "-1", "--log", str(folder / f"{number}.log")]
        )
        for number in range(2)
    ]
    until(lambda: all((folder / f"{number}.log").exists() for number in range(2)))
    servers[1].send_signal(signal.SIGSTOP)
    children = {
        str(number): dataclasses.asdict(ChildState("running", server.pid, 1, 0, None))
        for number, server in enumerate(servers)
    }
    (folder / guard.MARKER).write_text(json.dumps({"kernel": gone.pid, "ports": [1, 2, 3]}))
    (folder / "state.json").write_text(json.dumps({"guard": gone.pid, "servers": children}))
    (found,) = process.clean(home)
    assert found.ports == (1, 2, 3)
    assert set(found.running) == {server.pid for server in servers}
    assert all(server.wait() is not None for server in servers)
    assert not folder.exists()


def test_clean_spares_a_process_that_was_given_an_old_pid(home: Path) -> None:
    folder = home / "lab-old"
    folder.mkdir(parents=True)
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    children = {"nats-0": dataclasses.asdict(ChildState("running", bystander.pid, 1, 0, None))}
    (folder / guard.MARKER).write_text(json.dumps({"kernel": 0, "ports": []}))
    (folder / "state.json").write_text(json.dumps({"guard": bystander.pid, "servers": children}))
    with bystander:
        (found,) = process.clean(home)
        assert found.running == ()
        assert bystander.poll() is None
    assert not folder.exists()


def test_clean_leaves_labs_in_use_and_other_folders_alone(shared_lab: Lab, state: Path) -> None:
    embedded(shared_lab)
    (state / "notes").mkdir()
    assert process.clean(state) == []
    assert [lab.guarded for lab in process.lab_folders(state)] == [True]
    assert (state / "notes").is_dir()
    (state / "notes").rmdir()


# -- crashes


async def test_a_crashed_server_comes_back_on_its_ports_with_its_data(lab: Lab) -> None:
    before = {server.name: server for server in lab.deployment.servers()}
    orders = await lab.stream("ORDERS", subjects=["orders.>"], num_replicas=1)
    leader = (await orders.placement()).leader
    assert leader is not None
    report = await orders.publish_many((b"%d" % n for n in range(500)), subject="orders.new")
    assert report.acked == 500
    await lab.faults.crash(leader)
    await lab.ready()
    after = {server.name: server for server in lab.deployment.servers()}
    assert after[leader].restarts == before[leader].restarts + 1
    assert {s.client_url for s in after.values()} == {s.client_url for s in before.values()}
    assert (await orders.info()).state.messages == 500
    assert (await lab.js.get_msg("ORDERS", 500)).data == b"499"


CYCLES = 51


@own_loop
async def test_fifty_crashes_under_reconnecting_clients_keep_the_ports(home: Path) -> None:
    # All three at once, 17 times: that is when every client walks round and round, and a client's own
    # outgoing port could be one of a server's. Quorum is asked for only at the end.
    async with start() as lab:
        before = {server.name: server.client_url for server in lab.deployment.servers()}
        stream = await lab.stream("A", subjects=["a.>"], num_replicas=3)
        async with running(list(before.values()), 8) as clients:
            for _ in range(CYCLES // 3):
                await asyncio.gather(*(lab.faults.crash(name) for name in NAMES))
                await until_async(lambda: _all_serve(lab), what="three servers to return", timeout=10)
                for name, pid in server_pids(lab).items():
                    ports_now = {port for _, port in listeners(pid)}
                    assert ports_now == set(dataclasses.astuple(embedded(lab)._addresses[name]))
            assert sum(server.restarts for server in lab.deployment.servers()) == CYCLES
            assert {s.name: s.client_url for s in lab.deployment.servers()} == before
            await lab.ready()
            acked = len(clients.acked)
            await until_async(lambda: len(clients.acked) > acked, what="a client to publish", timeout=30)
        state = (await stream.info()).state
        assert state.messages == state.last_seq, "no gap"
        assert state.last_seq >= max(clients.acked)


async def _all_serve(lab: Lab) -> bool:
    health = [await lab.deployment.get(name, "/healthz?js-server-only=true") for name in NAMES]
    return [status for status, _ in health] == [200, 200, 200]


@dataclasses.dataclass
class Clients:
    """Clients that publish and reconnect; ``acked`` holds the sequences they were given."""

    acked: list[int] = dataclasses.field(default_factory=list)
    stopping: bool = False

    async def publish(self, link: connection.Connection) -> None:
        js = link.nc.jetstream(timeout=0.5)
        while not self.stopping:
            with contextlib.suppress(nats.errors.Error):
                self.acked.append((await js.publish("a.b", b"x")).seq)
            await asyncio.sleep(0.005)
        await link.close()


@contextlib.asynccontextmanager
async def running(urls: list[str], count: int) -> AsyncIterator[Clients]:
    """Run so many clients beside the test."""
    clients = Clients()
    links = [connection.Connection() for _ in range(count)]
    await asyncio.gather(*(link.open(urls, 10) for link in links))
    async with asyncio.TaskGroup() as group:
        for link in links:
            group.create_task(clients.publish(link))
        yield clients
        clients.stopping = True


def test_a_server_that_keeps_dying_is_started_less_and_less_often(home: Path) -> None:
    folder = home / "lab-dying"
    folder.mkdir(parents=True)
    log = folder / "dying.log"
    dies = [sys.executable, "-c", "import time; print(time.time()); raise SystemExit(3)"]
    made = Guard.launch(folder, [ChildSpec("dying", dies, {}, folder, log)])

    def starts() -> list[float]:
        return [float(line) for line in log.read_text().split()] if log.exists() else []

    until(lambda: len(starts()) == 4)
    until(lambda: made.states()["dying"].exits == 4)
    state = made.states()["dying"]
    assert (state.state, state.code, state.pid) == ("backoff", 3, None)
    first, second, third, fourth = starts()
    assert second - first >= guard.BACKOFF_FIRST
    assert third - second >= 2 * guard.BACKOFF_FIRST
    assert fourth - third >= 4 * guard.BACKOFF_FIRST
    (folder / guard.MARKER).write_text("{}")
    asyncio.run(made.end())


def test_backoff_starts_again_after_a_while_of_good_service(tmp_path: Path) -> None:
    dies = {"argv": ["/bin/sh", "-c", "exit 1"], "env": {}, "cwd": str(tmp_path), "log": str(tmp_path / "l")}
    child = guard.Child(dies)
    delays = []
    for seconds_up in (0, 0, 0, guard.BACKOFF_RESET + 1, 0):
        child.start()
        assert child.process is not None
        child.process.wait()
        child.started -= seconds_up
        now = time.monotonic()
        assert child.look()
        assert child.start_at is not None
        delays.append(round(child.start_at - now, 1))
    assert delays == [0.5, 1.0, 2.0, 0.5, 1.0]


def test_a_held_server_released_before_it_is_gone_comes_back(tmp_path: Path) -> None:
    stays = {"argv": ["/bin/sleep", "60"], "env": {}, "cwd": str(tmp_path), "log": str(tmp_path / "l")}
    child = guard.Child(stays)
    child.start()
    assert child.process is not None
    process = child.process
    child.obey("hold")
    child.obey("release")
    process.wait()
    assert child.look()
    assert (child.state, child.start_at is None) == ("backoff", False)


def test_a_server_is_wiped_once_it_has_ended_or_at_once_when_it_is_not_there(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    stays = {"argv": ["/bin/sleep", "60"], "env": {}, "cwd": str(tmp_path), "log": str(tmp_path / "l")}
    child = guard.Child(stays | {"disks": [str(disk)]})
    child.start()
    for wiped in (1, 2):
        (disk / "jetstream").mkdir(parents=True)
        (disk / "jetstream" / "1.blk").write_bytes(b"x")
        (disk / "file").write_bytes(b"x")
        child.obey("wipe")
        until(lambda: child.process is None or child.look())
        assert (child.state, child.wipes, list(disk.iterdir())) == ("backoff", wiped, [])


def test_a_server_counts_as_paused_once_it_stands_still(tmp_path: Path) -> None:
    # SIGSTOP only asks: on a busy machine a server acknowledged messages for a moment after it was sent.
    stays = {"argv": ["/bin/sleep", "60"], "env": {}, "cwd": str(tmp_path), "log": str(tmp_path / "l")}
    child = guard.Child(stays)
    child.start()
    assert child.process is not None
    child.obey("pause")
    told = child.state
    until(child.look)
    assert (told, child.state) == ("running", "paused")
    child.obey("resume")
    assert (child.state, child.look()) == ("running", False)
    child.obey("pause")
    child.obey("crash")
    until(lambda: child.look() and child.process is None)
    assert (child.state, child.code) == ("backoff", -signal.SIGKILL)


def states_of_threads(pid: int | None) -> set[str]:
    """Read the letter that Linux keeps for each thread; T is stopped."""
    return {
        file.read_text().rpartition(")")[2].split()[0] for file in Path(f"/proc/{pid}/task").glob("*/stat")
    }


async def test_no_thread_of_a_paused_server_runs(lab: Lab) -> None:
    await lab.stream("A", subjects=["a.>"], num_replicas=3)
    assert isinstance(lab.deployment, EmbeddedDeployment)
    for _ in range(5):
        await asyncio.gather(*(lab.js.publish("a.b", b"") for _ in range(100)))
        await lab.faults.pause("nats-1", "nats-2")
        states = lab.deployment.guard.states()
        for name in ("nats-1", "nats-2"):
            assert states_of_threads(states[name].pid) == {"T"}
        await lab.faults.heal()


async def test_a_server_that_is_coming_back_can_be_paused(lab: Lab) -> None:
    # It was passed over in silence once: the server came back unpaused.
    await lab.faults.crash("nats-1")
    await lab.faults.pause("nats-1")
    assert {s.name: s.state for s in lab.deployment.servers()}["nats-1"] == "paused"


async def test_a_held_server_cannot_be_paused(lab: Lab) -> None:
    await lab.faults.hold("nats-1")
    with pytest.raises(DeploymentError, match="nats-1 cannot be paused") as caught:
        await lab.faults.pause("nats-1")
    assert "release" in caught.value.do


async def test_a_server_that_is_not_there_is_named(lab: Lab) -> None:
    for fault in ("crash", "terminate", "wipe", "hold", "release", "pause", "resume"):
        with pytest.raises(DeploymentError, match="there is no server 'nats-7'") as caught:
            await getattr(lab.faults, fault)("nats-7")
        assert "nats-0, nats-1, nats-2" in caught.value.seen


@own_loop
async def test_the_death_of_the_guard_is_noticed_and_stop_cleans_up(home: Path) -> None:
    lab = await start()
    os.kill(embedded(lab).guard.pid, signal.SIGKILL)
    await until_async(lambda: not embedded(lab).guard.alive(), what="the guard to die", timeout=5)
    for use in (lambda: lab.faults.crash("nats-0"), lab.ready, lab.status):
        with pytest.raises(DeploymentError, match="the process that looks after them ended") as caught:
            await use()
        assert "exit code -9" in caught.value.seen
        assert "await jslab.start()" in caught.value.do
    await lab.stop()
    assert left(home) == []
    async with start() as again:
        assert again.nc.is_connected


@own_loop
async def test_a_guard_that_is_asked_to_end_ends_everything(home: Path) -> None:
    lab = await start()
    os.kill(embedded(lab).guard.pid, signal.SIGTERM)
    await until_async(lambda: not left(home), what="everything to end", timeout=10)
    await lab.stop()
