"""Where the servers of a lab run. A deployment gives addresses and holds no NATS client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from jslab.errors import UnsupportedError
from jslab.settings import Settings

Json: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class Server:
    """One server of a deployment, as it is known from outside."""

    name: str
    """The server's own name, which is also its pod's: ``nats-0``."""
    client_url: str
    monitor_url: str
    state: str
    """``running``, ``paused``, ``held`` (down until released) or ``backoff`` (about to come back)."""
    restarts: int


class Deployment(Protocol):
    """What every backend can do; the meaning of each fault is the same on all of them."""

    backend: str
    version: str
    """Version of the server, such as ``2.15.1``."""
    ephemeral: bool
    """Whether the data goes when the lab ends."""
    refuses: Mapping[str, str]
    """Faults that this backend cannot do, each with the backend that can."""

    async def up(self) -> None:
        """Bring the servers up and return when they are ready. Raises DeploymentError and its children."""

    async def ready(self, timeout: float) -> None:
        """Wait until every server is healthy and the cluster works as a whole. Raises NotReadyError."""

    async def down(self) -> None:
        """End what ``up`` made; safe to call twice."""

    def servers(self) -> tuple[Server, ...]:
        """Return the servers with what is known of them now, without I/O on the network."""

    async def get(self, server: str, path: str) -> tuple[int, Json]:
        """Return status and JSON of a monitoring path such as ``/jsz``; status 0: no answer."""

    async def log(self, server: str, lines: int = 50) -> str:
        """Return the last lines of a server's log."""

    async def crash(self, server: str) -> None:
        """Kill a server without warning; it comes back by itself with its data."""

    async def terminate(self, server: str) -> None:
        """Ask a server to leave: it hands its leaders over, ends, and comes back by itself."""

    async def hold(self, server: str) -> None:
        """Kill a server and keep it away until it is released."""

    async def release(self, server: str) -> None:
        """Let a held server come back."""

    async def pause(self, server: str) -> None:
        """Freeze a server: it keeps its connections and answers nothing."""

    async def resume(self, server: str) -> None:
        """Let a frozen server go on where it was."""


def embedded(settings: Settings) -> Deployment:
    """Three servers on this machine, without Docker."""
    from jslab.deployment.embedded import EmbeddedDeployment

    return EmbeddedDeployment(settings)


TABLE: dict[str, Callable[[Settings], Deployment]] = {"embedded": embedded}


def choose(settings: Settings) -> Deployment:
    """Return the deployment of ``settings.backend``, not yet up."""
    if settings.backend not in TABLE:
        raise UnsupportedError(
            f"the backend {settings.backend} is not there yet",
            seen=f"backends in this version: {', '.join(TABLE)}",
            do="use backend='embedded'",
        )
    return TABLE[settings.backend](settings)
