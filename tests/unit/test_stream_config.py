"""Settings of a stream that make no sense are refused here, with what to write instead."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from nats.js.api import RetentionPolicy

from jslab import stream_config

# A text for seconds took 13 s and 2 GB: nats-py repeats it a thousand million times.
WRONG = [
    ({"max_age": "1h"}, "number of seconds, such as 3600"),
    ({"max_age": timedelta(hours=1)}, "number of seconds"),
    ({"duplicate_window": True}, "number of seconds"),
    ({"max_msgs": 1.5}, "whole number"),
    ({"max_bytes": "1GB"}, "whole number"),
    ({"num_replicas": 0}, "from 1 to 5"),
    ({"num_replicas": "3"}, "from 1 to 5"),
    ({"subjects": "flights.>"}, r"such as \['flights.>'\]"),
    ({"subjects": [1]}, "list of texts"),
    ({"subjects": ["a..b"]}, "single dots"),
    ({"subjects": ["a.>.b"]}, "at the end only"),
    ({"subjects": ["a b"]}, "no spaces"),
    ({"retention": "forever"}, "one of limits, interest, workqueue"),
    ({"storage": "ram"}, "one of file, memory"),
    ({"discard": "oldest"}, "one of old, new"),
    ({"compression": "zip"}, "one of none, s2"),
    ({"replicas": 3}, "no such stream setting: replicas"),
]


@pytest.mark.parametrize(("config", "said"), WRONG, ids=lambda value: str(value)[:30])
def test_a_setting_that_makes_no_sense_is_told_what_to_be(config: dict[str, Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        stream_config.check(config)


@pytest.mark.parametrize(
    "config",
    [
        {"max_age": 0.5, "duplicate_window": 120, "subjects": ("a.*", "b.>", ">"), "num_replicas": 5},
        {"retention": RetentionPolicy.WORK_QUEUE, "storage": "memory", "max_msgs": -1, "max_bytes": None},
        {},
    ],
)
def test_what_the_server_takes_passes(config: dict[str, Any]) -> None:
    stream_config.check(config)
