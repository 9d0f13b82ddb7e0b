"""The errors that end a publish early, each with what was seen and what to do."""

from __future__ import annotations

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext

from jslab.errors import SubjectError
from jslab.publishing.outcomes import NO_RESPONDERS, Outcomes
from jslab.publishing.payloads import CapturedSubjects, Message, subject_fault
from jslab.publishing.report import SHOWN


class UnfitSubjectError(Exception):
    """A record's subject is illegal or not captured; becomes a SubjectError once the streams were asked."""

    def __init__(self, position: int, subject: str, fault: str) -> None:
        super().__init__(fault)
        self.position = position
        self.subject = subject
        self.fault = fault


async def subject_error(
    js: JetStreamContext, stream: str, captured: CapturedSubjects, unfit: UnfitSubjectError
) -> SubjectError:
    """Explain a subject; asks which stream captures it (nats-py: ``js.find_stream_name_by_subject``)."""
    if subject_fault(unfit.subject):
        return SubjectError(
            f"record {unfit.position} has no legal subject: {unfit.subject!r}",
            seen=unfit.fault,
            do="publish to tokens with single dots between them, such as flights.JFK.AA.LAX",
        )
    try:
        other = f"stream {await js.find_stream_name_by_subject(unfit.subject)} does"
    except nats.js.errors.NotFoundError:
        other = "no stream does"
    except (nats.errors.Error, TimeoutError) as error:
        other = f"asking which stream does failed: {error}"
    return SubjectError(
        f"record {unfit.position}: stream {stream} does not capture {unfit.subject}",
        seen=f"{stream} captures {', '.join(captured.patterns) or 'nothing, as a mirror does'}; {other}",
        do=f"publish to a subject that {stream} captures, publish to the stream that does, "
        f"or give {stream} this subject too: js.update_stream(stream.config, subjects=[…])",
    )


def stored_elsewhere(outcomes: Outcomes) -> SubjectError:
    """Explain an ack that names another stream."""
    assert outcomes.foreign is not None
    position, answer = outcomes.foreign
    return SubjectError(
        f"record {position} was not stored by stream {outcomes.stream}",
        seen=f"stream {answer.stream} stored it, as sequence {answer.seq}",
        do="look which stream captures the subject now: somebody changed a stream's subjects meanwhile",
    )


def too_large(message: Message, position: int, limit: int) -> nats.errors.MaxPayloadError:
    """Explain a message that the server would close the connection for."""
    error = nats.errors.MaxPayloadError()
    error.add_note(
        f"jslab: record {position} on {message.subject} is {message.size:,} bytes with its headers, "
        f"the server takes {limit:,} (max_payload). Send less, or keep the data in an object store "
        f"and send where it is."
    )
    return error


def silence(outcomes: Outcomes, connected: bool, position: int) -> Exception:
    """Explain that nothing could be settled for so long that the rest would fare no better."""
    error: Exception = nats.errors.TimeoutError()
    trouble = outcomes.paused or outcomes.last_trouble
    why = trouble.text or "no ack"
    if not connected:
        why = "no connection"
    elif trouble.err_code == NO_RESPONDERS:
        error = nats.js.errors.NoStreamResponseError()
    error.add_note(
        f"jslab: for {outcomes.deadline:g} s stream {outcomes.stream} settled no message ({why}), so "
        f"records from {position} on were not sent. Are enough servers up? {so_far(outcomes)}"
    )
    return error


def closed(outcomes: Outcomes) -> nats.errors.ConnectionClosedError:
    """Explain a connection that somebody closed, or that gave up reconnecting."""
    error = nats.errors.ConnectionClosedError()
    error.add_note(f"jslab: the connection was closed while publishing. {so_far(outcomes)}")
    return error


def so_far(outcomes: Outcomes) -> str:
    """Sum up in one sentence, with the reasons of refusals: they may be why the rest found nobody."""
    report = outcomes.report(0.0)
    reasons = {f"{lost.err_code} {lost.text}" for lost in report.refused}
    named = f" ({'; '.join(sorted(reasons)[:SHOWN])})" if reasons else ""
    return (
        f"Of {report.sent:,} records sent {report.acked:,} were acked, {report.duplicates:,} duplicate, "
        f"{len(report.refused):,} refused{named}, {len(report.unknown) + outcomes.open:,} unknown."
    )
