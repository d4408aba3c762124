"""Chooses the code that hashes labels: compiled by numba around the processor's AES instructions, or plain numpy."""

from __future__ import annotations

import importlib.util
import platform
from functools import cache
from types import ModuleType

from autoprivacy import backend as chosen


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
    """As `backend.default_backend`, but `numpy` where compiled hashing is not supported."""
    name = chosen.default_backend()
    return name if name != "numba" or numba_supported() else "numpy"


def load_kernels(backend: str | None) -> ModuleType:
    """The module that holds a backend's kernels (None: the default's). All offer the same functions and same bits."""
    # Imported by name, so that what a step depends on can be read off the code, and only when wanted: numba is slow
    # to import.
    if (backend or default_backend()) == "numba":
        from autoprivacy.ot import kernels_numba

        return kernels_numba
    from autoprivacy.ot import kernels_numpy

    return kernels_numpy
