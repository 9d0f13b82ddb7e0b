"""The backend kubernetes: a namespace of somebody's cluster, as a user who may do only what it takes."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats.errors
import pytest

from jslab.deployment.kubernetes import KubernetesDeployment
from jslab.errors import ClusterError, LeaseHeldError, UnsupportedError
from jslab.lab import Lab, start
from jslab.settings import Settings
from jslab.stream_config import LESSON_KEY, OWNED
from jslab.waiting import until
from tests.kind import support, users
from tests.kind.support import QUICK, Edit

pytestmark = pytest.mark.kind

OTHER_CONFIG: Edit = ("configmap.yaml", "max_memory_store: 32Mi", "max_memory_store: 33Mi")


@dataclass(frozen=True)
class Deployed:
    """A deployment that the tests of this file share, and how its user names it."""

    settings: Settings
    folder: Path
    variables: dict[str, str]

    @property
    def namespace(self) -> str:
        return self.settings.namespace

    def with_manifests(self, name: str, *edits: Edit) -> KubernetesDeployment:
        """The same deployment, as it would be with edited manifests."""
        folder = self.folder / name
        if not folder.exists():
            support.manifests(folder, *QUICK, *edits)
        return KubernetesDeployment(support.plain(**self._names, manifests=folder))

    async def install(self, name: str, *edits: Edit) -> None:
        """Bring the deployment to what edited manifests say."""
        lab = self.with_manifests(name, *edits)
        try:
            await lab.install(print)
        finally:
            await lab.down()

    @property
    def plain(self) -> KubernetesDeployment:
        return KubernetesDeployment(self.settings)

    def lab(self, **options: Any) -> Any:
        return start("kubernetes", **self._names, timeout=60, **options)

    @property
    def _names(self) -> dict[str, Any]:
        return {"namespace": self.namespace, "context": self.settings.context}


@pytest.fixture(scope="module")
async def deployed(
    space: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Deployed]:
    """Servers in a namespace that an admin made, deployed by a user with the rights of users.RULES alone."""
    folder = tmp_path_factory.mktemp("plain")
    namespace = space("plain")
    context = users.make(namespace, folder)
    with pytest.MonkeyPatch.context() as patch:
        variables = {
            "KUBECONFIG": str(folder / "config"),
            "JSLAB_BACKEND": "kubernetes",
            "JSLAB_CONTEXT": context,
            "JSLAB_NAMESPACE": namespace,
            "JSLAB_IMAGE": support.IMAGE,
        }
        for name, value in variables.items():
            patch.setenv(name, value)
        made = Deployed(support.plain(namespace, context=context), folder, variables)
        await made.install("quick")
        yield made


async def test_installing_again_is_quick_and_changes_nothing(deployed: Deployed) -> None:
    before = support.everything(deployed.namespace)
    begun = time.monotonic()
    await deployed.install("quick")
    assert time.monotonic() - begun < 10
    assert _without_events(support.everything(deployed.namespace)) == _without_events(before)


async def test_the_api_server_takes_the_manifests_as_they_are(deployed: Deployed) -> None:
    before = support.everything(deployed.namespace)
    code, printed = support.said(support.jslab("up", "--dry-run", **deployed.variables))
    assert (code, "StatefulSet/nats" in printed) == (0, True), printed
    assert _without_events(support.everything(deployed.namespace)) == _without_events(before)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            ("statefulset.yaml", "podManagementPolicy: Parallel", "podManagementPolicy: OrderedReady"),
            ["spec.podManagementPolicy: the cluster", '"Parallel"', '"OrderedReady"', "--cascade=orphan"],
        ),
        (
            ("statefulset.yaml", "storage: 2Gi", "storage: 3Gi"),
            ["spec.volumeClaimTemplates[0].spec.resources", '"2Gi"', '"3Gi"', "jslab down", "with its data"],
        ),
    ],
    ids=["policy", "claims"],
)
async def test_a_field_that_nobody_can_change_is_named_with_the_remedy(
    deployed: Deployed, edit: Edit, words: list[str]
) -> None:
    before = support.everything(deployed.namespace)
    with pytest.raises(ClusterError) as caught:
        await deployed.install(edit[2].replace(" ", ""), edit)
    for word in ["the StatefulSet nats", *words]:
        assert word in str(caught.value)
    assert _without_events(support.everything(deployed.namespace)) == _without_events(before)


async def test_another_configuration_rolls_through_one_server_at_a_time(deployed: Deployed) -> None:
    installing = asyncio.ensure_future(deployed.install("other", OTHER_CONFIG))
    fewest = 3
    while not installing.done():
        shown = await asyncio.to_thread(
            support.kubectl, "get", "statefulset", "nats", "-n", deployed.namespace, "-o", "json"
        )
        fewest = min(fewest, json.loads(shown)["status"].get("availableReplicas", 0))
        await asyncio.wait([installing], timeout=0.2)
    await installing
    assert fewest == 2
    lab = deployed.plain
    try:
        await lab.open()
        told = [await lab.get(name, "/varz") for name in lab.known()]
        assert {body["jetstream"]["config"]["max_memory"] for _, body in told} == {33 * 2**20}
    finally:
        await lab.down()


async def test_a_client_outlives_the_pod_behind_its_forward_and_nothing_acknowledged_is_lost(
    deployed: Deployed,
) -> None:
    async with deployed.lab() as lab:
        ports = [int(server.client_url.rpartition(":")[2]) for server in lab.deployment.servers()]
        await lab.stream("KEPT", subjects=["kept"], num_replicas=3)
        acked = [await _publish(lab, number) for number in range(100)]
        entry = lab.entry
        assert entry is not None
        await lab.faults.crash(entry)
        begun = time.monotonic()
        acked.append(await _publish(lab, 100))
        assert time.monotonic() - begun < 15
        acked += [await _publish(lab, number) for number in range(101, 200)]
        await lab.faults.terminate("nats-1")
        acked.append(await _publish(lab, 200))
        await lab.faults.heal()
        for number, sequence in enumerate(acked):
            assert (await lab.js.get_msg("KEPT", sequence)).data == b"%d" % number
        assert {server.state for server in lab.deployment.servers()} == {"running"}
        await lab.js.delete_stream("KEPT")
    assert not any(map(_listens, ports))
    await until(
        lambda: not _forwarding(), what="the threads of the forwards to end", timeout=10, seen=_forwarding
    )


async def test_a_fault_that_needs_the_node_names_the_backends_that_can(deployed: Deployed) -> None:
    async with deployed.lab() as lab:
        for fault in (lab.faults.pause, lab.faults.hold, lab.faults.wipe):
            with pytest.raises(UnsupportedError, match=r"kubernetes cannot (pause|hold|wipe)") as caught:
                await fault("nats-0")
            assert "kind and embedded can do it" in str(caught.value)
        await lab.faults.heal()


async def test_a_server_that_speaks_first_is_heard_by_every_connection(deployed: Deployed) -> None:
    # The package's forward was deaf to what TLS had decrypted with its first answer: 7 of 100 connections.
    async def heard(url: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        async with asyncio.timeout(10):
            line = await reader.readline()
        writer.close()
        return line

    lab = deployed.plain
    await lab.open()
    try:
        urls = [server.client_url for server in lab.servers()]
        for _ in range(25):
            lines = await asyncio.gather(*(heard(url) for url in [*urls, *urls]))
            assert all(line.startswith(b"INFO ") for line in lines)
    finally:
        await lab.down()


async def test_two_notebooks_at_once(deployed: Deployed) -> None:
    first, second, third = (
        deployed.plain,
        deployed.plain,
        KubernetesDeployment(dataclasses.replace(deployed.settings, take_over=True)),
    )
    try:
        await first.up()
        with pytest.raises(LeaseHeldError, match="another notebook has this lab") as caught:
            await second.up()
        for word in (f"process {os.getpid()}", "since", " UTC", "take_over=True", "await lab.stop()"):
            assert word in str(caught.value)
        assert first.servers()

        await third.up()
        with pytest.raises(LeaseHeldError, match="no longer has the lab") as told:
            await until(lambda: not first.servers(), what="the first to be told", timeout=15)
        assert f"process {os.getpid()}" in str(told.value)
        await first.down()
        assert f"process {os.getpid()}" in await third.holder()
        assert third.servers()
    finally:
        for lab in (first, second, third):
            await lab.down()
    held = ("get", "lease", "jslab-lesson", "-n", deployed.namespace, "-o", "jsonpath={.spec.holderIdentity}")
    assert support.kubectl(*held) == ""


KERNEL = """
import asyncio, time, jslab
async def main():
    lab = await jslab.start()
    print(*(server.client_url.rpartition(":")[2] for server in lab.deployment.servers()), flush=True)
    while True: await lab.js.account_info()
