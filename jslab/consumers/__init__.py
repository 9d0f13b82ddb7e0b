"""Pull consumers: create or bind, fetch, iterate, and work with acks.

consumer.py   Consumer: a handle on one durable or ephemeral pull consumer
message.py    a delivery, to be acked, nak'ed or terminated once
delivery.py   one subscription's messages as they come, given back when it ends
worker.py     work: handlers, concurrency, retries, acks written in bulk
dead.py       messages that nobody could handle, by the server's advisories
"""

from jslab.consumers.consumer import Consumer, open_consumer
from jslab.consumers.message import Message
from jslab.consumers.worker import WorkReport

__all__ = ["Consumer", "Message", "WorkReport", "open_consumer"]
