"""``manifests/*.yaml`` → one frozen Manifest. No other module reads manifests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from jslab.errors import ManifestError

FIELD_REF = "metadata.name"
# What others need comes first; the servers come last.
APPLY_LAST = ("Service", "PodDisruptionBudget", "StatefulSet")


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value in the YAML: where it stands and what it says."""

    file: Path
    path: str
    """Kind and keys, without list positions: ``StatefulSet spec.template.spec.containers[].image``."""
    value: object


@dataclass(frozen=True, slots=True)
class Probe:
    """One HTTP probe; times in seconds."""

    path: str
    period: float
    failures: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the manifests say, reduced to what a deployment needs."""

    folder: Path
    conf: str
    """``nats.conf``, byte for byte as in the ConfigMap."""
    conf_name: str
    names: tuple[str, ...]
    """Pod names, which are the servers' names."""
    image: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    """Literal environment."""
    env_pod_name: tuple[str, ...]
    """Variables that hold the pod's name."""
    ports: Mapping[str, int]
    startup: Probe
    mounts: Mapping[str, str]
    """Mount path → volume name."""
    conf_volume: str
    claims: tuple[str, ...]
    """Names of the volumes that outlive their pod."""
    leaves: tuple[Leaf, ...] = field(repr=False)

    @property
    def minor(self) -> tuple[int, int] | None:
        """Major and minor version of the server image, None when its tag is no version."""
        return minor_version(self.image.rpartition(":")[2])


def minor_version(text: str) -> tuple[int, int] | None:
    """Return (2, 15) for ``2.15.1-alpine`` or ``v2.15.1``, None for what is no version."""
    parts = text.lstrip("v").split("-")[0].split(".")
    if len(parts) < 2 or not all(part.isdigit() for part in parts[:2]):
        return None
    return int(parts[0]), int(parts[1])


class Node:
    """A value in a YAML document that knows its file and path, so that every error can name them."""

    def __init__(self, value: Any, file: Path, path: str) -> None:
        self.value, self.file, self.path = value, file, path

    def error(self, what: str, do: str) -> ManifestError:
        """Return an error that names file, path and what stands there."""
        return ManifestError(f"{self.file}: {self.path}: {what}", seen=repr(self.value)[:200], do=do)

    def get(self, key: str) -> Node:
        """Return the value below ``key``. Raises ManifestError when it is missing."""
        path = f"{self.path}.{key}" if self.path else key
        if not isinstance(self.value, dict):
            raise self.error("should be a mapping", f"write `{key}:` below it")
        if key not in self.value:
            raise ManifestError(
                f"{self.file}: {path} is missing",
                seen=f"keys there: {', '.join(map(str, self.value)) or 'none'}",
                do="compare with the manifests that came with the course",
            )
        return Node(self.value[key], self.file, path)

    def has(self, key: str) -> bool:
        """Tell whether there is something below ``key``."""
        return isinstance(self.value, dict) and key in self.value

    def at(self, dotted: str) -> Node:
        """Return the value below several keys, written with dots."""
        node = self
        for key in dotted.split("."):
            node = node.get(key)
        return node

    def items(self) -> list[Node]:
        """Return the entries of a list. Raises ManifestError when it is none."""
        if not isinstance(self.value, list):
            raise self.error("should be a list", "write its entries as `- …`")
        return [Node(value, self.file, f"{self.path}[{i}]") for i, value in enumerate(self.value)]

    def text(self) -> str:
        """Return the value, which must be text. Raises ManifestError."""
        if not isinstance(self.value, str):
            raise self.error("should be text", "put it in quotes")
        return self.value

    def number(self, minimum: int = 1) -> int:
        """Return the value, which must be a whole number. Raises ManifestError."""
        if not isinstance(self.value, int) or isinstance(self.value, bool) or self.value < minimum:
            raise self.error(f"should be a whole number of at least {minimum}", "correct it")
        return self.value


def read(folder: Path) -> Manifest:
    """Read every ``*.yaml`` directly in ``folder``.

    Raises ManifestError, naming the file and the path in it, for YAML that does not parse, a missing
    document or a missing key.
    """
    documents = list(_documents(folder))
    stateful = _one(documents, "StatefulSet", folder)
    config = _one(documents, "ConfigMap", folder)
    pod = stateful.at("spec.template.spec")
    container = _only_container(pod)
    conf_name, conf = _conf(config)
    name = stateful.at("metadata.name").text()
    literal, pod_names = _environment(container)
    claims = tuple(c.at("metadata.name").text() for c in stateful.at("spec.volumeClaimTemplates").items())
    return Manifest(
        folder=folder,
        conf=conf,
        conf_name=conf_name,
        names=tuple(f"{name}-{i}" for i in range(stateful.at("spec.replicas").number())),
        image=container.get("image").text(),
        command=tuple(entry.text() for key in ("command", "args") for entry in container.get(key).items()),
        env=MappingProxyType(literal),
        env_pod_name=pod_names,
        ports=MappingProxyType(
            {p.get("name").text(): p.get("containerPort").number() for p in container.get("ports").items()}
        ),
        startup=_probe(container.get("startupProbe")),
        mounts=MappingProxyType(_mounts(container, {*claims, *_names(pod.get("volumes"))})),
        conf_volume=_conf_volume(pod, config.at("metadata.name").text()),
        claims=claims,
        leaves=tuple(leaf for document in documents for leaf in _leaves(document)),
    )


