"""Tests of distributions: chi-squared, at a threshold that a right program misses once in a million tests."""

import numpy as np
from scipy import stats

SIGNIFICANCE = 1e-6
BINS = 64


def assert_uniform(values, modulus):
    """Chi-squared over bins of equal width, and over the lowest bits."""
    values = np.concatenate([np.ravel(part) for part in values]).astype(np.float64)
    assert values.size > 5 * BINS and values.max() < modulus
    counts = np.bincount((values * BINS // modulus).astype(int), minlength=BINS)
    edges = -(-np.arange(BINS + 1) * modulus // BINS)  # integers below each bin's end
    expected = np.diff(edges) / modulus * values.size
    assert stats.chisquare(counts, expected).pvalue > SIGNIFICANCE
    odd = int((values % 2).sum())
    assert stats.binomtest(odd, values.size, (modulus // 2) / modulus).pvalue > SIGNIFICANCE


def assert_uniform_bytes(payloads):
    data = np.frombuffer(b"".join(payloads), np.uint8)
    assert data.size > 5000
    assert stats.chisquare(np.bincount(data, minlength=256)).pvalue > SIGNIFICANCE


def assert_fair_bits(values, bits):
    """Every bit of numbers of so many bits is set half of the time, and the upper ones take their values evenly."""
    values = np.concatenate([np.ravel(part) for part in values]).astype(np.uint64)
    assert values.size > 5 * BINS and int(values.max()) < 1 << bits
    ones = np.array([int((values >> np.uint64(bit) & np.uint64(1)).sum()) for bit in range(bits)])
    # squared deviations of independent fair bits in units of their variance: chi-squared, one degree of freedom each
    squares = (ones - values.size / 2) ** 2 / (values.size / 4)
    assert stats.chi2.sf(squares.sum(), bits) > SIGNIFICANCE
    upper = values >> np.uint64(max(0, bits - BINS.bit_length() + 1))
    assert stats.chisquare(np.bincount(upper.astype(int), minlength=min(BINS, 1 << bits))).pvalue > SIGNIFICANCE
