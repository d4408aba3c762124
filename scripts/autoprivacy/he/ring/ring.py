"""The ring Z_q[X]/(X^n + 1) in residue number system: number-theoretic transforms and products of many polynomials.

Polynomials are arrays [..., k, n], one row of residues per prime of q: uint32 where every prime is below 2^27 and n
between 64 and 2^15, which is several times as fast, else uint64. The transform is SEAL's: it evaluates at the odd
powers of the smallest primitive 2n-th root of unity, in bit-reversed order, so that SEAL's keys can be read.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.he.ring import words32_numba, words64_numba
from autoprivacy.he.ring.primes import (
    MAXIMUM_PRIME_BITS,
    WORD32_PRIME_BITS,
    is_prime,
    ntt_primes,
    prime_size,
    primes_for,
)

__all__ = ["Ring", "ntt_primes", "primes_for"]

# The kernels of small primes work on groups of 64 coefficients, and their transform lets values grow by two primes a
# stage: 32 bits have room for 15 stages.
WORD32_DEGREES = range(1 << 6, (1 << 15) + 1)
FRACTION = 1 << 64  # the unit that `Ring.fraction` counts in is its inverse
# Products are counted in 64-bit integers and never more than this at a time.
MOST_PRODUCTS = 1 << 31


@cache
def minimal_root(degree: int, prime: int) -> int:
    """The smallest primitive 2n-th root of unity modulo the prime, SEAL's choice (util/numth.cpp)."""
    exponent = (prime - 1) // (2 * degree)
    powers = (pow(base, exponent, prime) for base in range(2, prime))
    root = next(power for power in powers if pow(power, degree, prime) == prime - 1)
    square, smallest = root * root % prime, root
    for _ in range(degree - 1):
        root = root * square % prime
        smallest = min(smallest, root)
    return smallest


