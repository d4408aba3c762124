"""Cryptographic randomness: right distributions, a stream per key, fresh by default."""

import math
import os
import warnings

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from scipy import stats

from autoprivacy.randomness import gaussian_numba, generator
from autoprivacy.randomness.generator import SecureRandom

KEY = bytes(range(32))


def test_the_same_key_gives_the_same_stream_and_no_key_gives_another():
    assert np.array_equal(SecureRandom(KEY).words(9), SecureRandom(KEY).words(9))
    assert not np.array_equal(SecureRandom().words(9), SecureRandom().words(9))


def test_consecutive_calls_do_not_repeat():
    random = SecureRandom(KEY)
    assert not np.array_equal(random.words(4), random.words(4))


def test_an_array_is_filled_with_what_would_be_drawn():
    drawn, filled = SecureRandom(KEY), SecureRandom(KEY)
    rows = np.zeros((3, 100), np.uint8)
    for row in rows:
        filled.fill(row)
    filled.fill(rows[0, :0])
    assert np.array_equal(rows.reshape(-1), drawn.random_bytes(300))
    assert np.array_equal(filled.random_bytes(7), drawn.random_bytes(7))


def test_a_stream_goes_on_under_the_next_nonce(monkeypatch):
    """ChaCha20 ends after 256 GiB under one nonce; here after 100 bytes, at the same places however it is drawn."""
    whole = [Cipher(algorithms.ChaCha20(KEY, bytes(4) + bytes([i]) + bytes(11)), None).encryptor() for i in range(4)]
    expected = b"".join(stream.update(bytes(100)) for stream in whole)[:350]
    monkeypatch.setattr(generator, "BYTES_PER_NONCE", 100)
    assert SecureRandom(KEY).random_bytes(350).tobytes() == expected
    pieces, out = SecureRandom(KEY), np.zeros(170, np.uint8)
    drawn = pieces.random_bytes(80).tobytes() + pieces.random_bytes(20).tobytes()
    pieces.fill(out)
    masked = np.zeros(80, np.uint8)
    pieces.mask(np.full(80, 255, np.uint8), masked)
    assert drawn + out.tobytes() + (masked ^ np.uint8(255)).tobytes() == expected


