"""What the tests on real clusters share: copies of the manifests, kubectl as admin, settings, commands."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from jslab import settings
from jslab.deployment import binary, image
from jslab.settings import Settings

# The cluster that this run is about; see `make test-kind`.
CLUSTER = os.environ.get("JSLAB_KIND_CLUSTER", "jslab")
CONTEXT = f"kind-{CLUSTER}"
# What the workers of a cluster have that was made with --offline.
IMAGE = image.name(binary.version(binary.find(None)))

Edit = tuple[str, str, str]
# Servers that leave within a second: with nobody connected there is nothing to wait for.
QUICK: tuple[Edit, ...] = (("configmap.yaml", "lame_duck_grace_period: 10s", "lame_duck_grace_period: 1s"),)
# Several broken deployments at a time find room on the nodes.
SMALL: tuple[Edit, ...] = (("statefulset.yaml", "cpu: 500m", "cpu: 20m"),)


def manifests(folder: Path, *edits: Edit) -> Path:
    """Copy the course's manifests to ``folder`` and replace a text in a file for each of ``edits``."""
    shutil.copytree(settings.course_folder("manifests"), folder)
    for file, old, new in edits:
        text = (folder / file).read_text(encoding="utf-8")
        assert old in text, f"{file} has no {old!r} to replace"
        (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    return folder


def named(label: str) -> str:
    """Return a name for a namespace or cluster that no other run uses."""
    return f"t-{label}-{secrets.token_hex(2)}"


def plain(namespace: str, **given: Any) -> Settings:
    """Settings of the backend kubernetes, with the kind cluster as a context like any other."""
    return Settings(
        **{"backend": "kubernetes", "context": CONTEXT, "image": IMAGE, "namespace": namespace, **given}
    )


def command(*arguments: str, stdin: str | None = None, check: bool = True) -> str:
    """Run a program and return what it wrote, also to stderr."""
    ran = subprocess.run(
        arguments,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0 or not check, f"{' '.join(arguments)}: {ran.stdout}"
    return ran.stdout


def kubectl(*arguments: str, stdin: str | None = None, cluster: str = CLUSTER, check: bool = True) -> str:
    """Run the kubectl that every kind node has, as the cluster's admin."""
    admin = ("kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf")
    return command(
        "docker", "exec", "-i", f"{cluster}-control-plane", *admin, *arguments, stdin=stdin, check=check
    )


def apply(*bodies: dict[str, Any], cluster: str = CLUSTER) -> None:
    """Apply objects as the cluster's admin."""
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(bodies), cluster=cluster)


def everything(namespace: str, cluster: str = CLUSTER) -> str:
    """List a namespace and what is in it, with versions: in equal lists nothing was touched."""
    kinds = "configmap,secret,service,statefulset,pod,pvc,poddisruptionbudget,lease,event"
    columns = "custom-columns=KIND:.kind,NAME:.metadata.name,VERSION:.metadata.resourceVersion"
    space = kubectl("get", "namespace", namespace, "-o", columns, cluster=cluster)
    return space + kubectl("get", kinds, "-n", namespace, "-o", columns, cluster=cluster)


def jslab(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start the command ``jslab``."""
    return subprocess.Popen(
        [sys.executable, "-m", "jslab", *arguments],
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str]:
    """Wait until a command ends; return its exit code and what it wrote."""
    try:
        out, _ = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out
