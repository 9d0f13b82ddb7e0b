"""What became of each record of a publish: decided here, from answers and from their absence.

No I/O and no clock of its own: ``publisher.py`` tells it what was sent, what was answered and what time it
is, and asks what to send again. A record is in flight until something settles it:

    sent ──ack──────────────────────────────> acked, or duplicate
      ├──an error of the server─────────────> refused; unknown when an earlier attempt may be stored
      ├──"not stored, try again"────────────> waiting ──sent again──> …
      ├──no answer, it has a message id─────> waiting ──sent again──> …
      └──no answer, no message id───────────> unknown ──a late answer──> acked, duplicate or refused
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import NamedTuple

from jslab.publishing.payloads import Message
from jslab.publishing.report import PublishReport, Refused, Unknown

# Another message with this id is being stored; a later attempt is told how that ended.
ID_IN_PROCESS = 10158
# "Temporarily unavailable" and "too many requests" are not stored; 503 without an error code of JetStream is
# either "no responders" or a leader that is none any more. A full stream is 10077 and none of these.
NO_RESPONDERS = 503
UNAVAILABLE = frozenset({NO_RESPONDERS, 10008, 10167})
NO_ACK = -1

# Seconds until a single message asks again.
RETRY_PAUSE = 0.2

# A server that shuts down answers so, though the message may have reached the other replicas.
_STORE_CLOSED = "store is closed"


class Answer(NamedTuple):
    """What came back for one attempt; ``err_code`` is 0 for an ack."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    err_code: int = 0
    text: str = ""


def parse_answer(data: bytes, status: tuple[int, str] | None = None) -> Answer:
    """Read a reply to a publish: an ack, an error, or the status that nobody listens on the subject."""
    if not data:
        code = status[0] if status else None
        if code == 503:
            return Answer(err_code=NO_RESPONDERS, text="no responders: no stream took this subject")
        return Answer(err_code=NO_ACK, text=f"an empty reply, status {code or 'missing'}")
    try:
        reply = json.loads(data)
        if "error" in reply:
            error = reply["error"]
            code = int(error.get("err_code") or error["code"])
            return Answer(str(reply.get("stream", "")), err_code=code, text=str(error.get("description", "")))
        stream, seq = str(reply["stream"]), int(reply["seq"])
        if seq == 0:  # seen on 2.15.1: what 10158 says, without an error
            return Answer(stream, err_code=ID_IN_PROCESS, text="sequence 0: the message id is in process")
        return Answer(stream, seq, bool(reply.get("duplicate", False)))
    except (ValueError, TypeError, KeyError, AttributeError):
        return Answer(err_code=NO_ACK, text=f"a reply that is no ack: {data[:80]!r}")


@dataclass(slots=True)
class _Trouble:
    """A record whose first attempt was not simply acked."""

    first_sent: float
    attempt: int = 1
    open: set[int] = field(default_factory=lambda: {1})
    """Attempts that may be stored: sent, and not answered with an error."""
    err_code: int = NO_RESPONDERS
    why: str = ""
    seen: str = ""
    """A reply that was neither ack nor error: somebody else answers on the subject."""


