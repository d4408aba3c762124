"""Ring kernels for primes below 2^27 in plain numpy: slow, for machines without numba. Same bits as `narrow_numba`.

Products of two residues fit into 64 bits, so numpy's own remainder does the work of the quotients.
"""

from __future__ import annotations

import numpy as np

from autoprivacy.he.ring.words64_numpy import HALF_BITS, HALF_MASK, arrange_roots

__all__ = ["BLOCK", "arrange_roots", "forward", "fraction", "inverse", "multiply_accumulate", "multiply_add"]
__all__ += ["reduce_signed", "scale"]

# Coefficients of one weight polynomial that stand together; any number would do here.
BLOCK = 8


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.uint64)


def reduce_signed(
    values: np.ndarray,
    primes: np.ndarray,
    units: np.ndarray,
    words: np.ndarray,
    word_quotients: np.ndarray,
    out: np.ndarray,
) -> None:
    """Residues out [T, k, n] of signed integers values [T, n]."""
    out[:] = np.mod(values[:, None, :], primes.astype(np.int64)[:, None])


def forward(values: np.ndarray, primes: np.ndarray, roots: np.ndarray, quotients: np.ndarray) -> None:
    """Transforms values [T, k, n] in place."""
    count, k, degree = values.shape
    prime, blocks = _wide(primes)[:, None, None], 1
    while blocks < degree:
        pairs = values.reshape(count, k, blocks, 2, degree // (2 * blocks))
        x = _wide(pairs[:, :, :, 0])
        y = pairs[:, :, :, 1] * _wide(roots[:, blocks : 2 * blocks, None]) % prime
        pairs[:, :, :, 0] = (x + y) % prime
        pairs[:, :, :, 1] = (x + prime - y) % prime
        blocks *= 2


def inverse(
    values: np.ndarray,
    primes: np.ndarray,
    roots: np.ndarray,
    quotients: np.ndarray,
    scales: np.ndarray,
    scale_quotients: np.ndarray,
) -> None:
    """Undoes `forward` in place; scales = 1/n modulo each prime."""
    count, k, degree = values.shape
    prime, blocks = _wide(primes)[:, None, None], degree // 2
    while blocks:
        pairs = values.reshape(count, k, blocks, 2, degree // (2 * blocks))
        x, y = _wide(pairs[:, :, :, 0]), _wide(pairs[:, :, :, 1])
        pairs[:, :, :, 0] = (x + y) % prime
        pairs[:, :, :, 1] = (x + prime - y) * roots[:, blocks : 2 * blocks, None] % prime
        blocks //= 2
    scale(values, primes, scales, scale_quotients, values)


def multiply_add(
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    primes: np.ndarray,
    units: np.ndarray,
    words: np.ndarray,
    word_quotients: np.ndarray,
    out: np.ndarray,
) -> None:
    """out = x * y + z point by point, x, z and out [T, k, n], y [1 or T, k, n]."""
    out[:] = (_wide(x) * y + z) % primes[:, None]


def scale(x: np.ndarray, primes: np.ndarray, factors: np.ndarray, quotients: np.ndarray, out: np.ndarray) -> None:
    """out [T, k, n] = x times one factor per prime, for any 32-bit x."""
    out[:] = _wide(x) * factors[:, None] % primes[:, None]


def fraction(x: np.ndarray, high: np.ndarray, low: np.ndarray, out: np.ndarray) -> None:
    """out [T, n] = sum over i of x_i / prime_i modulo 1; as in `ring_numpy`, x 32 bits wide."""
    value = _wide(x)
    upper = value * (low >> HALF_BITS)[:, None] + ((value * (low & HALF_MASK)[:, None]) >> HALF_BITS)
    np.sum(value * high[:, None] + (upper >> HALF_BITS), axis=1, out=out)


def multiply_accumulate(
    x: np.ndarray,
    weights: np.ndarray,
    inputs: np.ndarray,
    starts: np.ndarray,
    primes: np.ndarray,
    units: np.ndarray,
    words: np.ndarray,
    word_quotients: np.ndarray,
    limits: np.ndarray,
    out: np.ndarray,
) -> None:
    """out[o] = sum of x[inputs[p]] * weights[p] over p from starts[o] to starts[o + 1].

    x [I, m, k, n], weights [k, n / BLOCK, P, BLOCK], out [O, m, k, n]. Every product is reduced: `limits` does not
    matter here.
    """
    prime = _wide(primes)[:, None]
    for o in range(starts.size - 1):
        total = np.zeros(out.shape[1:], np.uint64)
        for p in range(starts[o], starts[o + 1]):
            total += _wide(x[inputs[p]]) * weights[:, :, p].reshape(x.shape[2:]) % prime
        out[o] = total % prime
