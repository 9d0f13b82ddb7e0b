"""Ports: outside the range that is lent to clients, free, and no other lab's."""

from __future__ import annotations

import fcntl
import json
import socket
from pathlib import Path

import pytest

from jslab.deployment import guard, ports
from jslab.errors import PortTakenError


@pytest.mark.parametrize("lent", [(32768, 60999), (49152, 65535), (1024, 65535), (10000, 30000)])
def test_candidates_are_outside_what_is_lent_to_outgoing_connections(lent: tuple[int, int]) -> None:
    found = ports.candidates(*lent)
    assert len(set(found)) == len(found) > 1000
    assert min(found) >= 1024
    assert max(found) <= 65535
    if lent[0] > 1024:
        assert not set(found) & set(range(lent[0], lent[1] + 1))


def test_candidates_come_in_random_order() -> None:
    # Two labs that start at the same time in two state folders would else try the same ports.
    assert ports.candidates(32768, 60999) != ports.candidates(32768, 60999)


def test_the_range_is_the_systems_own() -> None:
    first, last = ports.ephemeral_range()
    with socket.socket() as outgoing:
        outgoing.bind(("127.0.0.1", 0))
        assert first <= outgoing.getsockname()[1] <= last


def test_a_port_somebody_listens_on_is_not_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not ports.free(port)
    assert ports.free(port)


def write_marker(state: Path, name: str, chosen: list[int]) -> None:
    (state / name).mkdir()
    (state / name / guard.MARKER).write_text(json.dumps({"kernel": 0, "ports": chosen}))


def test_labs_never_share_a_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    six = list(range(20_001, 20_007))
    monkeypatch.setattr(ports, "candidates", lambda *_: six)
    monkeypatch.setattr(ports, "free", lambda _: True)  # other tests' labs run beside this one
    with ports.claim(tmp_path, 3) as one:
        write_marker(tmp_path, "one", one)
    with ports.claim(tmp_path, 3) as two:
        write_marker(tmp_path, "two", two)
    assert sorted(one + two) == sorted(six)
    with pytest.raises(PortTakenError, match="no 3 free ports") as caught, ports.claim(tmp_path, 3):
        pass
    assert "jslab clean" in caught.value.do


def test_a_taken_port_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        others = [20_001, 20_002]
        really = ports.free
        monkeypatch.setattr(ports, "candidates", lambda *_: [taken, *others])
        monkeypatch.setattr(ports, "free", lambda port: port in others or really(port))
        with ports.claim(tmp_path, 2) as chosen:
            assert chosen == others


def test_two_labs_choose_one_after_the_other(tmp_path: Path) -> None:
    with (tmp_path / "ports.lock").open("w") as door:
        with ports.claim(tmp_path, 1), pytest.raises(BlockingIOError):
            fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
