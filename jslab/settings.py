"""What can be set from outside: ``JSLAB_*`` variables, read once into one frozen dataclass."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jslab.errors import CourseError, DirectoryError, SettingsError

BACKENDS = ("embedded", "kind", "kubernetes")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set; arguments of ``jslab.start`` win over variables."""

    backend: str = "embedded"
    """``embedded``, ``kind`` or ``kubernetes`` (JSLAB_BACKEND)."""
    context: str | None = None
    """Context of a kubeconfig, for ``kubernetes`` only; never guessed (JSLAB_CONTEXT)."""
    namespace: str = "jslab"
    """Namespace on Kubernetes (JSLAB_NAMESPACE)."""
    manifests: Path | None = None
    """A folder with an edited copy of the manifests (JSLAB_MANIFESTS)."""
    data: Path | None = None
    """Where embedded servers keep their streams; a folder of the user's is never deleted (JSLAB_DATA)."""
    timeout: float = 30.0
    """Seconds a lab may take to become ready (JSLAB_TIMEOUT)."""
    server: Path | None = None
    """The ``nats-server`` to run instead of the one that came with the package (JSLAB_SERVER)."""
    image: str | None = None
    """The server image for kind and kubernetes, instead of the manifests' own (JSLAB_IMAGE)."""
    kind_image: str | None = None
    """The node image that a kind cluster is made from, instead of kind's own (JSLAB_KIND_IMAGE)."""
    kind_cluster: str | None = None
    """Name of the kind cluster, instead of the one in manifests/kind/cluster.yaml (JSLAB_KIND_CLUSTER)."""
    take_over: bool = field(default=False, compare=False)
    """Whether to take a shared lab that another notebook has."""
    state: Path | None = None
    """Where running embedded labs live, default a private folder in the temp directory (JSLAB_STATE)."""


def read(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the ``JSLAB_*`` variables. Raises SettingsError for a value that makes no sense."""
    backend = environ.get("JSLAB_BACKEND") or "embedded"
    check_backend(backend, "JSLAB_BACKEND")
    return Settings(
        backend=backend,
        context=environ.get("JSLAB_CONTEXT") or None,
        namespace=environ.get("JSLAB_NAMESPACE") or "jslab",
        manifests=_path(environ, "JSLAB_MANIFESTS"),
        data=_path(environ, "JSLAB_DATA"),
        timeout=_seconds(environ, "JSLAB_TIMEOUT", 30.0),
        server=_path(environ, "JSLAB_SERVER"),
        image=environ.get("JSLAB_IMAGE") or None,
        kind_image=environ.get("JSLAB_KIND_IMAGE") or None,
        kind_cluster=environ.get("JSLAB_KIND_CLUSTER") or None,
        state=_path(environ, "JSLAB_STATE"),
    )


def check_backend(backend: str, source: str) -> None:
    """Raise SettingsError unless ``backend`` is one of BACKENDS; ``source`` says where it came from."""
    if backend not in BACKENDS:
        raise SettingsError(
            f"{source} names no backend", seen=repr(backend), do=f"use one of {', '.join(BACKENDS)}"
        )


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    value = environ.get(name)
    return Path(value).expanduser().resolve() if value else None


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    value = environ.get(name)
    if not value:
        return default
    try:
        seconds = float(value)
    except ValueError:
        raise _no_seconds(name, value) from None
    check_seconds(seconds, name)
    return seconds


def check_seconds(seconds: float, source: str) -> None:
    """Raise SettingsError unless somebody could wait for so long; ``source`` says where it came from."""
    if not 0 < seconds < float("inf"):
        raise _no_seconds(source, seconds)


def _no_seconds(source: str, value: object) -> SettingsError:
    return SettingsError(f"{source} is no number of seconds", seen=repr(value), do="try 60")


def state_dir(settings: Settings) -> Path:
    """Return the private folder of running embedded labs, made if missing.

    One per user in the temp directory. Raises DirectoryError when it cannot be made, or when it belongs
    to somebody else: in a shared temp directory anyone may have put a link there first.
    """
    path = settings.state or Path(tempfile.gettempdir()) / f"jslab-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, parents=settings.state is not None, exist_ok=True)
        owner, link = path.lstat().st_uid, path.is_symlink()
        if owner == os.getuid() and not link:
            # The one way to know: root may write wherever permissions forbid it, but not everywhere.
            with tempfile.TemporaryFile(dir=path):
                return path
    except OSError as err:
        raise DirectoryError(
            f"the folder for running labs, {path}, cannot be written to",
            seen=str(err),
            do="set JSLAB_STATE to a folder you can write to",
        ) from err
    raise DirectoryError(
        f"the folder for running labs, {path}, is not yours",
        seen=f"owner {owner}, you are {os.getuid()}{', a link' if link else ''}",
        do="set JSLAB_STATE to a folder you can write to",
    )


def course_folder(name: str) -> Path:
    """Return ``notebooks``, ``exercises`` or ``manifests``: from the wheel, else from the checkout."""
    package = Path(__file__).resolve().parent
    for root in (package / "_course", package.parent):
        if (root / name).is_dir():
            return root / name
    raise CourseError(
        f"the course's {name} are not installed",
        seen=f"neither {package / '_course' / name} nor {package.parent / name}",
        do="install jslab again; a checkout needs all its folders",
    )
