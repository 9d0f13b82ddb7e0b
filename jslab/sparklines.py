"""Small curves as SVG: presentation attributes only, so that they look the same wherever a page ends up."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from jslab.views import FAINT, INK, LINE, PAPER, PLAIN

WIDTH, HEIGHT, TOP, LEFT = 560, 84, 20, 4
TEXT = 'y="14" font-size="12" font-family="system-ui,sans-serif"'


def curve(title: str, values: Sequence[float]) -> str:
    """Draw values over time, oldest to the left, with the last and the highest in words."""
    most = max(values, default=0.0)
    last = values[-1] if values else 0.0
    caption = f"{title}: {last:,.0f} now, at most {most:,.0f}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(caption)}">'
        f"<title>{escape(caption)}</title>"
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>'
        f'<text x="{LEFT}" {TEXT} fill="{INK}">{escape(title)}</text>'
        f'<text x="{WIDTH - LEFT}" {TEXT} fill="{FAINT}" text-anchor="end">'
        f"{last:,.0f} now, at most {most:,.0f}</text>"
        f'<line x1="{LEFT}" y1="{HEIGHT - 4}" x2="{WIDTH - LEFT}" y2="{HEIGHT - 4}" stroke="{LINE}"/>'
        f'<polyline fill="none" stroke="{PLAIN}" stroke-width="1.5" points="{_points(values, most)}"/>'
        "</svg>"
    )


def bar(part: float, words: str) -> str:
    """Draw how far something has come, from 0 to 1, with words that say the same."""
    wide = WIDTH - 2 * LEFT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="14" viewBox="0 0 {WIDTH} 14" '
        f'role="img" aria-label="{escape(words)}"><title>{escape(words)}</title>'
        f'<rect width="{WIDTH}" height="14" fill="{PAPER}"/>'
        f'<line x1="{LEFT}" y1="7" x2="{WIDTH - LEFT}" y2="7" stroke="{LINE}" stroke-width="3"/>'
        f'<circle cx="{LEFT + wide * part:.1f}" cy="7" r="5" fill="{PLAIN}"/></svg>'
    )


def _points(values: Sequence[float], most: float) -> str:
    wide, high = WIDTH - 2 * LEFT, HEIGHT - TOP - 6
    step = wide / max(1, len(values) - 1)
    return " ".join(
        f"{LEFT + n * step:.1f},{HEIGHT - 4 - (value / most if most else 0) * high:.1f}"
        for n, value in enumerate(values)
    )
