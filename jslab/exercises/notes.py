"""The lab's own stream, where answers and predictions are messages: ``JSLAB`` on ``jslab.>``."""

from __future__ import annotations

import datetime

import nats.js.errors

from jslab import streams
from jslab.connection import patiently
from jslab.exercises.lablike import LabLike

STREAM = "JSLAB"


class Notes:
    """Writes and reads small facts: ``kind`` is answer, predict, reveal, prepared, or an exercise's own."""

    def __init__(self, lab: LabLike) -> None:
        self._lab = lab
        self._js = lab.js

    async def write(self, kind: str, about: str, text: str) -> None:
        """Keep ``text``; the last one counts."""
        await streams.open_stream(
            self._js, STREAM, settle=self._lab.settle, subjects=["jslab.>"], num_replicas=3
        )
        subject, told = f"jslab.{kind}.{about}", text.encode()
        await patiently(lambda: self._js.publish(subject, told), f"stored what was noted in {STREAM}")

    async def read(self, kind: str, about: str) -> tuple[str, datetime.datetime] | None:
        """Return the last text and when the server stored it, None if there is none."""
        try:
            message = await patiently(
                lambda: self._js.get_last_msg(STREAM, f"jslab.{kind}.{about}"), f"read {STREAM}"
            )
        except nats.js.errors.NotFoundError:
            return None
        assert message.time is not None
        return (message.data or b"").decode(), message.time

    async def text(self, kind: str, about: str) -> str | None:
        """Return the last text, None if there is none."""
        found = await self.read(kind, about)
        return found[0] if found else None

    async def forget(self, kind: str, about: str) -> None:
        """Remove what was kept; ``about`` may end in ``>``."""
        try:
            await patiently(
                lambda: self._js.purge_stream(STREAM, subject=f"jslab.{kind}.{about}"), f"purged {STREAM}"
            )
        except nats.js.errors.NotFoundError:
            return
