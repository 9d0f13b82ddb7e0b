"""The command ``jslab``. Only the standard library is imported before a command is known."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from jslab.errors import LabError, UnsupportedError
from jslab.settings import BACKENDS

# Exit codes: all is well; a lesson failed; the environment cannot do it (argparse uses 2 as well).
FINE, FAILED, CANNOT = 0, 1, 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        parser.exit(CANNOT)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        code = command(arguments)
        sys.stdout.flush()
        return code
    except LabError as err:
        print(f"jslab: {err}", file=sys.stderr)
        return CANNOT
    except KeyboardInterrupt:
        print("jslab: stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jslab", description="A live lab and course for NATS JetStream on Kubernetes."
    )
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(command=command)
        return sub

    doctor = add("doctor", _doctor, "say what this machine lacks for the course, and what to do about it")
    _add_backend(doctor)
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.add_argument("--table", action="store_true", help="every line of the manifests too")

    lab = add("lab", _lab, "open the course in JupyterLab, on your own copy of the lessons")
    lab.add_argument("directory", nargs="?", metavar="DIR", help="where your copy is (default: jslab-course)")
    lab.add_argument("--port", type=int, help="default: 8888, or another free one")
    lab.add_argument("--no-browser", action="store_true", help="only print the address")

    run = add("run", _run, "run lessons as tests and report on them")
    run.add_argument("lessons", nargs="*", metavar="NN", help="lessons by number, or notebooks")
    run.add_argument(
        "--backend",
        action="append",
        choices=BACKENDS,
        help="default: JSLAB_BACKEND, else embedded; given again, the lessons run on each and are compared",
    )
    run.add_argument("--solutions", action="store_true", help="solve the exercises; an unsolved one fails")
    run.add_argument("--jobs", type=_positive, default=1, metavar="N", help="lessons at a time (default: 1)")
    run.add_argument("--report", metavar="DIR", help="write HTML, JUnit XML and the executed notebooks there")
    run.add_argument(
        "--cell-timeout", type=_positive, default=60, metavar="S", help="seconds for a cell (default: 60)"
    )

    up = add("up", _up, "bring servers up: embedded until Ctrl-C, kind and kubernetes to stay")
    _add_backend(up)
    up.add_argument(
        "--offline", action="store_true", help="kind: the server of this environment, no image pull"
    )
    up.add_argument(
        "--dry-run", action="store_true", help="kind, kubernetes: only ask whether the manifests are accepted"
    )
    status = add("status", _status, "show the labs that run on this machine, or a shared deployment")
    _add_backend(status)
    status.add_argument("--json", action="store_true", help="for programs")
    down = add("down", _down, "take a shared deployment down, with its data")
    _add_backend(down)
    down.add_argument("--yes", action="store_true", help="even if streams in it are not the lab's")

    reset = add("reset", _reset, "put a lesson's original back and keep your file beside it")
    reset.add_argument("lesson", metavar="NN")
    reset.add_argument("--dir", metavar="DIR", help="where your copy is (default: here, or jslab-course)")

    add("clean", _clean, "end servers that a killed kernel left behind, and remove their folders")
    return parser


def _add_backend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", choices=BACKENDS, help="default: JSLAB_BACKEND, else embedded")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _doctor(arguments: argparse.Namespace) -> int:
    import itertools

    from jslab import doctor, doctor_cluster

    findings = []
    backend = arguments.backend or os.environ.get("JSLAB_BACKEND") or BACKENDS[0]
    # One by one: importing the packages takes some seconds.
    for finding in itertools.chain(doctor.examine(backend), doctor_cluster.examine(backend)):
        findings.append(finding)
        if not arguments.json:
            _say(doctor.as_line(finding))
    if arguments.json:
        print(doctor.as_json(findings))
    else:
        print(doctor.summary(findings, table=arguments.table, backend=backend))
    return FINE if doctor.healthy(findings) else CANNOT


def _lab(arguments: argparse.Namespace) -> int:
    from jslab import course, labserver

    labserver.check_port(arguments.port)
    report = course.copy_course(arguments.directory)
    print(report.text())
    labserver.serve(report.directory, port=arguments.port, browser=not arguments.no_browser)
    return FINE


def _run(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from jslab import course, reports, results, runner, settings

    options = runner.Options(
        backends=tuple(dict.fromkeys(arguments.backend or [settings.read().backend])),
        solutions=arguments.solutions,
        jobs=arguments.jobs,
        cell_timeout=arguments.cell_timeout,
        say=_say,
    )
    folder = Path(arguments.report) if arguments.report else None
    ran = runner.run(course.choose(arguments.lessons), options, folder)
    print(f"\n{reports.table(ran)}")
    if folder is not None:
        print(f"report: {folder / 'index.html'}")
    return results.exit_code(ran)


def _say(line: str) -> None:
    print(line, flush=True)


def _up(arguments: argparse.Namespace) -> int:
    from jslab import servers, shared

    chosen = shared.choose(arguments.backend)
    if chosen is None and arguments.offline:
        raise UnsupportedError(
            "--offline is for kind",
            seen="the backend embedded pulls no image",
            do="jslab up --backend kind --offline, or leave --offline out",
        )
    if chosen is None and arguments.dry_run:
        raise UnsupportedError(
            "--dry-run asks an API server, and embedded has none",
            seen="three processes of this machine",
            do="name a backend that has one: jslab up --dry-run --backend kind; what embedded makes of each "
            "line of the manifests: jslab doctor --table",
        )
    if chosen is None:
        servers.up(arguments.backend, _say)
    elif arguments.dry_run:
        print(shared.plan(chosen))
    else:
        shared.up(chosen, _say, offline=arguments.offline)
    return FINE


def _status(arguments: argparse.Namespace) -> int:
    from jslab import servers, shared

    chosen = shared.choose(arguments.backend)
    if chosen is None:
        print(servers.status(as_json=arguments.json))
    else:
        print(shared.status(chosen, as_json=arguments.json))
    return FINE


def _down(arguments: argparse.Namespace) -> int:
    from jslab import shared

    print(shared.down(shared.choose(arguments.backend), _say, yes=arguments.yes))
    return FINE


def _reset(arguments: argparse.Namespace) -> int:
    from jslab import course

    print(course.reset(arguments.lesson, arguments.dir))
    return FINE


def _clean(arguments: argparse.Namespace) -> int:
    from jslab import servers

    print(servers.clean())
    return FINE
