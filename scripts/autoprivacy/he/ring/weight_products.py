"""Many ciphertexts times many weight polynomials: transformed weights in the order the kernel reads them."""

from __future__ import annotations

import math

import numpy as np

from autoprivacy.he.ring.ring import Ring


class WeightProducts:
    """Weight polynomials, which input each meets and which output its products go to.

    Weights stand as [k, n / block, P, block], the products of one output together: a block of coefficients is one
    stream from memory while the inputs' coefficients of that block stay in the cache.

    Args:
        ring: the ring of weights and inputs.
        inputs: int64 [P], the input that a weight meets.
        outputs: int64 [P], the result that the product goes to, in any order.
        count: how many results there are; one without a product is zero.

    Raises:
        ValueError: lengths differ or an index is out of range.
    """

    def __init__(self, ring: Ring, inputs: np.ndarray, outputs: np.ndarray, count: int) -> None:
        if len(inputs) != len(outputs):
            raise ValueError(f"{len(inputs)} inputs, {len(outputs)} outputs: expected as many")
        self._ring = ring
        inputs, outputs = (np.asarray(index, np.int64) for index in (inputs, outputs))
        if inputs.min(initial=0) < 0:
            raise ValueError(f"inputs: expected 0 or more, got {inputs.min()}")
        if outputs.size and not 0 <= outputs.min() <= outputs.max() < count:
            raise ValueError(f"outputs: expected 0 to {count - 1}, got {outputs.min()} to {outputs.max()}")
        self._input_count = int(inputs.max(initial=-1)) + 1
        order = np.argsort(outputs, kind="stable")
        self._inputs = np.ascontiguousarray(inputs[order])
        self._starts = np.searchsorted(outputs[order], np.arange(count + 1))
        self._places = np.argsort(order)
        block = ring.weight_block
        self._weights = np.zeros((len(ring.primes), ring.degree // block, len(inputs), block), ring.dtype)

    def put(self, first: int, polynomials: np.ndarray) -> None:
        """Set the weights from number `first` on, transformed, [T, k, n]."""
        blocks, block = self._weights.shape[1], self._weights.shape[3]
        rows = polynomials.reshape(len(polynomials), len(self._ring.primes), blocks, block)
        self._weights[:, :, self._places[first : first + len(rows)]] = rows.transpose(1, 2, 0, 3)

    def sums(self, x: np.ndarray) -> np.ndarray:
        """The sum of x[inputs[p]] * weights[p] over the p of each output.

        Args:
            x: transformed, [I, ..., k, n]; the axes between (bands, both polynomials of a ciphertext) share weights.

        Returns:
            [count, ..., k, n].

        Raises:
            ValueError: shape or dtype are wrong, or there are fewer inputs than weights meet.
        """
        shape = (len(self._ring.primes), self._ring.degree)
        if x.dtype != self._ring.dtype or x.shape[-2:] != shape or len(x) < self._input_count:
            raise ValueError(
                f"inputs: expected {self._ring.dtype} [{self._input_count} or more, ..., {shape[0]}, {shape[1]}], "
                f"got {x.dtype} {list(x.shape)}"
            )
        middle = x.shape[1:-2]
        rows = np.ascontiguousarray(x).reshape(len(x), math.prod(middle), *shape)
        sums = self._ring.multiply_accumulate(rows, self._weights, self._inputs, self._starts)
        return sums.reshape(len(sums), *middle, *shape)
