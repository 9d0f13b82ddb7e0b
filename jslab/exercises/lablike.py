"""What exercises need of a Lab: they stand below it, and take it as it is handed to them."""

from __future__ import annotations

from typing import Any, Protocol

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo, StreamInfo

from jslab.deployment import Deployment
from jslab.faults import Faults
from jslab.streams import Stream
from jslab.trial import Trial


class LabLike(Protocol):
    """What exercises need of a Lab."""

    @property
    def nc(self) -> Client: ...
    @property
    def js(self) -> JetStreamContext: ...
    @property
    def entry(self) -> str | None: ...
    @property
    def backend(self) -> str: ...

    deployment: Deployment
    faults: Faults

    async def stream(self, name: str, **config: Any) -> Stream: ...
    async def meta_leader(self) -> str | None: ...
    async def enter(self, server: str) -> None: ...
    async def settle(self, info: StreamInfo | ConsumerInfo) -> None: ...
    def trial(self, name: str) -> Trial: ...
    async def ready(self, timeout: float = 60.0) -> None: ...
