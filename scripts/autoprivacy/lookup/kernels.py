"""Chooses the code that makes, packs and reads one-hot vectors: compiled by numba, or plain numpy."""

from __future__ import annotations

from types import ModuleType

from autoprivacy.ot.kernels import default_backend


def load_making(backend: str | None) -> ModuleType:
    """As `load_kernels`, the steps of making and reading lookups."""
    if (backend or default_backend()) == "numba":
        from autoprivacy.lookup import making_numba

        return making_numba
    from autoprivacy.lookup import making_numpy

    return making_numpy


def load_kernels(backend: str | None) -> ModuleType:
    """The module that holds a backend's kernels (None: the default's). All offer the same functions and same bits."""
    # Imported by name, so that what a step depends on can be read off the code, and only when wanted: numba is slow
    # to import.
    if (backend or default_backend()) == "numba":
        from autoprivacy.lookup import kernels_numba

        return kernels_numba
    from autoprivacy.lookup import kernels_numpy

    return kernels_numpy
