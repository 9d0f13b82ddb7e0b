"""The doctor on a real kind cluster that runs: all is well, by way of kind and by way of a context."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from jslab import doctor_cluster
from tests.kind import support

pytestmark = pytest.mark.kind


def levels(backend: str) -> dict[str, str]:
    """Make all checks; what was seen is shown when the test fails."""
    found = list(doctor_cluster.examine(backend))
    for one in found:
        print(one)
    return {one.check: one.level for one in found}


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubeconfig with the kind cluster's own credentials, in a context that is chosen."""
    told = subprocess.run(
        ["kind", "get", "kubeconfig", "--name", support.CLUSTER], capture_output=True, text=True, check=True
    )
    file = tmp_path / "config"
    file.touch(mode=0o600)
    file.write_text(told.stdout)
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.setenv("JSLAB_CONTEXT", support.CONTEXT)
    return file


def test_a_running_kind_cluster_is_well() -> None:
    found = levels("kind")
    assert "problem" not in found.values()
    for check in ("Docker", "kind", "kind cluster", "API server", "namespace", "storage class", "ports"):
        assert found[check] == "ok"


def test_the_same_cluster_is_well_as_a_context(context: Path) -> None:
    found = levels("kubernetes")
    assert found == dict.fromkeys(("context", "API server", "namespace", "storage class", "rights"), "ok")


def test_credentials_that_the_cluster_did_not_give_are_not_accepted(context: Path) -> None:
    config = context.read_text()
    kept = [line for line in config.splitlines() if "client-certificate" not in line]
    context.write_text("\n".join(kept).replace("client-key-data:", "token: stranger #"))
    assert levels("kubernetes") == {"context": "ok", "credentials": "problem"}


def test_a_user_without_rights_is_told_of_all_that_are_missing(context: Path) -> None:
    """A service account that nobody gave anything to, by a token that ends after ten minutes."""
    create = ("kubectl", "-n", "kube-public", "create", "token", "default", "--duration=10m")
    inside = (
        "docker",
        "exec",
        "-e",
        "KUBECONFIG=/etc/kubernetes/admin.conf",
        f"{support.CLUSTER}-control-plane",
    )
    token = subprocess.run([*inside, *create], capture_output=True, text=True, check=True).stdout.strip()
    kept = [line for line in context.read_text().splitlines() if "client-certificate" not in line]
    context.write_text("\n".join(kept).replace("client-key-data:", f"token: {token} #"))
    found = {one.check: one for one in doctor_cluster.examine("kubernetes")}
    assert found["API server"].level == "ok"
    assert found["namespace"].level == "problem"
    assert found["storage class"].level == "warning"
    for right in ("get, create, patch statefulsets", "get, create pods/portforward", "create namespaces"):
        assert right in found["rights"].seen


def test_a_docker_that_nobody_started_is_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    (docker,) = [one for one in doctor_cluster.examine("kind") if one.check == "Docker"]
    assert docker.level == "problem"
    assert "unset DOCKER_HOST" in docker.do
