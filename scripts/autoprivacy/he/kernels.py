"""Chooses the code that does the arithmetic: compiled by numba, or plain numpy where numba is missing."""

from __future__ import annotations

import importlib
import importlib.util
import os
from functools import cache
from types import ModuleType

from autoprivacy.errors import UserError

BACKEND_VARIABLE = "AUTOPRIVACY_BACKEND"
MODULES = {"numba": "autoprivacy.he.ring_numba", "numpy": "autoprivacy.he.ring_numpy"}


def default_backend() -> str:
    """The backend that AUTOPRIVACY_BACKEND names; without it numba where it is installed, else numpy.

    Raises:
        UserError: the variable names a backend that does not exist.
    """
    name = os.environ.get(BACKEND_VARIABLE, "")
    if not name:
        return "numba" if importlib.util.find_spec("numba") else "numpy"
    if name not in MODULES:
        raise UserError(f"{BACKEND_VARIABLE}={name}: expected one of {', '.join(MODULES)}, or unset it")
    return name


@cache
def load_kernels(backend: str) -> ModuleType:
    """The module that holds the kernels of a backend; both offer the same functions and return the same bits."""
    return importlib.import_module(MODULES[backend])
