"""Where the servers of a lab run. A deployment gives addresses and holds no NATS client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from jslab.settings import Settings

Json: TypeAlias = Any
Say: TypeAlias = Callable[[str], None]


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
        """Bring the servers up, or join them, and return when they are ready.

        Raises DeploymentError and its children, MachineError and its children.
        """

    async def ready(self, timeout: float) -> None:
        """Wait until every server is healthy and the cluster works as a whole. Raises NotReadyError."""

    async def down(self) -> None:
        """End what ``up`` opened, faults included; a shared deployment itself stays. Safe to call twice."""

    async def look(self) -> None:
        """Ask how the servers are, where ``servers`` cannot know by itself."""

    def servers(self) -> tuple[Server, ...]:
        """Return the servers as they were last seen, without I/O on the network."""

    async def get(self, server: str, path: str) -> tuple[int, Json]:
        """Return status and JSON of a monitoring path such as ``/jsz``; status 0: no answer."""

    async def log(self, server: str, lines: int = 50) -> str:
        """Return the last lines of a server's log."""

    async def crash(self, server: str) -> None:
        """Kill a server without warning; it comes back by itself with its data."""

    async def terminate(self, server: str) -> None:
        """Ask a server to leave: it hands its leaders over, ends, and comes back by itself."""

    async def wipe(self, server: str) -> None:
        """Kill a server and empty its disk; it comes back by itself. Not while it is held."""

    async def hold(self, server: str) -> None:
        """Kill a server and keep it away until it is released."""

    async def release(self, server: str) -> None:
        """Let a held server come back."""

    async def pause(self, server: str) -> None:
        """Freeze a server: it keeps its connections and answers nothing."""

    async def resume(self, server: str) -> None:
        """Let a frozen server go on where it was."""


class SharedDeployment(Deployment, Protocol):
    """A deployment that outlives the notebooks that use it, one at a time."""

    async def install(self, say: Say, *, offline: bool = False) -> None:
        """Bring it to what the manifests say and wait until it works; safe to repeat."""

    async def plan(self) -> list[str]:
        """Ask what ``install`` would apply whether it is accepted, and change nothing."""

    async def remove(self, say: Say) -> None:
        """Take away all of ours and nothing else, data included."""

    async def open(self) -> None:
        """Give each server an address on this machine, without taking the lab; ``down`` closes them."""

    def known(self) -> tuple[str, ...]:
        """Return the names of the servers that the manifests ask for."""

    async def strangers(self) -> list[str]:
        """Name what ``remove`` would take away beside the lab, and somebody else made."""

    async def holder(self) -> str:
        """Say which notebook has the lab and since when; empty when none has."""

    async def present(self) -> bool:
        """Tell whether it is there, without making anything."""


def embedded(settings: Settings) -> Deployment:
    """Three servers on this machine, without Docker."""
    from jslab.deployment.embedded import EmbeddedDeployment

    return EmbeddedDeployment(settings)


def kind(settings: Settings) -> SharedDeployment:
    """The manifests on a kind cluster of our own, made with Docker on this machine."""
    from jslab.deployment.kind import KindDeployment

    return KindDeployment(settings)


def kubernetes(settings: Settings) -> SharedDeployment:
    """The manifests in a namespace of any cluster that the user names by its context."""
    from jslab.deployment.kubernetes import KubernetesDeployment

    return KubernetesDeployment(settings)


SHARED: dict[str, Callable[[Settings], SharedDeployment]] = {"kind": kind, "kubernetes": kubernetes}
TABLE: dict[str, Callable[[Settings], Deployment]] = {"embedded": embedded, **SHARED}


def choose(settings: Settings) -> Deployment:
    """Return the deployment of ``settings.backend``, not yet up."""
    return TABLE[settings.backend](settings)
