"""Chooses the code that does the arithmetic: by the size of the primes, compiled by numba or plain numpy."""

from __future__ import annotations

from types import ModuleType

from autoprivacy.backend import default_backend


def load_kernels(backend: str | None = None, narrow: bool = False) -> ModuleType:
    """The module that holds the kernels.

    Args:
        backend: "numba" or "numpy"; None takes the default's. Both offer the same functions, same bits.
        narrow: those for primes below 2^27 in 32-bit words; else those for larger primes in 64-bit words, and for
            bit packing.
    """
    # Imported here, by name: numba costs a second that the other backend need not pay.
    if (backend or default_backend()) == "numba":
        if narrow:
            from autoprivacy.he import narrow_numba

            return narrow_numba
        from autoprivacy.he import ring_numba

        return ring_numba
    if narrow:
        from autoprivacy.he import narrow_numpy

        return narrow_numpy
    from autoprivacy.he import ring_numpy

    return ring_numpy
