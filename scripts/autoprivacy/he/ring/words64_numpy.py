"""Ring kernels for primes up to 60 bits in plain numpy: slow, for machines without numba. Same bits as `ring_numba`."""

from __future__ import annotations

import numpy as np

HALF_BITS = np.uint64(32)
HALF_MASK = np.uint64((1 << 32) - 1)
# 64 values of b bits fill b words, so a value starts at the same bit of its group's words in every group.
GROUP = 64
# Coefficients of one weight polynomial that stand together; any number would do here.
BLOCK = 512


def multiply_high(x: np.ndarray, y: np.ndarray | np.uint64) -> np.ndarray:
    """The upper 64 bits of 64 x 64-bit products, from four 32-bit products."""
    x_low, x_high = x & HALF_MASK, x >> HALF_BITS
    y_low, y_high = y & HALF_MASK, y >> HALF_BITS
    middle = x_high * y_low + ((x_low * y_low) >> HALF_BITS)
    other = x_low * y_high + (middle & HALF_MASK)
    return x_high * y_high + (middle >> HALF_BITS) + (other >> HALF_BITS)


def _shoup(x: np.ndarray, factor: np.ndarray, quotient: np.ndarray, prime: np.ndarray) -> np.ndarray:
    """x * factor modulo the prime for any 64-bit x; quotient = floor(2^64 factor / prime)."""
    lazy = x * factor - multiply_high(x, quotient) * prime
    return np.minimum(lazy, lazy - prime)


def _add(x: np.ndarray, y: np.ndarray, prime: np.ndarray) -> np.ndarray:
    total = x + y
    return np.minimum(total, total - prime)


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


def arrange_roots(tables: np.ndarray) -> np.ndarray:
    """Root tables as these kernels read them: in the order of `ring.root_tables`."""
    return tables


