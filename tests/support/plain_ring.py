"""`Ring` in Python's exact integers, one line an operation: what the compiled kernels must give bit for bit."""

from __future__ import annotations

import numpy as np

from autoprivacy.he.ring.ring import Ring, root_tables


class PlainRing(Ring):
    """The same ring, slow, whatever the size of its primes."""

    def _exact(self, x: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
        return np.asarray(x % np.array(self.primes, object)[:, None], dtype or self.dtype)

    def _roots_of(self, inverse: bool) -> np.ndarray:
        """Powers of the root, or of its inverse, in bit-reversed order, object [k, n]."""
        return np.array([root_tables(self.degree, prime, 64)[2 * inverse] for prime in self.primes]).astype(object)

    def reduce(self, values: np.ndarray) -> np.ndarray:
        return self._exact(values.astype(object)[..., None, :])

    def forward(self, x: np.ndarray) -> np.ndarray:
        roots, values, blocks = self._roots_of(False), x.astype(object), 1
        while blocks < self.degree:
            pairs = values.reshape(*x.shape[:-1], blocks, 2, -1)
            first, second = pairs[..., 0, :], pairs[..., 1, :] * roots[:, blocks : 2 * blocks, None]
            values = np.stack([first + second, first - second], -2).reshape(x.shape)
            values, blocks = self._exact(values, np.dtype(object)), 2 * blocks
        return values.astype(self.dtype)

    def inverse(self, x: np.ndarray) -> np.ndarray:
        roots, values, blocks = self._roots_of(True), x.astype(object), self.degree // 2
        while blocks:
            pairs = values.reshape(*x.shape[:-1], blocks, 2, -1)
            first, second = pairs[..., 0, :], pairs[..., 1, :]
            values = np.stack([first + second, (first - second) * roots[:, blocks : 2 * blocks, None]], -2)
            values, blocks = self._exact(values.reshape(x.shape), np.dtype(object)), blocks // 2
        return self.scale(values, [pow(self.degree, -1, prime) for prime in self.primes])

    def multiply(self, x: np.ndarray, y: np.ndarray, plus: np.ndarray | None = None) -> np.ndarray:
        return self._exact(x.astype(object) * y.astype(object) + (0 if plus is None else plus.astype(object)))

    def scale(self, x: np.ndarray, factors: list[int]) -> np.ndarray:
        return self._exact(x.astype(object) * np.array(factors, object)[:, None])

    def fraction(self, x: np.ndarray) -> np.ndarray:
        reciprocals = np.array([(1 << 128) // prime for prime in self.primes], object)[:, None]
        return ((x.astype(object) * reciprocals >> 64).sum(-2) % (1 << 64)).astype(np.uint64)

    def multiply_accumulate(
        self, x: np.ndarray, weights: np.ndarray, inputs: np.ndarray, starts: np.ndarray
    ) -> np.ndarray:
        polynomials = weights.transpose(2, 0, 1, 3).reshape(-1, len(self.primes), self.degree).astype(object)
        out = np.zeros((starts.size - 1, *x.shape[1:]), self.dtype)
        for result, first, end in zip(out, starts, starts[1:], strict=False):
            terms = [x[inputs[p]].astype(object) * polynomials[p] for p in range(first, end)]
            result[:] = self._exact(sum(terms, np.zeros(x.shape[1:], object)))
        return out
