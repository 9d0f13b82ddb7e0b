"""Questions to a stream's leader: what there is, and what comes next. Copies may lag; the leader is asked."""

from __future__ import annotations

import base64
import datetime
import json
from typing import Any

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import StreamInfo

from jslab.connection import stream_info
from jslab.pulls import API
from jslab.replay.rows import Row, nanoseconds
from jslab.wire import HEADER_LINE

NO_MESSAGE = 10037


class Leader:
    """One stream, asked at its leader."""

    def __init__(self, js: JetStreamContext, stream: str) -> None:
        self._js = js
        self._stream = stream

    async def info(self) -> StreamInfo:
        """Return configuration and state. Raises NotFoundError when there is no such stream any more."""
        return await stream_info(self._js, self._stream)

    async def next(self, seq: int, subject: str) -> Row | None:
        """Return the first message at or after a sequence whose subject matches; None when there is none."""
        return await self._get({"seq": max(seq, 1), "next_by_subj": subject})

    async def at_or_after(self, when: datetime.datetime) -> Row | None:
        """Return the first message that was stored at or after a moment; None when there is none."""
        return await self._get({"start_time": when.astimezone(datetime.UTC).isoformat()})

    async def _get(self, asked: dict[str, Any]) -> Row | None:
        """Ask by the message API, which only the leader answers (nats-py's get_msg knows no start_time)."""
        nc, timeout = self._js._nc, self._js._timeout
        reply = await nc.request(f"{API}.STREAM.MSG.GET.{self._stream}", json.dumps(asked).encode(), timeout)
        answer = json.loads(reply.data)
        if error := answer.get("error"):
            if error.get("err_code") == NO_MESSAGE:
                return None
            raise nats.js.errors.APIError.from_error(error)
        return _row(answer["message"])


def _row(message: dict[str, Any]) -> Row:
    headers = base64.b64decode(message["hdrs"]) if "hdrs" in message else None
    if headers == HEADER_LINE + b"\r\n\r\n":
        headers = None
    data = base64.b64decode(message.get("data", ""))
    return Row(message["seq"], message["subject"], _nanoseconds(message["time"]), headers, data)


def _nanoseconds(text: str) -> int:
    """Read the server's time stamp: up to nine digits after the point, without zeros at the end."""
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    whole = nanoseconds(datetime.datetime.fromisoformat(f"{seconds}+00:00"))
    return whole + int(fraction.ljust(9, "0") or 0)
