"""Each way in which manifests keep servers from becoming ready is named, with its remedy, within 30 seconds.

All of them are deployed at the same time, each in a namespace of its own; each test looks at one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from jslab.deployment.kubernetes import KubernetesDeployment
from jslab.errors import ClusterError, LabError
from tests.kind import support
from tests.kind.support import SMALL, Edit

pytestmark = pytest.mark.kind

# Seconds in which a cause must be named, once it can be seen.
NAMED = 30.0
STATEFUL = "statefulset.yaml"
# Nothing listens there, on no node.
NO_IMAGE = "127.0.0.1:1/nats-server:0"
ASKS_ALL = ("path: /healthz?js-server-only=true", "path: /healthz")
CLASS = 'accessModes: ["ReadWriteOnce"]'


@dataclass(frozen=True)
class Case:
    """Broken manifests, and words that the error about them must hold."""

    edits: Sequence[Edit]
    words: Sequence[str]
    visible: str = "waiting for"
    """What ``install`` says once the symptom can be seen."""
    image: str = support.IMAGE


CASES = {
    "image": Case(
        edits=SMALL,
        image=NO_IMAGE,
        visible="ImagePull",
        words=[f"image {NO_IMAGE} cannot be pulled", "connection refused", "--offline", "JSLAB_IMAGE"],
    ),
    "class": Case(
        edits=[(STATEFUL, CLASS, f"{CLASS}\n        storageClassName: none-such"), *SMALL],
        words=[
            "claim data-nats-0 gets no volume",
            '"none-such" not found',
            "classes of the cluster: standard",
        ],
    ),
    "room": Case(
        edits=[(STATEFUL, "cpu: 500m", "cpu: 500"), (STATEFUL, "cpu: 500m", "cpu: 500")],
        words=["no node takes nats-0", "Insufficient cpu", "resources.requests"],
    ),
    "crash": Case(
        edits=[("configmap.yaml", "    server_name: $POD_NAME\n", ""), *SMALL],
        visible="ContainerCreating",
        words=[
            "the server in nats-",
            "ends again and again",
            "exit code 1",
            "requires `server_name` to be set",
        ],
    ),
    "ordered": Case(
        edits=[
            (STATEFUL, "podManagementPolicy: Parallel", "podManagementPolicy: OrderedReady"),
            (STATEFUL, *ASKS_ALL),
            *SMALL,
        ],
        visible="runs, not ready yet",
        words=["a deadlock: nats-0 waits", "OrderedReady", "podManagementPolicy: Parallel"],
    ),
    "unnamed": Case(
        edits=[
            ("services.yaml", "publishNotReadyAddresses: true", "publishNotReadyAddresses: false"),
            (STATEFUL, *ASKS_ALL),
            *SMALL,
        ],
        visible="runs, not ready yet",
        words=["a deadlock", "nats-headless gives no names", "publishNotReadyAddresses: true"],
    ),
    "root": Case(
        edits=[(STATEFUL, "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"), *SMALL],
        words=[
            "Kubernetes refuses to make a pod of nats",
            'violates PodSecurity "restricted',
            "Pod Security",
        ],
    ),
    "program": Case(
        edits=[(STATEFUL, 'command: ["nats-server"]', 'command: ["nats-servr"]'), *SMALL],
        words=["nats-", '"nats-servr": executable file not found', "jslab up"],
    ),
}


@dataclass(frozen=True)
class Verdict:
    """What ``install`` said of a case, and how many seconds after the symptom could be seen."""

    lab: KubernetesDeployment
    error: LabError | None
    seconds: float


@pytest.fixture(scope="module")
async def verdicts(
    space: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Verdict]:
    """Deploy every case, all at once."""
    folder = tmp_path_factory.mktemp("broken")
    given = await asyncio.gather(
        *(_deployed(case, space(label), folder / label) for label, case in CASES.items())
    )
    return dict(zip(CASES, given, strict=True))


async def _deployed(case: Case, namespace: str, folder: Path) -> Verdict:
    edited = support.manifests(folder, *case.edits)
    lab = KubernetesDeployment(support.plain(namespace, manifests=edited, image=case.image))
    # A phase that was too short to be seen counts from the beginning.
    seen: list[float] = [time.monotonic()]
    error: LabError | None = None

    def say(line: str) -> None:
        if case.visible in line and len(seen) == 1:
            seen.append(time.monotonic())

    try:
        await lab.install(say)
    except LabError as err:
        error = err
    finally:
        await lab.down()
    return Verdict(lab, error, time.monotonic() - seen[-1])


@pytest.mark.parametrize("label", CASES)
async def test_a_broken_manifest_is_named_in_time(label: str, verdicts: dict[str, Verdict]) -> None:
    verdict = verdicts[label]
    print(f"{verdict.seconds:.1f} s\n{verdict.error}")
    assert isinstance(verdict.error, ClusterError)
    for word in CASES[label].words:
        assert word in str(verdict.error)
    assert verdict.error.seen
    assert verdict.error.do
    assert verdict.seconds < NAMED


async def test_a_pod_that_is_not_restricted_is_refused_in_the_namespace(verdicts: dict[str, Verdict]) -> None:
    """The label is on the namespace: what the course's pods promise, every pod there has to."""
    namespace = verdicts["class"].lab.cluster.namespace
    pod = ("run", "careless", f"--image={support.IMAGE}", "-n", namespace)
    assert 'violates PodSecurity "restricted' in support.kubectl(*pod, check=False)


async def test_corrected_manifests_repair_what_broken_ones_made(
    verdicts: dict[str, Verdict], tmp_path: Path
) -> None:
    """A rolling update takes one pod and waits until it is ready: beside two broken ones, for ever."""
    corrected = support.manifests(tmp_path / "corrected", *SMALL)
    labs = [
        KubernetesDeployment(support.plain(verdicts[label].lab.cluster.namespace, manifests=corrected))
        for label in ("image", "crash")
    ]
    try:
        await asyncio.gather(*(lab.install(print) for lab in labs))
        for lab in labs:
            await lab.open()
            assert [server.state for server in lab.servers()] == ["running"] * 3
    finally:
        for lab in labs:
            await lab.down()


async def test_a_claim_whose_class_was_corrected_is_named_as_what_nobody_can_change(
    verdicts: dict[str, Verdict], tmp_path: Path
) -> None:
    corrected = support.manifests(tmp_path / "corrected", *SMALL)
    namespace = verdicts["class"].lab.cluster.namespace
    lab = KubernetesDeployment(support.plain(namespace, manifests=corrected))
    with pytest.raises(ClusterError, match="lets nobody change what differs") as caught:
        await lab.install(print)
    await lab.down()
    place = "spec.volumeClaimTemplates[0].spec.storageClassName"
    assert caught.value.seen == f'{place}: the cluster has "none-such", the manifest nothing'
    assert "jslab down" in caught.value.do
