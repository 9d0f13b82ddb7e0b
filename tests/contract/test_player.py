"""A cursor on a stream: where it goes, how fast it answers, and what its widgets do."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from jslab import departures
from jslab.errors import ClockError, ReplayError
from jslab.lab import Lab
from jslab.player import Player
from jslab.streams import Stream
from jslab.waiting import until

NEW_YORK = ZoneInfo("America/New_York")
CLOCK = "Event-Time"


async def january(lab: Lab, flights: Any = None, name: str = "FLIGHTS") -> Stream:
    stream = await lab.stream(name, subjects=["flights.>"], num_replicas=3)
    await stream.publish_many(
        flights or departures.day(1, 1),
        subject=lambda f: f.subject,
        data=lambda f: f.payload,
        headers=lambda f: f.headers,
    )
    return stream


@pytest.fixture
async def player(lab: Lab) -> AsyncIterator[Player]:
    """A cursor on 1 January."""
    return await lab.player(await january(lab), clock=CLOCK)


async def test_it_goes_to_sequences_and_moments(player: Player) -> None:
    flights = list(departures.day(1, 1))
    scene = await player.goto(100)
    assert (scene.seq, scene.first_seq, scene.last_seq) == (100, 1, 842)
    assert scene.moment == flights[99].event_time
    assert [m.seq for m in scene.messages] == list(range(100, 108))
    noon = datetime(2013, 1, 1, 12, tzinfo=NEW_YORK)
    scene = await player.goto(noon)
    assert scene.seq == next(n for n, flight in enumerate(flights, 1) if flight.event_time >= noon)
    assert scene.moment is not None
    assert scene.moment >= noon
    end = await player.goto(noon + timedelta(days=1))
    assert (end.seq, end.moment, end.messages, end.progress) == (843, None, (), 1.0)
    assert "behind the end" in repr(end)
    assert "flights." in (await player.goto(1))._repr_html_()


async def test_without_a_clock_moments_are_stored_times(lab: Lab) -> None:
    player = await lab.player(await january(lab))
    assert (await player.goto(datetime(2013, 1, 1, tzinfo=UTC))).seq == 1
    assert (await player.goto(datetime.now(UTC) + timedelta(days=1))).seq == 843
    with pytest.raises(ReplayError, match="has no time zone"):
        await player.goto(datetime(2013, 1, 1))  # noqa: DTZ001


async def test_it_plays_until_told_to_pause(player: Player) -> None:
    await player.goto(1)
    playing = asyncio.ensure_future(player.play(3_600))
    await asyncio.sleep(1.1)
    player.pause()
    scene = await playing
    assert scene.moment is not None
    first = next(iter(departures.day(1, 1))).event_time
    hours = (scene.moment - first).total_seconds() / 3_600
    assert 0.4 < hours < 3
    after = await player.play(3_600, seconds=0.5)
    assert after.seq > scene.seq
    assert (await player.play(1e6)).moment is None


async def test_every_move_answers_within_a_fifth_of_a_second(lab: Lab) -> None:
    player = await lab.player(await january(lab, departures.month(1)), clock=CLOCK)
    begin = datetime(2013, 1, 1, tzinfo=NEW_YORK)
    took = []
    for hour in range(0, 31 * 24, 29):
        began = time.monotonic()
        await player.goto(begin + timedelta(hours=hour))
        took.append(time.monotonic() - began)
    assert statistics.median(took) < 0.2


async def test_the_widgets_do_what_the_awaitables_do(player: Player) -> None:
    box = player.controls(speed=3_600)
    slider, (play, pause, said) = box.children[0], box.children[1].children
    assert (slider.min, slider.max, slider.value) == (1, 842, 1)

    def at() -> int:
        assert player.scene is not None
        return player.scene.seq

    for value in (10, 300, 500, 700):  # dragged faster than it can follow
        slider.value = value
    await until(lambda: at() == 700, what="the cursor to follow the slider", timeout=5)
    slider.value = 5
    await until(lambda: at() == 5, what="the cursor to follow the slider", timeout=5)
    play.click()
    await until(lambda: at() > 5, what="it to play", timeout=10)
    pause.click()
    await asyncio.sleep(0.5)
    stopped = at()
    await asyncio.sleep(0.5)
    assert at() == stopped
    assert slider.value == stopped, "the slider goes along with the cursor"
    await player.goto(800)
    assert (at(), slider.value) == (800, 800)
    assert said.value == ""


async def test_an_error_of_a_widget_is_seen(lab: Lab) -> None:
    stream = await january(lab)
    player = await lab.player(stream, clock=CLOCK)
    box = player.controls()
    said = box.children[1].children[2]
    await lab.js.publish("flights.JFK.AA.LAX", b"{}", headers={"Other": "1"})
    box.children[0].max = 843
    box.children[0].value = 843
    await until(lambda: said.value, what="the error to be shown", timeout=5)
    assert said.value.startswith("ClockError: message 843 has no header Event-Time")
    with pytest.raises(ClockError):
        await player.goto(843)


async def test_controls_before_it_was_anywhere(lab: Lab) -> None:
    stream = await january(lab)
    with pytest.raises(ReplayError, match="need to know where the stream begins"):
        Player(lab.js, stream.name).controls()
