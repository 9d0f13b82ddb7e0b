"""lab.lesson, check, hint, answer, predict and reset, with the exercises of lesson 00."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import nats.errors
import nats.js.errors
import pytest

from jslab.errors import ExerciseError
from jslab.exercises import definition
from jslab.lab import Lab
from jslab.stream_config import LESSON_KEY, OWNED
from jslab.waiting import until

TOWER, RADAR, CHARTERS = (definition.find(number)[1] for number in ("00.1", "00.2", "00.3"))
PREDICTION = definition.load("00").predictions["00.1"]
THIS, THAT = PREDICTION.choices[:2]


@pytest.fixture
async def room(lab: Lab) -> AsyncIterator[Lab]:
    """The lab with lesson 00 prepared."""
    await lab.lesson("00")
    yield lab
    await lab.clean("00")


async def names(lab: Lab) -> set[str]:
    return {str(info.config.name) for info in await lab.js.streams_info()}


async def everything(lab: Lab) -> dict[str, Any]:
    """All that a check could change: streams, their messages and consumers, our subscriptions, faults."""
    seen: dict[str, Any] = {}
    for info in await lab.js.streams_info():
        name = str(info.config.name)
        consumers = await lab.js.consumers_info(name)
        # The count of consumers lags behind; the consumers themselves are listed.
        state = dataclasses.replace(info.state, consumer_count=0)
        seen[name] = (info.config, state, [(c.name, c.config, c.num_pending) for c in consumers])
    seen["entry"] = lab.entry
    seen["servers"] = lab.deployment.servers()
    _, connections = await lab.deployment.get(str(lab.entry), "/connz?subs=1")
    (ours,) = [c for c in connections["connections"] if c["cid"] == lab.nc.client_id]
    seen["subscriptions"] = sorted(ours["subscriptions_list"])
    return seen


# -- prepare


async def test_a_lesson_is_prepared_and_says_so(lab: Lab) -> None:
    prepared = await lab.lesson("00")
    assert prepared.exercises == ("00.1", "00.2", "00.3")
    assert prepared.removed == ()
    assert "Start here: ready" in repr(prepared)
    assert "removed" not in repr(prepared)
    assert await names(lab) == {"JSLAB", "RADAR", "LOG"}
    assert await lab.clean("00") == ("LOG", "RADAR")


async def test_a_lesson_can_be_prepared_twice(room: Lab) -> None:
    await room.solve("00.1")
    await room.stream("HELLO", subjects=["hello.>"])
    await room.answer("00.2", "nats-7")
    await room.predict("00.1", THIS)
    await room.reveal("00.1", THIS)
    again = await room.lesson("00")
    assert set(again.removed) == {"TOWER", "HELLO", "RADAR", "LOG"}
    assert "left by an earlier run" in repr(again)
    assert await names(room) == {"JSLAB", "RADAR", "LOG"}
    # Answers and predictions start anew too.
    assert (await room.check("00.2")).key == "blank"
    assert "sealed" in (await room.predict("00.1", THAT)).text


async def test_preparing_heals_what_was_broken(room: Lab) -> None:
    await room.faults.pause("nats-1")
    await room.lesson("00")
    assert {server.state for server in room.deployment.servers()} == {"running"}


async def test_streams_that_no_lesson_made_are_left_alone(room: Lab) -> None:
    await room.settle(await room.js.add_stream(name="MINE", subjects=["mine.>"]))
    await room.js.add_stream(name="CHK_MINE", subjects=["probe.>"])
    await room.js.publish("mine.own", b"kept")
    await room.lesson("00")
    await room.reset("00.1")
    assert await room.clean("00") == ("LOG", "RADAR")
    assert (await room.js.stream_info("MINE")).state.messages == 1
    assert {"MINE", "CHK_MINE"} <= await names(room)


async def test_a_stream_made_before_the_lesson_under_one_of_its_names_is_never_deleted(lab: Lab) -> None:
    # The other streams of an earlier run stay too: nothing is half removed.
    await lab.lesson("00")
    await lab.clean("00")
    await lab.js.purge_stream("JSLAB")
    await lab.settle(await lab.js.add_stream(name="TOWER", subjects=["control.>"]))
    await lab.js.publish("control.one", b"precious")
    marks = {**OWNED, LESSON_KEY: "00"}
    await lab.js.add_stream(name="DAY", subjects=["day.>"], metadata=marks)
    for attempt in (lab.lesson("00"), lab.clean("00"), lab.reset("00.1")):
        with pytest.raises(ExerciseError, match="needs the stream name TOWER") as caught:
            await attempt
        assert "1 messages, not made by a lesson" in caught.value.seen
        assert "delete_stream('TOWER')" in caught.value.do
    assert await names(lab) == {"JSLAB", "TOWER", "DAY"}
    assert (await lab.js.stream_info("TOWER")).state.messages == 1


async def test_a_learners_own_stream_made_in_the_lesson_goes_with_it(room: Lab) -> None:
    # nats-py itself, so without the mark that lab.stream sets.
    await room.js.add_stream(name="TOWER", subjects=["tower.>"], num_replicas=3)
    assert "TOWER" in (await room.lesson("00")).removed
    assert "TOWER" not in await names(room)


async def test_lab_stream_marks_what_it_makes_as_the_open_lessons(room: Lab) -> None:
    stream = await room.stream("ANY", subjects=["any.>"])
    assert (stream.config.metadata or {})[LESSON_KEY] == "00"
    assert "ANY" in await room.clean("00")
    stream = await room.stream("ANY", subjects=["any.>"])
    assert LESSON_KEY not in (stream.config.metadata or {})


async def test_the_ears_of_an_earlier_lesson_are_closed(room: Lab) -> None:
    # Witness 00.1 listens on tower.>: in another lesson a publish there must find nobody.
    await room.lesson("01")
    with pytest.raises(nats.errors.NoRespondersError):
        await room.nc.request("tower.JFK", b"anyone?", timeout=2)
    await room.clean("01")


# -- check


@pytest.mark.parametrize("number", ["00.1", "00.2", "00.3"])
async def test_looking_twice_changes_nothing(room: Lab, number: str) -> None:
    exercise = definition.find(number)[1]
    attempts = [None, *(wrong for found in exercise.wrong_functions.values() for wrong in found)]
    for attempt in [*attempts, exercise.solution_function]:
        await room.reset(number)
        if attempt is not None:
            await attempt(room)
        await room.nc.flush()
        before = await everything(room)
        first = await room.check(number)
        second = await room.check(number)
        assert first == second
        assert await everything(room) == before
    assert first.ok


async def test_a_verdict_is_wrong_then_right(room: Lab) -> None:
    blank = await room.check("00.1")
    assert (blank.ok, blank.key) == (False, "blank")
    assert repr(blank).startswith("✗ 00.1 · TOWER outlives any one machine\n")
    await room.solve("00.1")
    solved = await room.check("00.1")
    assert (solved.ok, solved.key) == (True, "solved")
    assert repr(solved).startswith("✓ 00.1")


async def test_what_is_no_exercise_is_named(room: Lab) -> None:
    for call in (room.check, room.solve, room.reset):
        with pytest.raises(ExerciseError, match=r"there is no exercise '00\.9'"):
            await call("00.9")
    for show in (room.hint, room.solution, room.scenario):
        with pytest.raises(ExerciseError, match=r"there is no exercise '00\.9'"):
            show("00.9")
    with pytest.raises(ExerciseError, match="there is no lesson '77'"):
        await room.lesson("77")
    with pytest.raises(ExerciseError, match=r"00\.1 has no scenario"):
        room.scenario("00.1")


# -- hints and solutions


async def test_the_first_hint_is_the_last_diagnosis(room: Lab) -> None:
    # It was passed over when a hint had been asked for before the check.
    assert TOWER.hints[0] in room.hint("00.1").text
    verdict = await room.check("00.1")
    shown = [room.hint("00.1").text for _ in range(2 + len(TOWER.hints))]
    assert verdict.text in shown[0]
    assert "the last check said" in shown[0]
    assert f"hint 1 of {len(TOWER.hints)}" in shown[1]
    assert [hint in text for hint, text in zip(TOWER.hints, shown[1:], strict=False)] == [True] * len(
        TOWER.hints
    )
    assert 'lab.solution("00.1")' in shown[-1]
    await TOWER.wrong_functions["no-line"][0](room)
    assert (await room.check("00.1")).text in room.hint("00.1").text


async def test_hints_without_a_check_are_the_exercises_own(room: Lab) -> None:
    assert [room.hint("00.2").text.splitlines()[1].strip() for _ in RADAR.hints] == list(RADAR.hints)
    assert "no more hints" in room.hint("00.2").text


async def test_a_solved_exercise_has_no_diagnosis_to_show(room: Lab) -> None:
    verdict = await room.check("00.1")
    await room.solve("00.1")
    await room.check("00.1")
    assert verdict.text not in room.hint("00.1").text


async def test_the_same_diagnosis_twice_goes_on_to_the_next_hint(room: Lab) -> None:
    await room.check("00.1")
    room.hint("00.1")
    await room.check("00.1")
    assert TOWER.hints[0] in room.hint("00.1").text


async def test_a_new_run_of_the_lesson_forgets_diagnoses_and_hints(room: Lab) -> None:
    verdict = await room.check("00.1")
    room.hint("00.1")
    await room.lesson("00")
    first = room.hint("00.1").text
    assert verdict.text not in first
    assert TOWER.hints[0] in first


async def test_the_solution_is_shown_as_it_is_run(room: Lab) -> None:
    assert room.solution("00.1").text.endswith(TOWER.source())
    assert "num_replicas=3" in TOWER.source()


# -- answers and predictions


async def test_the_last_answer_counts(room: Lab) -> None:
    await room.answer("00.2", "nats-7")
    assert (await room.check("00.2")).key == "no-such-server"
    leader = (await room.js.stream_info("RADAR")).cluster
    assert leader is not None
    assert "your answer" in (await room.answer("00.2", str(leader.leader))).text
    assert (await room.check("00.2")).ok


async def test_a_number_is_an_answer_too(room: Lab) -> None:
    assert "842" in repr(await room.answer("00.2", 842))
    with pytest.raises(ExerciseError, match="an answer is a text"):
        await room.answer("00.2", ["nats-1"])  # type: ignore[arg-type]


async def test_a_hint_may_be_awaited_like_its_neighbours(room: Lab) -> None:
    plain = room.hint("00.1")
    awaited = await room.hint("00.1")
    assert "hint 1" in repr(plain)
    assert "hint 2" in repr(awaited)


async def test_a_scenario_without_async_says_what_is_missing(lab: Lab) -> None:
    await lab.lesson("04")
    with pytest.raises(TypeError, match="`async` is missing"), lab.scenario("04.2"):
        """Never entered."""
    await lab.clean("04")


async def test_an_empty_answer_is_none(room: Lab) -> None:
    assert "no answer yet" in (await room.answer("00.2", "")).text
    assert (await room.check("00.2")).key == "blank"


async def test_an_answer_to_no_exercise(room: Lab) -> None:
    with pytest.raises(ExerciseError, match=r"there is no exercise '00\.9'"):
        await room.answer("00.9", "x")


async def test_an_answer_is_a_message_in_the_labs_own_stream(room: Lab) -> None:
    await room.answer("00.2", "nats-1")
    assert (await room.js.get_last_msg("JSLAB", "jslab.answer.00.2")).data == b"nats-1"


async def test_a_prediction_is_sealed_and_held_against_what_happened(room: Lab) -> None:
    assert "sealed" in (await room.predict("00.1", THAT)).text
    assert "sealed" in (await room.predict("00.1", THIS)).text, "until the result is known it can change"
    right = await room.reveal("00.1", THIS)
    assert (right.ok, right.key) == (True, "prediction")
    wrong = await room.reveal("00.1", THAT)
    assert wrong.ok is False
    assert f"You said: {THIS}." in wrong.text
    assert f"The cluster did: {THAT}." in wrong.text


async def test_a_prediction_stays_as_it_is_once_the_result_is_known(room: Lab) -> None:
    await room.predict("00.1", THAT)
    await room.reveal("00.1", THIS)
    late = await room.predict("00.1", THIS)
    assert "the result is known" in late.text
    assert THAT in late.text
    assert (await room.reveal("00.1", THIS)).ok is False


async def test_no_prediction_is_neither_right_nor_wrong(room: Lab) -> None:
    assert "Choose one" in (await room.predict("00.1", "")).text
    verdict = await room.reveal("00.1", THIS)
    assert verdict.ok is None
    assert "You made no prediction." in verdict.text
    assert "Sealed before it: nothing" in (await room.predict("00.1", THIS)).text


async def test_a_choice_that_is_none(room: Lab) -> None:
    with pytest.raises(ExerciseError, match=r"none of the choices of prediction 00\.1") as caught:
        await room.predict("00.1", "maybe")
    assert THIS in caught.value.seen
    with pytest.raises(ExerciseError, match="was observed, which is none of the choices"):
        await room.reveal("00.1", "maybe")
    for call in (room.predict, room.reveal):
        with pytest.raises(ExerciseError, match=r"there is no prediction '00\.9'"):
            await call("00.9", THIS)


# -- reset


async def test_reset_puts_one_exercise_back_and_leaves_the_others(room: Lab) -> None:
    await room.solve("00.1")
    await room.solve("00.3")
    await room.answer("00.2", "nats-7")
    await room.stream("HELLO", subjects=["hello.>"])
    await room.reset("00.1")
    assert (await room.check("00.1")).key == "blank"
    assert (await room.check("00.3")).ok
    assert (await room.check("00.2")).key == "no-such-server"
    assert await names(room) == {"JSLAB", "RADAR", "LOG", "CHARTERS", "HELLO"}


async def test_reset_sets_the_exercise_up_again_and_forgets_answer_and_hints(room: Lab) -> None:
    await room.answer("00.2", "nats-7")
    await room.check("00.2")
    room.hint("00.2")
    await room.js.delete_stream("RADAR")
    await room.reset("00.2")
    assert "RADAR" in await names(room)
    assert (await room.check("00.2")).key == "blank"
    assert "the last check said" in room.hint("00.2").text
    await room.reset("00.2")
    assert RADAR.hints[0] in room.hint("00.2").text


async def test_reset_heals_what_was_broken(room: Lab) -> None:
    await room.faults.pause("nats-2")
    await room.reset("00.1")
    assert {server.state for server in room.deployment.servers()} == {"running"}


async def test_the_witness_begins_anew_with_a_reset(room: Lab) -> None:
    await TOWER.wrong_functions["no-ack"][0](room)
    assert (await room.check("00.1")).key == "no-ack"
    await room.reset("00.1")
    await room.solve("00.1")
    # Had the witness kept listening twice over, it would have seen the line twice.
    seen = room._desk._witnesses["00.1"].messages
    await until(lambda: seen, what="the witness to hear", timeout=5)
    assert [message.subject for message in seen] == ["tower.JFK"]
    assert (await room.check("00.1")).ok
