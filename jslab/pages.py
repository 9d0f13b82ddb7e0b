"""The executed lessons as web pages that load nothing.

They are made from nbconvert's bare template and carry their own style. They have no scripts, and a content
security policy that lets a browser fetch nothing, so that they show the same with and without a network.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jslab.reports import COLUMNS, plain, row, summary
from jslab.results import Result

WIDGET = "application/vnd.jupyter.widget-view+json"


def write_pages(results: Sequence[Result], folder: Path) -> None:
    """Write ``index.html`` and a page for each executed lesson."""
    for result in results:
        if result.notebook is not None:
            page = _page(result.lesson.title, _body(result.notebook), back=True)
            (folder / f"{result.lesson.label}.html").write_text(page, encoding="utf-8")
    rows = "".join(_index_row(result) for result in results)
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    body = (
        f"<h1>The course, executed</h1><p>{html.escape(summary(results))}</p>"
        f'<table class="index"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )
    (folder / "index.html").write_text(_page("The course, executed", body, back=False), encoding="utf-8")


def _index_row(result: Result) -> str:
    label, status, *rest = (html.escape(text) for text in row(result))
    name = html.escape(result.lesson.title)
    link = f'<a href="{label}.html">{name}</a>' if result.notebook is not None else name
    cells = "".join(f"<td>{text}</td>" for text in (f"<b>{status}</b>", *rest))
    told = "".join(
        f"<li>{'✓' if v.ok else '✗'} {html.escape(v.exercise)} {html.escape(v.text)}</li>"
        for v in result.verdicts
    )
    details = f"<ul>{told}</ul>" if told else ""
    if result.status in ("failed", "cannot"):
        details = f"<pre>{html.escape(plain(result.reason))}</pre>{details}"
    more = f'<tr><td></td><td colspan="5">{details}</td></tr>' if details else ""
    return f'<tr class="{result.status}"><td>{link}</td>{cells}</tr>{more}'


def _body(path: Path) -> str:
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    # A widget's view would replace its HTML twin by a script from another host.
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)  # type: ignore[no-untyped-call]
    return str(body)


def _page(title: str, body: str, *, back: bool) -> str:
    from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]

    style = files("jslab").joinpath("report.css").read_text(encoding="utf-8")
    code = HtmlFormatter(style="default").get_style_defs(".highlight")
    link = '<p><a href="index.html">all lessons</a></p>' if back else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{code}\n{style}</style></head>"
        f"<body>{link}{body}</body></html>\n"
    )
