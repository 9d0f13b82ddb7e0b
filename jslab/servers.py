"""Servers without a notebook: bring them up, show them, take them down, and clean up after a hard kill."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from dataclasses import asdict, dataclass, replace

from jslab import deployment, settings
from jslab.deployment import Say, process
from jslab.deployment.process import LabFolder


@dataclass(frozen=True)
class RunningServer:
    """One server of a lab that runs on this machine."""

    name: str
    state: str
    client_url: str
    monitor_url: str


@dataclass(frozen=True)
class RunningLab:
    """An embedded lab that runs on this machine, or what a hard kill left of one."""

    folder: str
    kernel: int
    """Process id of the kernel or command that it belongs to."""
    left_behind: bool
    servers: tuple[RunningServer, ...]


def up(backend: str | None, say: Say = print) -> None:
    """Bring embedded servers up, print their addresses, and end them on Ctrl-C, SIGTERM or a closed terminal.

    Raises DeploymentError and its children when they do not come up.
    """
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_until_stopped(deployment.choose(_settings(backend)), say))


def _settings(backend: str | None) -> settings.Settings:
    asked = settings.read()
    return replace(asked, backend=backend or asked.backend)


def cancel_on_signals() -> None:
    """Let Ctrl-C, SIGTERM and a closed terminal cancel the running task, so that it can clean up."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


async def _until_stopped(chosen: deployment.Deployment, say: Say) -> None:
    cancel_on_signals()
    try:
        await chosen.up()
        say(f"{chosen.backend}, nats-server {chosen.version}:")
        for server in chosen.servers():
            say(f"  {server.name}  {server.client_url}  monitoring {server.monitor_url}")
        keeps = "their data goes with them" if chosen.ephemeral else "their data stays"
        say(f"Ctrl-C ends them; {keeps}.")
        await asyncio.Event().wait()
    finally:
        await chosen.down()


def status(*, as_json: bool = False) -> str:
    """Describe the embedded labs that run on this machine, and what a hard kill left."""
    labs = [_describe(folder) for folder in process.lab_folders(settings.state_dir(settings.read()))]
    if as_json:
        return json.dumps([asdict(lab) for lab in labs], indent=1)
    return "\n".join(map(_text, labs)) or "no lab runs on this machine"


def _describe(folder: LabFolder) -> RunningLab:
    try:
        states = process.read_states(folder.path)
    except FileNotFoundError:  # it is just starting, or just gone
        states = {}
    ports = [folder.ports[first : first + 2] for first in range(0, len(folder.ports), 3)]
    return RunningLab(
        folder=str(folder.path),
        kernel=folder.kernel,
        left_behind=not folder.guarded,
        servers=tuple(
            RunningServer(name, state.state, f"nats://127.0.0.1:{client}", f"http://127.0.0.1:{monitor}")
            for (name, state), (client, monitor) in zip(states.items(), ports, strict=False)
        ),
    )


def _text(lab: RunningLab) -> str:
    owner = "left behind by a hard kill: jslab clean" if lab.left_behind else f"of process {lab.kernel}"
    rows = [f"  {s.name}  {s.state:8} {s.client_url}  monitoring {s.monitor_url}" for s in lab.servers]
    return "\n".join([f"embedded lab {owner}", *rows])


def clean() -> str:
    """End what a hard kill left behind and say what it was. Labs in use are left alone."""
    found = process.clean(settings.state_dir(settings.read()))
    if not found:
        return "nothing was left behind"
    ended = sum(len(lab.running) for lab in found)
    return f"ended {ended} processes and removed {len(found)} folders that a hard kill had left behind"
