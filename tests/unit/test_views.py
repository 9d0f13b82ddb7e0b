"""What a cell shows: twins of text and HTML, escaped, self-contained, words beside every colour."""

from __future__ import annotations

import datetime
import re
from html.parser import HTMLParser

import pytest

from jslab import views
from jslab.deployment import Server
from jslab.exercises import Prepared, Verdict
from jslab.lab import Status, StreamStatus
from jslab.publishing import PublishReport
from jslab.streams import Placement, Replica
from jslab.views import View
from tests.offline import loads

EVIL = "<script src=x onerror='alert(1)'>&amp;\"</td>"
TAGS = {"div", "b", "table", "tr", "td", "th", "pre"}

ALL = [
    views.card(EVIL, [(EVIL, EVIL)], note=EVIL),
    views.table(EVIL, [EVIL, "n"], [(EVIL, 1), ("plain", 2)], note=EVIL),
    views.verdict(True, EVIL, f"{EVIL}\n\n{EVIL}"),
    views.verdict(False, EVIL, EVIL),
    views.verdict(None, EVIL, EVIL),
    views.note(EVIL, f"{EVIL}\n\n{EVIL}"),
    views.code(EVIL, f"print({EVIL!r})"),
]

SERVER = Server(EVIL, f"nats://{EVIL}", f"http://{EVIL}", EVIL, 0)
NOW = datetime.datetime(2013, 1, 1, 6, 0, tzinfo=datetime.UTC)
SHOWN = [
    Status(
        backend=EVIL,
        version=EVIL,
        ephemeral=True,
        servers=(SERVER,),
        meta_leader=EVIL,
        entry=None,
        streams=(StreamStatus(EVIL, EVIL, 3, 27_004), StreamStatus("EMPTY", None, 1, 0)),
        as_of=NOW,
    )._view(),
    Placement(EVIL, EVIL, (Replica(EVIL, True, True, False, 0),))._view(),
    Verdict(EVIL, False, EVIL, EVIL, EVIL)._view(),
    Prepared(EVIL, EVIL, (EVIL,), (EVIL,))._view(),
    PublishReport(EVIL, 1, 1, 0)._view(),
]


class Page(HTMLParser):
    """Reads HTML as a browser would: tags, attributes, and the text a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("view", ALL + SHOWN, ids=lambda view: view.text[:12])
def test_nothing_from_a_server_or_a_learner_becomes_markup(view: View) -> None:
    page = Page(view.html)
    assert set(page.tags) <= TAGS
    assert page.attributes <= {"style"}
    assert EVIL in page.text
    assert EVIL in view.text


@pytest.mark.parametrize("view", ALL + SHOWN, ids=lambda view: view.text[:12])
def test_nothing_is_loaded_from_elsewhere(view: View) -> None:
    assert loads(view.html) == []
    assert "url(" not in view.html
    assert "class=" not in view.html, "a style sheet would have to come from somewhere"


@pytest.mark.parametrize("view", ALL + SHOWN, ids=lambda view: view.text[:12])
def test_it_brings_its_own_background_for_dark_pages(view: View) -> None:
    # Wherever ink is set, it is seen on the paper of the panel or of the same element.
    assert view.html.startswith("<div style=")
    assert f"background:{views.PAPER};color:{views.INK}" in view.html.split(">")[0]


@pytest.mark.parametrize("view", ALL + SHOWN, ids=lambda view: view.text[:12])
def test_the_text_says_what_the_html_says(view: View) -> None:
    def words(text: str) -> list[str]:
        return sorted(re.findall(r"[\w✓✗.,:-]+", text))

    assert words(Page(re.sub(r"</(td|th|div|b|tr|pre)>", r" </\1>", view.html)).text) == words(view.text)


def test_repr_is_the_text_and_notebooks_get_the_html() -> None:
    view = views.note("a title", "a sentence")
    assert repr(view) == view.text == "a title\n  a sentence"
    assert view._repr_html_() == view.html


def test_a_verdict_has_a_mark_and_not_only_a_colour() -> None:
    good, bad, left_open = (views.verdict(ok, "00.1", "why") for ok in (True, False, None))
    marks = {view.text[0] for view in (good, bad, left_open)}
    assert len(marks) == 3
    for view in (good, bad, left_open):
        assert view.text[0] in Page(view.html).text
    assert (good.text[0], bad.text[0]) == ("✓", "✗")


def test_a_card_aligns_its_names() -> None:
    assert views.card("lab", [("a", "1"), ("longer", "2")], note="as of now").text.splitlines() == [
        "lab",
        "  a       1",
        "  longer  2",
        "  as of now",
    ]


def test_a_table_puts_numbers_to_the_right() -> None:
    view = views.table("streams", ("name", "messages", "lag"), [("A", 27_004, 0.5), ("LONGER", 7, 12.25)])
    assert view.text.splitlines() == [
        "streams",
        "  name    messages    lag",
        "  A         27,004   0.50",
        "  LONGER         7  12.25",
    ]
    assert view.html.count("text-align:right") == 6


def test_a_table_writes_yes_no_and_nothing() -> None:
    text = views.table("t", ("a", "b", "c"), [(True, False, None)]).text
    assert text.splitlines()[2].split() == ["yes", "no"]


def test_an_empty_table_still_has_its_columns() -> None:
    view = views.table("no streams", ("name", "messages"), [])
    assert "name" in view.text
    assert "messages" in Page(view.html).text


def test_empty_lines_stay_lines() -> None:
    assert views.note("t", "one\n\ntwo").html.count("&nbsp;") == 1
