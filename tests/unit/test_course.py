"""The lessons, and the learner's copy: nothing of the learner's is ever lost."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from jslab import course
from jslab.errors import CourseError, DirectoryError, ExerciseError
from tests.making import write_notebook

START, SECOND, THIRD = "00_start_here.ipynb", "01_core.ipynb", "03_streams.ipynb"


@pytest.fixture
def originals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A course of two lessons, installed somewhere."""
    folder = tmp_path / "installed" / "notebooks"
    write_notebook(folder / START, "1 + 1")
    write_notebook(folder / SECOND, "2 + 2", needs="kubernetes")
    (folder / "notes.ipynb").write_text("not a lesson")
    monkeypatch.setattr(course, "course_folder", lambda name: tmp_path / "installed" / name)
    return folder


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "copy"


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".part")]


def test_lessons_come_in_order_with_title_and_needs(originals: Path) -> None:
    first, second = course.lessons()
    assert (first.number, first.name, first.label) == ("00", "start_here", "00_start_here")
    assert first.title == "The lesson 00_start_here"
    assert (first.needs, second.needs) == (None, "kubernetes")


@pytest.mark.parametrize("name", ["01", "1", "core", "01_core", "01_core.ipynb"])
def test_a_lesson_is_found_by_any_of_its_names(originals: Path, name: str) -> None:
    (lesson,) = course.choose([name])
    assert lesson.path.name == SECOND


def test_no_name_means_all_lessons(originals: Path) -> None:
    assert [lesson.number for lesson in course.choose([])] == ["00", "01"]


def test_any_notebook_is_found_by_its_path(originals: Path, tmp_path: Path) -> None:
    mine = write_notebook(tmp_path / "mine.ipynb")
    (lesson,) = course.choose([str(mine)])
    assert (lesson.label, lesson.path) == ("mine", mine)


@pytest.mark.parametrize("name", ["07", "nothing", "", "gone.ipynb"])
def test_an_unknown_lesson_is_an_error_that_names_the_known_ones(originals: Path, name: str) -> None:
    with pytest.raises(ExerciseError, match="the course has 00_start_here, 01_core"):
        course.choose([name])


def test_an_installation_without_lessons_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "course_folder", lambda name: tmp_path)
    with pytest.raises(CourseError, match=re.escape(str(tmp_path))):
        course.lessons()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"cells": 3}', '{"cells": [3]}'])
def test_a_file_that_is_no_notebook_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "broken.ipynb"
    file.write_text(content)
    with pytest.raises(CourseError, match=re.escape(str(file))):
        _ = course.Lesson("", "broken", file).title


def test_the_first_copy_has_every_lesson_byte_for_byte(originals: Path, copy: Path) -> None:
    report = course.copy_course(copy)
    assert report.added == [START, SECOND]
    assert str(copy) in report.text()
    for name in (START, SECOND):
        assert (copy / name).read_bytes() == (originals / name).read_bytes()
    assert parts(copy) == []


def test_a_second_copy_changes_nothing(originals: Path, copy: Path) -> None:
    course.copy_course(copy)
    report = course.copy_course(copy)
    assert (report.added, report.updated, report.yours, report.outdated) == ([], [], [], [])


def test_a_new_lesson_is_added_and_an_untouched_old_one_updated(originals: Path, copy: Path) -> None:
    course.copy_course(copy)
    write_notebook(originals / THIRD)
    write_notebook(originals / START, "better")
    report = course.copy_course(copy)
    assert (report.added, report.updated) == ([THIRD], [START])
    assert (copy / START).read_bytes() == (originals / START).read_bytes()


def test_an_edited_lesson_is_never_written_over(originals: Path, copy: Path) -> None:
    course.copy_course(copy)
    mine = write_notebook(copy / START, "my own").read_bytes()

    report = course.copy_course(copy)
    assert (report.yours, report.outdated) == ([START], [])
    assert "yours:   00_start_here.ipynb" in report.text()

    write_notebook(originals / START, "better")
    report = course.copy_course(copy)
    assert (report.yours, report.outdated) == ([], [START])
    assert "jslab reset 00" in report.text()
    assert (copy / START).read_bytes() == mine


def test_a_lesson_that_was_only_run_and_saved_is_the_learners(originals: Path, copy: Path) -> None:
    course.copy_course(copy)
    notebook = json.loads((copy / START).read_text())
    notebook["cells"][1]["execution_count"] = 1
    (copy / START).write_text(json.dumps(notebook))
    assert course.copy_course(copy).yours == [START]


