"""Windows: every integer is read as the congruent one of the window, and the smallest that holds a range is found."""

from __future__ import annotations

import numpy as np
import pytest

from autoprivacy.errors import UserError
from autoprivacy.quantization.integer_network import Interval, to_signed
from autoprivacy.quantization.windows import STARTS, Window, smallest_window


@pytest.mark.parametrize("size", [4, 8, 32])
def test_residues_are_read_as_the_integers_of_the_window(size: int) -> None:
    values = np.arange(-3 * size, 3 * size)
    for lowest in range(1 - size, 0):
        window = Window(size, lowest)
        read = window.read(values)
        assert (read % size == values % size).all()
        assert read.min() == lowest == window.interval[0] and read.max() == window.interval[1] == lowest + size - 1
        assert window.read(np.array(window.threshold)) == lowest


@pytest.mark.parametrize("modulus", [4, 13, 1 << 10, 114689])
def test_signed_residues_are_a_window(modulus: int) -> None:
    values = np.arange(-2 * modulus, 2 * modulus, 7)
    np.testing.assert_array_equal(Window.signed(modulus).read(values), to_signed(values, modulus))


def holding(interval: Interval, shift: int, bits: int) -> list[int]:
    """All allowed starts of windows of so many bits that hold a range, by trying every one."""
    coarse = max((1 << bits) // STARTS, 1 << shift)
    starts = range(1 - (1 << bits), 0)
    return [s for s in starts if s % coarse == 0 and s <= interval[0] and interval[1] < s + (1 << bits)]


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_no_window_of_fewer_bits_holds_the_range(shift: int) -> None:
    rng = np.random.default_rng(shift)
    for low, high in [*rng.integers(1, 600, (150, 2)).tolist(), (1, 40), (400, 20), (64, 63), (33, 95)]:
        interval = (-low, max(high, (2 << shift) - 1))
        window = smallest_window(interval, shift)
        starts = holding(interval, shift, window.bits)
        assert window.lowest in starts and not holding(interval, shift, window.bits - 1)
        assert all(start & -start <= window.lowest & -window.lowest for start in starts)
        assert Window.between(window.interval) == window


def test_calibrated_ranges() -> None:
    # conv2 of 7CNET: 507,318 numbers, which two's complement of 19 bits does not hold
    assert smallest_window((-270_719, 236_598), 8) == Window(1 << 19, -17 << 14)
    assert smallest_window((-119_567, 361_676), 10).interval == (-(1 << 17), 3 * (1 << 17) - 1)
    assert smallest_window((-30_000, 30_000), 8) == Window.signed(1 << 16)


@pytest.mark.parametrize("interval", [(-4, 2), (0, 7), (-8, -1), (-3, 4092), (3, -4), (-1, -1), (-9, 1014)])
def test_other_intervals_are_refused(interval: Interval) -> None:
    with pytest.raises(UserError, match="expected 2.m integers"):
        Window.between(interval)
