"""Ring kernels for primes up to 60 bits in 64-bit words, and bit packing, compiled by numba.

All of them run without the interpreter's lock, so Python threads overlap. Residues meet nothing but uint64: numba turns
a mix of signed and unsigned 64-bit integers into floating point, hence the typed constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from autoprivacy.kernel_cache import njit

ZERO = np.uint64(0)
ONE = np.uint64(1)
WORD_BITS = np.uint64(64)
# Coefficients of one weight polynomial that stand together: their 128-bit accumulators (2 polynomials, 16 bytes each)
# stay in the first-level cache.
BLOCK = 512
# Values of b bits that fill b words.
GROUP = 64


def _multiply_high(typingctx: Any, x: Any, y: Any) -> Any:
    """The upper 64 bits of a 64 x 64-bit product."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(argument, wide) for argument in arguments))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


def _accumulate(typingctx: Any, high: Any, low: Any, x: Any, y: Any) -> Any:
    """(high, low) + x * y as two 64-bit words; the caller sees to it that 128 bits suffice."""
    pair = types.UniTuple(types.uint64, 2)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide, word = ir.IntType(128), ir.IntType(64)
        high_word, low_word, first, second = (builder.zext(argument, wide) for argument in arguments)
        shift = ir.Constant(wide, 64)
        total = builder.add(builder.or_(builder.shl(high_word, shift), low_word), builder.mul(first, second))
        words = (builder.trunc(builder.lshr(total, shift), word), builder.trunc(total, word))
        return context.make_tuple(builder, pair, words)

    return pair(types.uint64, types.uint64, types.uint64, types.uint64), generate


# Any: mypy takes an intrinsic's generator, which has one argument more, for the function itself.
multiply_high: Any = intrinsic(_multiply_high)
accumulate: Any = intrinsic(_accumulate)


@njit(cache=True, nogil=True, inline="always")
def _shoup_lazy(x: Any, factor: Any, quotient: Any, prime: Any) -> Any:
    """x * factor modulo the prime, in [0, 2 prime), for any 64-bit x; quotient = floor(2^64 factor / prime)."""
    return x * factor - multiply_high(x, quotient) * prime


@njit(cache=True, nogil=True, inline="always")
def _subtract_if_reached(x: Any, bound: Any) -> Any:
    return x - bound if x >= bound else x


@njit(cache=True, nogil=True, inline="always")
def _reduce_wide(high: Any, low: Any, prime: Any, unit: Any, word: Any, word_quotient: Any) -> Any:
    """high 2^64 + low modulo the prime; unit = floor(2^64 / prime), word = 2^64 mod prime."""
    lazy = _shoup_lazy(high, word, word_quotient, prime) + (low - multiply_high(low, unit) * prime)
    return _subtract_if_reached(_subtract_if_reached(lazy, prime + prime), prime)


@njit(cache=True, nogil=True)
def reduce_signed(values: Any, primes: Any, units: Any, words: Any, word_quotients: Any, out: Any) -> None:
    """Residues out [T, k, n] of signed integers values [T, n]."""
    for t in range(values.shape[0]):
        for i in range(primes.size):
            prime, unit = primes[i], units[i]
            for j in range(values.shape[1]):
                value = values[t, j]
                magnitude = ~np.uint64(value) + ONE if value < 0 else np.uint64(value)
                residue = _subtract_if_reached(magnitude - multiply_high(magnitude, unit) * prime, prime)
                out[t, i, j] = prime - residue if value < 0 and residue != ZERO else residue


def arrange_roots(tables: Any) -> Any:
    """Root tables as these kernels read them: in the order of `ring.root_tables`."""
    return tables


@njit(cache=True, nogil=True)
def forward(values: Any, primes: Any, roots: Any, quotients: Any) -> None:
    """Transforms values [T, k, n] in place (Harvey's lazy butterflies, arXiv:1205.2926, algorithm 4)."""
    degree = values.shape[2]
    for t in range(values.shape[0]):
        for i in range(primes.size):
            row, prime = values[t, i], primes[i]
            twice = prime + prime
            gap, blocks = degree >> 1, 1
            while gap:
                for block in range(blocks):
                    root, quotient = roots[i, blocks + block], quotients[i, blocks + block]
                    left = row[2 * gap * block : 2 * gap * block + gap]
                    right = row[2 * gap * block + gap : 2 * gap * (block + 1)]
                    for j in range(gap):
                        x = _subtract_if_reached(left[j], twice)
                        y = _shoup_lazy(right[j], root, quotient, prime)
                        left[j] = x + y
                        right[j] = x + twice - y
                gap, blocks = gap >> 1, blocks << 1
            for j in range(degree):
                row[j] = _subtract_if_reached(_subtract_if_reached(row[j], twice), prime)


