"""The one kernel of this environment, whatever kernels the user has registered elsewhere."""

from __future__ import annotations

from jupyter_client.kernelspec import KernelSpecManager


class EnvironmentKernels(KernelSpecManager):
    """Knows only ``python3``, run by the interpreter that runs jslab.

    Jupyter looks for kernels in the user's directories first; a ``python3`` found there belongs to an
    environment without jslab in it. With no directories to look in, ipykernel's own remains.
    """

    def _kernel_dirs_default(self) -> list[str]:
        return []
