"""Chooses the code that garbles: compiled by numba around the processor's AES instructions, or plain numpy."""

from __future__ import annotations

from types import ModuleType

from autoprivacy.ot.kernels import default_backend


def load_kernels(backend: str | None) -> ModuleType:
    """The module that holds a backend's kernels (None: the default's). All offer the same functions and same bits."""
    # Imported by name, so that what a step depends on can be read off the code, and only when wanted: numba is slow
    # to import.
    if (backend or default_backend()) == "numba":
        from autoprivacy.gc import garbling_numba

        return garbling_numba
    from autoprivacy.gc import garbling_numpy

    return garbling_numpy
