"""Executes one lesson with papermill, in a process of its own: ``python -m jslab.executor SPEC``.

The runner starts it and reads its events, one JSON object a line, from standard output: ``kernel`` (with the
kernel's pid), ``cell`` (before each code cell) and ``end``. It stops, and its kernel with it, on SIGTERM and
when its standard input closes, so that nothing outlives a runner that was killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Emit = Callable[..., None]


class KernelStartError(Exception):
    """The kernel did not start, or started and never answered."""


# papermill formats paths with the parameters, so the file names here are fixed and plain.
EXECUTED = "executed.ipynb"


@dataclass(frozen=True)
class Job:
    """What the runner asks for; travels as JSON. Times are seconds."""

    notebook: str
    parameters: dict[str, Any]
    solutions: bool
    cell_timeout: int
    start_timeout: int

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Job:
        """Read what ``save`` has written."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def execute(job: Job, output: Path, emit: Emit) -> dict[str, str] | None:
    """Run a lesson and write the executed notebook, as far as it comes; return the error that ended it."""
    import nbformat
    from papermill.engines import papermill_engines
    from papermill.exceptions import PapermillExecutionError
    from papermill.execute import execute_notebook

    notebook = nbformat.read(job.notebook, as_version=4)  # type: ignore[no-untyped-call]
    if job.solutions:
        _fill_in(notebook)
    papermill_engines.register("jslab", _engine(emit, output.parent))
    try:
        execute_notebook(
            notebook,
            str(output),
            parameters=job.parameters,
            engine_name="jslab",
            kernel_name="python3",
            progress_bar=False,
            start_timeout=job.start_timeout,
            execution_timeout=job.cell_timeout,
        )
    except PapermillExecutionError as err:
        return {"name": err.ename, "text": str(err.evalue)}
    return None


def _fill_in(notebook: Any) -> None:
    """Put each exercise's solution where the learner would write."""
    from jslab.exercises import solution_source

    for cell in notebook.cells:
        exercise = cell.metadata.get("jslab", {}).get("exercise")
        if exercise and cell.cell_type == "code":
            cell.source = solution_source(exercise)


def _engine(emit: Emit, folder: Path) -> type:
    """Make the papermill engine that uses this environment's kernel and reports as it goes."""
    import nbformat.v4
    from jupyter_client.manager import AsyncKernelManager
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine

    from jslab.kernels import EnvironmentKernels

    class Client(PapermillNotebookClient):  # type: ignore[misc]
        running = 0

        def create_kernel_manager(self) -> Any:
            kernels = EnvironmentKernels(parent=self)
            self.km: Any = AsyncKernelManager(
                kernel_name="python3",
                kernel_spec_manager=kernels,
                connection_file=str(folder / "kernel.json"),  # goes with the folder, also after a hard kill
            )
            return self.km

        def start_new_kernel_client(self) -> Any:
            emit("kernel", pid=self.km.provisioner.pid)
            try:
                return super().start_new_kernel_client()
            except RuntimeError as err:
                raise KernelStartError(str(err)) from err

        def tell(self, cell: Any, cell_index: int) -> None:
            self.running = cell_index
            emit("cell", index=cell_index, total=len(self.nb.cells))

    class Engine(NBClientEngine):  # type: ignore[misc]
        @classmethod
        def execute_managed_notebook(
            cls, nb_man: Any, kernel_name: str, start_timeout: int, execution_timeout: int, **_: Any
        ) -> None:
            client = Client(nb_man, timeout=execution_timeout, startup_timeout=start_timeout)
            client.on_cell_execute = client.tell
            try:
                client.execute()
            except (CellTimeoutError, DeadKernelError) as err:
                # papermill knows only errors that the kernel sent: write this one where the lesson stopped.
                cell = nb_man.nb.cells[client.running]
                error = nbformat.v4.new_output("error", **_no_answer(err, execution_timeout))  # type: ignore[no-untyped-call]
                cell.outputs.append(error)
                nb_man.cell_exception(cell, cell_index=client.running)

    return Engine


def _no_answer(err: Exception, limit: int) -> dict[str, Any]:
    name = type(err).__name__
    text = (
        f"the cell ran longer than {limit} s and was stopped"
        if name == "CellTimeoutError"
        else "the kernel died while it ran this cell"
    )
    return {"ename": name, "evalue": text, "traceback": [f"{name}: {text}"]}


def _events() -> Emit:
    """Keep standard output for events: what the kernel writes to its own goes to standard error."""
    descriptor = os.dup(1)
    os.dup2(2, 1)

    def emit(event: str, **facts: Any) -> None:
        os.write(descriptor, json.dumps({"event": event, **facts}).encode() + b"\n")

    return emit


def _stop_with_parent() -> None:
    """End this process as SIGTERM would when the runner is gone."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt  # unwinds through nbclient, which ends the kernel on its way


def main(folder: Path) -> int:
    """Execute the job that lies in a folder."""
    emit = _events()
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    error = None
    try:
        error = execute(Job.load(folder / "job.json"), folder / EXECUTED, emit)
    except KeyboardInterrupt:
        return 130
    except Exception as err:  # a notebook that cannot be read, filled in or parametrised, or no kernel
        error = {"name": type(err).__name__, "text": str(err)}
    emit("end", error=error)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