@cache
def root_tables(degree: int, prime: int, word_bits: int) -> tuple[np.ndarray, ...]:
    """Powers of the root in bit-reversed order with Shoup quotients, and the same of its inverse, uint64 [n] each."""
    bits = degree.bit_length() - 1
    order = [int(f"{index:0{bits}b}"[::-1], 2) for index in range(degree)]
    tables: list[np.ndarray] = []
    root = minimal_root(degree, prime)
    for base in (root, pow(root, -1, prime)):
        powers = [1] * degree
        for index in range(1, degree):
            powers[index] = powers[index - 1] * base % prime
        reversed_powers = [powers[index] for index in order]
        quotients = [(power << word_bits) // prime for power in reversed_powers]
        tables += [np.array(values, np.uint64) for values in (reversed_powers, quotients)]
    return tuple(tables)


class Ring:
    """Z_q[X]/(X^n + 1) with q a product of NTT primes.

    Every method takes and returns residues below their primes, arrays [..., k, n] of the ring's dtype, and leaves its
    arguments alone.

    Attributes:
        dtype: of residues, uint32 or uint64.

    Args:
        degree: n, a power of two of at least 2.
        primes: the distinct primes of q, each == 1 mod 2n and below 2^60.

    Raises:
        UserError: the degree or a prime is not as above.
    """

    def __init__(self, degree: int, primes: tuple[int, ...]) -> None:
        _check(degree, primes)
        self.degree = degree
        self.primes = tuple(primes)
        small = prime_size(self.primes) == WORD32_PRIME_BITS and degree in WORD32_DEGREES
        self.dtype: np.dtype = np.dtype(np.uint32 if small else np.uint64)
        self._word = 1 << 8 * self.dtype.itemsize
        self._kernels: ModuleType = words32_numba if small else words64_numba
        self._moduli = self._words(list(primes))
        self._column = self._moduli[:, None]
        tables = [root_tables(degree, prime, 8 * self.dtype.itemsize) for prime in primes]
        self._roots, self._quotients, self._inverse_roots, self._inverse_quotients = (
            self._kernels.arrange_roots(np.stack([table[part] for table in tables]).astype(self.dtype))
            for part in range(4)
        )
        self._degree_inverses = self._factors([pow(degree, -1, prime) for prime in primes])
        units = self._words([self._word // prime for prime in primes])
        self._barrett = (self._moduli, units, *self._factors([self._word % prime for prime in primes]))
        # Sums of two words hold this many products; one place is kept for the residue carried over.
        limits = [min(self._word**2 // prime**2 - 1, MOST_PRODUCTS) for prime in primes]
        self._limits = np.array(limits, np.int64)
        self._reciprocals = tuple(
            np.array([(FRACTION * FRACTION // prime >> shift) % FRACTION for prime in primes], np.uint64)
            for shift in (64, 0)
        )

    @property
    def weight_block(self) -> int:
        """Coefficients of a weight polynomial that stand together in `multiply_accumulate`'s weights."""
        return min(int(self._kernels.BLOCK), self.degree)

    def _words(self, values: list[int]) -> np.ndarray:
        return np.array(values, self.dtype)

    def _factors(self, factors: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """One factor per prime with its Shoup quotient."""
        quotients = [factor * self._word // prime for factor, prime in zip(factors, self.primes, strict=True)]
        return self._words(factors), self._words(quotients)

    def _rows(self, x: np.ndarray) -> np.ndarray:
        """x [..., k, n] as contiguous [T, k, n]."""
        if x.dtype != self.dtype or x.shape[-2:] != (len(self.primes), self.degree):
            raise ValueError(
                f"polynomials: expected {self.dtype} [..., {len(self.primes)}, {self.degree}], "
                f"got {x.dtype} {list(x.shape)}"
            )
        return np.ascontiguousarray(x).reshape(-1, len(self.primes), self.degree)

    def reduce(self, values: np.ndarray) -> np.ndarray:
        """Residues [..., k, n] of signed coefficients, int64 [..., n]."""
        if values.dtype != np.int64 or values.shape[-1] != self.degree:
            raise ValueError(f"coefficients: expected int64 [..., {self.degree}], got {values.dtype} {values.shape}")
        rows = np.ascontiguousarray(values).reshape(-1, self.degree)
        out = np.empty((len(rows), len(self.primes), self.degree), self.dtype)
        self._kernels.reduce_signed(rows, *self._barrett, out)
        return out.reshape(*values.shape[:-1], len(self.primes), self.degree)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """The number-theoretic transform of every polynomial."""
        values = self._rows(x).copy()
        self._kernels.forward(values, self._moduli, self._roots, self._quotients)
        return values.reshape(x.shape)

    def inverse(self, x: np.ndarray) -> np.ndarray:
        """Undoes `forward`."""
        values = self._rows(x).copy()
        roots = (self._inverse_roots, self._inverse_quotients)
        self._kernels.inverse(values, self._moduli, *roots, *self._degree_inverses)
        return values.reshape(x.shape)

    def multiply(self, x: np.ndarray, y: np.ndarray, plus: np.ndarray | None = None) -> np.ndarray:
        """Point-by-point products, i.e. ring products of transformed polynomials, and `plus` added to them.

        y has x's shape or is [k, n]; plus has x's shape.
        """
        for name, factor, shapes in (("factor", y, (x.shape, x.shape[-2:])), ("addend", plus, (x.shape,))):
            if factor is not None and factor.shape not in shapes:
                raise ValueError(f"{name}: expected the shape {' or '.join(map(str, shapes))}, got {factor.shape}")
        left, right = self._rows(x), self._rows(y)
        addend = np.zeros_like(left) if plus is None else self._rows(plus)
        out = np.empty_like(left)
        self._kernels.multiply_add(left, right, addend, *self._barrett, out)
        return out.reshape(x.shape)

    def scale(self, x: np.ndarray, factors: list[int]) -> np.ndarray:
        """x times one residue per prime, i.e. times an integer known modulo every prime; in either form.

        x may hold any words of the ring's dtype: they are reduced.
        """
        rows = self._rows(x)
        out = np.empty_like(rows)
        self._kernels.scale(rows, self._moduli, *self._factors(factors), out)
        return out.reshape(x.shape)

    def add(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """x + y, with numpy's broadcasting."""
        total = x + y
        return np.minimum(total, total - self._column)  # where nothing is to subtract, the difference wraps upward

    def subtract(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """x - y, with numpy's broadcasting."""
        difference = x - y
        return np.minimum(difference, difference + self._column)

    def negate(self, x: np.ndarray) -> np.ndarray:
        """-x."""
        return self.subtract(np.zeros_like(x), x)

    def fraction(self, x: np.ndarray) -> np.ndarray:
        """Sum over i of x_i / prime_i modulo 1, uint64 [..., n] in units of 2^-64, at most 2k units too small."""
        rows = self._rows(x)
        out = np.empty((len(rows), self.degree), np.uint64)
        self._kernels.fraction(rows, *self._reciprocals, out)
        return out.reshape(*x.shape[:-2], self.degree)

    def multiply_accumulate(
        self, x: np.ndarray, weights: np.ndarray, inputs: np.ndarray, starts: np.ndarray
    ) -> np.ndarray:
        """Sums of products in transformed form, each reduced once; `weight_products.WeightProducts` is the way to use
        it.

        Args:
            x: [I, m, k, n]; the m polynomials share the weights.
            weights: [k, n / weight_block, P, weight_block].
            inputs: int64 [P], the first index of x that a weight meets; unchecked.
            starts: int64 [O + 1]; the products from starts[o] to starts[o + 1] make result o.

        Returns:
            [O, m, k, n].
        """
        out = np.empty((starts.size - 1, *x.shape[1:]), self.dtype)
        self._kernels.multiply_accumulate(x, weights, inputs, starts, *self._barrett, self._limits, out)
        return out


def _check(degree: int, primes: tuple[int, ...]) -> None:
    if degree < 2 or degree & (degree - 1):
        raise UserError(f"polynomial degree {degree}: expected a power of two of at least 2")
    if not primes or len(set(primes)) != len(primes):
        raise UserError(f"ciphertext primes {primes}: expected one or more, all different")
    for prime in primes:
        if prime >> MAXIMUM_PRIME_BITS or prime % (2 * degree) != 1 or not is_prime(prime):
            raise UserError(
                f"ciphertext prime {prime}: expected a prime == 1 mod {2 * degree} below 2^{MAXIMUM_PRIME_BITS}"
            )
