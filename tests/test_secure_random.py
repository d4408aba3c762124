"""Cryptographic randomness: right distributions, a stream per key, fresh by default."""

import numpy as np
import pytest
from scipy import stats

from autoprivacy.secure_random import SecureRandom

KEY = bytes(range(32))


def test_the_same_key_gives_the_same_stream_and_no_key_gives_another():
    assert np.array_equal(SecureRandom(KEY).words(9), SecureRandom(KEY).words(9))
    assert not np.array_equal(SecureRandom().words(9), SecureRandom().words(9))


def test_consecutive_calls_do_not_repeat():
    random = SecureRandom(KEY)
    assert not np.array_equal(random.words(4), random.words(4))


def test_a_short_key_is_refused():
    with pytest.raises(ValueError, match="32 bytes, got 5"):
        SecureRandom(b"short")


@pytest.mark.parametrize("modulus", [1, 2, 3, 17, 257, 65537, (1 << 61) - 1, 1 << 63])
def test_below_is_uniform_and_in_range(modulus):
    values = SecureRandom(KEY).below(modulus, 20000)
    assert values.dtype == np.uint64 and int(values.max()) < modulus
    bins = min(modulus, 16)
    counts = np.bincount((values.astype(np.float64) * bins / modulus).astype(int).clip(0, bins - 1), minlength=bins)
    if modulus <= 16 or modulus > 1000:
        assert bins == 1 or stats.chisquare(counts).pvalue > 1e-6


def test_below_refuses_what_it_cannot_draw():
    for modulus in (0, (1 << 63) + 1):
        with pytest.raises(ValueError):
            SecureRandom(KEY).below(modulus, 3)


def test_ternary_and_centred_binomial():
    ternary = SecureRandom(KEY).ternary((3, 10000))
    assert ternary.shape == (3, 10000) and stats.chisquare(np.bincount(ternary.ravel() + 1)).pvalue > 1e-6
    noise = SecureRandom(KEY).centred_binomial(200000)
    assert abs(noise.mean()) < 0.05 and abs(noise.var() / 10.5 - 1) < 0.02 and abs(noise).max() <= 21


@pytest.mark.parametrize("bits", [0, 3, 19, 25, 40, 57])
def test_gaussian_has_its_width_and_shape(bits):
    values = SecureRandom(KEY).gaussian((4, 50000), 2.0**bits).astype(np.float64).ravel()
    spread = np.sqrt(4.0**bits + (1 / 12 if bits < 21 else 0))
    assert abs(values.std() / spread - 1) < 0.01
    if bits > 10:  # below, the rounding itself is visible
        assert stats.kstest(values[:20000] / spread, "norm").pvalue > 1e-4


def test_a_wide_gaussian_has_uniform_low_bits():
    low = SecureRandom(KEY).gaussian(100000, 2.0**57) & 15
    assert stats.chisquare(np.bincount(low, minlength=16)).pvalue > 1e-6


def test_an_odd_count_and_no_width():
    assert SecureRandom(KEY).gaussian(7, 100.0).shape == (7,)
    assert not SecureRandom(KEY).gaussian(7, 0.0).any()
    with pytest.raises(ValueError):
        SecureRandom(KEY).gaussian(7, 2.0**59)
