"""Exercises that are checked on the live cluster: what a lesson's file defines, and what runs it.

``definition`` is what files in the course's ``exercises/`` folder are written with, ``room`` what their
checks look through, ``desk`` what the learner's ``lab.check``, ``lab.hint`` and so on end up at.
"""

from __future__ import annotations

from jslab.exercises.definition import Exercise, Lesson, Prediction, Wrong, load, solution_source
from jslab.exercises.desk import Desk, Prepared, ScenarioRun, Verdict
from jslab.exercises.room import Room

__all__ = [
    "Desk",
    "Exercise",
    "Lesson",
    "Prediction",
    "Prepared",
    "Room",
    "ScenarioRun",
    "Verdict",
    "Wrong",
    "load",
    "solution_source",
]
