"""Showing in a notebook what changes later."""

from __future__ import annotations

from typing import Any


def shown(thing: object) -> Any:
    """Show it in the cell that runs and return the handle to show it anew; None outside of a notebook."""
    from IPython.core.getipython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        return None
    return display(thing, display_id=True)  # type: ignore[no-untyped-call]
