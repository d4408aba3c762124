"""Chooses the code that garbles: compiled by numba around the processor's AES instructions, or plain numpy."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
from functools import cache
from types import ModuleType

from autoprivacy.errors import UserError

BACKEND_VARIABLE = "AUTOPRIVACY_BACKEND"
MODULES = {"numba": "autoprivacy.gc.garbling_numba", "numpy": "autoprivacy.gc.garbling_numpy"}


@cache
def numba_supported() -> bool:
    """Whether numba is installed and compiles for an x86 processor that has AES instructions."""
    if platform.machine().lower() not in ("x86_64", "amd64") or not importlib.util.find_spec("numba"):
        return False
    from llvmlite.binding import get_host_cpu_features
    from numba import config

    # Set, these make numba compile for another processor than this one.
    other = any(getattr(config, setting) for setting in ("CPU_NAME", "CPU_FEATURES"))
    return not other and bool(get_host_cpu_features().get("aes"))


def default_backend() -> str:
    """`numba` where it is supported and AUTOPRIVACY_BACKEND does not say `numpy`, else `numpy`.

    Raises:
        UserError: the variable names a backend that does not exist.
    """
    name = os.environ.get(BACKEND_VARIABLE, "")
    if name and name not in MODULES:
        raise UserError(f"{BACKEND_VARIABLE}={name}: expected one of {', '.join(MODULES)}, or unset it")
    return "numba" if name != "numpy" and numba_supported() else "numpy"


def load_kernels(backend: str | None) -> ModuleType:
    """The module that holds a backend's kernels (None: the default's). All offer the same functions and same bits."""
    return importlib.import_module(MODULES[backend or default_backend()])
