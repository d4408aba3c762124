"""BFV's encoding: plaintexts modulo p as multiples of q/p modulo q, exact in the residue number system."""

from __future__ import annotations

import math

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.he.ring import words64_numba as kernels
from autoprivacy.he.ring.ring import Ring
from autoprivacy.quantization.architecture import MAXIMUM_PLAINTEXT_BITS


class PlaintextEncoding:
    """m -> round(q m / p) modulo q, for plaintexts in coefficients.

    Rounding, not floor(q/p) m: the latter loses (q mod p) times the weights, up to the size of p, to noise.

    Args:
        ring: the ring modulo q.
        plaintext_modulus: p, at most 31 bits and without a factor in common with q.

    Raises:
        UserError: p is not as above.
    """

    def __init__(self, ring: Ring, plaintext_modulus: int) -> None:
        q = math.prod(ring.primes)
        if not 2 <= plaintext_modulus < 1 << MAXIMUM_PLAINTEXT_BITS or math.gcd(q, plaintext_modulus) != 1:
            raise UserError(
                f"plaintext modulus {plaintext_modulus}: expected 2 to 2^{MAXIMUM_PLAINTEXT_BITS} - 1 "
                f"and no common factor with the ciphertext primes {ring.primes}"
            )
        self.plaintext_modulus = plaintext_modulus
        self._ring = ring
        self._q = q
        self._modulus = np.uint64(plaintext_modulus)
        self._unit = np.uint64((1 << 64) // plaintext_modulus)
        self._modulus_inverses = [pow(plaintext_modulus, -1, prime) for prime in ring.primes]

    def encode(self, plain: np.ndarray) -> np.ndarray:
        """round(q m / p), halves up: uint64 [..., n] below p -> [..., k, n].

        round(q m / p) = (q m + h - r) / p with h = floor(p / 2), r = (q m + h) mod p; modulo a prime of q, q m is 0.
        """
        return self._ring.scale(self._ring.reduce(self._half_less_remainder(plain)), self._modulus_inverses)

    def _half_less_remainder(self, plain: np.ndarray) -> np.ndarray:
        """h - r of `encode`, int64."""
        out = np.empty(plain.shape, np.int64)
        factor = np.uint64(self._q % self.plaintext_modulus)
        flat = np.ascontiguousarray(plain).reshape(-1)
        kernels.centred_remainders(flat, factor, self._modulus, self._unit, out.reshape(-1))
        return out
