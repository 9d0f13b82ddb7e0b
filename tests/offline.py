"""Finds what a page would load from elsewhere: the proof that a report shows the same without a network."""

from __future__ import annotations

import re
from html.parser import HTMLParser

# Attributes whose value a browser fetches by itself. A link (a, area) is followed only by a reader.
FETCHED = {"src", "srcset", "href", "xlink:href", "data", "poster", "background", "action", "formaction"}
CLICKED = {("a", "href"), ("area", "href"), ("form", "action")}
IN_STYLE = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        for name, value in attrs:
            if name in FETCHED and (tag, name) not in CLICKED and not _stays(value or ""):
                self.found.append(f"<{tag} {name}={value}>")
            if name == "style":
                self._style(value or "")
        if tag == "script":
            self.found.append("<script>")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._inside = ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self._style(data)

    def _style(self, text: str) -> None:
        for match in IN_STYLE.finditer(text):
            if not _stays(match[1] or match[2]):
                self.found.append(f"style: {match[0]}")


def _stays(value: str) -> bool:
    return value.strip().startswith(("data:", "#")) or not value.strip()


def loads(page: str) -> list[str]:
    """List everything a page fetches from outside its own file, scripts included."""
    reader = _Reader()
    reader.feed(page)
    return reader.found
