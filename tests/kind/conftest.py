"""The kind cluster of the course as a context like any other, and namespaces of the tests' own in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from jslab import settings
from jslab.deployment.kind import KindDeployment
from tests.kind import support
from tests.waits import until


@pytest.fixture(scope="session")
async def context(state: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A context for the course's kind cluster in KUBECONFIG; the cluster is made if missing."""
    cluster = KindDeployment(settings.read())
    if not await cluster.present():
        await cluster.install(print, offline=True)
    await cluster.down()
    file = tmp_path_factory.mktemp("kube") / "config"
    file.write_text(support.command("kind", "get", "kubeconfig", "--name", support.CLUSTER))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(file))
        yield support.CONTEXT


@pytest.fixture(scope="session")
async def space(context: str) -> AsyncIterator[Callable[[str], str]]:
    """Give out names of namespaces; at the end of the run none of them is left."""
    given: list[str] = []

    def name(label: str) -> str:
        given.append(support.named(label))
        return given[-1]

    yield name
    support.kubectl("delete", "namespace", *given, "--ignore-not-found", "--wait=false")
    for namespace in given:  # now nobody makes them anew
        support.kubectl("delete", "pod", "--all", "-n", namespace, "--force", "--grace-period=0", check=False)
    until(lambda: not set(given) & set(_namespaces()), 90)


def _namespaces() -> list[str]:
    names = support.kubectl("get", "namespaces", "-o", "name")
    return [line.partition("/")[2] for line in names.split()]
