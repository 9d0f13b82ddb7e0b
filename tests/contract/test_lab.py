"""The lab, as a learner's cells see it, on whichever backend the option names."""

from __future__ import annotations

import nats.js.errors
import pytest

from jslab.errors import DeploymentError, StreamDriftError
from jslab.lab import Lab, start
from jslab.waiting import until


async def test_start_again_returns_the_same_lab(lab: Lab, backend: str) -> None:
    assert await start(backend) is lab


async def test_the_card_names_servers_leader_and_connection(lab: Lab) -> None:
    status = await lab.status()
    names = [server.name for server in status.servers]
    assert len(names) == 3
    assert status.meta_leader in names
    assert status.entry in names
    for text in (repr(lab), lab._repr_html_()):
        assert all(name in text for name in names)
        assert "meta leader" in text


async def test_enter_moves_the_connection(lab: Lab) -> None:
    for server in lab.deployment.servers():
        await lab.enter(server.name)
        assert lab.entry == server.name
        assert lab.nc.connected_url is not None


async def test_a_lessons_card_is_of_now(lab: Lab) -> None:
    await lab.stream("ORDERS", subjects=["orders.>"], num_replicas=3)
    await lab.lesson("03")
    assert "ORDERS" in repr(lab)
    await lab.clean("03")


async def test_stream_creates_and_then_binds(lab: Lab) -> None:
    made = await lab.stream("ORDERS", subjects=["orders.>"], num_replicas=3, max_age=60, duplicate_window=30)
    bound = await lab.stream("ORDERS", subjects=["orders.>"], max_age=60)
    assert bound.config == made.config
    assert await lab.stream("ORDERS")


async def test_stream_without_subjects_only_binds(lab: Lab) -> None:
    # A misspelt name used to create a stream of one replica on a subject of that name.
    await lab.stream("ORDERS", subjects=["orders.>"], num_replicas=3)
    with pytest.raises(nats.js.errors.NotFoundError) as caught:
        await lab.stream("ORDRES", num_replicas=3)
    (note,) = caught.value.__notes__
    assert "there are: ORDERS" in note
    assert "subjects=['ordres.>']" in note
    assert [info.config.name for info in await lab.js.streams_info()] == ["ORDERS"]


async def test_status_of_frozen_servers_says_so(lab: Lab) -> None:
    await lab.faults.pause(*[server.name for server in lab.deployment.servers()])
    status = await lab.status()
    assert status.streams is None
    assert "no answer from JetStream" in repr(status)
    assert [server.state for server in status.servers] == ["paused"] * 3


async def test_stream_lists_the_differences(lab: Lab) -> None:
    await lab.stream("ORDERS", subjects=["orders.>"], num_replicas=3)
    with pytest.raises(StreamDriftError) as caught:
        await lab.stream("ORDERS", subjects=["orders.>", "returns.>"], num_replicas=1)
    assert caught.value.differences == {
        "subjects": (["orders.>", "returns.>"], ["orders.>"]),
        "num_replicas": (1, 3),
    }
    assert "you asked for 1, the stream has 3" in str(caught.value)


async def test_stream_names_the_stream_it_overlaps_with(lab: Lab) -> None:
    await lab.stream("ORDERS", subjects=["orders.>"])
    with pytest.raises(nats.js.errors.BadRequestError) as caught:
        await lab.stream("JFK", subjects=["orders.JFK.*"])
    assert caught.value.err_code == 10065
    assert "ORDERS has 'orders.>', you asked for 'orders.JFK.*'" in caught.value.__notes__[0]


async def test_stream_with_an_impossible_name_suggests_another(lab: Lab) -> None:
    with pytest.raises(ValueError, match="invalid stream name") as caught:
        await lab.stream("my.orders", subjects=["orders.>"])
    assert "'my_orders'" in caught.value.__notes__[0]


async def test_stream_refuses_unknown_settings(lab: Lab) -> None:
    with pytest.raises(TypeError, match="no such stream setting: replicas"):
        await lab.stream("ORDERS", subjects=["orders.>"], replicas=3)


