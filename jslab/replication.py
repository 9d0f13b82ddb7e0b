"""Who leads, who holds copies, and how to change both: for streams, their consumers and the meta group."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from jslab.connection import ask, patiently, stream_info, unanswered
from jslab.errors import PlacementError
from jslab.waiting import until

if TYPE_CHECKING:
    import pandas as pd

# Whether servers themselves say that they have a stream up to a sequence.
Held: TypeAlias = Callable[[str, Sequence[str], int], Awaitable[bool]]

META = "meta"
# Seconds until a new leader answers, and until copies of what a lesson holds have caught up.
ELECTED, COPIED = 20.0, 60.0
ASKED = 2.0


@dataclass(frozen=True, slots=True)
class Group:
    """One raft group as its leader sees it: of the meta layer, a stream or a consumer."""

    kind: str
    """``meta``, ``stream`` or ``consumer``."""
    stream: str
    consumer: str
    leader: str | None
    followers: tuple[dict[str, Any], ...]
    """The leader's word on each follower: name, current, offline, lag."""
    wanted: int = 0
    """Copies that its configuration asks for; 0 for a consumer that has as many as its stream."""

    @property
    def name(self) -> str:
        """``meta``, the stream's name, or stream and consumer with a slash between."""
        return {META: META, "stream": self.stream}.get(self.kind, f"{self.stream}/{self.consumer}")

    @property
    def servers(self) -> tuple[str, ...]:
        """Servers that hold it, the leader first."""
        leader = (self.leader,) if self.leader else ()
        return (*leader, *(str(follower["name"]) for follower in self.followers))

    @property
    def caught_up(self) -> bool:
        """Whether it has a leader, and every follower is there and has applied what the leader has."""
        return self.leader is not None and all(
            follower.get("current") and not follower.get("offline") and not follower.get("lag")
            for follower in self.followers
        )


async def groups(nc: Client, *, stream: str | None = None) -> list[Group]:
    """Ask every leader for its group: all streams and consumers, or those of one stream.

    A group without a leader is listed with None and no followers. Names come from the meta leader, whose
    election is waited for; then as :func:`jslab.connection.patiently`.
    """

    async def named(api: str, what: str) -> list[str]:
        return (await patiently(lambda: ask(nc, api, timeout=ASKED), f"named the {what}")).get(what) or []

    names = [stream] if stream else await named("STREAM.NAMES", "streams")
    found = []
    for name in names:
        found.append(_group("stream", name, "", await _info(nc, f"STREAM.INFO.{name}")))
        for consumer in await named(f"CONSUMER.NAMES.{name}", "consumers"):
            info = await _info(nc, f"CONSUMER.INFO.{name}.{consumer}")
            found.append(_group("consumer", name, consumer, info))
    return found


