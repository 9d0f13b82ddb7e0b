"""The report of a publish, as text and as a card."""

from __future__ import annotations

import pytest

from jslab.publishing import PublishReport, Refused, Unknown
from jslab.publishing.report import SHOWN


def full_stream() -> PublishReport:
    refused = tuple(
        Refused(position, "flights.JFK.AA.LAX", f"1-1-AA-{position}", 10077, "maximum messages exceeded")
        for position in range(100, 120)
    )
    unknown = (Unknown(7, "flights.<b>", None, "no ack within 5 s"),)
    return PublishReport("FLIGHTS", 121, 95, 5, refused, unknown, (7, 8), 3, 102, 0.5, 12_345)


def test_a_report_reads_as_text() -> None:
    text = str(full_stream())
    assert "published to FLIGHTS: not every record was acknowledged" in text
    assert "121 records, 12,345 bytes" in text
    assert "95, sequences 3 to 102" in text
    assert "record 100 (1-1-AA-100) on flights.JFK.AA.LAX: 10077 maximum messages exceeded" in text
    assert f"and {20 - SHOWN} more" in text
    assert "record 7 on flights.<b>: no ack within 5 s" in text
    assert "2 of them sent more than once" in text
    assert "0.50 s, 190 acked per second" in text
    assert repr(full_stream()) == text


def test_a_report_reads_as_html_with_its_own_colours_and_everything_escaped() -> None:
    html = full_stream()._repr_html_()
    assert "flights.&lt;b&gt;" in html
    assert "<b>:" not in html
    assert "background:" in html
    assert "http" not in html


def test_a_good_report_says_so_and_names_no_record() -> None:
    report = PublishReport("FLIGHTS", 842, 842, 0, first_seq=1, last_seq=842, seconds=0.02)
    assert "every record was acknowledged" in str(report)
    assert "record " not in str(report).replace("every record", "")
    assert report.rate == pytest.approx(42_100)


def test_an_empty_report_has_no_rate_and_no_sequences() -> None:
    report = PublishReport("FLIGHTS", 0, 0, 0)
    assert report.rate == 0
    assert report.first_seq is None
    assert "sequences" not in str(report)


def test_a_report_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        full_stream().acked = 3  # type: ignore[misc]
