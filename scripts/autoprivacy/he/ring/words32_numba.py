"""Ring kernels for primes below 2^27, compiled by numba: 32-bit residues, eight to a vector, n a multiple of 64.

Same functions as in `words64_numba`, which takes 64-bit residues modulo larger primes. A factor w
modulo a prime comes with its Shoup quotient floor(2^32 w / prime): then x w - floor(x quotient / 2^32) prime is below
twice the prime for any 32-bit x (Harvey, arXiv:1205.2926), and 32 bits hold sums of up to 32 primes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autoprivacy.he.ring.simd import (
    LANES,
    add,
    alternate,
    even_lanes,
    join_even,
    load,
    lower_halves,
    minimum,
    multiply_add_even,
    multiply_high,
    multiply_low,
    odd_lanes,
    odd_to_even,
    spread,
    store,
    subtract,
    transpose,
    upper_halves,
)
from autoprivacy.kernel_cache import njit

# Coefficients of one weight polynomial that stand together: see `multiply_accumulate`.
BLOCK = LANES
# Stages that `_last_stages` and `_first_stages` do in registers: gaps of 4, 2 and 1, whose roots they use.
TAIL_ROOTS = 7
TAIL = LANES * LANES
SIGN = np.uint32(1 << 31)
# Degrees whose logarithm is odd: between the three stages of the tail and the last an odd number is left.
SINGLE_STAGE = sum(1 << exponent for exponent in range(7, 32, 2))
HALF_BITS = np.uint64(32)
HALF_MASK = np.uint64((1 << 32) - 1)


def arrange_roots(tables: np.ndarray) -> np.ndarray:
    """Root tables [..., n] with the last three stages' roots moved to where eight at a time are read as a vector.

    Of n/8 blocks of eight coefficients, eight make a group. A group uses one root of each of its blocks at gap 4, two
    at gap 2 and four at gap 1: behind the first n/8 roots they stand as [groups, 7, 8].
    """
    degree = tables.shape[-1]
    arranged = tables.copy()
    tail = arranged[..., degree // LANES :].reshape(*tables.shape[:-1], degree // TAIL, TAIL_ROOTS, LANES)
    start = 0
    for count in (1, 2, 4):
        stage = tables[..., count * degree // LANES : 2 * count * degree // LANES]
        tail[..., start : start + count, :] = stage.reshape(*tables.shape[:-1], -1, LANES, count).swapaxes(-1, -2)
        start += count
    arranged[..., degree // LANES :] = tail.reshape(*tables.shape[:-1], -1)
    return arranged


@njit(cache=True, nogil=True, inline="always")
def _shoup_lazy(x: Any, factor: Any, quotient: Any, prime: Any) -> Any:
    """x * factor modulo the prime, in [0, 2 prime), for any x."""
    return subtract(multiply_low(x, factor), multiply_low(multiply_high(x, quotient), prime))


@njit(cache=True, nogil=True, inline="always")
def _subtract_if_reached(x: Any, bound: Any) -> Any:
    return minimum(x, subtract(x, bound))  # where nothing is to subtract, the difference wraps upward


@njit(cache=True, nogil=True, inline="always")
def _reduce_pairs(even: Any, odd: Any, prime: Any, unit: Any, word: Any, word_quotient: Any) -> Any:
    """64-bit integers, those of the even and those of the odd lanes, modulo the prime; as in `words64_numba`."""
    low = lower_halves(even, odd)
    lazy = subtract(low, multiply_low(multiply_high(low, unit), prime))
    lazy = add(lazy, _shoup_lazy(upper_halves(even, odd), word, word_quotient, prime))
    return _subtract_if_reached(_subtract_if_reached(lazy, add(prime, prime)), prime)


@njit(cache=True, nogil=True)
def reduce_signed(values: Any, primes: Any, units: Any, words: Any, word_quotients: Any, out: Any) -> None:
    """Residues out [T, k, n] of signed integers values [T, n].

    A 64-bit integer is a pair of lanes: the lower half is reduced as it is, the upper is multiplied by 2^32.
    """
    halves = values.view(np.uint32)
    sign = alternate(spread(np.uint32(0)), spread(SIGN))  # adding 2^63 makes every value positive
    for t in range(out.shape[0]):
        source = halves[t]
        for i in range(primes.size):
            row, prime = out[t, i], spread(primes[i])
            factor = alternate(spread(np.uint32(1)), spread(words[i]))
            quotient = alternate(spread(units[i]), spread(word_quotients[i]))
            surplus = (np.uint64(words[i]) << np.uint64(31)) % np.uint64(primes[i])  # 2^63 modulo the prime
            offset = spread(np.uint32(np.uint64(primes[i]) - surplus))
            for j in range(0, row.size, LANES):
                first = _shoup_lazy(add(load(source, 2 * j), sign), factor, quotient, prime)
                second = _shoup_lazy(add(load(source, 2 * j + LANES), sign), factor, quotient, prime)
                lazy = join_even(add(first, odd_to_even(first)), add(second, odd_to_even(second)))
                lazy = add(lazy, offset)  # at most 5 primes
                twice = add(prime, prime)
                lazy = _subtract_if_reached(_subtract_if_reached(lazy, add(twice, twice)), twice)
                store(row, j, _subtract_if_reached(lazy, prime))


@njit(cache=True, nogil=True, inline="always")
def _butterfly(x: Any, y: Any, root: Any, quotient: Any, prime: Any, twice: Any) -> Any:
    """x + root y and x - root y, each at most two primes larger than x."""
    product = _shoup_lazy(y, root, quotient, prime)
    return add(x, product), subtract(add(x, twice), product)


@njit(cache=True, nogil=True, inline="always")
def _columns(row: Any, start: int) -> Any:
    """64 coefficients as the eight columns of eight rows."""
    first = load(row, start), load(row, start + 8), load(row, start + 16), load(row, start + 24)
    second = load(row, start + 32), load(row, start + 40), load(row, start + 48), load(row, start + 56)
    return transpose(first + second)


@njit(cache=True, nogil=True)
def _last_stages(row: Any, start: int, roots: Any, quotients: Any, place: int, prime: Any) -> None:
    """The stages of gaps 4, 2 and 1 on 64 coefficients: transposed, so that each vector meets a vector of roots."""
    twice, unit = add(prime, prime), spread(quotients[0])  # the first root is 1
    a, b, c, d, e, f, g, h = _columns(row, start)
    w, v = load(roots, place), load(quotients, place)
    a, e = _butterfly(a, e, w, v, prime, twice)
    b, f = _butterfly(b, f, w, v, prime, twice)
    c, g = _butterfly(c, g, w, v, prime, twice)
    d, h = _butterfly(d, h, w, v, prime, twice)
    w, v = load(roots, place + 8), load(quotients, place + 8)
    a, c = _butterfly(a, c, w, v, prime, twice)
    b, d = _butterfly(b, d, w, v, prime, twice)
    w, v = load(roots, place + 16), load(quotients, place + 16)
    e, g = _butterfly(e, g, w, v, prime, twice)
    f, h = _butterfly(f, h, w, v, prime, twice)
    a, b = _butterfly(a, b, load(roots, place + 24), load(quotients, place + 24), prime, twice)
    c, d = _butterfly(c, d, load(roots, place + 32), load(quotients, place + 32), prime, twice)
    e, f = _butterfly(e, f, load(roots, place + 40), load(quotients, place + 40), prime, twice)
    g, h = _butterfly(g, h, load(roots, place + 48), load(quotients, place + 48), prime, twice)
    for x in transpose((a, b, c, d, e, f, g, h)):
        lazy = subtract(x, multiply_low(multiply_high(x, unit), prime))
        store(row, start, _subtract_if_reached(lazy, prime))
        start += LANES


@njit(cache=True, nogil=True)
def _forward_row(row: Any, prime: Any, roots: Any, quotients: Any) -> None:
    """One transform in place: two stages at a time, a single one where their number is odd, then the last three.

    A stage adds at most two primes: 1 + 2 log2(n) of them fit into 32 bits for every n up to 2^15.
    """
    prime = spread(prime)
    twice = add(prime, prime)
    gap, blocks = row.size >> 1, 1
    while gap > LANES:
        half = gap >> 1
        for block in range(blocks, 2 * blocks):
            w, v = spread(roots[block]), spread(quotients[block])
            left, left_quotient = spread(roots[2 * block]), spread(quotients[2 * block])
            right, right_quotient = spread(roots[2 * block + 1]), spread(quotients[2 * block + 1])
            first = 2 * gap * (block - blocks)
            for j in range(first, first + half, LANES):
                a, c = _butterfly(load(row, j), load(row, j + gap), w, v, prime, twice)
                b, d = _butterfly(load(row, j + half), load(row, j + gap + half), w, v, prime, twice)
                a, b = _butterfly(a, b, left, left_quotient, prime, twice)
                c, d = _butterfly(c, d, right, right_quotient, prime, twice)
                store(row, j, a)
                store(row, j + half, b)
                store(row, j + gap, c)
                store(row, j + gap + half, d)
        gap, blocks = gap >> 2, blocks << 2
    if gap == LANES:
        for block in range(blocks):
            w, v, j = spread(roots[blocks + block]), spread(quotients[blocks + block]), 2 * LANES * block
            a, b = _butterfly(load(row, j), load(row, j + LANES), w, v, prime, twice)
            store(row, j, a)
            store(row, j + LANES, b)
    for group in range(row.size // TAIL):
        place = row.size // LANES + TAIL_ROOTS * LANES * group
        _last_stages(row, TAIL * group, roots, quotients, place, prime)


@njit(cache=True, nogil=True)
def forward(values: Any, primes: Any, roots: Any, quotients: Any) -> None:
    """Transforms values [T, k, n] in place; roots and quotients [k, n] are arranged by `arrange_roots`."""
    for t in range(values.shape[0]):
        for i in range(primes.size):
            _forward_row(values[t, i], primes[i], roots[i], quotients[i])


@njit(cache=True, nogil=True, inline="always")
def _inverse_butterfly(x: Any, y: Any, root: Any, quotient: Any, prime: Any, bound: Any) -> Any:
    """x + y, and (x - y) root in [0, 2 prime); bound is a multiple of the prime that y does not exceed."""
    return add(x, y), _shoup_lazy(subtract(add(x, bound), y), root, quotient, prime)


@njit(cache=True, nogil=True)
def _first_stages(row: Any, start: int, roots: Any, quotients: Any, place: int, prime: Any) -> None:
    """Undoes `_last_stages` on residues below the prime; results are below 4 primes."""
    two = add(prime, prime)
    four = add(two, two)
    a, b, c, d, e, f, g, h = _columns(row, start)
    a, b = _inverse_butterfly(a, b, load(roots, place + 24), load(quotients, place + 24), prime, two)
    c, d = _inverse_butterfly(c, d, load(roots, place + 32), load(quotients, place + 32), prime, two)
    e, f = _inverse_butterfly(e, f, load(roots, place + 40), load(quotients, place + 40), prime, two)
    g, h = _inverse_butterfly(g, h, load(roots, place + 48), load(quotients, place + 48), prime, two)
    w, v = load(roots, place + 8), load(quotients, place + 8)
    a, c = _inverse_butterfly(a, c, w, v, prime, two)
    b, d = _inverse_butterfly(b, d, w, v, prime, two)
    w, v = load(roots, place + 16), load(quotients, place + 16)
    e, g = _inverse_butterfly(e, g, w, v, prime, two)
    f, h = _inverse_butterfly(f, h, w, v, prime, two)
    w, v = load(roots, place), load(quotients, place)
    a, e = _inverse_butterfly(a, e, w, v, prime, four)
    b, f = _inverse_butterfly(b, f, w, v, prime, four)
    c, g = _inverse_butterfly(c, g, w, v, prime, four)
    d, h = _inverse_butterfly(d, h, w, v, prime, four)
    a, b = _subtract_if_reached(a, four), _subtract_if_reached(b, four)
    for x in transpose((a, b, c, d, e, f, g, h)):
        store(row, start, x)
        start += LANES


@njit(cache=True, nogil=True)
def _inverse_row(row: Any, prime: Any, roots: Any, quotients: Any, scale: Any, scale_quotient: Any) -> None:
    """One transform in place: the first three stages, a single one where pairs do not come out, pairs, and the last.

    Between stages values are below 4 primes, within a pair of stages below 16.
    """
    prime, scale, scale_quotient = spread(prime), spread(scale), spread(scale_quotient)
    two = add(prime, prime)
    four = add(two, two)
    eight = add(four, four)
    for group in range(row.size // TAIL):
        place = row.size // LANES + TAIL_ROOTS * LANES * group
        _first_stages(row, TAIL * group, roots, quotients, place, prime)
    gap, blocks, last = LANES, row.size // (2 * LANES), row.size >> 1
    if SINGLE_STAGE & row.size:
        for block in range(blocks):
            w, v, j = spread(roots[blocks + block]), spread(quotients[blocks + block]), 2 * LANES * block
            a, b = _inverse_butterfly(load(row, j), load(row, j + LANES), w, v, prime, four)
            store(row, j, _subtract_if_reached(a, four))
            store(row, j + LANES, b)
        gap, blocks = gap << 1, blocks >> 1
    while gap < last:
        half = blocks >> 1
        for block in range(half, blocks):
            w, v = spread(roots[block]), spread(quotients[block])
            left, left_quotient = spread(roots[2 * block]), spread(quotients[2 * block])
            right, right_quotient = spread(roots[2 * block + 1]), spread(quotients[2 * block + 1])
            first = 4 * gap * (block - half)
            for j in range(first, first + gap, LANES):
                a, b = load(row, j), load(row, j + gap)
                c, d = load(row, j + 2 * gap), load(row, j + 3 * gap)
                a, b = _inverse_butterfly(a, b, left, left_quotient, prime, four)
                c, d = _inverse_butterfly(c, d, right, right_quotient, prime, four)
                a, c = _inverse_butterfly(a, c, w, v, prime, eight)
                b, d = _inverse_butterfly(b, d, w, v, prime, two)
                store(row, j, _subtract_if_reached(_subtract_if_reached(a, eight), four))
                store(row, j + gap, b)
                store(row, j + 2 * gap, c)
                store(row, j + 3 * gap, d)
        gap, blocks = gap << 2, blocks >> 2
    w, v = spread(roots[1]), spread(quotients[1])
    for j in range(0, last, LANES):
        a, b = _inverse_butterfly(load(row, j), load(row, j + last), w, v, prime, four)
        store(row, j, _subtract_if_reached(_shoup_lazy(a, scale, scale_quotient, prime), prime))
        store(row, j + last, _subtract_if_reached(_shoup_lazy(b, scale, scale_quotient, prime), prime))


@njit(cache=True, nogil=True)
def inverse(values: Any, primes: Any, roots: Any, quotients: Any, scales: Any, scale_quotients: Any) -> None:
    """Undoes `forward` in place; scales = 1/n modulo each prime."""
    for t in range(values.shape[0]):
        for i in range(primes.size):
            _inverse_row(values[t, i], primes[i], roots[i], quotients[i], scales[i], scale_quotients[i])


@njit(cache=True, nogil=True)
def multiply_add(x: Any, y: Any, z: Any, primes: Any, units: Any, words: Any, word_quotients: Any, out: Any) -> None:
    """out = x * y + z point by point, x, z and out [T, k, n], y [1 or T, k, n]."""
    for t in range(x.shape[0]):
        for i in range(primes.size):
            left, right, addend, row = x[t, i], y[t if y.shape[0] > 1 else 0, i], z[t, i], out[t, i]
            prime, unit, word, quotient = (
                spread(primes[i]),
                spread(units[i]),
                spread(words[i]),
                spread(word_quotients[i]),
            )
            for j in range(0, row.size, LANES):
                a, b, c = load(left, j), load(right, j), load(addend, j)
                even = multiply_add_even(even_lanes(c), a, b)
                odd = multiply_add_even(odd_lanes(c), odd_to_even(a), odd_to_even(b))
                store(row, j, _reduce_pairs(even, odd, prime, unit, word, quotient))


@njit(cache=True, nogil=True)
def scale(x: Any, primes: Any, factors: Any, quotients: Any, out: Any) -> None:
    """out [T, k, n] = x times one factor per prime, for any 32-bit x."""
    for t in range(x.shape[0]):
        for i in range(primes.size):
            source, row = x[t, i], out[t, i]
            prime, factor, quotient = spread(primes[i]), spread(factors[i]), spread(quotients[i])
            for j in range(0, row.size, LANES):
                lazy = _shoup_lazy(load(source, j), factor, quotient, prime)
                store(row, j, _subtract_if_reached(lazy, prime))


@njit(cache=True, nogil=True)
def fraction(x: Any, high: Any, low: Any, out: Any) -> None:
    """out [T, n] = sum over i of x_i / prime_i modulo 1; as in `words64_numba`, x 32 bits wide."""
    out[:] = np.uint64(0)
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            source, row, upper = x[t, i], out[t], high[i]
            middle, lower = low[i] >> HALF_BITS, low[i] & HALF_MASK
            for j in range(row.size):
                value = np.uint64(source[j])
                row[j] += value * upper + ((value * middle + ((value * lower) >> HALF_BITS)) >> HALF_BITS)


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

    x [I, m, k, n], weights [k, n / BLOCK, P, BLOCK], out [O, m, k, n]. Block by block, so that weights are one stream
    and the inputs of a block stay in the first-level cache, two polynomials to a product, odd lanes moved to even ones
    beforehand. Sums are 64 bits wide and reduced once, or after every limits[i] products where more would not fit.
    """
    inputs_count, polynomials, degree = x.shape[0], x.shape[1], x.shape[3]
    couples = (polynomials + 1) // 2
    gathered = np.zeros(inputs_count * couples * 4 * LANES, np.uint32)
    for i in range(primes.size):
        prime, unit, word, quotient = spread(primes[i]), spread(units[i]), spread(words[i]), spread(word_quotients[i])
        for j in range(0, degree, LANES):
            for source in range(inputs_count):
                for m in range(polynomials):
                    value, place = load(x[source, m, i], j), 2 * LANES * (2 * couples * source + m)
                    store(gathered, place, value)
                    store(gathered, place + LANES, odd_to_even(value))
            block = weights[i, j // LANES].reshape(-1)
            for o in range(starts.size - 1):
                for couple in range(couples):
                    x0 = x1 = spread(np.uint32(0))
                    for first in range(starts[o], starts[o + 1], limits[i]):
                        even0, odd0, even1, odd1 = even_lanes(x0), odd_lanes(x0), even_lanes(x1), odd_lanes(x1)
                        for p in range(first, min(first + limits[i], starts[o + 1])):
                            even = load(block, LANES * p)
                            odd, place = odd_to_even(even), 4 * LANES * (couples * inputs[p] + couple)
                            even0 = multiply_add_even(even0, load(gathered, place), even)
                            odd0 = multiply_add_even(odd0, load(gathered, place + LANES), odd)
                            even1 = multiply_add_even(even1, load(gathered, place + 2 * LANES), even)
                            odd1 = multiply_add_even(odd1, load(gathered, place + 3 * LANES), odd)
                        x0 = _reduce_pairs(even0, odd0, prime, unit, word, quotient)
                        x1 = _reduce_pairs(even1, odd1, prime, unit, word, quotient)
                    store(out[o, 2 * couple, i], j, x0)
                    if 2 * couple + 1 < polynomials:
                        store(out[o, 2 * couple + 1, i], j, x1)
