"""What shapes uniform words into noise, in plain numpy. Same functions and bits as `sampling_numba`."""

from __future__ import annotations

import math

import numpy as np

from autoprivacy.randomness.gaussian_series import (
    COSINE_TERMS,
    EXPONENT_BIAS,
    LOGARITHM_TERMS,
    MANTISSA_BITS,
    QUADRANT_BITS,
    SINE_TERMS,
    SQUARE_ROOT_OF_TWO,
)

UNUSED_BITS = np.uint64(64 - MANTISSA_BITS)


def centred_binomial(words: np.ndarray, pairs: int, out: np.ndarray) -> None:
    """out[j] = the number of ones among the `pairs` lowest bits of words[j], less that among the next `pairs`."""
    mask = np.uint64((1 << pairs) - 1)
    ones = np.bitwise_count(words & mask).astype(np.int64)
    np.subtract(ones, np.bitwise_count((words >> np.uint64(pairs)) & mask), out=out)


def _series(terms: tuple[float, ...], square: np.ndarray) -> np.ndarray:
    total = np.zeros_like(square)
    for term in terms:
        total = total * square + term
    return total


def _radii(words: np.ndarray) -> np.ndarray:
    """sqrt(-2 log u) for u = (w + 1/2) / 2^53 of the upper 53 bits w."""
    value = (words >> UNUSED_BITS).astype(np.int64).astype(np.float64) + 0.5
    bits = value.view(np.int64)
    mantissa = (bits & ((1 << (MANTISSA_BITS - 1)) - 1) | (EXPONENT_BIAS << (MANTISSA_BITS - 1))).view(np.float64)
    exponent = ((bits >> (MANTISSA_BITS - 1)) - (EXPONENT_BIAS + MANTISSA_BITS)).astype(np.float64)
    large = mantissa > SQUARE_ROOT_OF_TWO
    mantissa, exponent = np.where(large, mantissa * 0.5, mantissa), np.where(large, exponent + 1.0, exponent)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    return np.sqrt(-2.0 * (exponent * math.log(2.0) + s * _series(LOGARITHM_TERMS, s * s)))


def gaussian(words: np.ndarray, low: np.ndarray, scale: float, low_bits: int, out: np.ndarray) -> None:
    """Rounded Gaussians by Box and Muller's method; the arguments are those of `sampling_numba.gaussian`."""
    radius = _radii(words[0])
    turn = (words[1] >> UNUSED_BITS).astype(np.int64)
    quadrant = turn >> QUADRANT_BITS
    x = ((turn & ((1 << QUADRANT_BITS) - 1)).astype(np.float64) * 0.5**QUADRANT_BITS - 0.5) * (math.pi / 2)
    sine, cosine = _series(SINE_TERMS, x * x) * x, _series(COSINE_TERMS, x * x)
    odd, signed = quadrant & 1 != 0, np.where(quadrant & 2 != 0, -radius, radius)
    pair = signed * np.where(odd, -sine, cosine), signed * np.where(odd, cosine, sine)
    normal = np.concatenate(pair)[: out.size]
    np.rint(normal * scale, out=normal)
    out[:] = normal.astype(np.int64)
    if low_bits:
        out[:] = (out << low_bits) + low - (1 << (low_bits - 1))
