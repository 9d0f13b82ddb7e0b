"""JupyterLab on the learner's copy, with this environment's kernel and no questions asked.

The user's own Jupyter configuration is read as always and never written: what the course needs is set for
this server alone, and what JupyterLab remembers (open tabs) lies in the copy.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from jslab.course import STATE, lessons
from jslab.errors import MachineError

DEFAULT_PORT = 8888
# A Jupyter server is 94 MB, so a machine with more than these in use has other trouble.
TRIES = 50
# JupyterLab asks the internet for news and updates, and puts the answer over the first lesson.
OVERRIDES = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": False,
    }
}


def serve(
    copy: Path,
    *,
    port: int | None = None,
    browser: bool = True,
    say: Callable[[str], None] = print,
) -> None:
    """Run JupyterLab on a learner's copy until Ctrl-C or SIGTERM; its kernels end with it.

    Listens on 127.0.0.1 only. Without a port it takes 8888 or the next free one; a port that is named is
    taken or refused.

    Raises MachineError when no port is free.
    """
    from jupyterlab.labapp import LabApp  # type: ignore[import-untyped]

    token = secrets.token_hex(16)
    first = f"lab/tree/{lessons()[0].path.name}"
    try:
        server = LabApp.initialize_server(argv=_arguments(copy, first, port, browser, token))
    except SystemExit as err:
        raise _no_port(f"port {port} is taken" if port else f"no free port from {DEFAULT_PORT}") from err
    # Without a terminal Jupyter takes Ctrl-C for a reason to leave its kernels behind, and a closed one too.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    address = f"{server.connection_url}{first}?token={token}"
    say(f"\nJupyterLab, with the first lesson open:\n\n    {address}\n")
    say("Ctrl-C here ends it, with all its kernels and servers.\n")
    server.start()
    say("JupyterLab has ended, and all its kernels and servers with it.")


def check_port(port: int | None) -> None:
    """Raise MachineError when ``port`` is taken, before anything is copied or started."""
    if port is None:
        return
    with socket.socket() as probe:
        # As Jupyter binds: a port whose last connections still linger can be had again.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as err:
            raise _no_port(f"port {port} is taken") from err


def _no_port(seen: str) -> MachineError:
    return MachineError("JupyterLab did not start", seen=seen, do="name another port: jslab lab --port N")


def _arguments(copy: Path, first: str, port: int | None, browser: bool, token: str) -> list[str]:
    state = copy / STATE
    settings = state / "settings"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "overrides.json").write_text(json.dumps(OVERRIDES, indent=1))
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port or DEFAULT_PORT,
        "ServerApp.port_retries": 0 if port else TRIES,
        "ServerApp.allow_root": True,  # containers and classrooms; it listens on loopback and wants the token
        "ServerApp.open_browser": browser and _has_display(),
        "Application.log_level": "WARN",
        "ServerApp.root_dir": str(copy),
        "ServerApp.kernel_spec_manager_class": "jslab.kernels.EnvironmentKernels",
        "MultiKernelManager.default_kernel_name": "python3",
        "IdentityProvider.token": token,
        "LabApp.default_url": f"/{first}",
        "LabApp.app_settings_dir": str(settings),
        "LabApp.workspaces_dir": str(state / "workspaces"),
        "LabApp.news_url": None,
    }
    return [f"--{name}={value}" for name, value in options.items()]


def _has_display() -> bool:
    """Tell whether a browser can show anything: on a bare Linux console one would take the terminal over."""
    if sys.platform != "linux":
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
