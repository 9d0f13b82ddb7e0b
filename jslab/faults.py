"""What can be broken, and how it heals. The same words mean the same on every backend."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from jslab.deployment import Deployment
from jslab.errors import DeploymentError, UnsupportedError

RECOVERY = 60.0


class Faults:
    """Breaks servers of a lab on purpose and remembers what is broken, so that it can be healed.

    ``crash`` and ``terminate`` heal by themselves: the server comes back with its data, after ``wipe``
    without. What is held or paused stays so until ``release``, ``resume`` or ``heal``.
    """

    def __init__(self, deployment: Deployment, ready: Callable[[float], Awaitable[None]]) -> None:
        self._deployment = deployment
        self._ready = ready
        self._held: set[str] = set()
        self._paused: set[str] = set()

    def __repr__(self) -> str:
        return f"<Faults held={sorted(self._held)} paused={sorted(self._paused)}>"

    async def crash(self, server: str) -> None:
        """Kill a server without warning (SIGKILL, or a pod deleted without grace). It comes back."""
        self._check("crash", server)
        await self._deployment.crash(server)

    async def terminate(self, server: str) -> None:
        """Ask a server to leave (SIGTERM): it hands its leaders over first. It comes back."""
        self._check("terminate", server)
        await self._deployment.terminate(server)

    async def wipe(self, server: str) -> None:
        """Kill a server and empty its disk, as when a volume is replaced. It comes back, without its data."""
        self._check("wipe", server)
        await self._deployment.wipe(server)

    async def hold(self, *servers: str) -> None:
        """Kill servers and keep them away, all at once as far as the backend can."""
        self._check("hold", *servers)
        for server in servers:
            self._held.add(server)
            await self._deployment.hold(server)

    async def release(self, *servers: str) -> None:
        """Let held servers come back; without names, all of them."""
        self._check("release", *servers)
        for server in servers or sorted(self._held):
            await self._deployment.release(server)
            self._held.discard(server)

    async def pause(self, *servers: str) -> None:
        """Freeze servers: connections stay open, nothing is answered."""
        self._check("pause", *servers)
        for server in servers:
            self._paused.add(server)
            await self._deployment.pause(server)

    async def resume(self, *servers: str) -> None:
        """Let frozen servers go on; without names, all of them."""
        self._check("resume", *servers)
        for server in servers or sorted(self._paused):
            await self._deployment.resume(server)
            self._paused.discard(server)

    async def undo(self) -> None:
        """Resume and release everything, without waiting for anything to work again."""
        await self.resume()
        await self.release()

    async def heal(self, timeout: float = RECOVERY) -> None:
        """Resume and release everything, and wait until servers, streams and consumers work again.

        ``timeout`` in seconds. Raises NotReadyError with what each server last said.
        """
        await self.undo()
        await self._ready(timeout)

    def _check(self, fault: str, *servers: str) -> None:
        names = [server.name for server in self._deployment.servers()]
        if unknown := [server for server in servers if server not in names]:
            raise DeploymentError(
                f"there is no server {unknown[0]!r} to {fault}",
                seen=f"servers of this lab: {', '.join(names)}",
                do="use one of those names",
            )
        if fault in self._deployment.refuses:
            raise UnsupportedError(
                f"the backend {self._deployment.backend} cannot {fault} a server",
                seen=self._deployment.refuses[fault],
                do="use the backend named there",
            )
