"""BFV's encoding: plaintexts modulo p as multiples of q/p modulo q, and back, exact in the residue number system."""

from __future__ import annotations

import math

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.he.kernels import load_kernels
from autoprivacy.he.ring import Ring

MAXIMUM_PLAINTEXT_BITS = 31  # p^2 and what is added to it stay below 2^63


class PlaintextEncoding:
    """m -> round(q m / p) modulo q, and v -> round(p v / q) modulo p, for plaintexts in coefficients.

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
        self._kernels = load_kernels(ring.backend)
        self._q = q
        self._modulus = np.uint64(plaintext_modulus)
        self._unit = np.uint64((1 << 64) // plaintext_modulus)
        self._modulus_inverses = [pow(plaintext_modulus, -1, prime) for prime in ring.primes]
        self._cofactors = [q // prime for prime in ring.primes]
        self._cofactor_inverses = [
            pow(cofactor, -1, prime) for cofactor, prime in zip(self._cofactors, ring.primes, strict=True)
        ]

    def encode(self, plain: np.ndarray) -> np.ndarray:
        """round(q m / p), halves up: uint64 [..., n] below p -> [..., k, n].

        round(q m / p) = (q m + h - r) / p with h = floor(p / 2), r = (q m + h) mod p; modulo a prime of q, q m is 0.
        """
        return self._ring.scale(self._ring.reduce(self._half_less_remainder(plain)), self._modulus_inverses)

    def decode(self, value: np.ndarray) -> np.ndarray:
        """round(p v / q) modulo p: uint64 [..., k, n] -> [..., n].

        v / q modulo 1 is the sum of y_i / prime_i, taken as a 64-bit fraction that is up to 2k units too small; where
        that could change the rounding (a share of about k p 2^-62 of all values), exact integers decide.
        """
        parts = self._ring.scale(value, self._cofactor_inverses)
        plain = np.empty(value.shape[:-2] + value.shape[-1:], np.uint64)
        slack = np.uint64(2 * len(self._ring.primes) * self.plaintext_modulus)
        fractions = self._ring.fraction(parts).reshape(-1)
        self._kernels.round_fractions(fractions, self._modulus, slack, plain.reshape(-1))
        unsure = np.nonzero(plain == self._modulus)
        if unsure[0].size:
            values = self._integers(np.moveaxis(parts, -2, -1)[unsure])
            p = self.plaintext_modulus
            plain[unsure] = [(2 * p * v + self._q) // (2 * self._q) % p for v in values]
        return plain

    def noise(self, value: np.ndarray, plain: np.ndarray) -> np.ndarray:
        """v - q m / p for a decrypted v [..., k, n] that encodes m [..., n], centred modulo q: float64 [..., n]."""
        difference = self._ring.subtract(value, self.encode(plain))
        parts = np.moveaxis(self._ring.scale(difference, self._cofactor_inverses), -2, -1)
        integers = self._integers(parts.reshape(-1, len(self._ring.primes)))
        centred = [float(v - self._q if 2 * v > self._q else v) for v in integers]
        return np.array(centred).reshape(plain.shape) + self._half_less_remainder(plain) / self.plaintext_modulus

    def _half_less_remainder(self, plain: np.ndarray) -> np.ndarray:
        """h - r of `encode`, int64; divided by p it is round(q m / p) - q m / p."""
        out = np.empty(plain.shape, np.int64)
        factor = np.uint64(self._q % self.plaintext_modulus)
        flat = np.ascontiguousarray(plain).reshape(-1)
        self._kernels.centred_remainders(flat, factor, self._modulus, self._unit, out.reshape(-1))
        return out

    def _integers(self, parts: np.ndarray) -> list[int]:
        """Integers in [0, q) from parts [count, k], y_i = v (q / prime_i)^-1 modulo prime_i."""
        return [
            sum(int(part) * cofactor for part, cofactor in zip(row, self._cofactors, strict=True)) % self._q
            for row in parts
        ]
