"""A wire: a connection like another, whose messages come in bulk, on servers with locks of every kind."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from jslab.deployment import binary
from jslab.errors import StalledError
from jslab.waiting import until as until_async
from jslab.wire import BulkParser, Frame, Inbox, Wire, headers_of, publication, status_of
from tests.waits import until

pytestmark = pytest.mark.embedded

Serve = Callable[..., str]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server with further lines of configuration, and give its URL."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*lines: str) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        conf = tmp_path / f"{port}.conf"
        conf.write_text("\n".join([f"listen: 127.0.0.1:{port}", *lines]))
        arguments = [str(binary.find(None)), "-c", str(conf), "-l", str(tmp_path / f"{port}.log")]
        started.append(subprocess.Popen(arguments))

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        until(listens)
        return f"nats://127.0.0.1:{port}"

    yield start
    for server in started:
        server.terminate()
        server.wait()


async def moved(nc: Any, *, bulk: bool = True) -> list[tuple[str, bytes]]:
    """Send some messages over a wire beside ``nc`` and give what arrives."""
    wire = await Wire.open(nc, bulk=bulk)
    try:
        inbox = await wire.subscribe("there.>")
        await wire.nc.flush()
        await wire.send([(f"there.{n}", b"%d" % n) for n in range(1_000)])
        frames = []
        while len(frames) < 1_000 and (taken := await inbox.take(5)):
            frames += taken
        return [(subject, data) for subject, _, _, data in frames]
    finally:
        await wire.close()


SENT = [(f"there.{n}", b"%d" % n) for n in range(1_000)]


@pytest.mark.parametrize("bulk", [True, False])
async def test_a_wire_goes_where_its_connection_went(serve: Serve, bulk: bool) -> None:
    nc = await nats.connect(serve())
    assert await moved(nc, bulk=bulk) == SENT
    await nc.close()


@pytest.mark.parametrize(
    ("lines", "options"),
    [
        ("authorization { user: jo, password: secret }", {"user": "jo", "password": "secret"}),
        ("authorization { token: t0ken }", {"token": "t0ken"}),
    ],
)
async def test_a_wire_has_its_connections_credentials(
    serve: Serve, lines: str, options: dict[str, str]
) -> None:
    nc = await nats.connect(serve(lines), **options)
    assert await moved(nc) == SENT
    await nc.close()


async def test_credentials_in_the_address(serve: Serve) -> None:
    url = serve("authorization { user: jo, password: secret }")
    nc = await nats.connect(url.replace("nats://", "nats://jo:secret@"))
    assert await moved(nc) == SENT
    await nc.close()


async def test_a_wire_is_as_encrypted_as_its_connection(serve: Serve, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    url = serve(f'tls {{ cert_file: "{tmp_path}/cert.pem", key_file: "{tmp_path}/key.pem" }}')
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    nc = await nats.connect(url, tls=context)
    assert await moved(nc) == SENT
    await nc.close()


async def test_a_wire_comes_back_by_itself(serve: Serve) -> None:
    nc = await nats.connect(serve(), reconnect_time_wait=0.1, max_reconnect_attempts=-1)
    wire = await Wire.open(nc)
    inbox = await wire.subscribe("there.>")
    await wire.nc.force_reconnect()
    await until_async(
        lambda: wire.nc.is_connected and wire.nc.stats["reconnects"], what="the wire to come back", timeout=10
    )
    await wire.nc.flush()
    await wire.send([("there.again", b"yes")])
    assert [frame[3] for frame in await inbox.take(5)] == [b"yes"]
    await wire.close()
    await nc.close()


ODD_HEADERS: list[dict[str, str] | None] = [
    None,
    {},
    {"A": "1"},
    {" A ": " 1 ", "": "nothing", "b": ""},
    {"Line": "a\r\nb\nc", "Umlaut": "Zürich", "#!$": "odd"},
]


@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(256)), b"\r\nPUB here.3 1\r\n!\r\n"])
@pytest.mark.parametrize("headers", ODD_HEADERS)
async def test_a_publication_is_what_nats_py_would_write(
    serve: Serve, headers: dict[str, str] | None, payload: bytes
) -> None:
    nc = await nats.connect(serve())
    wire = await Wire.open(nc)
    inbox = await wire.subscribe("here.*")
    await wire.nc.publish("here.1", payload, "answer.1", headers)
    await wire.write([publication("here.1", "answer.1", headers, payload)])
    frames: list[Frame] = []
    while len(frames) < 2 and (taken := await inbox.take(5)):
        frames += taken
    await wire.close()
    await nc.close()
    assert len(frames) == 2
    assert frames[0] == frames[1]


@pytest.mark.parametrize("name", ["a b", "a:b", "a\r\nb", "Zürich"])
async def test_a_header_that_nats_py_refuses_is_refused(serve: Serve, name: str) -> None:
    nc = await nats.connect(serve())
    with pytest.raises(nats.errors.Error) as theirs:
        await nc.publish("here", b"", headers={name: "1"})
    with pytest.raises(type(theirs.value)):
        publication("here", "", {name: "1"}, b"")
    await nc.close()


# -- the parser, without a server


class Original:
    """Stands where nats-py's parser does, and keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[bytes] = []
        self.resets = 0

    async def parse(self, data: bytes = b"") -> None:
        self.given.append(data)

    def reset(self) -> None:
        self.resets += 1


