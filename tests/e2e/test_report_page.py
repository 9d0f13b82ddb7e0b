"""The report of a run, in a browser whose network is cut."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.making import cell, write_notebook

pytestmark = pytest.mark.e2e

SHOWN = """
from IPython.display import HTML, SVG, display
import pandas as pd
display(HTML('<table><tr><td>nats-1 leads</td></tr></table>'))
box = '<rect width="80" height="20"/>'
display(SVG(f'<svg xmlns="http://www.w3.org/2000/svg" width="80" height="20">{box}</svg>'))
print('a line')
pd.DataFrame({'flights': [842]})
"""


async def test_a_page_shows_everything_and_asks_for_nothing(
    tmp_path: Path, browser: Browser, pictures: Path
) -> None:
    prose = cell("Prose with **weight** and [a link](https://nats.io).", kind="markdown")
    shown = write_notebook(tmp_path / "shown.ipynb", prose, SHOWN)
    broken = write_notebook(tmp_path / "broken.ipynb", "raise ValueError('as planned')")
    report = tmp_path / "report"
    arguments = ["run", str(shown), str(broken), "00", "--jobs", "3", "--report", str(report)]
    run = await asyncio.create_subprocess_exec(sys.executable, "-m", "jslab", *arguments)
    assert await run.wait() == 1

    context = await browser.new_context(offline=True)
    page = await context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    await page.goto((report / "index.html").as_uri())
    await page.screenshot(path=pictures / "report-index.png", full_page=True)
    assert await page.get_by_text("2 passed, 1 failed").is_visible()
    assert await page.get_by_text("as planned").first.is_visible()

    await page.get_by_role("link", name="The lesson shown").click()
    await page.screenshot(path=pictures / "report-page.png", full_page=True)
    for text in ("weight", "nats-1 leads", "a line", "842"):
        assert await page.get_by_text(text, exact=True).last.is_visible(), text
    widths = await page.eval_on_selector_all("img", "images => images.map(i => i.naturalWidth)")
    assert widths == [80]
    assert await page.get_by_role("link", name="a link").get_attribute("href") == "https://nats.io"

    await page.goto((report / "00_start_here.html").as_uri())
    await page.screenshot(path=pictures / "report-lesson-00.png", full_page=True)
    assert await page.get_by_text("jslab · embedded").is_visible()
    assert await page.get_by_text("PubAck(stream='HELLO'").is_visible()

    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert complaints == []
    await context.close()


async def test_parity_can_be_read_in_a_dark_browser_and_leads_to_each_backends_page(
    tmp_path: Path, browser: Browser, pictures: Path
) -> None:
    alike = write_notebook(tmp_path / "alike.ipynb", "print('seen on', backend)")
    differs = write_notebook(tmp_path / "differs.ipynb", "assert backend == 'embedded', 'not here'")
    elsewhere = write_notebook(tmp_path / "elsewhere.ipynb", "1", needs="kubernetes")
    report = tmp_path / "report"
    arguments = ["run", str(alike), str(differs), str(elsewhere), "--report", str(report)]
    both = ["--backend", "embedded", "--backend", "kind"]  # these notebooks start no servers on either
    run = await asyncio.create_subprocess_exec(sys.executable, "-m", "jslab", *arguments, *both)
    assert await run.wait() == 1

    context = await browser.new_context(offline=True, color_scheme="dark")
    page = await context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    await page.goto((report / "index.html").as_uri())
    await page.screenshot(path=pictures / "report-parity.png", full_page=True)
    for text in ("same", "differs: passed on embedded, failed on kind", "only on kind"):
        assert await page.get_by_text(text, exact=True).is_visible(), text
    colours = await page.eval_on_selector_all(
        "body, .index b, .index b a", "all => all.map(e => getComputedStyle(e).color)"
    )
    background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(255, 255, 255)"
    assert all(max(map(int, colour[4:-1].split(","))) < 0xC0 for colour in colours), colours

    await page.locator("a[href='kind/alike.html']").click()
    assert await page.get_by_text("seen on kind").is_visible()
    await page.get_by_role("link", name="all lessons").click()
    assert await page.get_by_role("heading", name="The course, executed").is_visible()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert complaints == []
    await context.close()
