"""Values modulo a composite plaintext modulus by its factors, and back by the Chinese remainder theorem.

With a composite plaintext modulus (the paper's section 2, BFV Batching) the parties reduce their shares modulo each
prime factor, evaluate a layer under each with the same keys, and put the results together. Messages are those of the
factors one after the other. Any other set has one component, itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoprivacy.he.parameters.parameter_set import ParameterSet


def moduli_of(parameters: ParameterSet) -> list[int]:
    """The factors of p that a set's evaluations work under; p itself where there are none."""
    return [component.plaintext_modulus for component in parameters.components]


def residues(values: np.ndarray, factors: Sequence[int]) -> list[np.ndarray]:
    """Values modulo p, uint64, modulo each factor of p; ValueError where one is not below p."""
    p = math.prod(factors)
    if values.size and int(values.max()) >= p:
        raise ValueError(f"residues modulo {p}: got {int(values.max())}")
    return [values % np.uint64(factor) for factor in factors]


def combine(parts: Sequence[np.ndarray], factors: Sequence[int]) -> np.ndarray:
    """Undoes `residues` (Garner's algorithm): uint64 below p, exact where p is below 2^63."""
    total, modulus = parts[0], factors[0]
    for part, factor in zip(parts[1:], factors[1:], strict=True):
        difference = (part + np.uint64(factor) - total % np.uint64(factor)) % np.uint64(factor)
        step = difference * np.uint64(pow(modulus, -1, factor)) % np.uint64(factor)
        total = total + np.uint64(modulus) * step
        modulus *= factor
    return total


def pieces_of(name: str, data: bytes, count: int) -> list[bytes]:
    """A message's equal parts; their lengths are checked where they are read."""
    size, rest = divmod(len(data), count)
    if rest:
        raise ValueError(
            f"{name} under {count} plaintext factors: expected a multiple of {count} bytes, got {len(data)}"
        )
    return [data[start : start + size] for start in range(0, len(data), size)] if size else [b""] * count
