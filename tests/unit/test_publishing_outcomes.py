"""What became of each record: the answers, their absence, and every order in which they may come."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jslab.publishing.outcomes import (
    ID_IN_PROCESS,
    NO_ACK,
    NO_RESPONDERS,
    RETRY_PAUSE,
    Answer,
    Outcomes,
    parse_answer,
)
from jslab.publishing.payloads import Message

FULL = Answer("S", err_code=10077, text="maximum messages exceeded")
NOBODY = Answer(err_code=NO_RESPONDERS, text="no responders")
ACK_TIMEOUT, DEADLINE, WINDOW = 5.0, 30.0, 120.0


def outcomes(resend_within: float = WINDOW / 2) -> Outcomes:
    made = Outcomes("S", ack_timeout=ACK_TIMEOUT, deadline=DEADLINE)
    made.resend_within = resend_within
    return made


def message(msg_id: str | None = None) -> Message:
    return Message("a.b", b"x", {"Nats-Msg-Id": msg_id} if msg_id else None, msg_id, 10)


# -- reading answers


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b'{"stream":"S","seq":7}', Answer("S", 7)),
        (b'{"stream":"S", "seq": 7}', Answer("S", 7)),
        (b'{"stream":"S","domain":"hub","seq":7}', Answer("S", 7)),
        (b'{"stream":"S","seq":7,"domain":"hub"}', Answer("S", 7)),
        (b'{"stream":"S","seq":7,"duplicate": true}', Answer("S", 7, True)),
        (b'{"stream":"S","seq":7,"duplicate":false}', Answer("S", 7, False)),
        (b'{"stream":"S","seq":7,"val":"12"}', Answer("S", 7)),
        (
            b'{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},'
            b'"stream":"S","seq":0}',
            FULL,
        ),
        (
            b'{"stream":"S","seq":0}',
            Answer("S", 0, False, ID_IN_PROCESS, "sequence 0: the message id is in process"),
        ),
        (b'{"error":{"code":400,"description":"bad"}}', Answer("", 0, False, 400, "bad")),
        (
            b'{"error":{"code":503,"description":"raft: not leader"}}',
            Answer("", 0, False, 503, "raft: not leader"),
        ),
    ],
)
def test_an_answer_is_read(data: bytes, answer: Answer) -> None:
    assert parse_answer(data) == answer


def test_the_status_of_no_responders_is_read() -> None:
    assert parse_answer(b"", (503, "No Responders Available For Request")).err_code == NO_RESPONDERS


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", None),
        (b"", (408, "Request Timeout")),
        (b"ok", None),
        (b"{}", None),
        (b"[]", None),
        (b'"ack"', None),
        (b'{"stream":"S"}', None),
        (b'{"stream":"S","seq":"many"}', None),
        (b'{"error":"no"}', None),
        (b'{"error":{}}', None),
        (b"\xff", None),
    ],
)
def test_what_is_no_answer_of_a_stream_is_said_to_be_none(
    data: bytes, status: tuple[int, str] | None
) -> None:
    assert parse_answer(data, status).err_code == NO_ACK


# -- single stories


def test_an_ack_settles_a_record() -> None:
    o = outcomes()
    o.send(0, message(), 0)
    assert o.ack(0, 41)
    assert not o.ack(0, 41)
    report = o.report(2.0)
    assert (report.sent, report.acked, report.first_seq, report.last_seq, report.bytes) == (1, 1, 41, 41, 10)
    assert o.unacked_bytes == 0


def test_a_first_attempt_answered_duplicate_is_a_duplicate() -> None:
    o = outcomes()
    o.send(0, message("id"), 0)
    o.answer(0, 1, Answer("S", 3, True), 0.1)
    report = o.report(1)
    assert (report.acked, report.duplicates, report.first_seq) == (0, 1, None)


def test_our_own_retry_answered_duplicate_is_acked() -> None:
    o = outcomes()
    o.send(0, message("id"), 0)
    o.expire(ACK_TIMEOUT)
    assert o.due(ACK_TIMEOUT) == [0]
    assert o.send_again(0, ACK_TIMEOUT) == (message("id"), 2)
    o.answer(0, 2, Answer("S", 3, True), 6)
    report = o.report(1)
    assert (report.acked, report.duplicates, report.retried, report.last_seq) == (1, 0, (0,), 3)


def test_a_retry_answered_duplicate_after_attempts_that_were_not_stored_is_a_duplicate() -> None:
    o = outcomes()
    o.send(0, message("id"), 0)
    o.answer(0, 1, NOBODY, 0.1)
    assert o.due(1) == [0]
    o.send_again(0, 1)
    o.answer(0, 2, Answer("S", 3, True), 1.1)
    assert o.report(1).duplicates == 1


def test_without_an_id_silence_is_unknown_and_nothing_is_sent_again() -> None:
    o = outcomes()
    o.send(0, message(), 0)
    o.expire(ACK_TIMEOUT - 0.1)
    assert o.open == 1
    o.expire(ACK_TIMEOUT)
    assert o.open == 0
    assert o.due(100) == []
    (unknown,) = o.report(1).unknown
    assert (unknown.position, unknown.why) == (0, "no ack within 5 s")


def test_a_late_ack_of_an_unknown_record_counts() -> None:
    o = outcomes()
    o.send(0, message(), 0)
    o.expire(ACK_TIMEOUT)
    o.answer(0, 1, Answer("S", 9), 8)
    report = o.report(1)
    assert (report.acked, report.unknown, report.last_seq) == (1, (), 9)


def test_a_late_refusal_of_an_unknown_record_makes_it_refused() -> None:
    o = outcomes()
    o.send(0, message(), 0)
    o.expire(ACK_TIMEOUT)
    o.answer(0, 1, FULL, 8)
    report = o.report(1)
    assert report.unknown == ()
    assert report.refused[0].err_code == 10077


def test_a_late_ack_of_an_earlier_attempt_counts() -> None:
    o = outcomes()
    o.send(0, message("id"), 0)
    o.expire(ACK_TIMEOUT)
    assert o.ack(0, 4) is False
    o.answer(0, 1, Answer("S", 4), 5.1)
    assert o.open == 0
    assert o.report(1).acked == 1
    o.send(1, message("id"), 6)
    o.expire(6 + ACK_TIMEOUT)
    o.send_again(1, 11)
    assert o.ack(1, 5)
    o.answer(1, 2, Answer("S", 5, True), 12)
    report = o.report(1)
    assert (report.acked, report.duplicates, report.sent) == (2, 0, 2)


def test_a_full_stream_refuses_at_once_though_its_code_is_503() -> None:
    o = outcomes()
    o.send(0, message(), 0)
    o.answer(0, 1, FULL, 0.1)
    (refused,) = o.report(1).refused
    assert (refused.err_code, refused.text) == (10077, "maximum messages exceeded")
    assert not o.paused


def test_a_refused_retry_leaves_the_record_unknown_with_the_reason() -> None:
    o = outcomes()
    o.send(0, message("id"), 0)
    o.expire(ACK_TIMEOUT)
    o.send_again(0, ACK_TIMEOUT)
    o.answer(0, 2, FULL, 6)
    (unknown,) = o.report(1).unknown
    assert "10077 maximum messages exceeded" in unknown.why
    assert "an earlier one may be stored" in unknown.why


def test_when_every_attempt_was_refused_the_record_is_refused() -> None:
    o = outcomes()
    o.send(0, message("id"), 0)
    o.expire(ACK_TIMEOUT)
    o.send_again(0, ACK_TIMEOUT)
    o.answer(0, 1, FULL, 6)
    assert o.open == 1
    o.answer(0, 2, FULL, 6.1)
    assert len(o.report(1).refused) == 1


@pytest.mark.parametrize("code", [NO_RESPONDERS, 10008, 10167])
def test_what_is_not_stored_is_sent_again_until_the_deadline_without_an_id_too(code: int) -> None:
    o = outcomes()
    o.send(0, message(), 0)
    now = 0.0
    for attempt in range(1, 11):
        o.answer(0, attempt, Answer(err_code=code, text="not now"), now)
        assert o.paused
        assert o.due(now) == []
        now += RETRY_PAUSE
        assert o.due(now) == [0]
        assert o.send_again(0, now) is not None
    o.answer(0, 11, Answer(err_code=code, text="not now"), now)
    o.expire(DEADLINE)
    (refused,) = o.report(1).refused
    assert (refused.err_code, refused.text) == (code, "not now")


def test_while_nobody_takes_messages_one_record_asks_for_all() -> None:
    o = outcomes()
    for position in range(5):
        o.send(position, message(), 0)
    for position in range(5):
        o.answer(position, 1, NOBODY, 0.01)
    assert o.due(0.02) == []
    assert o.due(0.5) == [0]
    assert o.due(0.5) == []
    o.send_again(0, 0.5)
    assert o.due(1.0) == [1]
    o.answer(0, 2, Answer("S", 1), 1.0)
    assert not o.paused
    assert o.due(1.0) == [1, 2, 3, 4]


def test_a_retry_without_an_id_that_goes_silent_is_unknown() -> None:
    o = outcomes()
    o.send(0, message(), 0)
    o.answer(0, 1, NOBODY, 0.1)
    o.send_again(0, 0.5)
    o.expire(0.5 + ACK_TIMEOUT)
    assert o.due(100) == []
    assert len(o.report(1).unknown) == 1


def test_when_nothing_at_all_is_answered_one_record_asks_for_all() -> None:
    """Otherwise every timeout would send the whole window again into a connection that nobody reads."""
    o = outcomes()
    for position in range(5):
        o.send(position, message(f"id-{position}"), 0)
    o.expire(ACK_TIMEOUT)
    assert o.paused == Answer(err_code=NO_ACK, text="no ack within 5 s")
    assert o.due(ACK_TIMEOUT) == [0]
    o.send_again(0, ACK_TIMEOUT)
    assert o.due(ACK_TIMEOUT + 0.1) == []
    o.answer(0, 2, Answer("S", 1), 5.1)
    assert o.due(5.1) == [1, 2, 3, 4]


def test_what_is_lost_while_other_messages_are_acked_is_sent_again_at_once() -> None:
    o = outcomes()
    for position in range(3):
        o.send(position, message(f"id-{position}"), 0)
    o.ack(1, 1)
    o.send(3, message("id-3"), 4)
    o.expire(ACK_TIMEOUT)
    assert not o.paused
    assert o.due(ACK_TIMEOUT) == [0, 2]


def test_an_id_in_process_is_asked_again_without_holding_up_the_others() -> None:
    o = outcomes()
    o.send(0, message("id"), 0)
    o.answer(0, 1, Answer("S", err_code=ID_IN_PROCESS, text="duplicate message id is in process"), 0.1)
    assert not o.paused
    assert o.due(0.2) == []
    assert o.due(0.1 + RETRY_PAUSE) == [0]
    o.send_again(0, 0.4)
    o.answer(0, 2, Answer("S", 3, True), 0.5)
    assert o.report(1).duplicates == 1


def test_beyond_half_the_duplicate_window_silence_is_unknown_even_with_an_id() -> None:
    o = outcomes(resend_within=8)
    o.send(0, message("id"), 0)
    o.expire(5)
    assert o.send_again(0, 5) is not None
    o.expire(10)
    (unknown,) = o.report(1).unknown
    assert "2 attempts" in unknown.why


def test_a_retry_that_had_to_wait_too_long_is_not_made() -> None:
    o = outcomes(resend_within=8)
    o.send(0, message("id"), 0)
    o.expire(5)
    assert o.due(9) == [0]
    assert o.send_again(0, 9) is None
    assert o.open == 0
    assert len(o.report(1).unknown) == 1


def test_a_lost_connection_sends_again_what_has_an_id_and_waits_for_the_rest() -> None:
    o = outcomes()
    o.send(0, message("id"), 0)
    o.send(1, message(), 0)
    o.connection_lost(1)
    assert o.due(1) == [0]
    assert list(o.in_flight) == [1]
    o.expire(5)
    assert [unknown.position for unknown in o.report(1).unknown] == [1]


def test_a_server_that_shuts_down_has_perhaps_stored_the_message() -> None:
    o = outcomes()
    closed = Answer("S", err_code=10077, text="store is closed")
    o.send(0, message(), 0)
    o.send(1, message("id"), 0)
    o.answer(0, 1, closed, 0.1)
    o.answer(1, 1, closed, 0.1)
    assert [unknown.position for unknown in o.report(1).unknown] == [0]
    assert o.due(0.2) == [1]


def test_an_attempt_that_never_left_was_not_stored() -> None:
    o = outcomes()
    o.send(0, message(), 0)
    o.never_left(0, 0)
    assert o.due(RETRY_PAUSE) == [0]
    assert o.send_again(0, 1) is not None
    o.answer(0, 2, Answer("S", 1), 1.1)
    assert o.report(1).acked == 1


def test_a_record_that_could_not_be_written_at_all_does_not_count_as_sent() -> None:
    o = outcomes()
    o.send(0, message(), 0)
    o.not_sent(0)
    report = o.report(1)
    assert (report.sent, report.bytes, o.open, o.unacked_bytes) == (0, 0, 0, 0)


def test_an_ack_of_another_stream_is_no_ack() -> None:
    o = outcomes()
    o.send(0, message(), 0)
    o.answer(0, 1, Answer("OTHER", 12), 0.1)
    assert o.foreign == (0, Answer("OTHER", 12))
    (unknown,) = o.report(1).unknown
    assert unknown.why == "stream OTHER stored it, as sequence 12"


def test_a_reply_that_is_no_ack_is_remembered_and_settles_nothing() -> None:
    o = outcomes()
    o.send(0, message(), 0)
    o.answer(0, 1, parse_answer(b"hello"), 0.1)
    assert o.open == 1
    o.expire(ACK_TIMEOUT)
    (unknown,) = o.report(1).unknown
    assert "b'hello'" in unknown.why


def test_the_end_settles_what_is_open_by_what_is_known() -> None:
    o = outcomes()
    o.send(0, message(), 0)
    o.send(1, message(), 0)
    o.answer(1, 1, NOBODY, 0.1)
    o.end("stopped")
    report = o.report(1)
    assert [(unknown.position, unknown.why) for unknown in report.unknown] == [(0, "stopped")]
    assert [(refused.position, refused.text) for refused in report.refused] == [
        (1, "stopped; before: no responders")
    ]


def test_silence_is_counted_from_the_first_message_that_no_final_answer_followed() -> None:
    o = outcomes()
    assert o.silent_since is None
    o.send(0, message(), 3)
    o.send(1, message(), 4)
    assert o.silent_since == 3
    o.answer(1, 1, NOBODY, 5)
    assert o.silent_since == 3
    o.ack(0, 1)
    assert o.silent_since is None


def test_servers_are_silent_when_nothing_is_settled_for_the_deadline() -> None:
    o = outcomes()
    assert not o.silent(1_000)
    o.send(0, message(), 3)
    assert not o.silent(3 + DEADLINE - 0.1)
    assert o.silent(3 + DEADLINE)
    o.ack(0, 1)
    assert not o.silent(3 + DEADLINE)


def test_a_lost_connection_counts_as_silence_until_it_is_back() -> None:
    o = outcomes()
    o.cut_off_since = 3
    assert o.silent(3 + DEADLINE)
    o.cut_off_since = None
    assert not o.silent(3 + DEADLINE)


def test_while_the_event_loop_was_blocked_no_answer_could_be_heard() -> None:
    o = outcomes()
    o.send(0, message(), 0)
    o.resume_at(100)
    o.expire(100)
    assert o.open == 1
    assert not o.silent(100)
    o.expire(100 + ACK_TIMEOUT)
    assert len(o.report(1).unknown) == 1
    assert o.silent(100 + DEADLINE)


def test_a_blocked_event_loop_does_not_stretch_the_duplicate_window() -> None:
    o = outcomes()
    o.send(0, message("id"), 0)
    o.resume_at(WINDOW)
    o.expire(WINDOW + ACK_TIMEOUT)
    assert o.due(WINDOW + ACK_TIMEOUT) == []
    assert len(o.report(1).unknown) == 1


# -- any order of events


@dataclass
class Attempt:
    """An attempt on its way to the model's stream, or its answer on the way back."""

    position: int
    number: int
    msg_id: str | None
    left: float
    answer: Answer | None = None


