"""Batching: n residues modulo p in the n slots of one plaintext, so that products act on each slot for itself.

A plaintext's slots are its values at the odd powers of a primitive 2n-th root of unity modulo p. They stand in SEAL's
order: slot i of the first row is the value at the smallest such root to the power 3^i, slot i of the second row at the
power -3^i; so an automorphism rotates the rows or swaps them.
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.he.ring.automorphisms import ROTATION_GENERATOR, permutation, swap_element
from autoprivacy.he.ring.primes import is_prime
from autoprivacy.he.ring.ring import Ring, minimal_root
from autoprivacy.quantization.integer_network import MAXIMUM_MODULUS_BITS


@cache
def batching_factors(p: int, degree: int) -> tuple[int, ...]:
    """The distinct primes == 1 mod 2n whose product is p, ascending.

    Empty where p is no such product, or larger than what values are shared by: that bounds the search, also for what
    another party sends.
    """
    if p >> MAXIMUM_MODULUS_BITS:
        return ()
    found, rest, step = list[int](), p, 2 * degree
    for candidate in itertools.count(step + 1, step):
        if is_prime(rest) or candidate**2 > rest:
            break
        if rest % candidate == 0:
            found.append(candidate)
            rest //= candidate
    found.append(rest)
    batch = all(factor % step == 1 and is_prime(factor) for factor in found)
    return tuple(found) if batch and len(set(found)) == len(found) else ()


class SlotEncoding:
    """Slots to plaintext polynomials and back.

    Args:
        degree: n.
        plaintext_modulus: p, a prime == 1 mod 2n.

    Raises:
        UserError: p does not batch.
    """

    def __init__(self, degree: int, plaintext_modulus: int) -> None:
        if plaintext_modulus % (2 * degree) != 1 or not is_prime(plaintext_modulus):
            raise UserError(
                f"plaintext modulus {plaintext_modulus} does not batch at n = {degree}: slot packing needs a prime "
                f"== 1 mod {2 * degree}; take such a prime, or coefficient packing"
            )
        self._ring = Ring(degree, (plaintext_modulus,))
        self._places = _slot_places(self._ring)

    def encode(self, slots: np.ndarray) -> np.ndarray:
        """Residues uint64 [..., n] in slots -> plaintext coefficients uint64 [..., n]."""
        values = np.empty(slots.shape, self._ring.dtype)
        values[..., self._places] = slots
        return self._ring.inverse(values[..., None, :])[..., 0, :].astype(np.uint64)

    def decode(self, polynomials: np.ndarray) -> np.ndarray:
        """Undoes `encode`."""
        values = self._ring.forward(polynomials[..., None, :].astype(self._ring.dtype))
        return values[..., 0, :][..., self._places].astype(np.uint64)


def _slot_places(ring: Ring) -> np.ndarray:
    """Where each slot stands in the ring's transform, int64 [n]."""
    degree = ring.degree
    root = minimal_root(degree, ring.primes[0])
    # transformed, the polynomial X is the list of the roots
    monomial = np.zeros(degree, np.int64)
    monomial[1] = 1
    place = int(np.flatnonzero(ring.forward(ring.reduce(monomial))[0] == root)[0])
    step = permutation(ring, ROTATION_GENERATOR)[0].tolist()
    places = []
    for _ in range(degree // 2):
        places.append(place)
        place = step[place]
    row = np.array(places)
    return np.concatenate([row, permutation(ring, swap_element(degree))[0][row]])


@cache
def slot_encoding(degree: int, plaintext_modulus: int) -> SlotEncoding:
    """The encoding of that degree and modulus, made once."""
    return SlotEncoding(degree, plaintext_modulus)