def in_child(act):
    """What `act` gives in a child process made by fork, bytes; b"error" where it raises."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads of the tests, which the child never runs
        child = os.fork()
    if child == 0:
        try:
            os.write(writing, act())
        except RuntimeError:
            os.write(writing, b"error")
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        told = stream.read()
    os.waitpid(child, 0)
    return told


def test_a_child_process_never_repeats_its_parents_stream():
    own, keyed = SecureRandom(), SecureRandom(KEY)
    children = [in_child(lambda: own.random_bytes(32).tobytes()) for _ in range(2)]
    assert len({own.random_bytes(32).tobytes(), *children}) == 3 and all(len(part) == 32 for part in children)
    assert in_child(lambda: keyed.random_bytes(32).tobytes()) == b"error"
    assert in_child(lambda: SecureRandom(KEY).random_bytes(32).tobytes()) == keyed.random_bytes(32).tobytes()


def test_a_short_key_is_refused():
    with pytest.raises(ValueError, match="32 bytes, got 5"):
        SecureRandom(b"short")


@pytest.mark.parametrize("modulus", [1, 2, 3, 17, 257, 65537, (1 << 61) - 1, 1 << 63])
def test_below_is_uniform_and_in_range(modulus):
    values = SecureRandom(KEY).below(modulus, 20000)
    assert values.dtype == np.uint64 and int(values.max()) < modulus
    small = modulus <= 300  # then every residue is counted, else sixteenths of the range
    bins = modulus if small else 16
    which = (
        values.astype(np.int64) if small else (values.astype(np.float64) / modulus * 16).astype(np.int64).clip(0, 15)
    )
    counts = np.bincount(which, minlength=bins)
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


def test_gaussian_is_box_and_mullers_to_the_precision_of_a_double():
    scale = 2.0**50
    words = edged_words()
    values = np.empty(words.shape[1] * 2, np.int64)
    gaussian_numba.gaussian(words, np.empty((2, 0), np.int64), scale, 0, values)
    upper = (words >> np.uint64(11)).astype(np.float64)
    radius = np.sqrt(-2 * np.log((upper[0] + 0.5).astype(np.longdouble) * np.longdouble(2) ** -53))
    turn = upper[1] * np.longdouble(2) ** -53 * 2 * np.longdouble(np.pi) - np.longdouble(np.pi) / 4
    expected = np.concatenate([radius * np.cos(turn), radius * np.sin(turn)])
    assert np.abs(values / np.longdouble(scale) - expected).max() < 1e-14
    longest = math.sqrt(
        2 * 54 * math.log(2)
    )  # of the smallest uniform number, half a 2^-53; here at an angle of 45 degrees
    assert np.abs(values).max() == pytest.approx(longest * scale * math.sqrt(0.5))


def edged_words():
    """Uniform words [2, 5000] with the extreme ones and the ends of quadrants among them."""
    words = np.random.default_rng(0).integers(0, 1 << 64, (2, 5000), np.uint64)
    words[0, :4] = [0, (1 << 64) - 1, 1 << 63, (1 << 11) - 1]
    words[1, :8] = [0, (1 << 64) - 1, 1 << 62, (1 << 62) - 1, 1 << 63, (1 << 63) - 1, 3 << 62, (3 << 62) - 1]
    return words


@pytest.mark.parametrize(("scale", "low_bits", "count"), [(2.0**20 * 1.9, 30, 5000), (2.0**20, 1, 4999), (0.0, 5, 1)])
def test_low_bits_stand_behind_a_narrower_gaussian(scale, low_bits, count):
    words = edged_words()
    low = (words >> np.uint64(64 - low_bits)).astype(np.int64)[:, :count]
    high, values = np.empty(count, np.int64), np.empty(count, np.int64)
    gaussian_numba.gaussian(words, np.empty((2, 0), np.int64), scale, 0, high)
    gaussian_numba.gaussian(words, low, scale, low_bits, values)
    assert np.array_equal(values, (high << low_bits) + low.sum(0) + 1 - (1 << low_bits))


def test_a_flood_has_no_steps():
    """The shipped sampler with a coarse high part, so that its steps show: its counts in quarters of a step are those
    of a Gaussian of its variance. With one uniform low part the quarters of a step would count alike."""
    count, low_bits, scale = 4_000_000, 10, 8.0
    random, values = SecureRandom(KEY), np.empty(4_000_000, np.int64)
    low = (random.words((2, count)) >> np.uint64(64 - low_bits)).view(np.int64)
    gaussian_numba.gaussian(random.words((2, count // 2)), low, scale, low_bits, values)
    quarters = np.floor_divide(values, 1 << low_bits - 2)
    edges = np.arange(-4 * 20, 4 * 20 + 1)  # 2.5 standard deviations to either side
    counts = np.array([np.count_nonzero(quarters == edge) for edge in edges[:-1]])
    spread = 4 * math.sqrt(scale**2 + 1 / 12 + 2 / 12)  # rounding, and the two uniform parts
    expected = count * np.diff(stats.norm.cdf(edges / spread))
    assert ((counts - expected) ** 2 / expected).sum() < stats.chi2.ppf(1 - 1e-6, len(counts))
    # a staircase is off by this much: 40 times what chance makes of it
    steps = np.repeat(expected.reshape(-1, 4).mean(1), 4)
    assert ((steps - expected) ** 2 / expected).sum() > 20 * len(counts)


def test_shifts_below_a_step_are_hidden_as_by_a_gaussian():
    """The divergence of the sampler's density from itself shifted by a sixteenth of a step, in closed form."""
    scale, fine = 8.0, 1024
    heights = np.diff(stats.norm.cdf((np.arange(-80, 82) - 0.5) / scale))
    grid = (np.arange(96 * fine) + 0.5) / fine - 48  # six standard deviations to either side
    shift = fine // 16
    gaussian = (1 / 16) ** 2 / 2 / scale**2

    def divergence(density):
        one, other = density[shift:], density[:-shift]
        return np.sum(one * np.log(one / other)) / fine

    stairs = heights[np.rint(grid).astype(int) + 80]
    linear = np.interp(grid, np.arange(-80, 81), heights)
    assert divergence(stairs) > 10 * gaussian
    assert divergence(linear) == pytest.approx(gaussian, rel=0.02)


def test_centred_binomial_counts_bits():
    words = edged_words()[1]
    out = np.empty(5000, np.int64)
    gaussian_numba.centred_binomial(words, 21, out)
    expected = [(w & (1 << 21) - 1).bit_count() - (w >> 21 & (1 << 21) - 1).bit_count() for w in words.tolist()]
    assert out.tolist() == expected


def test_small_counts_and_no_numbers():
    random = SecureRandom(KEY)
    for count in (0, 1, 3, 64):
        for values in (random.ternary(count), random.below(5, count), random.centred_binomial(count)):
            assert values.shape == (count,)
        assert random.gaussian(count, 2.0**40).shape == (count,)
    assert random.words((2, 3), np.uint32).dtype == np.uint32


def test_an_odd_count_and_no_width():
    assert SecureRandom(KEY).gaussian(7, 100.0).shape == (7,)
    assert not SecureRandom(KEY).gaussian(7, 0.0).any()
    with pytest.raises(ValueError):
        SecureRandom(KEY).gaussian(7, 2.0**59)
