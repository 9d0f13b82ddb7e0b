"""Leaders and copies on real servers: who has what, handing over, scaling, emptying a server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Sequence

import nats.errors
import pytest

from jslab import replication
from jslab.errors import PlacementError, SettingsError
from jslab.glance import all_hold
from jslab.lab import Lab
from jslab.streams import Stream


async def numbered(lab: Lab, count: int, name: str = "N", replicas: int = 3) -> Stream:
    stream = await lab.stream(name, subjects=[f"{name.lower()}.>"], num_replicas=replicas)
    await stream.publish_many(range(count), subject=f"{name.lower()}.1", data=lambda n: b"%d" % n)
    return stream


async def test_leaders_is_a_row_for_each_copy(lab: Lab) -> None:
    stream = await numbered(lab, 10)
    await stream.consumer("billing")
    await numbered(lab, 10, "ONE", replicas=1)
    frame = await lab.leaders()
    frame = frame[frame.group != "JSLAB"]  # a lesson may have left its notes
    assert list(frame.columns) == ["group", "kind", "server", "role", "current", "offline", "lag"]
    assert frame.groupby("group").size().to_dict() == {"N": 3, "N/billing": 3, "ONE": 1}
    assert (frame[frame.role == "leader"].groupby("group").size() == 1).all()
    leader = (await stream.placement()).leader
    assert list(frame[(frame.group == "N") & (frame.role == "leader")].server) == [leader]


async def test_an_empty_lab_has_no_leaders_to_show(lab: Lab) -> None:
    for info in await lab.js.streams_info():
        await lab.js.delete_stream(str(info.config.name))
    assert len(await lab.leaders()) == 0


async def test_leaders_are_told_while_the_servers_choose_one_of_their_own(lab: Lab) -> None:
    """Who leads the meta group names streams and consumers, and is frozen here: its successor does."""
    stream = await numbered(lab, 10)
    await stream.consumer("billing")
    led = await lab.meta_leader()
    assert led is not None
    if lab.entry == led:
        await lab.enter(next(server.name for server in lab.deployment.servers() if server.name != led))
    await lab.faults.pause(led)
    frame = await lab.leaders()
    assert {"N", "N/billing"} <= set(frame.group)
    assert await lab.meta_leader() != led


async def test_what_nobody_leads_is_shown_without_a_leader(lab: Lab) -> None:
    """A single copy on a server that stays away is neither left out nor an error for the whole table."""
    await numbered(lab, 10)
    one = await numbered(lab, 10, "ONE", replicas=1)
    await one.consumer("billing")
    home = (await one.placement()).leader
    assert home is not None
    await lab.faults.hold(home)
    try:
        frame = await lab.leaders()
    finally:
        await lab.faults.release(home)
    alone = frame[frame.group.isin(["ONE", "ONE/billing"])]
    assert list(alone.role) == ["no leader"] * 2
    assert list(alone.server.isna()) == [True] * 2
    assert not alone.current.any()
    assert "N" in set(frame.group)


async def test_a_leader_hands_over_to_whom_you_choose(lab: Lab) -> None:
    stream = await numbered(lab, 100)
    before = await stream.placement()
    for replica in before.replicas[1:]:
        assert await stream.step_down(to=replica.server) == replica.server
        assert (await stream.placement()).leader == replica.server
    last = (await stream.placement()).leader
    assert await stream.step_down(to=last) == last
    assert await stream.step_down() != last


async def test_a_consumer_has_a_leader_of_its_own(lab: Lab) -> None:
    stream = await numbered(lab, 100)
    consumer = await stream.consumer("billing")
    led = (await stream.placement()).leader
    other = next(server.name for server in lab.deployment.servers() if server.name != led)
    assert await consumer.step_down(to=other) == other
    assert (await stream.placement()).leader == led
    assert len(await consumer.fetch(100)) == 100


async def test_who_cannot_lead_is_refused_by_name(lab: Lab) -> None:
    stream = await numbered(lab, 10)
    with pytest.raises(PlacementError, match="nats-7 cannot lead N: it has no copy") as caught:
        await stream.step_down(to="nats-7")
    assert "nats-0" in caught.value.seen
    one = await numbered(lab, 10, "ONE", replicas=1)
    with pytest.raises(PlacementError, match="ONE has one copy"):
        await one.step_down()
    with pytest.raises(SettingsError, match="there is no server 'nats-7'"):
        await lab.move_leaders_off("nats-7")


async def test_a_scaled_stream_has_every_message_on_every_copy(lab: Lab) -> None:
    stream = await numbered(lab, 20_000, replicas=1)
    await stream.consumer("billing")
    placed = await stream.scale(3)
    assert len(placed.replicas) == 3
    assert all(replica.current and replica.lag == 0 for replica in placed.replicas)
    for server in lab.deployment.servers():
        _, body = await lab.deployment.get(server.name, "/jsz?accounts=1&streams=1")
        (held,) = [s for a in body["account_details"] for s in a["stream_detail"] if s["name"] == "N"]
        assert held["state"]["messages"] == 20_000
    frame = await lab.leaders()
    assert (frame[frame.group == "N/billing"].role == "leader").sum() == 1
    assert len(frame[frame.group == "N/billing"]) == 3
    assert len((await stream.scale(1)).replicas) == 1
    assert (await stream.info()).state.messages == 20_000


async def test_scaling_ends_when_each_server_says_itself_that_it_has_the_messages(lab: Lab) -> None:
    # The leader called a copy current, without lag, while its server still had none of 27,004 messages.
    stream = await numbered(lab, 10, replicas=1)
    asked: list[tuple[str, list[str], int]] = []

    async def held(name: str, servers: Sequence[str], last_seq: int) -> bool:
        asked.append((name, sorted(servers), last_seq))
        return len(asked) > 2

    await replication.scale(lab.js, stream.config, 3, held=held)
    assert asked == [("N", sorted(server.name for server in lab.deployment.servers()), 10)] * 3

    async def never(name: str, servers: Sequence[str], last_seq: int) -> bool:
        return False

    with pytest.raises(PlacementError, match="to say that they have N up to 10"):
        await replication.scale(lab.js, stream.config, 3, 1, held=never)


async def test_only_a_server_that_has_the_messages_holds_them(lab: Lab) -> None:
    stream = await numbered(lab, 10, replicas=1)
    leader = str((await stream.placement()).leader)
    other = next(server.name for server in lab.deployment.servers() if server.name != leader)
    assert await all_hold(lab.deployment, "N", [leader], 10)
    assert not await all_hold(lab.deployment, "N", [leader], 11)
    assert not await all_hold(lab.deployment, "N", [leader, other], 0)
    assert not await all_hold(lab.deployment, "M", [leader], 0)


async def test_scaling_under_load_loses_nothing(lab: Lab) -> None:
    stream = await numbered(lab, 1_000, replicas=1)
    acked, running = 0, True

    async def publish() -> None:
        nonlocal acked
        while running:
            with contextlib.suppress(nats.errors.Error, TimeoutError):
                await lab.js.publish("n.more", b"", timeout=2)
                acked += 1

    publishing = asyncio.ensure_future(publish())
    await stream.scale(3)
    await stream.scale(1)
    await stream.scale(3)
    running = False
    await publishing
    assert acked > 0
    assert (await stream.info()).state.messages >= 1_000 + acked


async def test_copies_that_are_not_there_in_time_are_named(lab: Lab) -> None:
    stream = await numbered(lab, 10, replicas=1)
    led = (await stream.placement()).leader
    # Without the meta leader nobody could even be told to make copies.
    needed = (led, await lab.meta_leader())
    held = next(server.name for server in lab.deployment.servers() if server.name not in needed)
    await lab.faults.hold(held)
    with pytest.raises(PlacementError, match="waited 2 s for N to have 3 copies that are current") as caught:
        await stream.scale(3, timeout=2)
    assert "N:" in caught.value.seen


async def test_a_server_is_emptied_of_leaders(lab: Lab) -> None:
    streams = [await numbered(lab, 10, name) for name in ("A", "B", "C")]
    for stream in streams:
        await (await stream.consumer("c")).step_down(to="nats-1")
        await stream.step_down(to="nats-1")
    one = await numbered(lab, 10, "ONE", replicas=1)
    moved = await lab.move_leaders_off("nats-1")
    assert sorted(moved) == ["A", "A/c", "B", "B/c", "C", "C/c"]
    frame = await lab.leaders()
    left = frame[(frame.server == "nats-1") & (frame.role == "leader")]
    assert set(left.group) <= {"ONE"}
    assert (await one.info()).state.messages == 10


async def test_handing_over_interrupts_a_publisher_for_less_than_a_second(lab: Lab) -> None:
    stream = await numbered(lab, 10)
    acked: list[float] = []
    running = True

    async def publish() -> None:
        while running:
            with contextlib.suppress(nats.errors.Error, TimeoutError):
                await lab.js.publish("n.1", b"", timeout=1)
                acked.append(time.monotonic())
            await asyncio.sleep(0.005)

    publishing = asyncio.ensure_future(publish())
    for _ in range(3):
        await stream.step_down()
        await asyncio.sleep(0.2)
    running = False
    await publishing
    gaps = [later - earlier for earlier, later in itertools.pairwise(acked)]
    assert max(gaps) < 2
