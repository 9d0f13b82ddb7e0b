"""The shared deployments from the command line: make one, show it, take it away."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from dataclasses import asdict, replace
from typing import Any, TypeVar

from jslab import connection, deployment, settings
from jslab.connection import Connection
from jslab.deployment import Say, SharedDeployment
from jslab.errors import ClusterError, UnsupportedError
from jslab.exercises.notes import STREAM as NOTES
from jslab.servers import cancel_on_signals
from jslab.stream_config import LESSON_KEY, OWNED

T = TypeVar("T")
# Seconds for a connection to servers that work as one cluster already.
READY = 30.0


def choose(backend: str | None) -> SharedDeployment | None:
    """Return the deployment of a backend, by default the settings' own; None for embedded, which has none."""
    asked = settings.read()
    name = backend or asked.backend
    return deployment.SHARED[name](replace(asked, backend=name)) if name in deployment.SHARED else None


def up(chosen: SharedDeployment, say: Say, *, offline: bool = False) -> None:
    """Make a deployment, or bring it to what the manifests say, and prove it with an acknowledged message.

    Raises ToolError, ClusterError, NotReadyError, KeyboardInterrupt.
    """
    _run(_up(chosen, say, offline))


async def _up(chosen: SharedDeployment, say: Say, offline: bool) -> None:
    begun = time.monotonic()
    connected = Connection()
    try:
        await chosen.install(say, offline=offline)
        await chosen.open()
        urls = [server.client_url for server in chosen.servers()]
        await connected.open(urls, READY)
        await connection.until_placed(connected.nc, len(urls), READY)
        say(f"{chosen.backend}, nats-server {chosen.version}, {len(urls)} copies acknowledged a message:")
        for line in _lines(chosen):
            say(f"  {line}")
        say(f"{time.monotonic() - begun:.1f} s. In a notebook: lab = await jslab.start({chosen.backend!r})")
    finally:
        await connected.close()
        await chosen.down()


def plan(chosen: SharedDeployment) -> str:
    """Have the API server judge what ``up`` would apply, without changing anything. Raises ClusterError."""
    return _run(_plan(chosen))


async def _plan(chosen: SharedDeployment) -> str:
    try:
        accepted = await chosen.plan()
    finally:
        await chosen.down()
    return f"{chosen.backend} accepts {len(accepted)} objects, and nothing was changed: {', '.join(accepted)}"


def status(chosen: SharedDeployment, *, as_json: bool = False) -> str:
    """Describe a deployment: its servers, and the notebook that has it."""
    return _run(_status(chosen, as_json))


async def _status(chosen: SharedDeployment, as_json: bool) -> str:
    try:
        if not await chosen.present():
            there = {"backend": chosen.backend, "there": False}
            nothing = f"{chosen.backend}: nothing is deployed; jslab up --backend {chosen.backend} makes it"
            return json.dumps(there) if as_json else nothing
        await chosen.open()
        holder = await chosen.holder()
        if as_json:
            servers = [asdict(server) for server in chosen.servers()]
            shown = {"backend": chosen.backend, "there": True, "holder": holder or None, "servers": servers}
            return json.dumps(shown, indent=1)
        who = f"held by {holder}" if holder else "no notebook has it"
        lines = [f"  {line}" for line in _lines(chosen)]
        return "\n".join([f"{chosen.backend}, nats-server {chosen.version}: {who}", *lines])
    finally:
        await chosen.down()


def _lines(chosen: SharedDeployment) -> list[str]:
    return [f"{s.name}  {s.state:8} {s.client_url}  monitoring: {s.monitor_url}" for s in chosen.servers()]


def down(chosen: SharedDeployment | None, say: Say, *, yes: bool = False) -> str:
    """Take a deployment away, with its data; without ``yes`` only when no stream in it is a user's own.

    Raises UnsupportedError for embedded, which is nobody's to share, and ClusterError, which lists what would
    go with it.
    """
    if chosen is None:
        raise UnsupportedError(
            "an embedded lab cannot be taken down from outside",
            seen="it belongs to a kernel, or to a `jslab up`",
            do="restart the kernel, or press Ctrl-C there; `jslab clean` ends what a hard kill left",
        )
    return _run(_down(chosen, say, yes))


async def _down(chosen: SharedDeployment, say: Say, yes: bool) -> str:
    begun = time.monotonic()
    try:
        if not yes and await chosen.present():
            await _refuse_for_the_users_own(chosen)
        await chosen.remove(say)
    finally:
        await chosen.down()
    return f"{chosen.backend}: nothing of the lab is left ({time.monotonic() - begun:.1f} s)"


async def _refuse_for_the_users_own(chosen: SharedDeployment) -> None:
    holder = await chosen.holder()
    found = [f"stream {stream}" for stream in await users_streams(chosen)]
    found += [f"namespace {name}" for name in await chosen.strangers()]
    if holder:
        found.append(f"a notebook at work ({holder})")
    if found:
        raise ClusterError(
            f"taking {chosen.backend} down would delete what is not the lab's",
            seen=", ".join(found),
            do=f"save what you want to keep, then: jslab down --backend {chosen.backend} --yes",
        )


async def users_streams(chosen: SharedDeployment) -> list[str]:
    """Name the streams that no lesson made: those without the lab's metadata, and those made outside one.

    Raises ClusterError when a server cannot be asked: then nobody knows.
    """
    names = chosen.known()
    answers = await asyncio.gather(
        *(chosen.get(name, "/jsz?accounts=1&streams=1&config=1") for name in names)
    )
    found: set[str] = set()
    for name, (status, body) in zip(names, answers, strict=True):
        if status != 200:
            raise ClusterError(
                f"{name} cannot be asked which streams it holds",
                seen=f"status {status or 'none: no answer'}",
                do=f"heal it first, or give its data up: jslab down --backend {chosen.backend} --yes",
            )
        found |= {stream for account in body.get("account_details") or [] for stream in _users(account)}
    return sorted(found)


def _users(account: Any) -> set[str]:
    return {
        str(detail["name"])
        for detail in account.get("stream_detail") or []
        if not _is_the_courses(detail.get("name"), (detail.get("config") or {}).get("metadata") or {})
    }


def _is_the_courses(name: object, metadata: dict[str, str]) -> bool:
    """Tell whether the course made a stream for itself: for a lesson, or to keep answers in."""
    return OWNED.items() <= metadata.items() and (LESSON_KEY in metadata or name == NOTES)


def _run(work: Coroutine[Any, Any, T]) -> T:
    async def cancellable() -> T:
        cancel_on_signals()
        return await work

    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
