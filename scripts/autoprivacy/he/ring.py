"""The ring Z_q[X]/(X^n + 1) in residue number system: number-theoretic transforms and products of many polynomials.

Polynomials are uint64 arrays [..., k, n], one row of residues per prime of q. The transform is SEAL's: it evaluates at
the odd powers of the smallest primitive 2n-th root of unity, in bit-reversed order, so that SEAL's keys can be read.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.he.kernels import load_kernels
from autoprivacy.he.primes import MAXIMUM_PRIME_BITS, is_prime, ntt_primes, primes_for

__all__ = ["Ring", "ntt_primes", "primes_for"]

WORD = 1 << 64


def _words(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.uint64)


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
def _root_tables(degree: int, prime: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Powers of the root in bit-reversed order with Shoup quotients, and the same of its inverse, each [n]."""
    bits = degree.bit_length() - 1
    order = [int(f"{index:0{bits}b}"[::-1], 2) for index in range(degree)]
    tables: list[np.ndarray] = []
    root = minimal_root(degree, prime)
    for base in (root, pow(root, -1, prime)):
        powers = [1] * degree
        for index in range(1, degree):
            powers[index] = powers[index - 1] * base % prime
        reversed_powers = [powers[index] for index in order]
        tables += [_words(reversed_powers), _words([power * WORD // prime for power in reversed_powers])]
    return tables[0], tables[1], tables[2], tables[3]


class Ring:
    """Z_q[X]/(X^n + 1) with q a product of NTT primes.

    Every method takes and returns residues below their primes, arrays [..., k, n], and leaves its arguments alone.

    Attributes:
        dtype: of residues.

    Args:
        degree: n, a power of two of at least 2.
        primes: the distinct primes of q, each == 1 mod 2n and below 2^60.
        backend: "numba" or "numpy", the same results; None (the default) leaves it to AUTOPRIVACY_BACKEND.

    Raises:
        UserError: the degree or a prime is not as above.
    """

    def __init__(self, degree: int, primes: tuple[int, ...], backend: str | None = None) -> None:
        _check(degree, primes)
        self.degree = degree
        self.primes = tuple(primes)
        self.dtype = np.dtype(np.uint64)
        self._kernels = load_kernels(backend)
        self._moduli = _words(list(primes))
        self._column = self._moduli[:, None]
        tables = [_root_tables(degree, prime) for prime in primes]
        self._roots, self._quotients, self._inverse_roots, self._inverse_quotients = (
            np.stack([table[part] for table in tables]) for part in range(4)
        )
        self._degree_inverses = self._factors([pow(degree, -1, prime) for prime in primes])
        words, word_quotients = self._factors([WORD % prime for prime in primes])
        self._barrett = (self._moduli, _words([WORD // prime for prime in primes]), words, word_quotients)
        # 128-bit sums hold this many products; one place is kept for the residue carried over.
        self._limits = np.array([min((1 << 128) // prime**2 - 1, 1 << 31) for prime in primes], np.int64)
        self._reciprocals = tuple(
            _words([(WORD * WORD // prime >> shift) % WORD for prime in primes]) for shift in (64, 0)
        )

    def _factors(self, factors: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """One factor per prime with its Shoup quotient."""
        quotients = [factor * WORD // prime for factor, prime in zip(factors, self.primes, strict=True)]
        return _words(factors), _words(quotients)

    def _rows(self, x: np.ndarray) -> np.ndarray:
        """x [..., k, n] as contiguous [T, k, n]."""
        if x.dtype != np.uint64 or x.shape[-2:] != (len(self.primes), self.degree):
            raise ValueError(
                f"polynomials: expected uint64 [..., {len(self.primes)}, {self.degree}], got {x.dtype} {list(x.shape)}"
            )
        return np.ascontiguousarray(x).reshape(-1, len(self.primes), self.degree)

    def reduce(self, values: np.ndarray) -> np.ndarray:
        """Residues [..., k, n] of signed coefficients, int64 [..., n]."""
        if values.dtype != np.int64 or values.shape[-1] != self.degree:
            raise ValueError(f"coefficients: expected int64 [..., {self.degree}], got {values.dtype} {values.shape}")
        rows = np.ascontiguousarray(values).reshape(-1, self.degree)
        out = np.empty((len(rows), len(self.primes), self.degree), np.uint64)
        self._kernels.reduce_signed(rows, self._moduli, self._barrett[1], out)
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

    def multiply(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Point-by-point products, i.e. ring products of transformed polynomials; y has x's shape or is [k, n]."""
        if y.shape != x.shape and y.shape != x.shape[-2:]:
            raise ValueError(f"factor: expected the shape {x.shape} or {x.shape[-2:]}, got {y.shape}")
        left, right = self._rows(x), self._rows(y)
        out = np.empty_like(left)
        self._kernels.multiply(left, right, *self._barrett, out)
        return out.reshape(x.shape)

    def scale(self, x: np.ndarray, factors: list[int]) -> np.ndarray:
        """x times one residue per prime, i.e. times an integer known modulo every prime; in either form.

        x may hold any 64-bit words: they are reduced.
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
        self, x: np.ndarray, weights: np.ndarray, inputs: np.ndarray, outputs: np.ndarray, count: int
    ) -> np.ndarray:
        """Sums of products in transformed form: result[o] = sum of x[inputs[p]] * weights[p] over p, outputs[p] = o.

        Products are summed 128 bits wide and reduced once.

        Args:
            x: [I, ..., k, n]; the axes between (e.g. both polynomials of a ciphertext) share the weights.
            weights: [P, k, n].
            inputs: [P], the first index of x that a weight meets.
            outputs: [P], the result that the product goes to, in any order.
            count: how many results there are; one without a product is zero.

        Returns:
            [count, ..., k, n].

        Raises:
            ValueError: shapes do not agree or an index is out of range.
        """
        factors = self._rows(weights)
        middle = x.shape[1:-2]
        sources = self._rows(x).reshape(len(x), math.prod(middle), len(self.primes), self.degree)
        if not len(factors) == len(inputs) == len(outputs):
            raise ValueError(f"{len(factors)} weights, {len(inputs)} inputs, {len(outputs)} outputs: expected as many")
        inputs, outputs = (np.ascontiguousarray(index, np.int64) for index in (inputs, outputs))
        for name, index, bound in (("inputs", inputs, len(x)), ("outputs", outputs, count)):
            if index.size and not 0 <= index.min() <= index.max() < bound:
                raise ValueError(f"{name}: expected 0 to {bound - 1}, got {index.min()} to {index.max()}")
        order = np.argsort(outputs, kind="stable")
        starts = np.searchsorted(outputs[order], np.arange(count + 1))
        out = np.empty((count, *sources.shape[1:]), np.uint64)
        self._kernels.multiply_accumulate(sources, factors, inputs, order, starts, *self._barrett, self._limits, out)
        return out.reshape(count, *middle, len(self.primes), self.degree)


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
