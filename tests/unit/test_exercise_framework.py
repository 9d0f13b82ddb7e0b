"""What a file in ``exercises/`` is made of, read without a server."""

from __future__ import annotations

import ast
import builtins
import dis
import inspect
import types
from typing import Any

import pytest

from jslab import exercises
from jslab.errors import ExerciseError
from jslab.exercises import Exercise, Lesson, Prediction, Room, Verdict, Wrong, definition
from jslab.exercises.desk import PREDICTION_TYPE, VERDICT_TYPE

lesson = Lesson("99", "A lesson of this test", streams=("OWN",))
first = lesson.exercise("99.1", "The first", hints=("one", "two"), streams=("A", "B"), witness=("a.>",))
second = lesson.exercise("99.2", "The second", hints=("one",), streams=("B", "C"))
question = lesson.prediction("99.1", "What happens?", ("this", "that"))


@first.check
async def check_first(room: Room) -> str:
    await room.info("A")
    if room.number == "never":
        raise Wrong("direct", "raised by the check itself")
    return helper(room)


def helper(room: Room) -> str:
    if room.number == "never":
        raise Wrong("helped", "raised by a function of the file that the check calls")
    return deeper(room, 1)


def deeper(room: Room, more: int) -> str:
    if more:
        return deeper(room, 0)
    raise Wrong("deep", "raised two calls down, by one that calls itself")


def unused() -> None:
    raise Wrong("elsewhere", "the check does not call this one")


@first.solution
async def solve_first(lab: Any) -> None:
    """Not shown: a docstring is for readers of the file."""
    # Shown: why three.
    await lab.stream(
        "A",
        num_replicas=3,
    )

    print("done")  # shown too


@first.wrong("direct")
async def wrong_direct(lab: Any) -> None: ...


@first.wrong("direct")
async def wrong_direct_in_another_way(lab: Any) -> None: ...


@second.check
async def check_second(room: Room) -> str:
    raise Wrong("blank", "nobody has begun")


@second.solution
async def solve_second(lab: Any) -> None:
    # A comment before the first statement.
    await lab.answer("99.2", "yes")


def test_a_lesson_owns_the_streams_of_its_cells_and_exercises() -> None:
    assert lesson.owned() == {"OWN", "A", "B", "C"}
    assert Lesson("98", "without exercises").owned() == set()


def test_the_decorators_keep_and_return_the_functions() -> None:
    assert first.check_function is check_first
    assert first.solution_function is solve_first
    assert first.wrong_functions == {"direct": [wrong_direct, wrong_direct_in_another_way]}
    assert (first.setup_function, first.scenario_function) == (None, None)
    made = Exercise("1.1", "t", hints=(), streams=(), witness=())

    async def setup(room: Room) -> None: ...

    async def scenario(room: Room) -> Any:
        yield

    assert (made.setup(setup), made.scenario(scenario)) == (setup, scenario)
    assert (made.setup_function, made.scenario_function) == (setup, scenario)


def test_diagnoses_are_found_in_the_check_and_in_what_it_calls() -> None:
    assert first.diagnoses() == {"direct", "helped", "deep"}


def test_blank_is_no_diagnosis() -> None:
    assert second.diagnoses() == set()


def test_the_solutions_body_is_shown_as_a_cell() -> None:
    assert first.source() == (
        "# Shown: why three.\n"
        'await lab.stream(\n    "A",\n    num_replicas=3,\n)\n\n'
        'print("done")  # shown too\n'
    )
    assert second.source() == '# A comment before the first statement.\nawait lab.answer("99.2", "yes")\n'


def test_a_prediction_has_its_choices() -> None:
    assert isinstance(question, Prediction)
    assert lesson.predictions == {"99.1": question}
    assert question.choices == ("this", "that")


def test_wrong_keeps_its_key_and_says_its_text() -> None:
    wrong = Wrong("key", "what it would cost")
    assert (wrong.key, wrong.text, str(wrong)) == ("key", "what it would cost", "what it would cost")


@pytest.mark.parametrize("number", ["77", "x", "", "00_start", "../00"])
def test_a_lesson_that_is_not_there(number: str) -> None:
    with pytest.raises(ExerciseError, match="there is no lesson") as caught:
        exercises.load(number)
    assert "lessons: 00" in caught.value.seen
    assert caught.value.do


@pytest.mark.parametrize(("number", "meant"), [(3.1, "03.1"), ("3.1", "03.1"), (3, "03"), ("3", "03")])
def test_a_number_without_quotes_or_zero_is_told_how_to_write_it(number: Any, meant: str) -> None:
    for use in (definition.load, definition.find, definition.lesson_of):
        with pytest.raises(ExerciseError) as caught:
            use(number)
        assert f'"{meant}"' in caught.value.do


@pytest.mark.parametrize("number", ["00.99", "00", "00."])
def test_an_exercise_that_is_not_there(number: str) -> None:
    with pytest.raises(ExerciseError, match=f"there is no exercise '{number}'") as caught:
        definition.find(number)
    assert "00.1" in caught.value.seen


def test_a_lesson_is_loaded_once_and_found_by_its_exercises() -> None:
    loaded = exercises.load("00")
    assert exercises.load("00") is loaded
    assert definition.find("00.1") == (loaded, loaded.exercises["00.1"])
    assert exercises.solution_source("00.1") == loaded.exercises["00.1"].source()


ALL = [exercise for number in definition.numbers() for exercise in exercises.load(number).exercises.values()]


@pytest.mark.parametrize("exercise", ALL, ids=lambda exercise: exercise.number)
def test_an_exercise_of_the_course_is_whole(exercise: Exercise) -> None:
    assert exercise.hints
    assert set(exercise.wrong_functions) == exercise.diagnoses()
    # What lab.solution shows must run in a notebook as it stands, without the file's own names.
    compile(exercise.source(), exercise.number, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert globals_of(exercise.solution_function.__code__) <= set(dir(builtins))


def globals_of(code: types.CodeType) -> set[str]:
    """The names that a function takes from its file, and those inside it."""
    own = {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return own.union(*map(globals_of, inner))


def test_verdicts_carry_what_a_run_of_the_course_reads() -> None:
    verdict = Verdict("99.1", False, "direct", "99.1 · The first", "why")
    bundle = verdict._repr_mimebundle_()
    assert bundle[VERDICT_TYPE] == {"exercise": "99.1", "ok": False, "key": "direct", "text": "why"}
    assert bundle["text/plain"] == repr(verdict) == "✗ 99.1 · The first\n  why"
    assert "✗" in bundle["text/html"]
    predicted = Verdict("99.1", None, "prediction", "t", "w")._repr_mimebundle_()
    assert PREDICTION_TYPE in predicted
    assert VERDICT_TYPE not in predicted


def test_every_function_of_this_lesson_is_a_coroutine() -> None:
    for exercise in lesson.exercises.values():
        assert inspect.iscoroutinefunction(exercise.check_function)
        assert inspect.iscoroutinefunction(exercise.solution_function)
