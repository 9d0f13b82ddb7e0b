"""Ports on loopback that stay a lab's own for its life."""

from __future__ import annotations

import contextlib
import fcntl
import random
import socket
from collections.abc import Iterator
from pathlib import Path

from jslab.deployment.process import lab_folders
from jslab.errors import PortTakenError

# Ephemeral ports are lent to outgoing connections: a client that reconnects to a crashed server could
# be given the server's own port as its source, and connect to itself.
FIRST = 20000
LAST = 65535
LINUX_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
OTHER_RANGE = (49152, LAST)


def ephemeral_range() -> tuple[int, int]:
    """Return the first and last port the system lends to outgoing connections."""
    with contextlib.suppress(OSError, ValueError):
        first, last = LINUX_RANGE.read_text().split()
        return int(first), int(last)
    return OTHER_RANGE


def candidates(first: int, last: int) -> list[int]:
    """Return ports outside the ephemeral range ``first`` to ``last``, in random order."""
    outside = [*range(min(FIRST, first), first), *range(last + 1, LAST + 1)] or list(range(10000, FIRST))
    return random.sample(outside, len(outside))


def free(port: int) -> bool:
    """Tell whether nobody has ``port`` of 127.0.0.1, nor keeps it for a server that is away."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def claim(state: Path, count: int) -> Iterator[list[int]]:
    """Choose ``count`` free ports that no other lab of this user has.

    Other labs wait at the same door until this one has written its choice into its folder, which
    the caller does inside the ``with``. Raises PortTakenError when there are not enough.
    """
    with (state / "ports.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        taken = {port for lab in lab_folders(state) for port in lab.ports}
        chosen: list[int] = []
        for port in candidates(*ephemeral_range()):
            if port not in taken and free(port):
                chosen.append(port)
                if len(chosen) == count:
                    yield chosen
                    return
        raise PortTakenError(
            f"there are no {count} free ports on 127.0.0.1",
            seen=f"{len(chosen)} free outside the range {ephemeral_range()}",
            do="end labs you no longer use: `jslab clean` ends what a hard kill left",
        )
