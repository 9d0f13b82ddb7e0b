"""Contexts, credentials and namespaces that cannot be used: one clear error each, and nothing is touched."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jslab.deployment import rollout
from jslab.deployment.cluster import OURS, Cluster
from jslab.deployment.kubernetes import KubernetesDeployment
from jslab.errors import ClusterError, SettingsError
from jslab.lab import start
from tests.kind import support, users
from tests.waits import until

pytestmark = pytest.mark.kind


async def refusal(namespace: str = "t-nobody", context: str | None = support.CONTEXT) -> str:
    """Return what ``install`` and ``start`` both say; they must say the same."""
    lab = KubernetesDeployment(support.plain(namespace, context=context))
    said: list[str] = []
    for attempt in (lab.install(print), lab.up()):
        with pytest.raises((ClusterError, SettingsError)) as caught:
            await attempt
        await lab.down()
        assert caught.value.seen
        assert caught.value.do
        said.append(str(caught.value))
    return said[0]


async def test_no_context_is_named(context: str) -> None:
    """The kubeconfig's current context is somebody's production, some day."""
    said = await refusal(context=None)
    assert "needs a context by its name" in said
    assert "JSLAB_CONTEXT" in said
    with pytest.raises(SettingsError, match="needs a context"):
        await start("kubernetes", namespace="t-nobody")


async def test_an_unknown_context(context: str) -> None:
    said = await refusal(context="nowhere")
    assert "the context nowhere cannot be used" in said
    assert "kubeconfig" in said


async def test_no_kubeconfig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    said = await refusal()
    assert f"the context {support.CONTEXT} cannot be used" in said
    assert "No configuration found" in said


async def test_nobody_answers_at_the_api_servers_address(
    context: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    chosen = users.context(tmp_path / "config", {"token": "any"}, server="https://127.0.0.1:1")
    begun = time.monotonic()
    said = await refusal(context=chosen)
    assert "the API server of the context learner cannot be reached" in said
    assert "refused" in said
    assert "kubectl --context learner -n" in said
    assert time.monotonic() - begun < 5


async def test_a_silent_api_server_is_given_up_in_half_a_minute(
    context: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A VPN that is down: connections open, and nothing comes back."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        address = f"https://127.0.0.1:{silent.getsockname()[1]}"
        chosen = users.context(tmp_path / "config", {"token": "any"}, server=address)
        begun = time.monotonic()
        lab = KubernetesDeployment(support.plain("t-nobody", context=chosen))
        with pytest.raises(ClusterError, match="cannot be reached"):
            await lab.up()
        assert time.monotonic() - begun < 30


async def test_credentials_that_are_refused(
    context: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    chosen = users.context(tmp_path / "config", {"token": "expired"})
    said = await refusal(context=chosen)
    assert "does not accept your credentials" in said
    assert "401" in said
    assert "log in to the cluster again" in said


async def test_a_namespace_of_somebody_else_is_not_touched(context: str, space: Callable[[str], str]) -> None:
    namespace = space("theirs")
    support.kubectl("create", "namespace", namespace)
    support.kubectl("create", "configmap", "nats-config", "--from-literal=nats.conf=mine", "-n", namespace)
    support.kubectl("create", "service", "clusterip", "nats", "--tcp=80", "-n", namespace)
    # Kubernetes itself adds to a new namespace for a moment.
    until(lambda: "default" in support.kubectl("get", "serviceaccounts", "-n", namespace))
    until(lambda: "kube-root-ca.crt" in support.kubectl("get", "configmaps", "-n", namespace))
    before = support.everything(namespace)
    said = await refusal(namespace)
    assert f"the namespace {namespace} is not the lab's" in said
    assert "Nothing in it was touched" in said
    for command in ("down", "status"):
        more = ("--yes",) if command == "down" else ()
        variables = {"JSLAB_CONTEXT": context, "JSLAB_NAMESPACE": namespace}
        code, text = support.said(support.jslab(command, "--backend", "kubernetes", *more, **variables))
        assert code == 2
        assert f"the namespace {namespace} is not the lab's" in text
    assert support.everything(namespace) == before


async def test_somebody_makes_the_namespace_in_the_same_moment(
    context: str, space: Callable[[str], str]
) -> None:
    """Two notebooks may begin at once; or the other is a stranger, whose namespace it is then."""
    ours, theirs = space("ours"), space("theirs")
    marks = [f"{key}={value}" for key, value in OURS.items()]

    def quicker(namespace: str, *labels: str) -> Callable[[str], None]:
        def say(line: str) -> None:
            assert line == f"namespace {namespace}: making it"
            support.kubectl("create", "namespace", namespace)
            if labels:
                support.kubectl("label", "namespace", namespace, *labels)

        return say

    await rollout.claim_namespace(Cluster(context, ours), quicker(ours, *marks))
    with pytest.raises(ClusterError, match=f"the namespace {theirs} is not the lab's"):
        await rollout.claim_namespace(Cluster(context, theirs), quicker(theirs))


@pytest.mark.parametrize(
    ("lacking", "named"),
    [
        (("create", "statefulsets"), "create statefulsets.apps"),
        (("get", "pods/log pods/proxy"), "get pods/log, get pods/proxy"),
        (("patch", "leases"), "patch leases.coordination.k8s.io"),
        (("get", "namespaces"), "get namespaces"),
    ],
    ids=["install", "look", "lease", "namespace"],
)
async def test_a_right_that_is_missing_is_named_before_anything_is_done(
    lacking: tuple[str, str],
    named: str,
    space: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    namespace = space("rights")
    chosen = users.make(namespace, tmp_path, without=lacking)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    until(lambda: "kube-root-ca.crt" in support.kubectl("get", "configmaps", "-n", namespace))
    before = support.everything(namespace)
    said = await refusal(namespace, context=chosen)
    assert "does not let you" in said
    assert named in said
    assert "ask who runs the cluster" in said
    assert support.everything(namespace) == before


async def test_a_namespace_that_cannot_be_removed_keeps_its_pods(
    space: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    namespace = space("stays")
    chosen = users.make(namespace, tmp_path, without=("delete", "namespaces"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    until(lambda: "kube-root-ca.crt" in support.kubectl("get", "configmaps", "-n", namespace))
    before = support.everything(namespace)
    lab = KubernetesDeployment(support.plain(namespace, context=chosen))
    with pytest.raises(ClusterError, match="does not let you") as caught:
        await lab.remove(print)
    await lab.down()
    assert "missing" in caught.value.seen
    assert "delete namespaces" in caught.value.seen
    assert support.everything(namespace) == before
