"""The errors jslab raises itself, where no server spoke.

Errors of nats-py and of the server keep their type and text, they are part of
the lesson; jslab only adds cause and remedy to them with ``add_note``.

    LabError
    ├── SettingsError     (ValueError)    a JSLAB_* variable or an argument makes no sense
    ├── ManifestError     (ValueError)    a YAML file cannot be used; names the file and the path in it
    ├── MachineError                      this machine cannot run a lab
    │   ├── ServerBinaryError             no nats-server, or one that cannot run
    │   ├── ToolError                     docker or kind is missing, or failed
    │   └── DirectoryError                a directory cannot be used
    ├── DeploymentError   (RuntimeError)  servers did not come up, or went away
    │   ├── NotReadyError (TimeoutError)  they did not become ready in time
    │   ├── PortTakenError                somebody else listens on a port of the lab
    │   ├── ClusterError                  a Kubernetes cluster cannot be used as it is
    │   └── LeaseHeldError                another notebook has the shared lab
    ├── UnsupportedError  (RuntimeError)  this backend cannot do it; names the one that can
    ├── StreamDriftError  (ValueError)    the stream exists with another configuration
    ├── PlacementError    (RuntimeError)  copies or leaders are not where they were asked to be
    ├── SubjectError      (ValueError)    a subject that the stream does not capture
    ├── RecordError       (ValueError)    a record that cannot become a message
    ├── ConsumerDriftError (ValueError)   the consumer exists with another configuration
    ├── AckPendingError   (RuntimeError)  a consumer gives out nothing until something is acked
    ├── AckedError        (RuntimeError)  a message that was acked, nak'ed or terminated already
    ├── StalledError      (TimeoutError)  no server gave out what is there, for longer than the timeout
    ├── ReplayError       (ValueError)    a replay that makes no sense, or a stream that is another now
    │   └── ClockError                    an event time is missing, or not in the stream's order
    ├── DataError         (LookupError)   a day or month the data does not have
    ├── ExerciseError     (LookupError)   no such lesson or exercise
    └── CourseError       (RuntimeError)  the learner's copy or a run of the course cannot go on
"""

from __future__ import annotations

COPIES = "num_replicas"


class LabError(Exception):
    """Something jslab cannot do: what failed, what was seen, and what to do about it."""

    def __init__(self, what: str, *, seen: str = "", do: str = "") -> None:
        self.what = what
        self.seen = seen
        self.do = do
        lines = [what]
        if seen:
            lines.append(f"  seen: {seen}")
        if do:
            lines.append(f"  do:   {do}")
        super().__init__("\n".join(lines))


class SettingsError(LabError, ValueError):
    """A ``JSLAB_*`` variable or an argument of ``start`` makes no sense."""


class ManifestError(LabError, ValueError):
    """A manifest does not parse, lacks a key, or asks for what the backend refuses."""


class MachineError(LabError):
    """This machine cannot run a lab as it is."""


class ServerBinaryError(MachineError):
    """There is no ``nats-server``, it cannot run, or it is too old for the course."""


class ToolError(MachineError):
    """A program that jslab runs (docker, kind) is missing, or did not do what it was asked."""


class DirectoryError(MachineError):
    """A directory is missing, not writable, or not ours."""


class DeploymentError(LabError, RuntimeError):
    """The servers of a lab did not come up, or went away."""


class NotReadyError(DeploymentError, TimeoutError):
    """The servers run but did not become ready in time."""


class PortTakenError(DeploymentError):
    """Another process listens on a port that the lab needs."""


class ClusterError(DeploymentError):
    """A Kubernetes cluster cannot be reached, refuses us, or holds what is not ours."""


class LeaseHeldError(DeploymentError):
    """A shared lab holds one lesson at a time, and another notebook has it."""


class UnsupportedError(LabError, RuntimeError):
    """The backend cannot do this; the text names one that can."""


class StreamDriftError(LabError, ValueError):
    """A stream of that name exists with another configuration."""

    def __init__(self, stream: str, differences: dict[str, tuple[object, object]]) -> None:
        self.stream = stream
        self.differences = differences
        listed = "; ".join(
            f"{field}: you asked for {asked!r}, the stream has {has!r}"
            for field, (asked, has) in differences.items()
        )
        asked = {field: repr(theirs) for field, (theirs, _) in differences.items()}
        copies = asked.pop(COPIES, None)
        changes = ", ".join(f"{field}={value}" for field, value in asked.items())
        steps = [f"stream = await lab.stream({stream!r})"]
        if changes:
            steps.append(f"await lab.js.update_stream(stream.config, {changes})")
        if copies:  # update_stream answers before the copies are there; scale waits for them
            steps.append(f"await stream.scale({copies})")
        super().__init__(
            f"stream {stream} exists with another configuration",
            seen=listed,
            # update_stream with a name and one setting would put all others back to their defaults.
            do=f"ask for what it has; or change this and keep the rest: {'; '.join(steps)}; "
            f"or delete it with its messages: await lab.js.delete_stream({stream!r})",
        )


class PlacementError(LabError, RuntimeError):
    """A stream's or consumer's copies, or its leader, are not where they were asked to be."""


class SubjectError(LabError, ValueError):
    """A record's subject is not captured by the stream it is published to."""


class RecordError(LabError, ValueError):
    """A record cannot become a message; names the record by its position, counted from 0."""


class ConsumerDriftError(LabError, ValueError):
    """A consumer of that name exists with another configuration."""

    def __init__(self, stream: str, consumer: str, differences: dict[str, tuple[object, object]]) -> None:
        self.differences = differences
        super().__init__(
            f"consumer {consumer} of {stream} exists with another configuration",
            seen="; ".join(
                f"{field}: you asked for {asked!r}, the consumer has {has!r}"
                for field, (asked, has) in differences.items()
            ),
            do="ask for what it has; take another name; or delete it with its position: "
            f"await lab.js.delete_consumer({stream!r}, {consumer!r}). To move it: await consumer.reset(seq)",
        )


class AckPendingError(LabError, RuntimeError):
    """A consumer has given out as many messages as it may without an ack, and waits for acks."""


class AckedError(LabError, RuntimeError):
    """A message is acked, nak'ed or terminated once."""


class StalledError(LabError, TimeoutError):
    """Nothing came for longer than the timeout, though there is more: no server gives it out."""


class ReplayError(LabError, ValueError):
    """What was asked of a replay makes no sense, or the stream is not what it was at its start."""


class ClockError(ReplayError):
    """A message has no event time in the header asked for, or the stream is not in that order."""


class DataError(LabError, LookupError):
    """The course's data has no such day or month, or its file is missing."""


class ExerciseError(LabError, LookupError):
    """There is no such lesson or exercise, or it was used in a wrong way."""


class CourseError(LabError, RuntimeError):
    """The learner's copy, or a run of the course, cannot go on."""