def forward(values: np.ndarray, primes: np.ndarray, roots: np.ndarray, quotients: np.ndarray) -> None:
    """Transforms values [T, k, n] in place."""
    count, k, degree = values.shape
    prime = primes[:, None, None]
    blocks = 1
    while blocks < degree:
        pairs = values.reshape(count, k, blocks, 2, degree // (2 * blocks))
        root, quotient = (table[:, blocks : 2 * blocks, None] for table in (roots, quotients))
        x, y = pairs[:, :, :, 0].copy(), _shoup(pairs[:, :, :, 1], root, quotient, prime)
        pairs[:, :, :, 0] = _add(x, y, prime)
        pairs[:, :, :, 1] = _add(x, prime - y, prime)
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
    prime = primes[:, None, None]
    blocks = degree // 2
    while blocks:
        pairs = values.reshape(count, k, blocks, 2, degree // (2 * blocks))
        root, quotient = (table[:, blocks : 2 * blocks, None] for table in (roots, quotients))
        x, y = pairs[:, :, :, 0].copy(), pairs[:, :, :, 1].copy()
        pairs[:, :, :, 0] = _add(x, y, prime)
        pairs[:, :, :, 1] = _shoup(x + prime - y, root, quotient, prime)
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
    prime, unit, word, word_quotient = (table[:, None] for table in (primes, units, words, word_quotients))
    upper = _shoup(multiply_high(x, y), word, word_quotient, prime)
    out[:] = _add(_add(upper, _shoup(x * y, np.ones_like(word), unit, prime), prime), z, prime)


def scale(x: np.ndarray, primes: np.ndarray, factors: np.ndarray, quotients: np.ndarray, out: np.ndarray) -> None:
    """out [T, k, n] = x times one factor per prime."""
    out[:] = _shoup(x, factors[:, None], quotients[:, None], primes[:, None])


def fraction(x: np.ndarray, high: np.ndarray, low: np.ndarray, out: np.ndarray) -> None:
    """out [T, n] = sum over i of x_i / prime_i modulo 1, in units of 2^-64, at most 2 k units too small.

    x [T, k, n]; 2^64 high_i + low_i = floor(2^128 / prime_i).
    """
    np.sum(x * high[:, None] + multiply_high(x, low[:, None]), axis=1, out=out)


def centred_remainders(
    values: np.ndarray, factor: np.uint64, modulus: np.uint64, unit: np.uint64, out: np.ndarray
) -> None:
    """out = h - (values * factor + h) modulo p with h = floor(p / 2), int64; p below 2^31."""
    half = modulus >> np.uint64(1)
    out[:] = np.int64(half) - ((values * factor + half) % modulus).astype(np.int64)


def round_fractions(fractions: np.ndarray, modulus: np.uint64, out: np.ndarray) -> None:
    """out = round(p f) modulo p for f in units of 2^-64, halves up."""
    whole = multiply_high(fractions, modulus) + (fractions * modulus >> np.uint64(63))
    out[:] = np.where(whole == modulus, np.uint64(0), whole)


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

    x [I, m, k, n], weights [k, n / width, P, width], out [O, m, k, n]. Every product is reduced: `limits` does not
    matter here.
    """
    out[:] = 0
    for o in range(starts.size - 1):
        for p in range(starts[o], starts[o + 1]):
            factor = weights[:, :, p].reshape(1, *x.shape[2:])
            multiply_add(x[inputs[p]], factor, out[o], primes, units, words, word_quotients, out[o])


def pack(values: np.ndarray, bits: int, words: np.ndarray) -> None:
    """Writes `bits` low bits of every value, first value lowest, into 64-bit words."""
    groups = -(-values.size // GROUP)
    padded = np.zeros((groups, GROUP), np.uint64)
    padded.reshape(-1)[: values.size] = values
    packed = np.zeros((groups, bits), np.uint64)
    for index in range(GROUP):
        word, shift = divmod(index * bits, 64)
        packed[:, word] |= padded[:, index] << np.uint64(shift)
        if shift + bits > 64:
            packed[:, word + 1] |= padded[:, index] >> np.uint64(64 - shift)
    words[:] = packed.reshape(-1)[: words.size]


def unpack(words: np.ndarray, bits: int, out: np.ndarray) -> None:
    """Undoes `pack`; words has one word more than the values fill."""
    groups = -(-out.size // GROUP)
    padded = np.zeros((groups, bits), np.uint64)
    used = min(words.size, padded.size)
    padded.reshape(-1)[:used] = words[:used]
    values = np.empty((groups, GROUP), np.uint64)
    for index in range(GROUP):
        word, shift = divmod(index * bits, 64)
        values[:, index] = padded[:, word] >> np.uint64(shift)
        if shift + bits > 64:
            values[:, index] |= padded[:, word + 1] << np.uint64(64 - shift)
    out[:] = values.reshape(-1)[: out.size] & np.uint64((1 << bits) - 1)


def pack_lanes(values: np.ndarray, bits: np.ndarray, words: np.ndarray) -> None:
    """Writes bits[i] low bits of every value of values [T, k, n] into words; the order is that of `ring_numba`."""
    start, count = 0, len(values)
    for i, width in enumerate(bits.tolist()):
        end = start + values.shape[2] // GROUP * width
        lanes = values[:, i].astype(np.uint64).reshape(count, GROUP, -1)
        packed = np.zeros((count, width, lanes.shape[2]), np.uint64)
        for index in range(GROUP):
            word, shift = divmod(index * width, 64)
            packed[:, word] |= lanes[:, index] << np.uint64(shift)
            if shift + width > 64:
                packed[:, word + 1] |= lanes[:, index] >> np.uint64(64 - shift)
        words[:, start:end] = packed.reshape(count, -1)
        start = end


def unpack_lanes(words: np.ndarray, bits: np.ndarray, out: np.ndarray) -> None:
    """Undoes `pack_lanes`."""
    start, count = 0, len(out)
    for i, width in enumerate(bits.tolist()):
        end = start + out.shape[2] // GROUP * width
        packed = words[:, start:end].reshape(count, width, -1)
        lanes = np.empty((count, GROUP, packed.shape[2]), np.uint64)
        for index in range(GROUP):
            word, shift = divmod(index * width, 64)
            lanes[:, index] = packed[:, word] >> np.uint64(shift)
            if shift + width > 64:
                lanes[:, index] |= packed[:, word + 1] << np.uint64(64 - shift)
        out[:, i] = lanes.reshape(count, -1) & np.uint64((1 << width) - 1)
        start = end
