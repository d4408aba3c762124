"""Chooses the code that does the arithmetic: compiled by numba, or plain numpy where numba is missing."""

from __future__ import annotations

import importlib.util
import os
from types import ModuleType

from autoprivacy.errors import UserError

BACKEND_VARIABLE = "AUTOPRIVACY_BACKEND"
BACKENDS = ("numba", "numpy")


def default_backend() -> str:
    """The backend that AUTOPRIVACY_BACKEND names; without it numba where it is installed, else numpy.

    Raises:
        UserError: the variable names a backend that does not exist, or numba where it is not installed.
    """
    name = os.environ.get(BACKEND_VARIABLE, "")
    installed = importlib.util.find_spec("numba") is not None
    if not name:
        return "numba" if installed else "numpy"
    if name not in BACKENDS:
        raise UserError(f"{BACKEND_VARIABLE}={name}: expected one of {', '.join(BACKENDS)}, or unset it")
    if name == "numba" and not installed:
        raise UserError(f"{BACKEND_VARIABLE}=numba: numba is not installed; install it or unset the variable")
    return name


def load_kernels(backend: str | None = None) -> ModuleType:
    """The module that holds a backend's kernels (None: the default's); both offer the same functions, same bits."""
    # Imported here, by name: numba costs a second that the other backend need not pay.
    if (backend or default_backend()) == "numba":
        from autoprivacy.he import ring_numba

        return ring_numba
    from autoprivacy.he import ring_numpy

    return ring_numpy
