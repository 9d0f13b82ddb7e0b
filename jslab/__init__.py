"""jslab: a Jupyter lab and course for NATS JetStream on Kubernetes.

``lab = await jslab.start()`` in a notebook is where everything begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jslab import departures
    from jslab.errors import LabError
    from jslab.lab import Lab, start

__all__ = ["Lab", "LabError", "__version__", "departures", "start"]
__version__ = "0.1.0"

_HOMES = {"Lab": "jslab.lab", "start": "jslab.lab", "LabError": "jslab.errors", "departures": ""}


def __getattr__(name: str) -> Any:
    # Lazily (PEP 562): `jslab --help` and `jslab doctor` must not need nats or pandas.
    if name not in _HOMES:
        raise AttributeError(f"module 'jslab' has no attribute {name!r}")
    import importlib

    home = _HOMES[name]
    value = getattr(importlib.import_module(home), name) if home else importlib.import_module(f"jslab.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
