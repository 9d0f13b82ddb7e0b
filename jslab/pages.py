"""The executed lessons as web pages that load nothing.

They are made from nbconvert's bare template and carry their own style. They have no scripts, and a content
security policy that lets a browser fetch nothing, so that they show the same with and without a network.
"""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jslab import results
from jslab.reports import (
    BACKEND_COLUMNS,
    COLUMNS,
    PARITY_COLUMNS,
    backend_cells,
    parity_row,
    plain,
    row,
    summary,
)
from jslab.results import Result

WIDGET = "application/vnd.jupyter.widget-view+json"


def write_pages(ran: Sequence[Result], folder: Path) -> None:
    """Write ``index.html`` and, beside each executed notebook, its page."""
    for result in ran:
        if result.notebook is not None:
            file = result.notebook.with_suffix(".html")
            back = os.path.relpath(folder / "index.html", file.parent)
            file.write_text(_page(result.lesson.title, _body(result.notebook), back), encoding="utf-8")
    counts = "<br>".join(html.escape(line) for line in summary(ran))
    table = _parity_table(ran, folder) if len(results.backends(ran)) > 1 else _table(ran, folder)
    body = f'<h1>The course, executed</h1><p>{counts}</p><table class="index">{table}</table>'
    (folder / "index.html").write_text(_page("The course, executed", body), encoding="utf-8")


def _table(ran: Sequence[Result], folder: Path) -> str:
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    rows = "".join(_index_row(result, folder) for result in ran)
    return f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"


def _index_row(result: Result, folder: Path) -> str:
    _, status, *rest = (html.escape(text) for text in row(result))
    link = _link(result, html.escape(result.lesson.title), folder)
    cells = "".join(f"<td>{text}</td>" for text in (f"<b>{status}</b>", *rest))
    shown = f'<tr class="{result.status}"><td>{link}</td>{cells}</tr>'
    return shown + _below(_details(result), len(COLUMNS))


def _parity_table(ran: Sequence[Result], folder: Path) -> str:
    backends = results.backends(ran)
    first, needs, last = (f'<th rowspan="2">{name}</th>' for name in PARITY_COLUMNS)
    over = "".join(f'<th colspan="{len(BACKEND_COLUMNS)}">{html.escape(name)}</th>' for name in backends)
    under = "".join(f"<th>{name}</th>" for name in BACKEND_COLUMNS) * len(backends)
    rows = "".join(_parity_row(group, folder) for group in results.by_lesson(ran))
    head = f"<tr>{first}{needs}{over}{last}</tr><tr>{under}</tr>"
    return f"<thead>{head}</thead><tbody>{rows}</tbody>"


def _parity_row(group: Sequence[Result], folder: Path) -> str:
    texts = parity_row(group)
    needs, parity = html.escape(texts[1]), html.escape(texts[-1])
    cells = [f"<td>{html.escape(group[0].lesson.title)}</td>", f"<td>{needs}</td>"]
    for result in group:
        status, *rest = (html.escape(text) for text in backend_cells(result))
        cells.append(f'<td class="{result.status}"><b>{_link(result, status, folder)}</b></td>')
        cells += [f"<td>{text}</td>" for text in rest]
    cells.append(f'<td class="{parity.partition(":")[0]}"><b>{parity}</b></td>')
    told = [(result.backend, _details(result)) for result in group]
    details = "".join(f"<h4>{html.escape(backend)}</h4>{text}" for backend, text in told if text)
    return f"<tr>{''.join(cells)}</tr>{_below(details, len(cells))}"


def _link(result: Result, text: str, folder: Path) -> str:
    """Make a text a link to the executed lesson's page, where there is one."""
    if result.notebook is None:
        return text
    page = result.notebook.with_suffix(".html").relative_to(folder).as_posix()
    return f'<a href="{html.escape(page)}">{text}</a>'


def _details(result: Result) -> str:
    told = "".join(f"<li>{html.escape(verdict.line)}</li>" for verdict in result.verdicts)
    details = f"<ul>{told}</ul>" if told else ""
    if result.status in ("failed", "cannot"):
        return f"<pre>{html.escape(plain(result.reason))}</pre>{details}"
    return details


def _below(details: str, columns: int) -> str:
    """Put details into a row of their own, under all columns but the first."""
    return f'<tr><td></td><td colspan="{columns - 1}">{details}</td></tr>' if details else ""


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


def _page(title: str, body: str, back: str = "") -> str:
    from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]

    style = files("jslab").joinpath("report.css").read_text(encoding="utf-8")
    code = HtmlFormatter(style="default").get_style_defs(".highlight")
    link = f'<p><a href="{back}">all lessons</a></p>' if back else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{code}\n{style}</style></head>"
        f"<body>{link}{body}</body></html>\n"
    )
