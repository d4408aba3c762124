"""Which code garbles circuits and hashes transfers: compiled by numba, or plain numpy; both give the same bits.

Compiled code takes the processor's AES instructions. Everything else that is compiled has no other form.
"""

from __future__ import annotations

import importlib.util
import os

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
