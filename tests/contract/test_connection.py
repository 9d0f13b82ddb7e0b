"""The lab's connection, when the server at its other end stops reading."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import nats.errors
import nats.js.errors
import pytest

from jslab import connection
from jslab.lab import Lab
from jslab.streams import Stream
from jslab.waiting import until


@pytest.fixture
async def link(lab: Lab) -> AsyncIterator[connection.Connection]:
    """A connection of the test's own that enters by nats-1, frozen, with bytes that nobody will read."""
    link = connection.Connection()
    await link.open([url_of(lab, "nats-1"), url_of(lab, "nats-2")], timeout=10)
    await lab.faults.pause("nats-1")
    while not link.nc._transport._io_writer.transport.get_write_buffer_size():
        await link.nc.publish("nobody.listens", bytes(200_000))
        await asyncio.sleep(0.01)
    yield link
    await link.close()


def url_of(lab: Lab, name: str) -> str:
    return next(server.client_url for server in lab.deployment.servers() if server.name == name)


async def test_it_leaves_a_frozen_server_that_has_unread_bytes(lab: Lab, link: connection.Connection) -> None:
    # nats-py waits for the last byte to be written before it goes elsewhere: for ever.
    noticed = connection.PING_INTERVAL * (connection.MAX_PINGS + 1)
    await until(
        lambda: link.nc.is_connected and link.url == url_of(lab, "nats-2"),
        what="the connection to go elsewhere",
        timeout=noticed + connection.LAST_WORDS + 5,
    )
    # nats-1 may have led the meta group: until there is another leader, core NATS is all that answers.
    await link.nc.flush(5)


async def test_it_closes_while_a_frozen_server_has_unread_bytes(link: connection.Connection) -> None:
    started = time.monotonic()
    await link.close()
    assert time.monotonic() - started < connection.LAST_WORDS + 2
    assert link.nc.is_closed


@pytest.fixture
async def tower(lab: Lab) -> Stream:
    """A stream of one copy whose server is held away: it has no leader."""
    stream = await lab.stream("TOWER", subjects=["tower.>"], num_replicas=1)
    await lab.faults.hold(await leader_of(stream))
    return stream


async def leader_of(stream: Stream) -> str:
    leader = (await stream.placement()).leader
    assert leader is not None
    return leader


async def test_a_stream_without_a_leader_is_asked_again_until_it_has_one(
    lab: Lab, tower: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "QUESTIONS", 60.0)
    asked = asyncio.create_task(tower.info())
    await asyncio.sleep(connection.QUESTION + 1)
    assert not asked.done()
    await lab.faults.heal()
    assert (await asked).config.name == "TOWER"


async def test_a_stream_without_a_leader_is_given_up_with_a_reason(tower: Stream) -> None:
    # Silence, or, once the meta leader knows that the server is away, its word that the stream is offline.
    with pytest.raises((nats.errors.TimeoutError, nats.js.errors.ServerError)) as caught:
        await tower.info()
    assert "nobody told about stream TOWER within 12 s" in caught.value.__notes__[0]