asyncio.run(main())
"""


def _kernel() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", KERNEL], stdout=subprocess.PIPE, text=True)


async def test_a_killed_kernel_leaves_no_forward_and_its_lease_lapses(deployed: Deployed) -> None:
    kernel = _kernel()
    try:
        assert kernel.stdout is not None
        ports = [int(port) for port in (await asyncio.to_thread(kernel.stdout.readline)).split()]
        assert len(ports) == 3
        assert all(map(_listens, ports))
        kernel.send_signal(signal.SIGKILL)
        kernel.wait(10)
        killed = time.monotonic()
        assert not any(map(_listens, ports))
        async with deployed.lab() as lab:
            assert time.monotonic() - killed < 30
            assert await lab.js.account_info()
    finally:
        kernel.kill()
        kernel.wait(10)
        assert kernel.stdout is not None
        kernel.stdout.close()


def test_status_says_how_it_is_and_who_has_it(deployed: Deployed) -> None:
    code, text = support.said(support.jslab("status"))
    assert code == 0, text
    assert "no notebook has it" in text
    for name in ("nats-0", "nats-1", "nats-2"):
        assert name in text
    code, text = support.said(support.jslab("status", "--json"))
    assert code == 0, text
    shown = json.loads(text)
    assert (shown["backend"], shown["there"], shown["holder"]) == ("kubernetes", True, None)
    assert [server["state"] for server in shown["servers"]] == ["running"] * 3
    code, text = support.said(support.jslab("status", "--json", JSLAB_NAMESPACE=support.named("none")))
    assert code == 2, text  # this user may not even look at another namespace
    assert "does not let you get namespaces" in text


async def test_down_spares_a_users_stream_and_the_other_namespaces(
    deployed: Deployed, space: Callable[[str], str]
) -> None:
    beside = space("beside")
    support.kubectl("create", "namespace", beside)
    untouched = _without_events(support.everything(beside))
    async with deployed.lab() as lab:
        marks = {**OWNED, LESSON_KEY: "03"}
        await lab.js.add_stream(name="LESSONS", subjects=["lessons"], num_replicas=3, metadata=marks)
        await lab.js.add_stream(name="MINE", subjects=["mine"], num_replicas=3)
        await lab.js.publish("mine", b"precious")
    code, text = await asyncio.to_thread(support.said, support.jslab("down"))
    assert code == 2, text
    assert "stream MINE" in text
    assert "LESSONS" not in text
    assert "jslab down --backend kubernetes --yes" in text
    async with deployed.lab() as lab:
        assert (await lab.js.get_msg("MINE", 1)).data == b"precious"
    code, text = await asyncio.to_thread(support.said, support.jslab("down", "--yes"), 150)
    assert code == 0, text
    assert "nothing of the lab is left" in text
    # The role with which this user could see the namespace go was in it.
    admin = ("get", "namespace", deployed.namespace)
    await until(lambda: "not found" in support.kubectl(*admin, check=False), what="the end", timeout=60)
    assert _without_events(support.everything(beside)) == untouched


async def _publish(lab: Lab, number: int) -> int:
    """Publish until it is acknowledged, as the same message each time; return its sequence."""
    while True:
        try:
            ack = await lab.js.publish(
                "kept", b"%d" % number, timeout=2, headers={"Nats-Msg-Id": str(number)}
            )
        except (nats.errors.Error, TimeoutError):
            continue
        return ack.seq


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _forwarding() -> str:
    return ", ".join(thread.name for thread in threading.enumerate() if "port forward" in thread.name)


def _without_events(listed: str) -> str:
    """Events come and go by themselves, also about what nobody touched."""
    return "\n".join(line for line in listed.splitlines() if not line.startswith("Event"))
