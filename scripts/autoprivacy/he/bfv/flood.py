"""Gaussian floods wider than 64-bit integers hold, made directly in the residue number system."""

from __future__ import annotations

import math

import numpy as np

from autoprivacy.he.ring.ring import Ring
from autoprivacy.randomness.generator import SecureRandom

# The widest Gaussian that SecureRandom.gaussian draws as int64.
WIDEST_GAUSSIAN = 2.0**58
# Low bits that are drawn at a time below the Gaussian's own.
LIMB_BITS = 32


def wide_flood(ring: Ring, count: int, standard_deviation: float, random: SecureRandom) -> np.ndarray:
    """Rounded Gaussians of any width, coefficients [count, k, n].

    The high part is Gaussian as `SecureRandom.gaussian` draws it, the low limbs are uniform. They add less than 2^-50
    of the variance; their steps, 2^-57 of the width and less, are finer than any shift that a flood is to hide.

    Args:
        ring: the ring modulo q.
        count: how many polynomials.
        standard_deviation: of each coefficient.
        random: the source, cryptographic.
    """
    shape = (count, ring.degree)
    limbs = max(0, math.ceil((math.log2(standard_deviation) - math.log2(WIDEST_GAUSSIAN)) / LIMB_BITS))
    total = ring.reduce(random.gaussian(shape, standard_deviation / 2.0 ** (LIMB_BITS * limbs)))
    for _ in range(limbs):
        low = ring.reduce(random.below(1 << LIMB_BITS, shape).astype(np.int64) - (1 << (LIMB_BITS - 1)))
        total = ring.add(ring.scale(total, [(1 << LIMB_BITS) % prime for prime in ring.primes]), low)
    return total
