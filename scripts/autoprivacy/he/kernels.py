"""Chooses the code that does the arithmetic: compiled by numba, or plain numpy where numba is missing."""

from __future__ import annotations

from types import ModuleType

from autoprivacy.backend import default_backend


def load_kernels(backend: str | None = None) -> ModuleType:
    """The module that holds a backend's kernels (None: the default's); both offer the same functions, same bits."""
    # Imported here, by name: numba costs a second that the other backend need not pay.
    if (backend or default_backend()) == "numba":
        from autoprivacy.he import ring_numba

        return ring_numba
    from autoprivacy.he import ring_numpy

    return ring_numpy
