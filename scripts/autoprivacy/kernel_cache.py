"""numba's decorator for compiled kernels, with a cache on disk that sees edits of what a kernel is made of.

numba looks at the file of the function alone: after an edit of an intrinsic or a constant that a kernel takes from
another file it would run the old kernel in silence. Here a kernel also depends on the library files that its file
imports, as Python understands them: comments do not count.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import InTreeCacheLocator, UserProvidedCacheLocator, UserWideCacheLocator

from autoprivacy.workflow.fingerprint import SourceFiles

LIBRARY = Path(__file__).parents[1]

config: Any = numba.config  # whose attributes come from environment variables, unseen by type checkers


@cache
def _imports(file: str) -> str:
    """A digest of the library files that a Python file imports; what was parsed is kept beside this file."""
    files = SourceFiles(LIBRARY, LIBRARY / "autoprivacy" / "__pycache__" / "kernel-sources.json")
    found = files.fingerprint(files.imported(file))
    files.save()
    return found


class _WithImports:
    """Adds the imports to what numba takes a cached kernel to depend on."""

    _py_file: str

    def get_source_stamp(self) -> tuple[Any, str]:
        return super().get_source_stamp(), _imports(self._py_file)  # type: ignore[misc]


class InGivenFolder(_WithImports, UserProvidedCacheLocator):
    """The cache in the folder NUMBA_CACHE_DIR."""


class BesideTheSource(_WithImports, InTreeCacheLocator):
    """The cache in the __pycache__ of the file's folder."""


class InHome(_WithImports, UserWideCacheLocator):
    """The cache in the user's folder of caches, for an installation that cannot be written."""


@cache
def _warn_once() -> None:
    logging.warning(
        "compiled kernels cannot be kept, as neither the installation nor the home folder can be written: every start "
        "takes a minute longer; set NUMBA_CACHE_DIR to a folder that can"
    )


LOCATORS = ",".join(f"{__name__}.{locator.__name__}" for locator in (InGivenFolder, BesideTheSource, InHome))


def njit(**options: Any) -> Callable[[Callable], Any]:
    """numba.njit with these options, for a function of the library."""

    def compiled(function: Callable) -> Any:
        before = config.CACHE_LOCATOR_CLASSES
        config.CACHE_LOCATOR_CLASSES = LOCATORS  # read when the function is decorated
        try:
            return numba.njit(**options)(function)
        except RuntimeError:  # no folder for the cache can be written: each process compiles for itself
            _warn_once()
            return numba.njit(**{**options, "cache": False})(function)
        finally:
            config.CACHE_LOCATOR_CLASSES = before

    return compiled
