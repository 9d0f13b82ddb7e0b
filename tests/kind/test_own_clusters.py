"""How a kind cluster begins, survives interruptions and lost nodes, and ends: on clusters of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nats.errors
import psutil
import pytest

from jslab.deployment.kubernetes import KubernetesDeployment
from jslab.errors import ClusterError
from jslab.lab import Lab, start
from jslab.waiting import until as until_async
from tests.kind import support
from tests.kind.support import QUICK
from tests.waits import processes, until

pytestmark = [pytest.mark.kind, pytest.mark.timeout(180)]

KIND = ("kind", "create", "cluster", "--wait", "0s")


@dataclass(frozen=True)
class Own:
    """A kind cluster with a name of its own, and manifests that ask for it."""

    name: str
    manifests: Path
    intent: Path

    def jslab(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command about this cluster."""
        named = {"JSLAB_MANIFESTS": str(self.manifests), "JSLAB_KIND_CLUSTER": self.name}
        return support.jslab(*arguments, "--backend", "kind", **named)

    def ran(self, *arguments: str, seconds: float = 120) -> tuple[int, str]:
        """Run a command about this cluster to its end; return its exit code and what it wrote."""
        return support.said(self.jslab(*arguments), seconds)

    def nodes(self) -> dict[str, str]:
        """The node containers and their states."""
        which = f"label=io.x-k8s.kind.cluster={self.name}"
        lines = support.command("docker", "ps", "-a", "--filter", which, "--format", "{{.Names}} {{.State}}")
        return dict(line.split() for line in lines.splitlines())

    def working(self) -> list[str]:
        """The processes that work on this cluster, outside of its nodes."""
        found = processes(f"--name {self.name} ")
        with contextlib.suppress(psutil.NoSuchProcess):
            return [" ".join(process.cmdline()[:3]) for process in found]
        return self.working()


def _own(label: str, folder: Path, *edits: support.Edit) -> Own:
    name = support.named(label)
    manifests = support.manifests(
        folder / label,
        ("kind/cluster.yaml", "name: jslab", f"name: {name}"),
        ("kind/cluster.yaml", "  - role: worker\n", ""),
        *QUICK,
        *edits,
    )
    return Own(name, manifests, Path(os.environ["JSLAB_STATE"]) / f"kind-{name}.creating")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    """A cluster of two workers that the tests of this file make, break and remove, in their order."""
    made = _own("own", tmp_path_factory.mktemp("own"))
    yield made
    until(lambda: not made.working())

    def gone() -> bool:
        """Docker may still be making a node when the kind that asked for it was ended."""
        support.command("kind", "delete", "cluster", "--name", made.name, "--kubeconfig", os.devnull)
        return not made.nodes()

    until(gone)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    """A cluster that somebody made with plain kind, under the name that our manifests ask for."""
    folder = tmp_path_factory.mktemp("theirs")
    made = _own("theirs", folder)
    image = os.environ.get("JSLAB_KIND_IMAGE")
    kubeconfig = folder / "config"
    support.command(
        *(*KIND, "--name", made.name, "--kubeconfig", str(kubeconfig), *(("--image", image) if image else ()))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig))
        yield made
    support.command("kind", "delete", "cluster", "--name", made.name, "--kubeconfig", str(kubeconfig))


