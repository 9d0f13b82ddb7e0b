"""The server image that ``jslab up --offline`` writes: what an engine would read in it."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

import pytest

from jslab.deployment import binary, image
from jslab.errors import ServerBinaryError

SERVER = binary.find()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An image of the server that the tests run."""
    if sys.platform != "linux":
        pytest.skip("only Linux has a server that runs in a container")
    image.write(SERVER, "2.15.1", tmp_path / "image.tar")
    return tmp_path / "image.tar"


def test_the_list_names_the_image_and_what_it_consists_of(archive: Path) -> None:
    with tarfile.open(archive) as whole:
        (listed,) = json.load(whole.extractfile("manifest.json"))
        assert listed["RepoTags"] == ["jslab.local/nats-server:2.15.1"]
        config = whole.extractfile(listed["Config"]).read()
        layers = [whole.extractfile(name).read() for name in listed["Layers"]]
    assert listed["Config"] == f"{hashlib.sha256(config).hexdigest()}.json"
    digests = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    assert json.loads(config)["rootfs"]["diff_ids"] == digests
    assert json.loads(config)["config"] == {"Env": ["PATH=/usr/local/bin"], "User": "1000:1000"}


def test_the_layer_holds_the_server_and_an_empty_tmp_that_all_may_write_to(archive: Path) -> None:
    with tarfile.open(archive) as whole:
        (name,) = [entry for entry in whole.getnames() if entry.endswith(".tar")]
        content = whole.extractfile(name).read()
    with tarfile.open(fileobj=io.BytesIO(content)) as layer:
        modes = {entry.name: entry.mode for entry in layer}
        server = layer.extractfile("usr/local/bin/nats-server").read()
    assert modes["tmp"] == 0o1777
    assert modes["usr/local/bin/nats-server"] == 0o755
    assert server == SERVER.read_bytes()
    assert [entry for entry in modes if entry.startswith("tmp/")] == []


def test_the_same_server_gives_the_same_image(archive: Path, tmp_path: Path) -> None:
    image.write(SERVER, "2.15.1", tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (b"\xcf\xfa\xed\xfe" + bytes(40), "is no Linux program"),
        (b"", "is no Linux program"),
        (b"\x7fELF" + bytes(14) + b"\x08\x00" + bytes(40), "is no Linux program"),
    ],
    ids=["macOS", "empty", "another processor"],
)
def test_a_server_that_no_node_could_run_is_refused(tmp_path: Path, content: bytes, seen: str) -> None:
    other = tmp_path / "nats-server"
    other.write_bytes(content)
    with pytest.raises(ServerBinaryError, match="--offline needs a nats-server for Linux") as caught:
        image.write(other, "2.15.1", tmp_path / "image.tar")
    assert seen in caught.value.seen
    assert "JSLAB_IMAGE" in caught.value.do
    assert not (tmp_path / "image.tar").exists()
