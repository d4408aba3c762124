"""The noise model against simulated noise, and the relations between q, z, tau and error rates."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoprivacy.errors import UserError
from autoprivacy.he.parameters import noise
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, ReplyBits, Target
from autoprivacy.he.ring.ring import ntt_primes
from autoprivacy.randomness.generator import SecureRandom

DEGREE = 1024
PARAMETERS = ParameterSet(1 << 17, 4096, ntt_primes(1 << 50, 4096, 2))

BITS = ReplyBits(24, 30)


def negacyclic(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    full = np.convolve(left, right)
    full = np.append(full, 0)
    return full[: len(left)] - full[len(left) :]


def test_fresh_noise_is_the_centred_binomial_and_the_rounding() -> None:
    drawn = SecureRandom(bytes(32)).centred_binomial(200_000) + np.random.default_rng(0).uniform(-0.5, 0.5, 200_000)
    assert drawn.std() == pytest.approx(noise.fresh_noise(), rel=0.01)
    assert noise.fresh_noise() == pytest.approx(math.sqrt(10.5 + 1 / 12))


def test_rerandomisation_noise_is_that_of_the_public_key_encryption() -> None:
    random = SecureRandom(bytes(32))
    draws = []
    for _ in range(40):
        error, first, second = random.centred_binomial((3, DEGREE))
        secret, ternary = random.ternary((2, DEGREE))
        draws.append(negacyclic(error, ternary) + first + negacyclic(second, secret))
    assert np.std(draws) == pytest.approx(noise.rerandomisation_noise(DEGREE), rel=0.04)


def test_weighted_noise_is_fresh_noise_times_the_norm() -> None:
    random, generator = SecureRandom(bytes(32)), np.random.default_rng(1)
    weights = np.zeros(DEGREE, np.int64)
    weights[generator.choice(DEGREE, 90, replace=False)] = generator.integers(-127, 128, 90)
    sums = [negacyclic(random.centred_binomial(DEGREE), weights) for _ in range(60)]
    norm = float(np.sqrt((weights**2).sum()))
    assert np.std(sums) == pytest.approx(noise.weighted_noise(noise.LayerNoise(norm), PARAMETERS), rel=0.04)


def test_parts_add_as_squares() -> None:
    assert noise.ReplyNoise(3.0, 4.0, 12.0).total == pytest.approx(13.0)
    assert noise.ReplyNoise(3.0, 4.0, 12.0, 84.0).total == pytest.approx(85.0)


def test_switching_noise_is_two_roundings_one_times_the_secret() -> None:
    generator, n = np.random.default_rng(3), PARAMETERS.polynomial_degree
    draws = []
    for _ in range(40):
        c0, c1 = generator.uniform(-0.5, 0.5, (2, n)) / 2.0 ** np.array([[BITS.c0], [BITS.c1]])
        draws.append(c0 + negacyclic(c1, generator.integers(-1, 2, n)))
    assert np.std(draws) == pytest.approx(noise.switching_noise(n, BITS), rel=0.02)
    # the 64-bit fraction that is rounded is a little off, which shows only near 64 bits
    assert noise.rounding_noise(20) == pytest.approx(2.0**-20 / math.sqrt(12), rel=1e-10)
    assert noise.rounding_noise(64) == pytest.approx(2.0**-64 * (64 + 1 / math.sqrt(12)))


def test_statistical_flood_is_2_to_the_kappa_wide() -> None:
    result = noise.reply_noise(4096, 1000.0, Flooding("statistical", 40))
    assert result.weighted == 1000.0 and result.flood == 2.0**40 * 1000.0
    assert result.total == pytest.approx(result.flood)


def test_unflooded_reply_is_only_rerandomised() -> None:
    result = noise.reply_noise(4096, 1000.0, Flooding("none"))
    assert result.flood == 0
    assert result.total == pytest.approx(math.hypot(result.weighted, result.rerandomisation))


def test_paper_flood_fills_the_noise_up_to_the_target() -> None:
    target = Target(decryption_error_rate=2.0**-7)
    deployed = noise.deployed_noise(noise.LayerNoise(1000.0), PARAMETERS, Flooding("paper"), target, BITS)
    z = noise.z_of(PARAMETERS.q, PARAMETERS.plaintext_modulus, deployed.total)
    assert z == pytest.approx(target.z)
    assert noise.decryption_error_rate(z) == pytest.approx(2.0**-7)
    with pytest.raises(UserError, match="target"):
        noise.deployed_noise(noise.LayerNoise(1000.0), PARAMETERS, Flooding("paper"), None, BITS)


@pytest.mark.parametrize("kind", ["loud", ""])
def test_unknown_floodings_are_refused(kind: str) -> None:
    """A misspelt flooding must not mean none."""
    with pytest.raises(UserError, match="expected one of"):
        Flooding(kind)  # type: ignore[arg-type]


@pytest.mark.parametrize(("exponent", "z"), [(5, 2.154), (7, 2.660), (15, 4.170), (20, 4.901), (40, 7.144)])
def test_error_rates_and_z(exponent: int, z: float) -> None:
    assert Target(decryption_error_rate=2.0**-exponent).z == pytest.approx(z, abs=1e-3)
    assert math.log2(noise.decryption_error_rate(Target(decryption_error_rate=2.0**-exponent).z)) == pytest.approx(
        -exponent
    )


def test_error_rate_is_that_of_a_rounded_gaussian() -> None:
    """z is half the distance between plaintexts in standard deviations."""
    draws = np.random.default_rng(2).normal(0, 1 / (2 * 2.154), 400_000)
    assert (np.rint(draws) != 0).mean() == pytest.approx(noise.decryption_error_rate(2.154), rel=0.05)
    assert noise.decryption_error_rate(1e9) == 0


def test_required_q_gives_the_z_that_it_was_asked_for() -> None:
    bits = noise.required_log2_q(4.17, 1 << 17, 3000.0)
    q = round(2.0**bits)
    assert noise.z_of(q, 1 << 17, 3000.0) == pytest.approx(4.17)
    assert noise.tau_of(q, 1 << 17, 3000.0) == pytest.approx(1 / (2 * 4.17))
    assert noise.noise_budget(q, 1 << 17, 4.17) == pytest.approx(3000.0)


def test_moduli_beyond_a_double_are_no_trouble() -> None:
    assert noise.z_of(1 << 868, 1 << 17, 2.0**60) == pytest.approx(2.0**790)
