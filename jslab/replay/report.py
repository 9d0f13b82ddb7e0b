"""What a replay read, by which route, and what was not there to be read."""

from __future__ import annotations

from dataclasses import dataclass, field

from jslab import views


@dataclass(slots=True)
class ReplayReport:
    """What a replay has read so far; shown as a card."""

    stream: str
    start: int
    """The first sequence asked for."""
    end: int | None
    """The last sequence asked for, which is the stream's last at the start; None when it follows."""
    asked: str = ""
    """The stored times asked for, in words; empty where none were."""
    route: str = ""
    """How it was read."""
    messages: int = 0
    bytes: int = 0
    first_seq: int | None = None
    last_seq: int | None = None
    missing: int | None = None
    """Sequences between the first and the last asked for that the stream holds no more; None while reading
    and with a subject filter, where nobody can tell."""
    interruptions: int = 0
    """How often the reading was taken up again, after a server or the consumer was lost."""
    seconds: float = 0.0
    """From the first request to the last message, pauses of ``speed`` and of your own loop included."""
    not_json: list[int] = field(default_factory=list)
    """Sequences whose payload is no JSON object, where columns were asked for."""
    notes: list[str] = field(default_factory=list)
    """What else is worth knowing."""

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.seconds if self.seconds > 0 else 0.0

    def _view(self) -> views.View:
        rows = [
            ("asked for", f"{self.asked}: {self._range()}" if self.asked else self._range()),
            ("read", f"{self.messages:,} messages, {self.bytes:,} bytes{self._sequences()}"),
            ("by", self.route or "nothing to read"),
            ("took", f"{self.seconds:.2f} s, {self.rate:,.0f} messages per second"),
        ]
        if self.missing:
            rows.append(("not there", f"{self.missing:,} sequences: deleted, purged or expired"))
        if self.interruptions:
            rows.append(("taken up again", f"{self.interruptions} times, without loss or repetition"))
        rows += [("note", note) for note in self.notes]
        return views.card(f"replay of {self.stream}", rows)

    def _range(self) -> str:
        if self.end is None:
            return f"sequences {self.start:,} and on"
        return f"sequences {self.start:,} to {self.end:,}" if self.start <= self.end else "no sequence"

    def _sequences(self) -> str:
        if self.first_seq is None:
            return ""
        return f", sequences {self.first_seq:,} to {self.last_seq:,}"

    def __repr__(self) -> str:
        return self._view().text

    def _repr_html_(self) -> str:
        return self._view().html
