"""The manifests are read whole or refused with the file and the path in it; never half."""

from __future__ import annotations

import copy
import functools
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jslab.deployment import leaves, manifest
from jslab.errors import ManifestError
from jslab.settings import course_folder

COURSE = course_folder("manifests")
Edit = Callable[..., Path]
CONTAINER = "spec.template.spec.containers[0]"


def refusal(folder: Path) -> str:
    with pytest.raises(ManifestError) as caught:
        leaves.refuse_what_embedded_cannot(manifest.read(folder))
    assert caught.value.seen
    assert caught.value.do
    return str(caught.value)


def test_the_courses_own_manifests() -> None:
    read = manifest.read(COURSE)
    assert read.names == ("nats-0", "nats-1", "nats-2")
    assert read.image.startswith("nats:")
    assert read.minor == (2, 15)
    assert read.command == ("nats-server", "--config", "/etc/nats-config/nats.conf")
    assert read.env == {"STORE_DIR": "/data", "GOMEMLIMIT": "200MiB"}
    assert read.env_pod_name == ("POD_NAME",)
    assert read.ports == {"client": 4222, "cluster": 6222, "monitor": 8222}
    assert read.startup == manifest.Probe("/healthz", period=2, failures=150)
    assert read.mounts == {"/etc/nats-config": "config", "/var/run/nats": "run", "/data": "data"}
    assert (read.conf_volume, read.claims) == ("config", ("data",))


def test_nats_conf_is_what_stands_in_the_file() -> None:
    text = (COURSE / "configmap.yaml").read_text(encoding="utf-8")
    block = text.split("  nats.conf: |\n")[1]
    assert manifest.read(COURSE).conf == textwrap.dedent(block)


def test_yaml_that_does_not_parse_names_file_and_line(edited: Edit) -> None:
    folder = edited("statefulset.yaml", "  replicas: 3", "  replicas: [3")
    said = refusal(folder)
    assert f"{folder / 'statefulset.yaml'} does not parse as YAML" in said
    # The list that was opened in line 10 ends nowhere: the parser stumbles at the next line.
    assert "line 11, column" in said


def test_bytes_that_are_no_text_name_the_file(edited: Edit) -> None:
    folder = edited("services.yaml", "", "")
    (folder / "services.yaml").write_bytes(b"kind: \xff")
    assert f"{folder / 'services.yaml'} does not parse as YAML" in refusal(folder)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("statefulset.yaml", "  replicas: 3\n", "", "spec.replicas is missing"),
        ("statefulset.yaml", "  replicas: 3\n", "  replicas: three\n", "spec.replicas: should be a whole"),
        ("statefulset.yaml", "  replicas: 3\n", "  replicas: 0\n", "spec.replicas: should be a whole number"),
        ("statefulset.yaml", "replicas: 3", "replicas: true", "spec.replicas: should be a whole number"),
        ("statefulset.yaml", "image: nats", "picture: nats", f"{CONTAINER}.image is missing"),
        ("statefulset.yaml", '["nats-server"]\n', "nats-server\n", f"{CONTAINER}.command: should be a list"),
        ("statefulset.yaml", "value: 200MiB", "value: 200", f"{CONTAINER}.env[2].value: should be text"),
        ("statefulset.yaml", "metadata.name\n", "status.podIP\n", "fieldPath: only metadata.name"),
        (
            "statefulset.yaml",
            "configMap:\n            name: nats-c",
            "configMap:\n            name: c",
            "Config",
        ),
        (
            "statefulset.yaml",
            "- name: run\n              m",
            "- name: walk\n              m",
            "no such volume",
        ),
        ("statefulset.yaml", "  template:\n", "  pattern:\n", "spec.template is missing"),
        ("configmap.yaml", "  nats.conf: |", "  nats.txt: |", "data: should hold one *.conf"),
        ("configmap.yaml", "\ndata:\n", "\ncontent:\n", ": data is missing"),
        ("configmap.yaml", "kind: ConfigMap\n", "", "holds a document that is no Kubernetes object"),
    ],
)
def test_an_edited_line_is_named_with_file_and_path(
    edited: Edit, file: str, old: str, new: str, said: str
) -> None:
    folder = edited(file, old, new)
    refused = refusal(folder)
    assert said in refused
    assert str(folder / file) in refused


def test_a_line_that_embedded_ignores_may_be_taken_out(edited: Edit) -> None:
    leaves.refuse_what_embedded_cannot(
        manifest.read(edited("statefulset.yaml", "  serviceName: nats-headless\n", ""))
    )


def test_two_containers_are_refused(edited: Edit) -> None:
    sidecar = (
        "      containers:\n        - name: reloader\n          image: reloader:1\n        - name: nats\n"
    )
    folder = edited("statefulset.yaml", "      containers:\n        - name: nats\n", sidecar)
    assert "containers: should hold one container, holds 2" in refusal(folder)


@pytest.mark.parametrize("kind", ["StatefulSet", "ConfigMap"])
def test_a_missing_document_is_named(edited: Edit, kind: str) -> None:
    folder = edited("services.yaml", "", "")
    (folder / f"{kind.lower()}.yaml").unlink()
    assert f"{folder} must hold one {kind}" in refusal(folder)


def test_a_document_given_twice_is_refused(edited: Edit) -> None:
    folder = edited("services.yaml", "", "")
    (folder / "old.yaml").write_text((folder / "configmap.yaml").read_text())
    said = refusal(folder)
    assert "must hold one ConfigMap" in said
    assert "2 of them" in said


def test_a_folder_without_manifests(tmp_path: Path) -> None:
    assert "no *.yaml directly in it" in refusal(tmp_path)
    assert "no such folder" in refusal(tmp_path / "nowhere")


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document below its top."""
    if path:
        yield path
    if isinstance(value, dict):
        for key in value:
            yield from paths(value[key], (*path, key))
    elif isinstance(value, list):
        for position, entry in enumerate(value):
            yield from paths(entry, (*path, position))


@pytest.mark.parametrize("file", ["configmap.yaml", "statefulset.yaml"])
@pytest.mark.parametrize("junk", [None, 5, "x", [], {"name": {}}], ids=repr)
def test_junk_anywhere_is_read_or_refused_and_nothing_else(
    edited: Edit, monkeypatch: pytest.MonkeyPatch, file: str, junk: object
) -> None:
    if yaml.__with_libyaml__:  # the same parser in C: hundreds of documents in a second
        monkeypatch.setattr(yaml, "safe_load_all", functools.partial(yaml.load_all, Loader=yaml.CSafeLoader))
    folder = edited(file, "", "")
    document = yaml.safe_load((folder / file).read_text())
    refused: list[str] = []
    for path in paths(document):
        broken = copy.deepcopy(document)
        node = broken
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = junk
        (folder / file).write_text(yaml.safe_dump(broken))
        try:
            leaves.refuse_what_embedded_cannot(manifest.read(folder))
        except ManifestError as error:
            refused.append(str(error))
    assert refused
    assert [text for text in refused if str(folder) not in text] == []


@pytest.mark.parametrize(
    ("text", "minor"),
    [
        ("2.15.1", (2, 15)),
        ("2.15.1-alpine", (2, 15)),
        ("v2.14.0", (2, 14)),
        ("2.15", (2, 15)),
        ("latest", None),
        ("", None),
        ("2", None),
        ("2.x", None),
    ],
)
def test_minor_version(text: str, minor: tuple[int, int] | None) -> None:
    assert manifest.minor_version(text) == minor