async def test_four_replicas_on_three_servers(lab: Lab) -> None:
    with pytest.raises(nats.js.errors.BadRequestError) as caught:
        await lab.stream("ORDERS", subjects=["orders.>"], num_replicas=4)
    assert caught.value.err_code == 10005
    assert "a lab has three" in caught.value.__notes__[0]


async def test_placement_lists_the_leader_first(lab: Lab) -> None:
    orders = await lab.stream("ORDERS", subjects=["orders.>"], num_replicas=3)
    placement = await orders.placement()
    assert placement.replicas[0].server == placement.leader
    assert placement.replicas[0].leader
    assert {replica.server for replica in placement.replicas} == {s.name for s in lab.deployment.servers()}
    assert "follower" in placement._repr_html_()


async def test_a_consumer_that_is_settled_answers_the_first_fetch(lab: Lab) -> None:
    # Without it 4 of 400 fetches found no responders: the answer to "create" overtakes the news of it.
    await lab.stream("ORDERS", subjects=["orders.>"], num_replicas=3)
    await lab.js.publish("orders.1", b"x")
    for number in range(50):
        info = await lab.js.add_consumer("ORDERS", durable_name=f"reader-{number}")
        await lab.settle(info)
        reader = await lab.js.pull_subscribe_bind(info.name, stream="ORDERS")
        assert len(await reader.fetch(1)) == 1


async def test_a_crashed_server_comes_back_with_its_messages(lab: Lab) -> None:
    orders = await lab.stream("ORDERS", subjects=["orders.>"], num_replicas=1)
    for number in range(10):
        await lab.js.publish(f"orders.{number}", b"x")
    leader = (await orders.placement()).leader
    assert leader is not None
    await lab.faults.crash(leader)
    await lab.ready()
    assert (await orders.info()).state.messages == 10


async def test_a_wiped_server_comes_back_with_an_empty_disk_and_is_given_copies_again(lab: Lab) -> None:
    one = await lab.stream("ONE", subjects=["one.>"], num_replicas=1)
    three = await lab.stream("THREE", subjects=["three.>"], num_replicas=3)
    for stream in (one, three):
        await stream.publish_many([b"x"] * 10, subject=f"{stream.name.lower()}.a")
    leader = (await one.placement()).leader
    assert leader is not None
    await lab.faults.wipe(leader)
    await lab.ready()
    state = (await one.info()).state
    assert (state.messages, state.last_seq) == (0, 0)
    assert (await three.info()).state.messages == 10

    async def copied() -> bool:
        _, body = await lab.deployment.get(leader, "/jsz?accounts=1&streams=1")
        details = [d for a in (body or {}).get("account_details", []) for d in a["stream_detail"]]
        return {d["name"]: d["state"]["messages"] for d in details} == {"ONE": 0, "THREE": 10}

    await until(copied, what=f"{leader} to hold what it should", timeout=30)


async def test_a_held_server_cannot_be_wiped(lab: Lab) -> None:
    await lab.faults.hold("nats-1")
    with pytest.raises(DeploymentError, match="nats-1 cannot be wiped") as caught:
        await lab.faults.wipe("nats-1")
    assert "release" in caught.value.do


async def test_a_held_server_stays_away_until_released(lab: Lab) -> None:
    await lab.faults.hold("nats-1")
    assert (await lab.deployment.get("nats-1", "/healthz"))[0] == 0
    states = {server.name: server.state for server in lab.deployment.servers()}
    assert states["nats-1"] == "held"
    await lab.faults.release("nats-1")
    await lab.ready()
    states = {server.name: server.state for server in lab.deployment.servers()}
    assert states["nats-1"] == "running"


async def test_a_paused_server_answers_nothing_and_goes_on(lab: Lab) -> None:
    await lab.faults.pause("nats-2")
    assert (await lab.deployment.get("nats-2", "/healthz"))[0] == 0
    await lab.faults.heal()
    assert (await lab.deployment.get("nats-2", "/healthz"))[0] == 200
