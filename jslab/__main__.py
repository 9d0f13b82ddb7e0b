"""``python -m jslab`` is the command ``jslab``."""

from __future__ import annotations

import sys

from jslab.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
