"""Replay: any range of a stream again, fast, as messages or as a DataFrame.

span.py      what is asked for, checked: no I/O
reader.py    reads a range to its end, whatever servers and connections do meanwhile
sources.py   the two ways to read: batches of direct gets, an ordered consumer
leader.py    questions to the stream's leader: copies may lag
clock.py     event time: read, sought, and kept as a pace
frame.py     rows become a DataFrame
rows.py      a message as it is read
report.py    what was read, and what was not there
"""

from jslab.replay.replay import Replay
from jslab.replay.report import ReplayReport
from jslab.replay.rows import StoredMessage

__all__ = ["Replay", "ReplayReport", "StoredMessage"]