def objects(folder: Path) -> list[dict[str, Any]]:
    """Return the Kubernetes objects in ``folder``, as they stand there, in the order to apply them.

    Raises ManifestError, as ``read`` does.
    """
    found = [document.value for document in _documents(folder)]
    order = {kind: place for place, kind in enumerate(APPLY_LAST, 1)}
    return sorted(found, key=lambda body: order.get(body["kind"], 0))


def plain(file: Path) -> list[dict[str, Any]]:
    """Return the documents of one file, as they stand there. Raises ManifestError."""
    if not file.is_file():
        raise ManifestError(
            f"{file} is missing", seen="no such file", do="copy the one that came with the course"
        )
    return [document.value for document in _parsed(file)]


def _documents(folder: Path) -> Iterator[Node]:
    files = sorted(folder.glob("*.yaml")) if folder.is_dir() else []
    if not files:
        raise ManifestError(
            f"{folder} holds no manifests",
            seen="no *.yaml directly in it" if folder.is_dir() else "no such folder",
            do="give the folder that holds statefulset.yaml, or copy the one that came with the course",
        )
    for file in files:
        yield from _parsed(file)


def _parsed(file: Path) -> Iterator[Node]:
    try:
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            if document is not None:
                yield _object(Node(document, file, ""))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as err:
        mark = getattr(err, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ManifestError(
            f"{file} does not parse as YAML",
            seen=where + str(getattr(err, "problem", None) or err),
            do="correct that line; indentation is the usual cause",
        ) from err


def _object(document: Node) -> Node:
    if not isinstance(document.value, dict) or not isinstance(document.value.get("kind"), str):
        raise ManifestError(
            f"{document.file} holds a document that is no Kubernetes object",
            seen=repr(document.value)[:200],
            do="every document needs apiVersion, kind and metadata",
        )
    return document


def _one(documents: list[Node], kind: str, folder: Path) -> Node:
    found = [d for d in documents if d.value["kind"] == kind]
    if len(found) != 1:
        raise ManifestError(
            f"{folder} must hold one {kind}",
            seen=f"{len(found)} of them",
            do="compare with the manifests that came with the course",
        )
    return found[0]


def _only_container(pod: Node) -> Node:
    containers = pod.get("containers").items()
    if len(containers) != 1:
        raise pod.get("containers").error(
            f"should hold one container, holds {len(containers)}", "leave the server's container alone there"
        )
    return containers[0]


def _conf(config: Node) -> tuple[str, str]:
    data = config.get("data")
    names = [key for key in data.value if str(key).endswith(".conf")] if isinstance(data.value, dict) else []
    if len(names) != 1:
        raise data.error("should hold one *.conf", "keep nats.conf there")
    return names[0], data.get(names[0]).text()


def _environment(container: Node) -> tuple[dict[str, str], tuple[str, ...]]:
    literal: dict[str, str] = {}
    pod_names: list[str] = []
    for entry in container.get("env").items():
        name = entry.get("name").text()
        if entry.has("value"):
            literal[name] = entry.get("value").text()
            continue
        ref = entry.at("valueFrom.fieldRef.fieldPath")
        if ref.text() != FIELD_REF:
            raise ref.error(f"only {FIELD_REF} can be resolved", f"use fieldPath: {FIELD_REF}")
        pod_names.append(name)
    return literal, tuple(pod_names)


def _probe(probe: Node) -> Probe:
    def setting(key: str, default: int) -> int:
        return probe.get(key).number(0) if probe.has(key) else default

    return Probe(
        path=probe.at("httpGet.path").text(),
        period=setting("periodSeconds", 10),
        failures=setting("failureThreshold", 3),
    )


def _names(entries: Node) -> list[str]:
    return [entry.get("name").text() for entry in entries.items()]


def _mounts(container: Node, volumes: set[str]) -> dict[str, str]:
    mounts: dict[str, str] = {}
    for mount in container.get("volumeMounts").items():
        name = mount.get("name")
        if name.text() not in volumes:
            raise name.error("there is no such volume", f"use one of {', '.join(sorted(volumes))}")
        mounts[mount.get("mountPath").text().rstrip("/")] = name.text()
    return mounts


def _conf_volume(pod: Node, config_map: str) -> str:
    for volume in pod.get("volumes").items():
        if volume.has("configMap") and volume.at("configMap.name").value == config_map:
            return volume.get("name").text()
    raise pod.get("volumes").error(f"none of them is the ConfigMap {config_map}", "mount it")


def _leaves(document: Node) -> Iterator[Leaf]:
    def walk(value: object, path: str) -> Iterator[Leaf]:
        if isinstance(value, dict) and value:
            for key, below in value.items():
                yield from walk(below, f"{path}.{key}" if path else str(key))
        elif isinstance(value, list) and value:
            for below in value:
                yield from walk(below, f"{path}[]")
        else:
            yield Leaf(document.file, f"{document.value['kind']} {path}", value)

    yield from walk(document.value, "")
