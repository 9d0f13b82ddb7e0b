"""JupyterLab as a test sees it: when it is ready, and in which theme."""

from __future__ import annotations

from playwright.async_api import Page

READY = """() => {
  const panel = window.jupyterapp?.shell?.currentWidget;
  return panel?.sessionContext?.isReady;
}"""
THEMES = ("light", "dark")


async def wear(page: Page, kind: str) -> None:
    """Change JupyterLab's theme, and wait until the page has it and the curtain before it is gone."""
    theme = f"JupyterLab {kind.capitalize()}"
    change = "theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })"
    await page.evaluate(change, theme)
    light = str(kind == "light").lower()
    await page.wait_for_function(f"() => document.body.dataset.jpThemeLight === '{light}'")
    await page.wait_for_function("() => !document.getElementById('jupyterlab-splash')")
