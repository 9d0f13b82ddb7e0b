"""Lesson 07 in a real JupyterLab in a real browser: pictures that change while a cell runs, and buttons."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page

from tests.e2e.screens import READY, THEMES, wear
from tests.labs import LabServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

LESSON = "07_replay_and_time_travel.ipynb"
RUN = """async id => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  notebook.activeCellIndex = notebook.widgets.findIndex(cell => cell.model.id === id);
  await notebook.scrollToItem(notebook.activeCellIndex, 'start');
  await window.jupyterapp.commands.execute('notebook:run-cell');
  return notebook.widgets[notebook.activeCellIndex].model.outputs.toJSON();
}"""
SHOW = """async id => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  notebook.activeCellIndex = notebook.widgets.findIndex(cell => cell.model.id === id);
  await notebook.scrollToItem(notebook.activeCellIndex, 'start');
}"""
STORED = re.compile(r"([\d,]+) messages, last sequence")
PLACE = re.compile(r"FLIGHTS from ([\d,]+) of")
JANUARY = 27_004


async def run(page: Page, *cells: str) -> list[dict[str, Any]]:
    """Run cells by their ids and return what the last one shows; none of them may fail."""
    outputs: list[dict[str, Any]] = []
    for cell in cells:
        outputs = await page.evaluate(RUN, cell)
        assert [each for each in outputs if each["output_type"] == "error"] == []
    return outputs


def shown_by(page: Page) -> Locator:
    """The outputs of the active cell, as they stand on the screen."""
    return page.locator(".jp-Cell.jp-mod-active .jp-Cell-outputArea")


async def number_in(area: Locator, pattern: re.Pattern[str]) -> int | None:
    """Read a number off the screen."""
    found = pattern.search(await area.inner_text()) if await area.count() else None
    return int(found[1].replace(",", "")) if found else None


async def at_rest(area: Locator) -> int:
    """Wait until the player has stood in one place for a second, and return the sequence there."""
    before = None
    for _ in range(20):
        place = await number_in(area, PLACE)
        if place is not None and place == before:
            return place
        before = place
        await asyncio.sleep(1)
    raise AssertionError("pause does not stop it")


async def photograph(page: Page, pictures: Path, cell: str) -> None:
    for kind in THEMES:
        await wear(page, kind)
        await page.evaluate(SHOW, cell)
        await page.screenshot(path=pictures / f"lesson-07-{cell}-{kind}.png")


@pytest.fixture
async def page(server: LabServer, browser: Browser) -> Any:
    """Lesson 07, opened, its setup cell run."""
    address = server.address()
    assert address is not None
    page = await browser.new_page(viewport={"width": 1280, "height": 1400})
    await page.goto(address[0].replace(address[2], LESSON))
    await page.wait_for_function(READY, timeout=60_000)
    await run(page, "parameters", "setup")
    yield page
    await page.close()


async def test_the_pictures_of_lesson_07_move_while_its_cells_run(page: Page, pictures: Path) -> None:
    running = asyncio.ensure_future(run(page, "live"))
    seen: list[int] = []
    while not running.done():
        stored = await number_in(shown_by(page), STORED)
        if stored is not None and stored not in seen:
            seen.append(stored)
        await asyncio.sleep(0.05)
    await running
    between = [stored for stored in seen if 0 < stored < JANUARY]
    assert between, f"on the screen while the cell ran: {seen}"
    assert seen == sorted(seen)
    assert await number_in(shown_by(page), STORED) == JANUARY, "the last look stays"
    await photograph(page, pictures, "live")

    await run(page, "live-frame", "stored", "seek", "player", "player-all", "player-run", "controls")
    area = shown_by(page)
    before = await number_in(area, PLACE)
    assert before is not None
    await area.get_by_role("button", name="play").click()
    for _ in range(200):
        if (await number_in(area, PLACE) or 0) > before:
            break
        await asyncio.sleep(0.1)
    await area.get_by_role("button", name="pause").click()
    stopped = await at_rest(area)
    assert stopped > before, "play moves the picture"
    slider = await area.get_by_role("slider").get_attribute("aria-valuenow")
    assert float(slider or 0) == stopped, "the slider goes along"
    await photograph(page, pictures, "controls")
    await run(page, "clean")