@njit(cache=True, nogil=True)
def inverse(values: Any, primes: Any, roots: Any, quotients: Any, scales: Any, scale_quotients: Any) -> None:
    """Undoes `forward` in place; scales = 1/n modulo each prime (Harvey, algorithm 3)."""
    degree = values.shape[2]
    for t in range(values.shape[0]):
        for i in range(primes.size):
            row, prime = values[t, i], primes[i]
            twice = prime + prime
            gap, blocks = 1, degree >> 1
            while blocks:
                for block in range(blocks):
                    root, quotient = roots[i, blocks + block], quotients[i, blocks + block]
                    left = row[2 * gap * block : 2 * gap * block + gap]
                    right = row[2 * gap * block + gap : 2 * gap * (block + 1)]
                    for j in range(gap):
                        x, y = left[j], right[j]
                        left[j] = _subtract_if_reached(x + y, twice)
                        right[j] = _shoup_lazy(x + twice - y, root, quotient, prime)
                gap, blocks = gap << 1, blocks >> 1
            for j in range(degree):
                row[j] = _subtract_if_reached(_shoup_lazy(row[j], scales[i], scale_quotients[i], prime), prime)


@njit(cache=True, nogil=True)
def multiply_add(x: Any, y: Any, z: Any, primes: Any, units: Any, words: Any, word_quotients: Any, out: Any) -> None:
    """out = x * y + z point by point, x, z and out [T, k, n], y [1 or T, k, n]."""
    for t in range(x.shape[0]):
        for i in range(primes.size):
            left, right, addend = x[t, i], y[t if y.shape[0] > 1 else 0, i], z[t, i]
            for j in range(x.shape[2]):
                high, low = accumulate(ZERO, addend[j], left[j], right[j])
                out[t, i, j] = _reduce_wide(high, low, primes[i], units[i], words[i], word_quotients[i])


@njit(cache=True, nogil=True)
def scale(x: Any, primes: Any, factors: Any, quotients: Any, out: Any) -> None:
    """out [T, k, n] = x times one factor per prime."""
    for t in range(x.shape[0]):
        for i in range(primes.size):
            for j in range(x.shape[2]):
                lazy = _shoup_lazy(x[t, i, j], factors[i], quotients[i], primes[i])
                out[t, i, j] = _subtract_if_reached(lazy, primes[i])


@njit(cache=True, nogil=True)
def fraction(x: Any, high: Any, low: Any, out: Any) -> None:
    """out [T, n] = sum over i of x_i / prime_i modulo 1, in units of 2^-64, at most 2 k units too small.

    x [T, k, n]; 2^64 high_i + low_i = floor(2^128 / prime_i).
    """
    out[:] = ZERO
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                value = x[t, i, j]
                out[t, j] += value * high[i] + multiply_high(value, low[i])


@njit(cache=True, nogil=True)
def centred_remainders(values: Any, factor: Any, modulus: Any, unit: Any, out: Any) -> None:
    """out = h - (values * factor + h) modulo p with h = floor(p / 2), int64; p below 2^31, unit = floor(2^64 / p)."""
    half = modulus >> ONE
    for j in range(values.size):
        value = values[j] * factor + half
        remainder = _subtract_if_reached(value - multiply_high(value, unit) * modulus, modulus)
        out[j] = np.int64(half) - np.int64(remainder)


@njit(cache=True, nogil=True)
def round_fractions(fractions: Any, modulus: Any, out: Any) -> None:
    """out = round(p f) modulo p for f in units of 2^-64, halves up."""
    for j in range(fractions.size):
        whole = multiply_high(fractions[j], modulus) + (fractions[j] * modulus >> np.uint64(63))
        out[j] = ZERO if whole == modulus else whole