def frame(found: list[Group]) -> pd.DataFrame:
    """Return a row for each copy: group, kind, server, role, current, offline, lag.

    A group that nobody leads has one row without a server, role ``no leader``: its copies are not known.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for group in found:
        about = {"group": group.name, "kind": group.kind}
        rows.append(
            {
                **about,
                "server": group.leader,
                "role": "leader" if group.leader else "no leader",
                "current": group.leader is not None,
                "offline": False,
                "lag": 0,
            }
        )
        rows += [
            {
                **about,
                "server": follower["name"],
                "role": "follower",
                "current": bool(follower.get("current")),
                "offline": bool(follower.get("offline")),
                "lag": int(follower.get("lag", 0)),
            }
            for follower in group.followers
        ]
    return pd.DataFrame(rows, columns=["group", "kind", "server", "role", "current", "offline", "lag"])


async def step_down(nc: Client, stream: str, consumer: str = "", *, to: str | None = None) -> str:
    """Have a leader hand over, to a chosen server if one is named, and return who leads then.

    Raises PlacementError when that server holds no copy, or did not become the leader.
    """
    subject = f"{stream}.{consumer}" if consumer else stream
    kind = "CONSUMER" if consumer else "STREAM"
    before = _group(kind.lower(), stream, consumer, await _info(nc, f"{kind}.INFO.{subject}"))
    if to is not None and to not in before.servers:
        raise PlacementError(
            f"{to} cannot lead {before.name}: it has no copy",
            seen=f"copies on {', '.join(before.servers) or 'no server that is known'}",
            do="name one of those",
        )
    if to is not None and to == before.leader:
        return to
    if len(before.servers) < 2:
        raise PlacementError(
            f"{before.name} has one copy: there is nobody to hand over to",
            seen=f"copies on {', '.join(before.servers) or 'no server'}",
            do="give it three: await stream.scale(3)",
        )
    asked = {"placement": {"preferred": to}} if to else {}
    seen = before.leader

    async def led() -> str | None:
        nonlocal seen
        if seen is not None and seen != to and (to or seen == before.leader):
            # Again while another leads: a follower that has not caught up yet is passed over.
            with contextlib.suppress(nats.js.errors.APIError, TimeoutError):
                await ask(nc, f"{kind}.LEADER.STEPDOWN.{subject}", asked, ASKED)
        seen = _group("", "", "", await _info(nc, f"{kind}.INFO.{subject}")).leader
        return seen if seen and (seen == to if to else seen != before.leader) else None

    leader = await until(
        led,
        what=f"{to or 'another server'} to lead {before.name}",
        timeout=ELECTED,
        every=0.2,
        seen=lambda: f"leader {seen or 'none'}",
        do="a leader hands over to a follower that is current: see await lab.leaders()",
        error=PlacementError,
    )
    assert leader is not None
    return leader


async def scale(
    js: JetStreamContext,
    config: StreamConfig,
    replicas: int,
    timeout: float = COPIED,
    held: Held | None = None,
) -> None:
    """Give a stream, and its consumers, so many copies, and return when each has all there is.

    ``update_stream`` returns before the new copies exist, so this waits until the leader calls every copy
    current, without lag, and the number is right; and then until each server itself says that it has the
    messages, where ``held`` can ask them. Raises PlacementError; the server's own errors pass.
    """
    assert config.name is not None
    name = config.name
    # The answer comes from the stream's new group, whose election may take longer than nats-py waits.
    with contextlib.suppress(nats.errors.TimeoutError):
        await js.update_stream(config, num_replicas=replicas)
    found: list[Group] = []

    async def copied() -> bool:
        nonlocal found
        found = await groups(js._nc, stream=name)
        return all(group.caught_up and len(group.servers) == (group.wanted or replicas) for group in found)

    await until(
        copied,
        what=f"{name} to have {replicas} copies that are current",
        timeout=timeout,
        every=0.1,
        seen=lambda: "; ".join(_told(group) for group in found),
        do="it goes on by itself; see await lab.leaders(), and give it longer: timeout=",
        error=PlacementError,
    )
    if held is None:
        return
    servers, last_seq = found[0].servers, (await stream_info(js, name)).state.last_seq
    await until(
        lambda: held(name, servers, last_seq),
        what=f"{', '.join(servers)} to say that they have {name} up to {last_seq:,}",
        timeout=timeout,
        do="it goes on by itself; give it longer: timeout=",
        error=PlacementError,
    )


async def move_leaders_off(nc: Client, server: str) -> list[str]:
    """Have every stream and consumer that ``server`` leads, and has other copies, led by another.

    Returns their names. One with a single copy stays: there is nobody to hand over to.
    """
    moved = []
    for group in await groups(nc):
        if group.leader == server and len(group.servers) > 1:
            await step_down(nc, group.stream, group.consumer)
            moved.append(group.name)
    return moved


def _told(group: Group) -> str:
    behind = [f"{f['name']} {f.get('lag', 0):,} behind" for f in group.followers if not f.get("current")]
    return f"{group.name}: {len(group.servers)} copies, leader {group.leader or 'none'}" + (
        f", {', '.join(behind)}" if behind else ""
    )


def _group(kind: str, stream: str, consumer: str, info: dict[str, Any]) -> Group:
    cluster, wanted = info.get("cluster") or {}, int((info.get("config") or {}).get("num_replicas") or 0)
    followers = tuple(cluster.get("replicas") or ())
    return Group(kind, stream, consumer, cluster.get("leader") or None, followers, wanted)


async def _info(nc: Client, api: str) -> dict[str, Any]:
    """Ask for a stream or consumer; empty when nobody answers for it."""
    try:
        return await ask(nc, api, timeout=ASKED)
    except (TimeoutError, nats.errors.Error) as err:
        if not unanswered(err):
            raise
        return {}
