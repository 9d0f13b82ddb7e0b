"""Publish many messages fast, and say what became of each.

publisher.py   publish_many: reads records, keeps the window full, sends again what must be
feeds.py       records from any iterable or async iterable
payloads.py    a record becomes a message; which subjects a stream captures
outcomes.py    what an answer means, or its absence: no I/O, no clock
report.py      what became of every record
"""

from jslab.publishing.publisher import publish_many
from jslab.publishing.report import PublishReport, Refused, Unknown

__all__ = ["PublishReport", "Refused", "Unknown", "publish_many"]