class Outcomes:
    """The records of one publish and what is known of each; times are seconds of one monotonic clock."""

    def __init__(self, stream: str, *, ack_timeout: float, deadline: float) -> None:
        self.stream = stream
        self.ack_timeout = min(ack_timeout, deadline)
        self.deadline = deadline
        self.resend_within = 0.0
        """Seconds after its first attempt in which an unanswered record may be sent again."""
        self.in_flight: dict[int, tuple[float, Message]] = {}
        """Sent and not answered, by position, in the order of sending: when, and what."""
        self.waiting: dict[int, tuple[float, Message]] = {}
        """To be sent again, by position: from when on, and what."""
        self.unacked_bytes = 0
        self.sent = 0
        self.paused: Answer | None = None
        """While the servers take nothing, or say nothing: why. Then one record at a time asks for all."""
        self.silent_since: float | None = None
        """When something was sent that no final answer to anything has followed."""
        self.cut_off_since: float | None = None
        """When the connection was lost, while there is none."""
        self.last_trouble = Answer()
        """The last error, or the last missing answer with its reason as text."""
        self.foreign: tuple[int, Answer] | None = None
        """A record that another stream stored."""
        self._ask_at = 0.0
        self._awake_since = 0.0
        self._trouble: dict[int, _Trouble] = {}
        self._late: dict[int, _Trouble] = {}
        self._unknown: dict[int, Unknown] = {}
        self._refused: dict[int, Refused] = {}
        self._retried: set[int] = set()
        self._acked = 0
        self._duplicates = 0
        self._first_seq = 0
        self._last_seq = 0
        self._bytes = 0

    @property
    def open(self) -> int:
        """How many records are not settled."""
        return len(self.in_flight) + len(self.waiting)

    def send(self, position: int, message: Message, now: float) -> None:
        """Note the first attempt of a record."""
        self.in_flight[position] = (now, message)
        self.sent += 1
        self._bytes += message.size
        self.unacked_bytes += message.size
        if self.silent_since is None:
            self.silent_since = now

    def not_sent(self, position: int) -> None:
        """Forget a record whose first attempt never left."""
        _, message = self.in_flight.pop(position)
        self.sent -= 1
        self._bytes -= message.size
        self.unacked_bytes -= message.size

    def ack(self, position: int, seq: int) -> bool:
        """Settle a record in flight as acked; False when it is not in flight."""
        entry = self.in_flight.pop(position, None)
        if entry is None:
            return False
        self.unacked_bytes -= entry[1].size
        self._count_ack(seq)
        if self._trouble:
            self._trouble.pop(position, None)
        return True

    def answer(self, position: int, attempt: int, answer: Answer, now: float) -> None:
        """Take any answer to any attempt of a record; one that is settled already is left alone."""
        if position not in self.in_flight and position not in self.waiting and position not in self._unknown:
            return
        trouble = self._trouble_of(position)
        if answer.err_code == NO_ACK:
            trouble.seen = answer.text
        elif answer.err_code:
            self._answer_error(position, attempt, answer, trouble, now)
        else:
            self._answer_ack(position, attempt, answer, trouble)

    def connection_lost(self, now: float) -> None:
        """Prepare to send again what may have been lost with the connection and has a message id."""
        for position, (_, message) in list(self.in_flight.items()):
            if message.msg_id is not None:
                self._no_answer(position, "the connection was lost", now)

    def expire(self, now: float) -> None:
        """Settle, or prepare to send again, what has waited too long for an answer."""
        overdue = []
        for position, (sent, _) in self.in_flight.items():
            if now - max(sent, self._awake_since) < self.ack_timeout:
                break
            overdue.append(position)
        why = f"no ack within {self.ack_timeout:g} s"
        if overdue and not self.paused and self._unheard(now) >= self.ack_timeout:
            self._pause(Answer(err_code=NO_ACK, text=why), ask_at=now)
        for position in overdue:
            self._no_answer(position, why, now)
        for position, trouble in list(self._trouble.items()):
            if now - trouble.first_sent >= self.deadline:
                self._give_up(position, trouble)

    def resume_at(self, now: float) -> None:
        """Start all waits anew: until now something blocked the event loop, so no answer was heard."""
        self._awake_since = now

    def silent(self, now: float) -> bool:
        """Tell whether nothing could be settled for so long that further records would fare no better."""
        return self._unheard(now) >= self.deadline

    def due(self, now: float) -> list[int]:
        """Give the positions to send again now; at most one while the servers take nothing."""
        if self.paused:
            if not self.waiting or now < self._ask_at:
                return []
            self._ask_at = now + RETRY_PAUSE
            return [min(self.waiting)]
        return sorted(position for position, (due, _) in self.waiting.items() if due <= now)

    def send_again(self, position: int, now: float) -> tuple[Message, int] | None:
        """Note a further attempt and give its message and number; None when it is too late for one."""
        _, message = self.waiting[position]
        trouble = self._trouble_of(position)
        if not self._may_resend(message, trouble, now):
            self._give_up(position, trouble)
            return None
        del self.waiting[position]
        trouble.attempt += 1
        trouble.open.add(trouble.attempt)
        self._retried.add(position)
        self.in_flight[position] = (now, message)
        return message, trouble.attempt

    def never_left(self, position: int, now: float) -> None:
        """Take back the latest attempt of a record: it could not be written."""
        trouble = self._trouble_of(position)
        trouble.open.discard(trouble.attempt)
        trouble.why = "the connection was lost"
        self.waiting[position] = (now + RETRY_PAUSE, self.in_flight.pop(position)[1])

    def end(self, why: str) -> None:
        """Settle everything that is still open, because no further answer will be heard."""
        for position in [*self.in_flight, *self.waiting]:
            trouble = self._trouble_of(position)
            trouble.why = f"{why}; before: {trouble.why}" if trouble.why else why
            self._give_up(position, trouble)

    def report(self, seconds: float) -> PublishReport:
        """Sum up; ``seconds`` is how long it took."""
        return PublishReport(
            stream=self.stream,
            sent=self.sent,
            acked=self._acked,
            duplicates=self._duplicates,
            refused=tuple(self._refused[position] for position in sorted(self._refused)),
            unknown=tuple(self._unknown[position] for position in sorted(self._unknown)),
            retried=tuple(sorted(self._retried)),
            first_seq=self._first_seq or None,
            last_seq=self._last_seq or None,
            seconds=seconds,
            bytes=self._bytes,
        )

    def _unheard(self, now: float) -> float:
        """For how long nothing was settled though something was sent, or could not be."""
        since = [moment for moment in (self.silent_since, self.cut_off_since) if moment is not None]
        return now - max(min(since), self._awake_since) if since else 0.0

    def _pause(self, why: Answer, ask_at: float) -> None:
        self.paused = why
        self._ask_at = ask_at

    def _count_ack(self, seq: int) -> None:
        self._acked += 1
        if seq > self._last_seq:
            self._last_seq = seq
        if seq < self._first_seq or not self._first_seq:
            self._first_seq = seq
        self.silent_since = None
        self.paused = None

    def _answer_ack(self, position: int, attempt: int, answer: Answer, trouble: _Trouble) -> None:
        if answer.stream != self.stream:
            self.foreign = self.foreign or (position, answer)
            trouble.why = f"stream {answer.stream} stored it, as sequence {answer.seq}"
            if position not in self._unknown:
                self._give_up(position, trouble)
            return
        self._release(position)
        if answer.duplicate and not (attempt > 1 and trouble.open - {attempt}):
            self._duplicates += 1
            self.silent_since = None
            self.paused = None
        else:
            self._count_ack(answer.seq)

    def _answer_error(
        self, position: int, attempt: int, answer: Answer, trouble: _Trouble, now: float
    ) -> None:
        self.last_trouble = answer
        if _STORE_CLOSED in answer.text:
            if position in self.in_flight and attempt == trouble.attempt:
                self._no_answer(position, answer.text, now)
            return
        trouble.open.discard(attempt)
        if position in self._unknown:
            if not trouble.open:
                self._refuse(self._release(position), position, answer.err_code, answer.text)
            return
        if attempt != trouble.attempt:
            return  # an earlier attempt failed; the latest decides
        trouble.err_code, trouble.why = answer.err_code, answer.text
        if answer.err_code in UNAVAILABLE or answer.err_code == ID_IN_PROCESS:
            if position in self.in_flight:
                self.waiting[position] = (now + RETRY_PAUSE, self.in_flight.pop(position)[1])
            if answer.err_code in UNAVAILABLE:
                self._pause(answer, ask_at=now + RETRY_PAUSE)
            return
        self.silent_since = None
        self.paused = None
        if trouble.open:
            reason = f"{answer.err_code} {answer.text}"
            trouble.why = f"attempt {attempt} was refused ({reason}), an earlier one may be stored"
        self._give_up(position, trouble)

    def _no_answer(self, position: int, why: str, now: float) -> None:
        message = self.in_flight[position][1]
        trouble = self._trouble_of(position)
        trouble.why = why
        self.last_trouble = Answer(err_code=NO_ACK, text=why)
        if self._may_resend(message, trouble, now):
            del self.in_flight[position]
            self.waiting[position] = (now, message)
        else:
            self._give_up(position, trouble)

    def _may_resend(self, message: Message, trouble: _Trouble, now: float) -> bool:
        age = now - trouble.first_sent
        if not trouble.open:
            return age < self.deadline
        return message.msg_id is not None and age < min(self.deadline, self.resend_within)

    def _give_up(self, position: int, trouble: _Trouble) -> None:
        """Settle a record with what is known of it."""
        message = self._release(position)
        if not trouble.open:
            self._refuse(message, position, trouble.err_code, trouble.why)
            return
        why = trouble.why
        if trouble.attempt > 1:
            why += f"; {trouble.attempt} attempts"
        if trouble.seen:
            why += f"; seen: {trouble.seen}"
        self._unknown[position] = Unknown(position, message.subject, message.msg_id, why)
        self._late[position] = trouble

    def _refuse(self, message: Message | Unknown, position: int, err_code: int, text: str) -> None:
        self._refused[position] = Refused(position, message.subject, message.msg_id, err_code, text)

    def _release(self, position: int) -> Message | Unknown:
        """Take a record out of wherever it is."""
        self._trouble.pop(position, None)
        self._late.pop(position, None)
        if position in self._unknown:
            return self._unknown.pop(position)
        holder = self.in_flight if position in self.in_flight else self.waiting
        _, message = holder.pop(position)
        self.unacked_bytes -= message.size
        return message

    def _trouble_of(self, position: int) -> _Trouble:
        trouble = self._trouble.get(position) or self._late.get(position)
        if trouble is None:
            trouble = self._trouble[position] = _Trouble(first_sent=self.in_flight[position][0])
        return trouble
