"""The course in a real JupyterLab in a real browser: what a newcomer sees in the first minute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from tests.e2e.screens import READY, THEMES, wear
from tests.labs import LabServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

OUTPUTS = """() => window.jupyterapp.shell.currentWidget.content.widgets
  .filter(cell => cell.model.type === 'code')
  .flatMap(cell => cell.model.outputs.toJSON())"""
RUN_ALL = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
SCROLL = """cell => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  notebook.activeCellIndex = cell === 'first' ? 0 : notebook.widgets.length - 1;
  return notebook.scrollToItem(notebook.activeCellIndex, cell === 'first' ? 'start' : 'end');
}"""


def texts(outputs: list[dict[str, Any]]) -> str:
    """Put all that a notebook shows into one text."""
    found = []
    for output in outputs:
        bundle = output.get("data", {})
        parts = [output.get("text", ""), *(bundle.get(kind, "") for kind in ("text/plain", "text/html"))]
        found += ["".join(part) for part in parts]
    return "\n".join(found)


async def photograph(page: Page, pictures: Path, name: str) -> None:
    for kind in THEMES:
        await wear(page, kind)
        for cell in ("first", "last"):
            await page.evaluate(SCROLL, cell)
            await page.screenshot(path=pictures / f"{name}-{cell}-{kind}.png")


async def test_a_newcomer_runs_lesson_00_and_sees_an_acknowledged_message(
    server: LabServer, browser: Browser, pictures: Path
) -> None:
    address = server.address()
    assert address is not None
    page = await browser.new_page(viewport={"width": 1280, "height": 3000})
    await page.goto(address[0])
    await page.wait_for_function(READY, timeout=60_000)
    await page.evaluate(RUN_ALL)

    outputs = await page.evaluate(OUTPUTS)
    assert [output for output in outputs if output["output_type"] == "error"] == []
    shown = texts(outputs)
    assert "nats-0" in shown, "the card names the servers"
    assert "PubAck" in shown, "the message was acknowledged"
    assert await page.locator(".jp-toast-message, .Toastify__toast").count() == 0, "nothing pops up"
    await photograph(page, pictures, "lesson-00")
    await page.close()
