"""The live view on real servers: what it shows, records and leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from xml.etree import ElementTree

import nats.errors
import nbformat
import pytest
from nbclient import NotebookClient

from jslab.consumers import Message
from jslab.errors import SettingsError
from jslab.lab import Lab
from jslab.streams import Stream


async def a_board(lab: Lab) -> Stream:
    return await lab.stream("BOARD", subjects=["board.>"], num_replicas=3)


async def test_it_records_leaders_rates_and_lags(lab: Lab) -> None:
    board = await a_board(lab)
    consumer = await board.consumer("c")

    async def ack(_: Message) -> None:
        """Take it."""

    async with lab.live(board, every=0.05) as seen:
        await board.publish_many(range(2_000), subject="board.JFK", data=lambda n: b"%d" % n)
        await consumer.work(ack, limit=2_000)
        first = (await board.placement()).leader
        second = await board.step_down()
        await asyncio.sleep(0.3)
    frame = seen.frame()
    assert len(frame) == len(seen.looks) > 5
    assert [leader for leader in seen.leaders if leader][-2:] == [first, second]
    assert frame.last_seq.iloc[-1] == 2_000
    assert frame.messages_per_second.max() > 0
    assert frame.acks_per_second.max() > 0
    terms = [term for term in frame.term if term == term and term is not None]
    assert terms[-1] > terms[0]
    assert {f"lag_{server.name}" for server in lab.deployment.servers()} <= set(frame.columns)


async def test_it_shows_a_server_that_is_away(lab: Lab) -> None:
    board = await a_board(lab)
    leader = (await board.placement()).leader
    away = next(server.name for server in lab.deployment.servers() if server.name not in (leader, lab.entry))
    async with lab.live(board) as seen:
        await lab.faults.hold(away)
        for _ in range(60):
            if any(copy.server == away and copy.state == "held" for copy in seen.looks[-1].copies):
                break
            await asyncio.sleep(0.1)
    (copy,) = [copy for copy in seen.looks[-1].copies if copy.server == away]
    assert (copy.role, copy.state) == ("follower", "held")
    assert f"{away}" in repr(seen)
    assert "held" in seen._repr_html_()


async def test_it_ends_with_its_block_whatever_happens(lab: Lab) -> None:
    board = await a_board(lab)
    tasks = asyncio.all_tasks()
    with contextlib.suppress(ZeroDivisionError):
        async with lab.live(board):
            raise ZeroDivisionError
    assert asyncio.all_tasks() == tasks

    async def cell() -> None:
        async with lab.live(board):
            await asyncio.sleep(60)

    running = asyncio.ensure_future(cell())
    await asyncio.sleep(0.6)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() - tasks <= {running}


async def test_what_goes_wrong_while_it_looks_is_raised_at_the_end(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = await a_board(lab)

    async def looking() -> None:
        async with lab.live(board, every=0.05) as seen:

            async def fail() -> None:
                raise ZeroDivisionError

            monkeypatch.setattr(seen, "_glance", fail)
            await asyncio.sleep(0.3)
            monkeypatch.undo()

    with pytest.raises(ZeroDivisionError):
        await looking()


async def test_an_election_is_seen_and_not_an_error(lab: Lab) -> None:
    board = await a_board(lab)
    async with lab.live(board, every=0.1) as seen:
        leader = (await board.placement()).leader
        assert leader
        await lab.faults.crash(leader)
        for _ in range(150):
            with contextlib.suppress(nats.errors.Error, TimeoutError):
                if (await board.placement()).leader and None in seen.leaders:
                    break
            await asyncio.sleep(0.1)
    # The next leader may be the same server, if it comes back in time for the election.
    assert None in seen.leaders
    assert seen.leaders[-1] is not None
    terms = [look.term for look in seen.looks if look.term is not None]
    assert max(terms) > terms[0]


async def test_every_that_is_no_time_is_refused(lab: Lab) -> None:
    board = await a_board(lab)
    with pytest.raises(SettingsError, match="every of live"):
        lab.live(board, every=0)


CELLS = (
    "import jslab\nlab = await jslab.start()\n"
    "board = await lab.stream('BOARD', subjects=['board.>'], num_replicas=3)",
    "async with lab.live(board, every=0.1) as seen:\n"
    "    await board.publish_many(range(3_000), subject='board.<b>', data=lambda n: b'%d' % n)\n"
    "    await board.step_down()",
    "await lab.stop()",
)


@pytest.mark.embedded
def test_the_last_look_stays_in_an_executed_notebook(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (output,) = [out for out in notebook.cells[1].outputs if out.output_type == "display_data"]
    html, text = output.data["text/html"], output.data["text/plain"]
    assert "3,000 messages, last sequence 3,000" in text
    assert "3,000 messages" in html
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "")
    for drawing in html.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + drawing.partition("</svg>")[0] + "</svg>")
    assert len(json.dumps(output.data)) < 30_000
