"""Plain records → text and HTML. Views know nothing of servers, streams or lessons.

A view reads as plain text in a terminal, as a card on light and dark pages (it brings its own
background), and as static output without network: no style sheet, no script, every string escaped.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from html import escape

PAPER, INK, FAINT, LINE = "#ffffff", "#1b2733", "#5b6b7a", "#d5dde5"
GOOD, BAD, PLAIN = "#1a7f4b", "#b3261e", "#34556e"
FONT = "font-family:system-ui,sans-serif;font-size:13px;line-height:1.45"


@dataclass(frozen=True, slots=True)
class View:
    """What a cell shows: text for terminals and tests, HTML for notebooks."""

    text: str
    html: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.html

    def __await__(self) -> Generator[None, None, View]:
        """Return itself: among so many calls that are awaited, one that need not be is awaited, too."""
        yield from ()
        return self


def card(title: str, rows: Iterable[tuple[str, str]], *, note: str = "", tone: str = PLAIN) -> View:
    """Show named values under a title; ``note`` stands small below them."""
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    text = "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in rows)])
    if note:
        text += f"\n  {note}"
    cells = "".join(
        f'<tr><td style="{_cell(FAINT)};white-space:nowrap;vertical-align:top">{escape(name)}</td>'
        f'<td style="{_cell(INK)};white-space:pre-wrap">{escape(value)}</td></tr>'
        for name, value in rows
    )
    body = f'<table style="border-collapse:collapse;background:{PAPER};margin:4px 0">{cells}</table>'
    if note:
        body += f'<div style="color:{FAINT};font-size:12px">{escape(note)}</div>'
    return View(text, panel(f'<b style="color:{tone}">{escape(title)}</b>{body}', tone))


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    note: str = "",
    below: View | None = None,
) -> View:
    """Show rows under column names; numbers stand to the right. ``below`` stands under them as it is."""
    records = [list(row) for row in rows]
    plain = [[_plain(value) for value in row] for row in records]
    right = [
        bool(records) and all(isinstance(row[i], int | float) for row in records) for i in range(len(columns))
    ]
    widths = [max(len(line[i]) for line in [list(columns), *plain]) for i in range(len(columns))]

    def line(values: Sequence[str]) -> str:
        cells = [
            value.rjust(width) if is_right else value.ljust(width)
            for value, width, is_right in zip(values, widths, right, strict=True)
        ]
        return "  " + "  ".join(cells).rstrip()

    text = "\n".join([title, line(columns), *(line(row) for row in plain), *([f"  {note}"] if note else [])])

    def html_row(tag: str, values: Sequence[str], ink: str) -> str:
        cells = "".join(
            f'<{tag} style="{_cell(ink)};border-bottom:1px solid {LINE};'
            f'text-align:{"right" if is_right else "left"}">{escape(value)}</{tag}>'
            for value, is_right in zip(values, right, strict=True)
        )
        return f"<tr>{cells}</tr>"

    body = html_row("th", list(columns), FAINT) + "".join(html_row("td", row, INK) for row in plain)
    html = (
        f'<b style="color:{PLAIN}">{escape(title)}</b>'
        f'<table style="border-collapse:collapse;background:{PAPER};margin:4px 0">{body}</table>'
    )
    if note:
        html += f'<div style="color:{FAINT};font-size:12px">{escape(note)}</div>'
    if below is not None:
        text, html = f"{text}\n{below.text}", html + below.html
    return View(text, panel(html))


def verdict(good: bool | None, title: str, text: str) -> View:
    """Show ✓, ✗ or, for None, ○ with words beside it, so that colour is never the only difference."""
    mark, tone = {True: ("✓", GOOD), False: ("✗", BAD), None: ("○", PLAIN)}[good]
    lines = text.splitlines()
    html = "".join(f"<div>{escape(line) or '&nbsp;'}</div>" for line in lines)
    body = f'<b style="color:{tone}">{mark} {escape(title)}</b>{html}'
    return View("\n".join([f"{mark} {title}", *(f"  {line}" for line in lines)]), panel(body, tone))


def note(title: str, text: str) -> View:
    """Show a few sentences under a title: a hint, a reminder."""
    lines = text.splitlines()
    html = "".join(f"<div>{escape(line) or '&nbsp;'}</div>" for line in lines)
    body = f'<b style="color:{PLAIN}">{escape(title)}</b>{html}'
    return View("\n".join([title, *(f"  {line}" for line in lines)]), panel(body))


def code(title: str, source: str) -> View:
    """Show Python source under a title, ready to copy."""
    body = (
        f'<b style="color:{PLAIN}">{escape(title)}</b>'
        f'<pre style="background:#f3f6f9;color:{INK};padding:8px;margin:4px 0;font-size:12px;'
        f'white-space:pre-wrap">{escape(source)}</pre>'
    )
    return View(f"{title}\n\n{source}", panel(body))


def panel(html: str, tone: str = LINE) -> str:
    """Wrap HTML in a box with its own background, readable on a light and on a dark page."""
    return (
        f'<div style="{FONT};background:{PAPER};color:{INK};border:1px solid {LINE};'
        f"border-left:4px solid {tone};border-radius:4px;padding:8px 12px;margin:2px 0;"
        f'max-width:60em;overflow-x:auto">{html}</div>'
    )


def _cell(ink: str) -> str:
    return f"padding:1px 14px 1px 0;color:{ink};background:{PAPER};text-align:left"


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return "" if value is None else str(value)
