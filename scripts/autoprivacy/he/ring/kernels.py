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
            from autoprivacy.he.ring import words32_numba

            return words32_numba
        from autoprivacy.he.ring import words64_numba

        return words64_numba
    if narrow:
        from autoprivacy.he.ring import words32_numpy

        return words32_numpy
    from autoprivacy.he.ring import words64_numpy

    return words64_numpy
