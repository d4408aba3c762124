"""What shapes uniform words into noise, compiled by numba.

The loops are plain, so that LLVM vectorises them: no array is read and written in one loop, and division by zero needs
no test (error_model). There is no fast-math, so every operation rounds as numpy's does.

Gaussians come from series, with additions and multiplications alone: the mathematical libraries' functions differ in
their last bits between machines, these do not. Terms stand from the highest power down, for Horner's scheme in the
square of the argument, and reach the precision of a double.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from autoprivacy.kernel_cache import njit

MANTISSA_BITS = 53  # of a double, the hidden one included
EXPONENT_BIAS = 1023
QUADRANT_BITS = MANTISSA_BITS - 2  # of an angle, below the two that tell the quadrant
SQUARE_ROOT_OF_TWO = math.sqrt(2.0)
# log m = 2 artanh s = 2 (s + s^3 / 3 + s^5 / 5 + ...) for s = (m - 1) / (m + 1), |s| <= 0.172.
LOGARITHM_TERMS = tuple(2.0 / power for power in range(21, 0, -2))
# sin x / x and cos x for |x| <= pi / 4, in the square of x.
SINE_TERMS = tuple((-1.0) ** (power // 2) / math.factorial(power) for power in range(17, 0, -2))
COSINE_TERMS = tuple((-1.0) ** (power // 2) / math.factorial(power) for power in range(18, -1, -2))

UNUSED_BITS = np.uint64(64 - MANTISSA_BITS)
MANTISSA_MASK = np.int64((1 << (MANTISSA_BITS - 1)) - 1)
ONE_BITS = np.int64(EXPONENT_BIAS << (MANTISSA_BITS - 1))
FRACTION_MASK = np.uint64((1 << QUADRANT_BITS) - 1)
# Masks of the parallel count of bits (Warren, Hacker's Delight, section 5-1), which LLVM knows.
BITS_1 = np.uint64(0x5555555555555555)
BITS_2 = np.uint64(0x3333333333333333)
BITS_4 = np.uint64(0x0F0F0F0F0F0F0F0F)
BYTES = np.uint64(0x0101010101010101)


@njit(cache=True, nogil=True, inline="always")
def _count_bits(x: Any) -> Any:
    x = x - ((x >> np.uint64(1)) & BITS_1)
    x = (x & BITS_2) + ((x >> np.uint64(2)) & BITS_2)
    x = (x + (x >> np.uint64(4))) & BITS_4
    return np.int64((x * BYTES) >> np.uint64(56))


@njit(cache=True, nogil=True)
def centred_binomial(words: Any, pairs: int, out: Any) -> None:
    """out[j] = the number of ones among the `pairs` lowest bits of words[j], less that among the next `pairs`."""
    mask, shift = (np.uint64(1) << np.uint64(pairs)) - np.uint64(1), np.uint64(pairs)
    for j in range(out.size):
        out[j] = _count_bits(words[j] & mask) - _count_bits((words[j] >> shift) & mask)


@njit(cache=True, nogil=True, inline="always")
def _series(terms: Any, square: Any) -> Any:
    total = 0.0
    for term in terms:
        total = total * square + term
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _radii(words: Any, out: Any) -> None:
    """sqrt(-2 log u) for u = (w + 1/2) / 2^53 of the upper 53 bits w."""
    value, mantissa = np.empty(words.size), np.empty(words.size)
    for j in range(words.size):
        value[j] = np.float64(np.int64(words[j] >> UNUSED_BITS)) + 0.5
    bits, mantissa_bits = value.view(np.int64), mantissa.view(np.int64)
    for j in range(words.size):
        mantissa_bits[j] = (bits[j] & MANTISSA_MASK) | ONE_BITS
    for j in range(words.size):
        exponent = np.float64((bits[j] >> (MANTISSA_BITS - 1)) - (EXPONENT_BIAS + MANTISSA_BITS))
        large = mantissa[j] > SQUARE_ROOT_OF_TWO
        m = mantissa[j] * 0.5 if large else mantissa[j]
        exponent = exponent + 1.0 if large else exponent
        s = (m - 1.0) / (m + 1.0)
        out[j] = math.sqrt(-2.0 * (exponent * math.log(2.0) + s * _series(LOGARITHM_TERMS, s * s)))


@njit(cache=True, nogil=True)
def gaussian(words: Any, low: Any, scale: float, low_bits: int, out: Any) -> None:
    """Rounded Gaussians by Box and Muller's method; see `SecureRandom.gaussian`.

    Args:
        words: uniform, uint64 [2, h]; the first row makes the radius, the second the angle.
        low: uniform below 2^low_bits, int64 [2, size of out]; empty where low_bits is 0.
        scale: standard deviation of the part above the low bits.
        low_bits: how many low bits stand below the Gaussian's own.
        out: int64, at most 2 h.
    """
    half = words.shape[1]
    radius, normal = np.empty(half), np.empty(2 * half)
    _radii(words[0], radius)
    turns, left, right = words[1], normal[:half], normal[half:]
    for j in range(half):
        turn = turns[j] >> UNUSED_BITS
        quadrant = turn >> np.uint64(QUADRANT_BITS)
        x = (np.float64(np.int64(turn & FRACTION_MASK)) * (0.5**QUADRANT_BITS) - 0.5) * (math.pi / 2)
        sine, cosine = _series(SINE_TERMS, x * x) * x, _series(COSINE_TERMS, x * x)
        odd = (quadrant & np.uint64(1)) != 0
        signed = -radius[j] if (quadrant & np.uint64(2)) != 0 else radius[j]
        left[j] = signed * (-sine if odd else cosine)
        right[j] = signed * (cosine if odd else sine)
    for j in range(out.size):
        out[j] = np.int64(np.rint(normal[j] * scale))
    if low_bits:
        for j in range(out.size):
            out[j] = (out[j] << low_bits) + low[0, j] + low[1, j] + 1 - (np.int64(1) << low_bits)
