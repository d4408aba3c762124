"""Which integers residues are read as: for every modulus the signed ones, and under 2^k any window that holds 0.

A layer's accumulators need not reach as far below zero as above. Modulo 2^k both parties may drop high bits of their
shares, down to what the layer's range needs, and read the rest as the integers of a window of 2^m, which lies where
the range lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.quantization.architecture import Interval, sign_threshold

# Windows start at multiples of a 32nd of their size, so that they tell five bits of where a range lies and no more.
STARTS = 32


@dataclass(frozen=True)
class Window:
    """Consecutive integers, one for every residue modulo `size`.

    Attributes:
        size: the modulus.
        lowest: the smallest of them, below zero and above -size.
    """

    size: int
    lowest: int

    @classmethod
    def signed(cls, modulus: int) -> Window:
        """The signed residues modulo p, as `to_signed` reads them."""
        return cls(modulus, sign_threshold(modulus) - modulus)

    @classmethod
    def between(cls, interval: Interval) -> Window:
        """From the smallest and the largest integer.

        Raises:
            UserError: their number is no power of two, 0 is not among them, or they start where none may.
        """
        lowest, highest = interval
        size = highest - lowest + 1
        coarse = max(1, size // STARTS)
        if size < 2 or size & (size - 1) or not -size < lowest < 0 or lowest % coarse:
            raise UserError(
                f"[{lowest}, {highest}]; expected 2^m integers, 0 and -1 among them, the smallest a multiple of "
                f"2^m / {STARTS}"
            )
        return cls(size, lowest)

    @property
    def threshold(self) -> int:
        """The smallest residue that stands for a negative number."""
        return self.lowest + self.size

    @property
    def bits(self) -> int:
        """Of a residue."""
        return (self.size - 1).bit_length()

    @property
    def interval(self) -> Interval:
        """The smallest and the largest integer."""
        return self.lowest, self.threshold - 1

    def read(self, values: np.ndarray) -> np.ndarray:
        """Any integers to those of the window that are congruent to them, int64."""
        residues = np.asarray(values, np.int64) % self.size
        return np.where(residues >= self.threshold, residues - self.size, residues)


def smallest_window(interval: Interval, shift: int) -> Window:
    """The window of fewest bits that holds a range and starts at a step of activations.

    Of several starts the one at the multiple of the largest power of two, whose sign takes the fewest gates.

    Args:
        interval: the smallest and the largest number, 0 among them.
        shift: of the activations that read it; a step is 2^shift.
    """
    lowest, highest = min(interval[0], -1), max(interval[1], (2 << shift) - 1)
    bits = (highest - lowest).bit_length()
    while True:
        size = 1 << bits
        coarse = max(size // STARTS, 1 << shift)
        starts = range(lowest // coarse * coarse, -size, -coarse)
        holding = [start for start in starts if start + size > highest]
        if holding:
            return Window(size, max(holding, key=lambda start: (start & -start, start)))
        bits += 1