def test_a_mapped_port_that_is_taken_is_named_before_anything_is_made(state: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        own = _own("port", tmp_path, ("kind/cluster.yaml", "hostPort: 0", f"hostPort: {port}"))
        code, said = own.ran("up")
    assert code == 2
    assert f"port {port} of 127.0.0.1" in said
    assert "is taken" in said
    assert "hostPort: 0" in said
    assert own.nodes() == {}
    assert not own.intent.exists()


def test_down_removes_what_a_killed_up_had_begun(own: Own) -> None:
    _killed_while_it_makes_nodes(own)
    code, said = own.ran("status")
    assert (code, "nothing is deployed" in said) == (0, True), said
    assert own.intent.exists()
    code, said = own.ran("down")
    assert code == 0, said
    assert own.nodes() == {}
    assert own.working() == []
    assert not own.intent.exists()


def test_stop_ends_an_up_at_once_and_leaves_no_process(own: Own) -> None:
    up = own.jslab("up", "--offline")
    until(lambda: own.nodes() and own.working())
    begun = time.monotonic()
    up.send_signal(signal.SIGINT)
    code, said = support.said(up, 10)
    assert time.monotonic() - begun < 5
    assert code == 130, said
    assert said.endswith("jslab: stopped\n")
    assert own.working() == []
    assert own.intent.exists()


def test_the_next_up_repairs_a_half_made_cluster_and_another_waits_for_it(own: Own) -> None:
    _killed_while_it_makes_nodes(own)
    first = own.jslab("up", "--offline")
    second: subprocess.Popen[str] | None = None
    try:
        assert first.stdout is not None
        heard = [first.stdout.readline()]
        assert "left half made" in heard[0]
        # Before it has made all, it is stopped again: this time the servers are just starting.
        second = own.jslab("up", "--offline")
        while "waiting for nats-" not in heard[-1]:
            heard.append(first.stdout.readline())
            assert heard[-1], heard
        first.send_signal(signal.SIGINT)
        code, said = support.said(first, 10)
        assert code == 130, said
        code, said = support.said(second, 120)
        assert code == 0, said
    finally:
        for process in (first, second):
            if process is not None and process.poll() is None:
                process.kill()
                process.communicate()
    assert "another jslab makes or deletes the kind cluster" in said
    # Both may make the namespace: they are let go on together once the cluster stands.
    assert "making the kind cluster" not in said
    assert "making it anew" not in said
    assert "3 copies acknowledged a message" in said
    assert not own.intent.exists()
    assert own.working() == []


def test_status_of_a_cluster_that_works(own: Own) -> None:
    code, said = own.ran("status", "--json")
    assert code == 0, said
    shown = json.loads(said)
    assert (shown["there"], shown["holder"]) == (True, None)
    assert [server["state"] for server in shown["servers"]] == ["running"] * 3


async def test_a_lost_pod_and_a_lost_node_cost_nothing_that_was_acknowledged(
    own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JSLAB_KIND_CLUSTER", own.name)
    async with start("kind", manifests=own.manifests, timeout=60) as lab:
        await lab.js.add_stream(name="KEPT", subjects=["kept"], num_replicas=3)
        acked = [await _publish(lab, number) for number in range(50)]
        support.kubectl("delete", "pod", "nats-0", "-n", "jslab", "--wait=false", cluster=own.name)
        acked += [await _publish(lab, number) for number in range(50, 100)]
        await lab.ready()
        node = _lonely_node(own)
        support.command("docker", "stop", "--timeout", "1", node)
        acked += [await _publish(lab, number) for number in range(100, 150)]
        support.command("docker", "start", node)
        acked += [await _publish(lab, number) for number in range(150, 200)]
        await lab.faults.heal(90)
        for number, sequence in enumerate(acked):
            assert (await lab.js.get_msg("KEPT", sequence)).data == b"%d" % number


def test_up_starts_a_cluster_again_that_the_machine_had_stopped(own: Own) -> None:
    support.command("docker", "stop", "--timeout", "1", *own.nodes())
    code, said = own.ran("up", "--offline", seconds=170)
    assert code == 0, said
    assert "starting the stopped nodes" in said
    assert "3 copies acknowledged a message" in said


def test_down_names_what_is_not_the_labs_and_goes_only_when_told(own: Own) -> None:
    support.kubectl("create", "namespace", "precious", cluster=own.name)
    code, said = own.ran("down")
    assert code == 2
    assert "stream KEPT" in said  # made by lab.js, in the test before: a user's own
    assert "namespace precious" in said
    assert "jslab down --backend kind --yes" in said
    assert set(own.nodes().values()) == {"running"}
    code, said = own.ran("down", "--yes")
    assert code == 0, said
    assert own.nodes() == {}
    code, said = own.ran("status", "--json")
    assert (code, json.loads(said)["there"]) == (0, False)
    code, said = own.ran("down")
    assert code == 0, said


@pytest.mark.parametrize(
    "command", [["up", "--offline"], ["status"], ["down"], ["down", "--yes"]], ids=" ".join
)
def test_a_cluster_that_somebody_else_made_is_not_touched(theirs: Own, command: list[str]) -> None:
    nodes = theirs.nodes()
    assert set(nodes.values()) == {"running"}
    # Of an attempt of ours under this name, long ago: the ports tell that this is not that cluster.
    theirs.intent.write_text(json.dumps({"ports": [1], "kind": None}))
    try:
        code, said = theirs.ran(*command)
    finally:
        theirs.intent.unlink()
    assert code == 2
    assert f"the kind cluster {theirs.name} is not the lab's" in said
    assert f"JSLAB_CONTEXT=kind-{theirs.name}" in said
    assert "Nothing in it was touched" in said
    assert theirs.nodes() == nodes
    assert "jslab" not in support.kubectl("get", "namespaces", cluster=theirs.name)


async def test_no_default_storage_class(theirs: Own) -> None:
    mark = "storageclass.kubernetes.io/is-default-class"
    until(lambda: "standard" in support.kubectl("get", "storageclass", cluster=theirs.name))
    support.kubectl("annotate", "storageclass", "standard", f"{mark}-", cluster=theirs.name)
    lab = KubernetesDeployment(support.plain("t-class", context=f"kind-{theirs.name}"))
    begun = time.monotonic()
    with pytest.raises(ClusterError, match="the claim data-nats-0 gets no volume") as caught:
        await lab.install(print)
    assert time.monotonic() - begun < 30
    for word in ("no storage class is the default", "classes: standard", f"{mark}=true", "storageClassName"):
        assert word in str(caught.value)
    await lab.down()


def _killed_while_it_makes_nodes(own: Own) -> None:
    """SIGKILL, as of a machine out of memory: the kind that it had started goes on alone."""
    up = own.jslab("up", "--offline")
    # Nodes of its own: those of an earlier try may still be on their way out.
    until(lambda: own.nodes() and any("create" in line for line in own.working()))
    up.kill()
    support.said(up)
    assert own.intent.exists()


def _lonely_node(own: Own) -> str:
    """The worker that has one server: without it the others are a quorum."""
    pods = json.loads(support.kubectl("get", "pods", "-n", "jslab", "-o", "json", cluster=own.name))["items"]
    nodes = [pod["spec"]["nodeName"] for pod in pods]
    return min(set(nodes), key=nodes.count)


async def _publish(lab: Lab, number: int) -> int:
    """Publish until it is acknowledged, as the same message each time; return its sequence."""
    acked: list[int] = []

    async def published() -> bool:
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            headers = {"Nats-Msg-Id": str(number)}
            ack = await lab.js.publish("kept", b"%d" % number, timeout=2, headers=headers)
            acked.append(ack.seq)
        return bool(acked)

    await until_async(published, what="an acknowledgement", timeout=30)
    return acked[0]
