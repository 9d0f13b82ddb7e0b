"""What became of every record of a publish: as data, as text and as a card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jslab import views

# How many refused or unknown records the card names; the report holds all of them.
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that the stream did not store, and the server's reason."""

    position: int
    """Which record it was, counted from 0."""
    subject: str
    msg_id: str | None
    err_code: int
    """The server's JetStream error code, as 10077 for a full stream; 503 when no server took the message."""
    text: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """A record that may or may not be stored: it was sent, and no answer settled it."""

    position: int
    """Which record it was, counted from 0."""
    subject: str
    msg_id: str | None
    why: str


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What became of the records: each one sent is acked, duplicate, refused or unknown.

    Only what needs attention is kept record by record, so the report of a million acked messages is small.
    """

    stream: str
    sent: int
    """Records sent, each counted once however often it was retried."""
    acked: int
    """Records that this call stored, by the stream's word."""
    duplicates: int
    """Records that the stream had already, by their message id, before this call sent them."""
    refused: tuple[Refused, ...] = ()
    unknown: tuple[Unknown, ...] = ()
    retried: tuple[int, ...] = ()
    """Positions of the records sent more than once: their order in the stream may not be theirs here."""
    first_seq: int | None = None
    """The lowest sequence among the acked, and below the highest; None when nothing was acked."""
    last_seq: int | None = None
    seconds: float = 0.0
    """From the first record to the last answer."""
    bytes: int = 0
    """Payloads and headers sent, each record counted once."""

    @property
    def rate(self) -> float:
        """Acked messages per second."""
        return self.acked / self.seconds if self.seconds > 0 else 0.0

    def __repr__(self) -> str:
        return self._view().text

    def _repr_html_(self) -> str:
        return self._view().html

    def _view(self) -> views.View:
        lost = bool(self.refused or self.unknown)
        rows = [
            ("sent", f"{self.sent:,} records, {self.bytes:,} bytes"),
            ("acked", f"{self.acked:,}{self._sequences()}"),
            ("duplicates", f"{self.duplicates:,}"),
            ("refused", "\n".join([f"{len(self.refused):,}", *_named(self.refused)])),
            ("unknown", "\n".join([f"{len(self.unknown):,}", *_named(self.unknown)])),
        ]
        if self.retried:
            rows.append(("retried", f"{len(self.retried):,} of them sent more than once"))
        rows.append(("took", f"{self.seconds:.2f} s, {self.rate:,.0f} acked per second"))
        tone = views.BAD if lost else views.GOOD if self.acked else views.PLAIN
        word = "not every record was acknowledged" if lost else "every record was acknowledged"
        return views.card(f"published to {self.stream}: {word}", rows, tone=tone)

    def _sequences(self) -> str:
        if self.first_seq is None:
            return ""
        return f", sequences {self.first_seq:,} to {self.last_seq:,}"


def _named(records: tuple[Refused, ...] | tuple[Unknown, ...]) -> Iterator[str]:
    for record in records[:SHOWN]:
        name = f" ({record.msg_id})" if record.msg_id is not None else ""
        reason = f"{record.err_code} {record.text}" if isinstance(record, Refused) else record.why
        yield f"record {record.position:,}{name} on {record.subject}: {reason}"
    if len(records) > SHOWN:
        yield f"and {len(records) - SHOWN:,} more, in the report's list"
