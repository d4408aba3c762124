"""An activation as a public table: what each party looks up with its share, and what stands there.

Modulo 2^k, with t ignored and f shifted bits, an activation's input is C + S modulo 2^(k - t), of which the low f - t
bits are rounded off. Each party splits its part into the high n = k - f bits and the low f - t bits. The value is
g(C_high + S_high + carry), where the carry is 1 where the low parts add up to 2^(f - t) or more, and g is a function
of n
bits: any function at all. A table holds g(v) and g(v + 1) for every v.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.gc.activation import Activation, modulus_bits

MAXIMUM_INDEX_BITS = 12  # of one of the two one-hot vectors, whose size grows with 2^bits
WORD_BITS = 64


@dataclass(frozen=True)
class LookupTable:
    """The table of an activation, which both parties know.

    Attributes:
        activation: modulus 2^k, shift, clip, ignored share bits.
        outputs: what is looked up for every clipped level, from the activation's minimum on; none for the level itself.

    Raises:
        UserError: the modulus is no power of two, or one of the one-hot vectors would be too large.
    """

    activation: Activation
    outputs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        p = self.activation.modulus
        if p & (p - 1):
            raise UserError(f"lookup: plaintext modulus {p}; expected a power of two: choose one, or take circuits")
        if max(self.index_bits, self.low_bits) > MAXIMUM_INDEX_BITS:
            raise UserError(
                f"lookup: {self.index_bits} high and {self.low_bits} low bits to look up; at most "
                f"{MAXIMUM_INDEX_BITS}: take a smaller modulus, or circuits"
            )

    @property
    def index_bits(self) -> int:
        """n: bits of the level that is looked up."""
        return modulus_bits(self.activation.modulus) - self.activation.shift

    @property
    def rounded_bits(self) -> int:
        """f - t: low bits that meet and are rounded off."""
        return self.activation.shift - self.activation.ignored_bits

    @property
    def low_bits(self) -> int:
        """Bits of the second lookup, of the carry; 0 where there is none."""
        return self.rounded_bits + 1 if self.rounded_bits else 0

    @cached_property
    def values(self) -> np.ndarray:
        """g of every v, int64 [2^n]."""
        activation, size = self.activation, 1 << self.index_bits
        levels = np.arange(size)
        clipped = np.clip(
            np.where(levels >= activation.threshold >> activation.shift, levels - size, levels),
            activation.minimum,
            activation.maximum,
        )
        return np.asarray(self.outputs, np.int64)[clipped - activation.minimum] if self.outputs else clipped

    @property
    def smallest(self) -> int:
        """The smallest value; what is looked up is the value less this."""
        return int(self.values.min())

    @property
    def output_bits(self) -> int:
        """w: bits of a value less the smallest; one where all are equal."""
        return max(1, int(self.values.max() - self.values.min()).bit_length())

    @cached_property
    def bit_words(self) -> np.ndarray:
        """Bits of g(v), then of g(v) ^ g(v + 1), each of all v: uint64 [2 w or w, words], bit v % 64 of word v / 64.

        Those of the second half are left out where there is no carry.
        """
        raised = self.values - self.smallest
        tables = [raised, raised ^ np.roll(raised, -1)] if self.low_bits else [raised]
        return np.stack([as_words(table >> bit & 1) for table in tables for bit in range(self.output_bits)])

    @cached_property
    def carry_words(self) -> np.ndarray:
        """Whether low parts that add up to v carry, uint64 [1, words]."""
        return as_words(np.arange(1 << self.low_bits) >> self.rounded_bits)[None]

    def client_parts(self, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The client's high and low part of its share, uint64."""
        return self._split(np.asarray(share, np.uint64))

    def server_parts(self, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The server's, with what it adds so that dropping bits rounds."""
        return self._split(np.asarray(share, np.uint64) + np.uint64(self.activation.constant))

    def _split(self, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        high = share >> np.uint64(self.activation.shift) & np.uint64((1 << self.index_bits) - 1)
        low = share >> np.uint64(self.activation.ignored_bits) & np.uint64((1 << self.rounded_bits) - 1)
        return high, low


def as_words(bits: np.ndarray) -> np.ndarray:
    """Bits, 0 or 1, packed into uint64 words, the first lowest, filled up with zeros."""
    padded = np.zeros(-(-bits.size // WORD_BITS) * WORD_BITS, np.uint8)
    padded[: bits.size] = bits
    return np.packbits(padded, bitorder="little").view(np.uint64)