@dataclass
class ModelStream:
    """What a stream stores: message ids are remembered for the duplicate window."""

    stored: list[int] = field(default_factory=list)
    ids: dict[str, tuple[int, float]] = field(default_factory=dict)
    mode: str = "up"

    def take(self, attempt: Attempt, now: float) -> Answer:
        if self.mode == "nobody":
            return NOBODY
        known = self.ids.get(attempt.msg_id) if attempt.msg_id else None
        if known is not None and now - known[1] < WINDOW:
            return Answer("S", known[0], True)
        if self.mode == "full":
            return FULL
        self.stored.append(attempt.position)
        if attempt.msg_id:
            self.ids[attempt.msg_id] = (len(self.stored), now)
        return Answer("S", len(self.stored))


class AnyOrder(RuleBasedStateMachine):
    """Messages and answers are delivered, delayed or lost; the report must agree with the stream.

    One record's attempts arrive in their order, as they do through one connection, and none later than
    half a duplicate window after it left: beyond that no client can promise anything.
    """

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.outcomes = outcomes()
        self.stream = ModelStream()
        self.to_stream: list[Attempt] = []
        self.answers: list[Attempt] = []
        self.ids: list[str | None] = []

    @rule(with_id=st.booleans())
    def send(self, with_id: bool) -> None:
        position = len(self.ids)
        msg_id = f"id-{position}" if with_id else None
        self.ids.append(msg_id)
        self.outcomes.send(position, message(msg_id), self.now)
        self.to_stream.append(Attempt(position, 1, msg_id, self.now))

    @rule()
    def send_again(self) -> None:
        for position in self.outcomes.due(self.now):
            again = self.outcomes.send_again(position, self.now)
            if again:
                self.to_stream.append(Attempt(position, again[1], again[0].msg_id, self.now))

    @rule(mode=st.sampled_from(["up", "nobody", "full"]))
    def change_stream(self, mode: str) -> None:
        self.stream.mode = mode

    @precondition(lambda self: self.to_stream)
    @rule(choice=st.integers(0, 10_000), lost=st.booleans(), answer_lost=st.booleans())
    def deliver(self, choice: int, lost: bool, answer_lost: bool) -> None:
        chosen = self.to_stream[choice % len(self.to_stream)]
        attempt = next(a for a in self.to_stream if a.position == chosen.position)
        self.to_stream.remove(attempt)
        if lost or self.now - attempt.left >= WINDOW / 2:
            return
        attempt.answer = self.stream.take(attempt, self.now)
        if not answer_lost:
            self.answers.append(attempt)

    @precondition(lambda self: self.answers)
    @rule(choice=st.integers(0, 10_000))
    def hear(self, choice: int) -> None:
        attempt = self.answers.pop(choice % len(self.answers))
        answer = attempt.answer
        assert answer is not None
        plain = attempt.number == 1 and not answer.err_code and not answer.duplicate
        if not (plain and self.outcomes.ack(attempt.position, answer.seq)):
            self.outcomes.answer(attempt.position, attempt.number, answer, self.now)

    @rule()
    def lose_connection(self) -> None:
        self.outcomes.connection_lost(self.now)

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 6.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.outcomes.expire(self.now)

    @invariant()
    def every_record_is_somewhere_once(self) -> None:
        if not hasattr(self, "outcomes"):
            return
        o = self.outcomes
        report = o.report(1)
        settled = report.acked + report.duplicates + len(report.refused) + len(report.unknown)
        assert settled + o.open == report.sent == len(self.ids)
        assert not o.in_flight.keys() & o.waiting.keys()
        assert o.unacked_bytes == 10 * o.open

    def teardown(self) -> None:
        if not hasattr(self, "outcomes"):
            return
        self.outcomes.end("over")
        assert self.outcomes.open == 0
        report = self.outcomes.report(1)
        stored = self.stream.stored
        assert len(stored) == len(set(stored)), "a record is stored twice"
        refused = {lost.position for lost in report.refused}
        acked = set(range(len(self.ids))) - refused - {lost.position for lost in report.unknown}
        assert acked <= set(stored), "a record is called acked and is not stored"
        assert not refused & set(stored), "a refused record is stored"
        assert report.duplicates == 0, "no id was in the stream before us"


AnyOrder.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase


def test_an_error_with_odd_fields_is_still_read() -> None:
    reply = {"error": {"code": 400, "err_code": None, "description": None}, "stream": None}
    answer = parse_answer(json.dumps(reply).encode())
    assert answer.err_code == 400
