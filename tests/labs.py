"""A real ``jslab lab`` for tests: started, asked over HTTP, ended."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from tests.waits import until

ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/lab/tree/(\S+)\?token=(\w+)")


class LabServer:
    """A running ``jslab lab``."""

    def __init__(self, home: Path, *arguments: str, python: str | Path = sys.executable) -> None:
        self.log = home / "log"
        environment = {**os.environ, "HOME": str(home), "TMPDIR": str(home)}
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
            environment.pop(name, None)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [python, "-m", "jslab", "lab", str(home / "copy"), *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=home,
            )

    def ready(self) -> None:
        until(lambda: self.ended() or (self.address() and self.reachable()))
        assert not self.ended(), self.log.read_text()

    def ended(self) -> bool:
        return self.process.poll() is not None

    def address(self) -> re.Match[str] | None:
        return ADDRESS.search(self.log.read_text())

    def reachable(self) -> bool:
        try:
            self.ask("/api/status")
        except OSError:
            return False
        return True

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        found = self.address()
        assert found is not None
        request = urllib.request.Request(
            f"http://127.0.0.1:{found[1]}{path}",
            headers={"Authorization": f"token {found[3]}"},
            data=None if body is None else json.dumps(body).encode(),
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