def test_a_file_of_the_learners_that_has_a_lessons_name_stays(originals: Path, copy: Path) -> None:
    copy.mkdir()
    (copy / START).write_text("was here before")
    assert course.copy_course(copy).outdated == [START]
    assert (copy / START).read_text() == "was here before"


def test_a_deleted_lesson_comes_back(originals: Path, copy: Path) -> None:
    course.copy_course(copy)
    (copy / START).unlink()
    assert course.copy_course(copy).added == [START]


@pytest.mark.parametrize("memory", ["", "[]", "{"])
def test_without_its_memory_a_copy_takes_every_difference_for_the_learners(
    originals: Path, copy: Path, memory: str
) -> None:
    course.copy_course(copy)
    (copy / course.STATE / "given.json").write_text(memory)
    write_notebook(originals / START, "better")
    report = course.copy_course(copy)
    assert (report.outdated, report.updated) == ([START], [])


@pytest.mark.parametrize("writes", range(4))
def test_an_interrupted_update_leaves_whole_files_and_is_finished_by_the_next(
    originals: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    course.copy_course(copy)
    old = {name: (copy / name).read_bytes() for name in (START, SECOND)}
    for name in (START, SECOND):
        write_notebook(originals / name, "better")
    new = {name: (originals / name).read_bytes() for name in (START, SECOND)}
    replace, done = os.replace, []

    def stop_at_the_next(source: str, target: Path) -> None:
        if len(done) == writes:
            raise KeyboardInterrupt
        done.append(target)
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", stop_at_the_next)
        with pytest.raises(KeyboardInterrupt):
            course.copy_course(copy)
    assert parts(copy) == []
    for name in (START, SECOND):
        assert (copy / name).read_bytes() in (old[name], new[name])
    report = course.copy_course(copy)
    assert (report.yours, report.outdated) == ([], [])
    assert {name: (copy / name).read_bytes() for name in (START, SECOND)} == new


def test_a_directory_that_cannot_be_written_is_named(originals: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DirectoryError, match=re.escape(str(tmp_path / "file" / "copy"))):
        course.copy_course(tmp_path / "file" / "copy")


def test_reset_puts_the_original_back_and_keeps_the_learners_file_beside_it(
    originals: Path, copy: Path
) -> None:
    course.copy_course(copy)
    mine = write_notebook(copy / START, "my own").read_bytes()
    said = course.reset("00", copy)
    assert (copy / START).read_bytes() == (originals / START).read_bytes()
    (kept,) = copy.glob("00_start_here.2*.ipynb")
    assert kept.read_bytes() == mine
    assert kept.name in said


def test_resetting_twice_within_a_second_keeps_both(originals: Path, copy: Path) -> None:
    course.copy_course(copy)
    contents = []
    for text in ("one", "two", "three"):
        contents.append(write_notebook(copy / START, text).read_bytes())
        course.reset("start_here", copy)
    kept = [path.read_bytes() for path in copy.glob("00_start_here.2*.ipynb")]
    assert sorted(kept) == sorted(contents)


def test_after_a_reset_the_lesson_is_updated_again(originals: Path, copy: Path) -> None:
    course.copy_course(copy)
    write_notebook(copy / START, "my own")
    course.reset("00", copy)
    write_notebook(originals / START, "better")
    assert course.copy_course(copy).updated == [START]


def test_resetting_an_original_does_nothing(originals: Path, copy: Path) -> None:
    course.copy_course(copy)
    assert "already" in course.reset("00", copy)
    assert list(copy.glob("00_start_here.2*")) == []


def test_reset_needs_a_copy_and_a_lesson_of_the_course(originals: Path, copy: Path) -> None:
    with pytest.raises(DirectoryError, match="jslab lab"):
        course.reset("00", copy)
    course.copy_course(copy)
    with pytest.raises(ExerciseError, match="no lesson '09'"):
        course.reset("09", copy)


def test_the_copy_is_found_from_above_and_from_inside(
    originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert course.find_copy() == tmp_path / "jslab-course"
    course.copy_course()
    monkeypatch.chdir(tmp_path / "jslab-course")
    assert course.find_copy() == tmp_path / "jslab-course"
    assert course.find_copy("elsewhere") == tmp_path / "jslab-course" / "elsewhere"