frames = st.lists(
    st.tuples(
        st.sampled_from([b"7", b"8"]),
        st.text(
            st.characters(min_codepoint=33, blacklist_categories=("Cs", "Zs", "Cc")), min_size=1, max_size=9
        ),
        st.sampled_from(["", "_INBOX.1"]),
        st.sampled_from([None, b"NATS/1.0\r\nA: 1\r\n\r\n", b"NATS/1.0 404 Not Found\r\n\r\n"]),
        st.binary(max_size=60) | st.sampled_from([b"\r\n", b"MSG x 7 1\r\na\r\n", b"PING\r\n"]),
    ),
    max_size=8,
)


def written(sid: bytes, subject: str, reply: str, headers: bytes | None, data: bytes) -> bytes:
    """Write a frame as a server does."""
    parts = [subject.encode(), sid, *([reply.encode()] if reply else [])]
    if headers is None:
        return b" ".join([b"MSG", *parts, b"%d" % len(data)]) + b"\r\n" + data + b"\r\n"
    sizes = [b"%d" % len(headers), b"%d" % (len(headers) + len(data))]
    return b" ".join([b"HMSG", *parts, *sizes]) + b"\r\n" + headers + data + b"\r\n"


@settings(max_examples=300, deadline=None)
@given(
    frames,
    st.lists(st.integers(1, 40), min_size=1),
    st.sampled_from([b"PING\r\n", b"+OK\r\n", b"INFO {}\r\n"]),
)
def test_frames_are_cut_out_wherever_the_reads_end(
    sent: list[tuple[bytes, str, str, bytes | None, bytes]], reads: list[int], line: bytes
) -> None:
    sent = [frame for frame in sent if not any(c.isspace() for c in frame[1])]
    stream = line.join(written(*frame) for frame in sent)
    original, inbox = Original(), Inbox("there")
    parser = BulkParser(original)
    parser.inboxes[b"7"] = inbox

    async def feed() -> None:
        at = number = 0
        while at < len(stream):
            size = reads[number % len(reads)]
            await parser.parse(stream[at : at + size])
            at, number = at + size, number + 1

    asyncio.run(feed())
    assert inbox.frames == [(s, r, h, d) for sid, s, r, h, d in sent if sid == b"7"]
    others = [written(*frame) for frame in sent if frame[0] == b"8"]
    assert [given for given in original.given if given != line] == others
    assert original.given.count(line) == max(0, len(sent) - 1)


async def test_half_a_frame_is_forgotten_when_the_connection_begins_anew() -> None:
    original, inbox = Original(), Inbox("there")
    parser = BulkParser(original)
    parser.inboxes[b"7"] = inbox
    await parser.parse(b"MSG a 7 100\r\nhalf of it")
    parser.reset()
    await parser.parse(b"MSG b 7 3\r\nabc\r\n")
    assert inbox.frames == [("b", "", None, b"abc")]
    assert original.resets == 1


def test_headers_and_statuses_are_read_as_nats_py_reads_them() -> None:
    block = "NATS/1.0\r\nA: 1\r\nB:\t2 \r\nC: a: b\r\nA: 3\r\nÄ: 4\r\nD E: 5\r\nF\r\n\r\n".encode()
    assert headers_of(block) == {"A": "3", "B": "2", "C": "a: b"}
    assert headers_of(None) == {}
    assert headers_of({"A": "1"}) == {"A": "1"}
    assert status_of(b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n") == (204, "EOB")
    assert status_of(b"NATS/1.0 503\r\n\r\n") == (503, "")
    assert status_of(block) is None
    assert status_of({"Status": "404", "Description": "Not Found"}) == (404, "Not Found")
    assert status_of({"Status": "landed"}) is None


async def test_no_server_takes_the_connection(serve: Serve) -> None:
    nc = await nats.connect(serve())
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        nc.set_server_pool([f"nats://127.0.0.1:{deaf.getsockname()[1]}"])
        with pytest.raises(StalledError, match="no server takes a connection: waited 2 s") as caught:
            await Wire.open(nc, timeout=2)
    assert "tried 127.0.0.1:" in caught.value.seen
    await nc.close()
