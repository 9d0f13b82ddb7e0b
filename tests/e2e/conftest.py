"""A real browser, and where its pictures go.

Playwright's asynchronous half is used: the other keeps a loop running in the main thread, and no asynchronous
test could follow.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright

from jslab import doctor
from tests.labs import LabServer
from tests.waits import processes, until

PICTURES = Path(__file__).parents[2] / "reports" / "e2e"
FLAGS = [
    "--no-sandbox",  # containers run tests as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    found = doctor.browser()
    if found.level != "ok":
        pytest.skip(f"{found.seen}; do: {found.do}")
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=found.seen, args=FLAGS)
        yield chromium
        await chromium.close()


@pytest.fixture(scope="session")
def pictures() -> Path:
    """The folder for screenshots, kept for people to look at."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    return PICTURES


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LabServer]:
    """``jslab lab`` for a user whose own configuration lets the test reach into the page."""
    (tmp_path / ".jupyter").mkdir()
    config = {"LabApp": {"expose_app_in_browser": True}}
    (tmp_path / ".jupyter" / "jupyter_lab_config.json").write_text(json.dumps(config))
    server = LabServer(tmp_path, "--no-browser")
    try:
        await asyncio.to_thread(server.ready)
        yield server
        server.process.terminate()
        assert await asyncio.to_thread(server.process.wait, 20) == 0, server.log.read_text()
        await asyncio.to_thread(until, lambda: not processes(str(tmp_path)), 15)
    finally:
        server.stop()