@njit(cache=True, nogil=True)
def multiply_accumulate(
    x: Any,
    weights: Any,
    inputs: Any,
    starts: Any,
    primes: Any,
    units: Any,
    words: Any,
    word_quotients: Any,
    limits: Any,
    out: Any,
) -> None:
    """out[o] = sum of x[inputs[p]] * weights[p] over p from starts[o] to starts[o + 1].

    x [I, m, k, n], weights [k, n / width, P, width], out [O, m, k, n]. Sums stay 128 bits wide and are reduced once, or
    after every limits[i] products where more would not fit.
    """
    polynomials, width = x.shape[1], weights.shape[3]
    highs = np.empty((polynomials, width), np.uint64)
    lows = np.empty((polynomials, width), np.uint64)
    for i in range(primes.size):
        prime, unit, word, word_quotient = primes[i], units[i], words[i], word_quotients[i]
        for block in range(weights.shape[1]):
            start = block * width
            for o in range(starts.size - 1):
                highs[:] = ZERO
                lows[:] = ZERO
                added = 0
                for p in range(starts[o], starts[o + 1]):
                    if added == limits[i]:
                        for m in range(polynomials):
                            for j in range(width):
                                lows[m, j] = _reduce_wide(highs[m, j], lows[m, j], prime, unit, word, word_quotient)
                        highs[:] = ZERO
                        added = 0
                    factor = weights[i, block, p]
                    for m in range(polynomials):
                        source = x[inputs[p], m, i, start : start + width]
                        high, low = highs[m], lows[m]
                        for j in range(width):
                            high[j], low[j] = accumulate(high[j], low[j], source[j], factor[j])
                    added += 1
                for m in range(polynomials):
                    for j in range(width):
                        out[o, m, i, start + j] = _reduce_wide(
                            highs[m, j], lows[m, j], prime, unit, word, word_quotient
                        )


@njit(cache=True, nogil=True)
def pack(values: Any, bits: int, words: Any) -> None:
    """Writes `bits` low bits of every value, first value lowest, into 64-bit words."""
    width, filled, current, position = np.uint64(bits), ZERO, ZERO, 0
    for index in range(values.size):
        value = values[index]
        current |= value << filled
        filled += width
        if filled >= WORD_BITS:
            words[position] = current
            position += 1
            filled -= WORD_BITS
            current = value >> (width - filled)
    if filled:
        words[position] = current


@njit(cache=True, nogil=True)
def unpack(words: Any, bits: int, out: Any) -> None:
    """Undoes `pack`; words has one word more than the values fill."""
    width = np.uint64(bits)
    mask = (ONE << width) - ONE
    position = ZERO
    for index in range(out.size):
        word, shift = position >> np.uint64(6), position & np.uint64(63)
        value = words[word] >> shift
        if shift + width > WORD_BITS:
            value |= words[word + ONE] << (WORD_BITS - shift)
        out[index] = value & mask
        position += width


@njit(cache=True, nogil=True)
def pack_lanes(values: Any, bits: Any, words: Any) -> None:
    """Writes bits[i] low bits of every value of values [T, k, n] into words [T, sum of n bits[i] / 64].

    A row of n values is n / 64 lanes side by side: lane l holds values l, l + n / 64, ..., each lane's 64 values fill
    bits[i] words, first value lowest, and word w of every lane stands before word w + 1 of any.
    """
    width = values.shape[2] // GROUP
    for t in range(values.shape[0]):
        start = 0
        for i in range(bits.size):
            for index in range(GROUP):
                word, shift = index * bits[i] >> 6, np.uint64(index * bits[i] & 63)
                source = values[t, i, index * width : (index + 1) * width]
                target = words[t, start + word * width : start + (word + 1) * width]
                if shift:
                    for j in range(width):
                        target[j] |= np.uint64(source[j]) << shift
                else:
                    for j in range(width):
                        target[j] = np.uint64(source[j])
                if shift + np.uint64(bits[i]) > WORD_BITS:
                    after = words[t, start + (word + 1) * width : start + (word + 2) * width]
                    for j in range(width):
                        after[j] = np.uint64(source[j]) >> (WORD_BITS - shift)
            start += width * bits[i]


@njit(cache=True, nogil=True)
def unpack_lanes(words: Any, bits: Any, out: Any) -> None:
    """Undoes `pack_lanes`."""
    width = out.shape[2] // GROUP
    for t in range(out.shape[0]):
        start = 0
        for i in range(bits.size):
            mask = (ONE << np.uint64(bits[i])) - ONE
            for index in range(GROUP):
                word, shift = index * bits[i] >> 6, np.uint64(index * bits[i] & 63)
                target = out[t, i, index * width : (index + 1) * width]
                source = words[t, start + word * width : start + (word + 1) * width]
                if shift + np.uint64(bits[i]) > WORD_BITS:
                    after = words[t, start + (word + 1) * width : start + (word + 2) * width]
                    for j in range(width):
                        target[j] = ((source[j] >> shift) | (after[j] << (WORD_BITS - shift))) & mask
                else:
                    for j in range(width):
                        target[j] = (source[j] >> shift) & mask
            start += width * bits[i]
