"""One local address for a port of a pod, by way of the API server; it outlives the pod.

Each accepted connection gets a port-forward of its own, to the pod that has the name at that moment. When the
pod goes, its connections end, the client connects again, and the next forward reaches the pod's successor.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

from jslab.errors import ClusterError

CHUNK = 256 * 1024
# Seconds until a forward must be open: the package has no limit of its own.
OPENING = 10.0


class Forward:
    """A listener on 127.0.0.1 that hands each connection on to one port of one pod."""

    def __init__(self, open_forward: Callable[[], Any], port: int) -> None:
        """``open_forward`` opens the package's PortForward to ``port``; it may block."""
        self._open_forward = open_forward
        self._pod_port = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        """The local port, chosen by ``start`` and kept until ``close``."""

    async def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, limit=CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End the listener and every connection through it; safe to call twice."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            # No pod, or no way to it: hanging up is what the client understands, it tries elsewhere.
            with contextlib.suppress(ClusterError, TimeoutError, OSError):
                await self._carry(reader, writer)
        except asyncio.CancelledError:
            pass  # close() ends connections; start_server would report a cancelled one as an error
        finally:
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opening = _Opening(self._open_forward)
        try:
            async with asyncio.timeout(OPENING):
                forward = await asyncio.to_thread(opening.run)
        except BaseException:
            opening.abandon()
            raise
        with contextlib.closing(forward.socket(self._pod_port)) as wrapped:
            # The package's wrapper lacks what asyncio asks of a socket.
            pod_reader, pod_writer = await asyncio.open_connection(sock=wrapped.dup(), limit=CHUNK)
        ways = [
            asyncio.ensure_future(_pump(reader, pod_writer)),
            asyncio.ensure_future(_pump(pod_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            pod_writer.close()


class _Opening:
    """Opens a forward in a thread, which cannot be stopped: one that comes too late is closed again."""

    def __init__(self, open_forward: Callable[[], Any]) -> None:
        self._open_forward = open_forward
        self._lock = threading.Lock()
        self._abandoned = False
        self._opened: Any = None

    def run(self) -> Any:
        """Open the forward. Blocks."""
        opened = self._open_forward()
        with self._lock:
            self._opened = opened
            if self._abandoned:
                opened.close()
        return opened

    def abandon(self) -> None:
        """Close what was opened, or will be."""
        with self._lock:
            self._abandoned = True
            if self._opened is not None:
                self._opened.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
