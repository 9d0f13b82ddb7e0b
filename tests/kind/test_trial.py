"""A changed copy of the manifests beside the lab: how it is edited, judged and removed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jslab import trial
from jslab.deployment.kubernetes import KubernetesDeployment
from jslab.errors import ManifestError, ToolError
from jslab.lab import Lab
from jslab.waiting import until

pytestmark = pytest.mark.kind


@pytest.fixture
async def copies(lab: Lab) -> AsyncIterator[Lab]:
    """The lab; copies that a test makes are gone at its end."""
    yield lab
    await lab._end_trials()
    parent = cluster_of(lab)

    async def gone() -> bool:
        return not await trial._spaces(parent)

    await until(gone, what="the copies to go", timeout=60, every=0.2)


def cluster_of(lab: Lab) -> KubernetesDeployment:
    assert isinstance(lab.deployment, KubernetesDeployment)
    return lab.deployment


async def test_drop_takes_a_key_with_all_below_it_and_nothing_else(copies: Lab) -> None:
    copy = copies.trial("edited").drop("statefulset.yaml", "lifecycle")
    removed = [line for line in copy.diff().text.splitlines() if line.startswith("-  ")]
    assert removed[0].strip("- ") == "lifecycle:"
    assert any("ldm" in line for line in removed)
    assert not any("startupProbe" in line for line in removed)


async def test_what_is_not_there_once_cannot_be_changed(copies: Lab) -> None:
    copy = copies.trial("edited")
    with pytest.raises(ManifestError, match=r"services\.yaml should say 'server_name' once"):
        copy.drop("services.yaml", "server_name")
    with pytest.raises(ManifestError, match="4 lines of it do"):
        copy.drop("services.yaml", "port")
    with pytest.raises(ManifestError, match=r"there is no nats\.yaml") as caught:
        copy.change("nats.yaml", "replicas: 3", "replicas: 5")
    assert "statefulset.yaml" in caught.value.seen
    assert copy.diff().text.endswith("nothing differs")


async def test_a_copy_that_works_is_a_cluster_of_its_own_and_goes_when_told(copies: Lab) -> None:
    copy = copies.trial("works").change("configmap.yaml", "name: jslab", "name: other")
    await copy.apply()
    outcome = await copy.outcome()
    assert outcome.works, outcome
    (first, *_) = await copy.open()
    _, varz = await (await copy.deployment()).get(first.name, "/varz")
    assert varz["cluster"]["name"] == "other"
    found = await trial.find(copies.deployment, "works")
    assert found is not None
    assert found.namespace == copy.namespace
    await copy.remove()
    assert await trial.find(copies.deployment, "works") is None
    again = copies.trial("works")
    await again.apply()
    assert again.namespace == f"{copy.namespace}-2", "the first one is still going"
    assert {server.state for server in copies.deployment.servers()} == {"running"}


async def test_what_a_dead_kernel_left_goes_at_the_next_lesson(copies: Lab) -> None:
    left = trial.Trial(cluster_of(copies), "left")
    await left.apply()
    await copies.lesson("00")
    assert await trial.find(copies.deployment, "left") is None
    await copies.clean("00")


async def test_kubectl_shows_what_it_printed_and_keeps_its_own_words_when_it_fails(copies: Lab) -> None:
    shown = await copies.kubectl("get pods -o name")
    printed = shown.text.removeprefix("kubectl get pods -o name").split()
    assert printed == ["pod/nats-0", "pod/nats-1", "pod/nats-2"]
    with pytest.raises(ToolError) as caught:
        await copies.kubectl("get gates")
    assert "doesn't have a resource type" in caught.value.seen


async def test_a_copys_files_go_with_it(copies: Lab) -> None:
    copy = copies.trial("files")
    files = [copy._path, copy._path / "kind" / "cluster.yaml"]
    assert all(map(Path.exists, files))
    await copy.remove()
    assert not any(map(Path.exists, files))
