"""One lesson at a time on a shared deployment: a Lease object that lives as long as its kernel."""

from __future__ import annotations

import atexit
import contextlib
import datetime
import getpass
import os
import secrets
import socket
import threading
import time
from typing import Any

from jslab.deployment.cluster import CONFLICT, OURS, Cluster, Object, RefusalError
from jslab.errors import ClusterError, LeaseHeldError
from jslab.waiting import until

NAME = "jslab-lesson"
# Seconds: a kernel that dies lets go after DURATION, and a new one notices within 30.
DURATION = 20
RENEWAL = 5.0
# A lease this long unrenewed is dead whatever the two clocks say; a fresher one is watched for a while.
SURELY_DEAD = 5 * DURATION


class Lease:
    """A lease that is held: renewed by a thread, so that a busy cell does not lose it."""

    def __init__(self, cluster: Cluster, identity: str) -> None:
        self.identity = identity
        self.lost: LeaseHeldError | None = None
        self._cluster = cluster
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="jslab-lease", daemon=True)
        self._lock = threading.Lock()
        self._released = False

    @classmethod
    async def take(cls, cluster: Cluster, backend: str, *, take_over: bool) -> Lease:
        """Take the lease of a namespace, waiting for a dead holder's to lapse.

        Raises LeaseHeldError, which says who holds it and since when; with ``take_over`` it is taken all
        the same.
        """
        identity = f"{getpass.getuser()}@{socket.gethostname()} process {os.getpid()} {secrets.token_hex(2)}"
        while True:
            found = await cluster.get("Lease", NAME)
            if found and _holder(found) and not take_over:
                found = await _lapsed(cluster, found, backend)
            try:
                if found is None:
                    await cluster.create(_body(identity))
                else:
                    await cluster.patch("Lease", NAME, _claim(found, identity))
            except RefusalError as err:
                if err.status == CONFLICT:
                    continue  # somebody was faster: look again
                raise
            lease = cls(cluster, identity)
            lease._thread.start()
            atexit.register(lease.release)
            return lease

    def release(self) -> None:
        """Let the next one have it; safe to call twice. Blocks for the time of a request."""
        self._ended.set()
        atexit.unregister(self.release)
        with self._lock:
            if self._released or self.lost:
                return
            self._released = True
            with contextlib.suppress(ClusterError):
                found = self._cluster.ask("get", "Lease", NAME)
                if _holder(found) == self.identity:
                    self._patch({"metadata": _version(found), "spec": {"holderIdentity": None}})

    def _renew(self) -> None:
        while not self._ended.wait(RENEWAL):
            # A cluster that does not answer for a while is no reason to give the lease up.
            with contextlib.suppress(ClusterError), self._lock:
                if self._ended.is_set():
                    return
                found = self._cluster.ask("get", "Lease", NAME)
                if _holder(found) != self.identity:
                    self.lost = _held(found, "this notebook no longer has the lab", "")
                    return
                self._patch({"metadata": _version(found), "spec": {"renewTime": _now()}})

    def _patch(self, body: Object) -> None:
        self._cluster.ask("patch", "Lease", NAME, body=body, content_type="application/merge-patch+json")


def describe(lease: Object | None) -> str:
    """Say who holds a lease and since when; empty when nobody does, or nobody who is alive."""
    if lease is None or not _holder(lease) or _surely_dead(lease):
        return ""
    since = _time(lease["spec"].get("acquireTime"))
    return f"{_holder(lease).rpartition(' ')[0]}, since {since:%H:%M:%S} UTC on {since:%d %B}"


async def _lapsed(cluster: Cluster, found: Object, backend: str) -> Object | None:
    """Return the lease once its holder has shown no sign of life for its duration; raise when it does."""
    if _surely_dead(found):
        return found
    started = time.monotonic()
    latest: Object | None = found
    told = False

    async def lapsed() -> bool:
        nonlocal latest, told
        latest = await cluster.get("Lease", NAME)
        if latest is None or not _holder(latest):
            return True
        if not _same(latest, found):
            raise _held(latest, "another notebook has this lab", backend)
        waited = time.monotonic() - started
        if waited > RENEWAL and not told:
            told = True
            print(f"{describe(found)}, has the lab and gives no sign of life: waiting {DURATION} s for one")
        return waited > DURATION

    await until(lapsed, what="the lease of a lab to lapse", timeout=DURATION + 5, every=0.5)
    return latest


def _held(lease: Object, what: str, backend: str) -> LeaseHeldError:
    return LeaseHeldError(
        what,
        seen=describe(lease) or "it was released",
        do=f"end it there (await lab.stop(), or restart that kernel), or take over: "
        f"lab = await jslab.start({backend!r}, take_over=True)"
        if backend
        else "await lab.stop() here; start again when that one has ended",
    )


def _body(identity: str) -> Object:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": NAME, "labels": OURS},
        "spec": _spec(identity),
    }


def _claim(found: Object, identity: str) -> Object:
    return {"metadata": _version(found), "spec": _spec(identity)}


def _spec(identity: str) -> dict[str, Any]:
    now = _now()
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": DURATION,
        "acquireTime": now,
        "renewTime": now,
    }


def _version(found: Object) -> dict[str, str]:
    """Make a change depend on nobody else having made one since ``found`` was read."""
    return {"resourceVersion": found["metadata"]["resourceVersion"]}


def _same(one: Object, other: Object) -> bool:
    return bool(one["metadata"]["resourceVersion"] == other["metadata"]["resourceVersion"])


def _surely_dead(lease: Object) -> bool:
    return (_utc() - _time(lease["spec"].get("renewTime"))).total_seconds() > SURELY_DEAD


def _holder(lease: Object) -> str:
    return str(lease["spec"].get("holderIdentity") or "")


def _utc() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _now() -> str:
    return _utc().strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _time(text: str | None) -> datetime.datetime:
    return (
        datetime.datetime.fromisoformat(text) if text else datetime.datetime.min.replace(tzinfo=datetime.UTC)
    )
