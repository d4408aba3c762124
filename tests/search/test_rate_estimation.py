"""Estimates of small error rates: each method against known tails, and the sampled noise against real replies."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from support.real_noise import decrypt_with_noise
from support.search_support import darl_policy, small_network

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.cipher import ClientCipher, ServerCipher
from autoprivacy.he.bfv.linear import ClientLinear, ServerComponent
from autoprivacy.he.bfv.reply import ReplyForm
from autoprivacy.he.packing.coefficient import admissible_plans
from autoprivacy.he.parameters.parameter_set import MAXIMUM_REPLY_BITS, Flooding, ParameterSet, ReplyBits, Target
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.he.ring.ring import ntt_primes
from autoprivacy.report.studies import sampling_figure
from autoprivacy.search import rate_estimation
from autoprivacy.search.rate_estimation import (
    SCALES,
    GaussianNoise,
    Tally,
    UnfloodedNoise,
    checkpoints,
    noisiest_reply,
    sigma_scaled_estimate,
    study_rows,
)

DEGREE, P = 1024, 114689
PARAMETERS = ParameterSet(P, DEGREE, ntt_primes(1 << 40, DEGREE, 1), insecure_for_test=True)


def packed_policy() -> Policy:
    """A coefficient policy of the small network with tilings, under the test's set."""
    network = small_network()
    layers = [
        replace(
            layer,
            parameters=PARAMETERS,
            tiling=admissible_plans(network.architecture.layer(layer.name), DEGREE)[0].tiling,
        )
        for layer in darl_policy(network).layers
    ]
    return replace(darl_policy(network), layers=tuple(layers))


@pytest.mark.parametrize(("alpha", "beta", "gamma"), [(-1.0, 0.7, -9.0), (-0.5, 1.4, -12.0)])
def test_the_fit_returns_the_model_that_made_the_rates(alpha: float, beta: float, gamma: float) -> None:
    rates = np.exp(alpha + beta * np.log(SCALES) + gamma / SCALES**2)
    counts = np.full(len(SCALES), 10**12)
    assert sigma_scaled_estimate(np.rint(rates * counts), counts) == pytest.approx(math.exp(alpha + gamma), rel=1e-3)


def test_scales_with_few_hits_take_no_part_in_the_fit() -> None:
    counts = np.full(len(SCALES), 10**9)
    hits = np.rint(np.exp(-1 + np.log(SCALES) - 12 / SCALES**2) * counts)
    spoilt = hits.copy()
    hits[:3], spoilt[:3] = 0, rate_estimation.FEWEST_HITS - 1
    assert sigma_scaled_estimate(hits, counts) == sigma_scaled_estimate(spoilt, counts)
    hits[2:] = 0
    assert math.isnan(sigma_scaled_estimate(hits, counts))
    falling = np.rint(np.exp(0.5 - 4 * np.log(SCALES) - 0.2 / SCALES**2) * counts)
    assert math.isnan(sigma_scaled_estimate(falling, counts))  # e^0.3 is no probability


def test_a_tally_counts_what_is_beyond_the_bounds_plain_and_scaled() -> None:
    samples = [np.random.default_rng(block).normal(size=1000).astype(np.float32) for block in range(2 * len(SCALES))]
    tally = Tally(np.array([1.0, 2.5]))
    for block in samples:
        tally.add(block)
    together = np.abs(np.concatenate(samples))
    assert tally.count == together.size and tally.squares == pytest.approx(
        np.sum(together.astype(float) ** 2), rel=1e-5
    )
    assert tally.hits.tolist() == [int((together > bound).sum()) for bound in (1.0, 2.5)]
    for number, scale in enumerate(SCALES):
        own = np.abs(np.concatenate([block[number :: len(SCALES)] for block in samples])) * scale
        assert tally.scaled_counts[number] == own.size
        assert tally.scaled_hits[number].tolist() == [int((own > bound).sum()) for bound in (1.0, 2.5)]


def test_every_method_finds_the_tail_of_a_gaussian_within_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_estimation, "TARGETS", (7, 10))
    rows = study_rows("flooded", GaussianNoise(1 << 12), 10**6, 4, 1)
    table = {(row["method"], row["target"], row["samples"]): row for row in rows}
    assert table["exact", 10, 0]["estimate"] == pytest.approx(2.0**-10, rel=1e-9)
    for exponent in (7, 10):
        assert table["gaussian fit", exponent, 10**6]["relative_error"] < 0.02
        # counting k hits is right to 1 / sqrt k
        brute = table["brute force", exponent, 10**6]
        assert brute["relative_error"] < 3 / math.sqrt(10**6 * 2.0**-exponent)
        assert table["sigma-scaled", exponent, 10**6]["relative_error"] < 0.12
        assert brute["relative_error"] < table["brute force", exponent, 10**5]["relative_error"] * 1.5
    assert rows == study_rows("flooded", GaussianNoise(1 << 12), 10**6, 4, 1)


def test_what_cannot_be_estimated_is_empty_and_the_figure_copes() -> None:
    rows = study_rows("flooded", GaussianNoise(1 << 12), 10**5, 2, 1)
    table = {(row["method"], row["target"]): row for row in rows}
    assert table["sigma-scaled", 40]["estimate"] == "" and table["sigma-scaled", 40]["without_estimate"] == 2
    assert table["brute force", 40]["relative_error"] == 1.0  # it says 0
    axes = sampling_figure(rows).axes
    assert len(axes) == 3 and axes[0].get_xlabel() == "samples"


def test_checkpoints_are_tenfold_and_end_at_the_samples() -> None:
    assert checkpoints(10**5) == [10**5]
    assert checkpoints(10**7) == [10**5, 10**6, 10**7]
    assert checkpoints(3 * 10**6) == [10**5, 10**6, 3 * 10**6]
    with pytest.raises(UserError, match="at least 100000"):
        checkpoints(99_999)


def test_sampled_noise_has_the_size_and_the_correlations_of_real_replies() -> None:
    network, policy = small_network(), packed_policy()
    linear = network.layers["fc"]
    layer = policy.layer("fc")
    plan = type(admissible_plans(linear.shape, DEGREE)[0]).from_tiling(linear.shape, DEGREE, layer.tiling)
    assert plan.output_ciphertexts == 1
    noise = UnfloodedNoise(plan.encode_weights(linear.weight), PARAMETERS)
    generator = np.random.default_rng(1)
    drawn = np.concatenate([noise.draw(generator) for _ in range(40)]).reshape(-1, DEGREE)
    # all coefficients are sent here, not the outputs alone, and with so many bits that rounding adds nothing
    bits = ReplyBits(MAXIMUM_REPLY_BITS, MAXIMUM_REPLY_BITS)
    form = ReplyForm(DEGREE, plan.output_ciphertexts, bits)
    server = ServerComponent(linear, plan, PARAMETERS, Flooding("none"), Target(2.0**-40), bits)
    real = []
    for _ in range(25):
        client = ClientLinear(plan, ClientCipher(PARAMETERS), bits)
        cipher = ServerCipher(PARAMETERS, client.cipher.public_key())
        for _ in range(8):
            share = generator.integers(0, P, linear.shape.input_shape).astype(np.uint64)
            masks = generator.integers(0, P, (plan.output_ciphertexts, DEGREE)).astype(np.uint64)
            sums = server.multiply(cipher.load(client.encrypt(share), plan.input_ciphertexts))
            reply = cipher.reply(sums, masks, 0.0, form)
            real.append(decrypt_with_noise(client.cipher, reply, form)[1][0])
    replies = np.stack(real) / noise.standard_deviation
    assert drawn.std() == pytest.approx(1, abs=0.02) and replies.std() == pytest.approx(1, abs=0.02)

    def correlations(samples: np.ndarray) -> np.ndarray:
        return np.array([np.mean(samples[:, lag:] * samples[:, :-lag]) for lag in range(1, 30)])

    assert np.allclose(correlations(drawn), correlations(replies), atol=0.03)
    assert np.abs(correlations(replies)).max() > 0.05  # neighbours are not independent


def test_the_noisiest_reply_of_a_policy_is_sampled() -> None:
    network, policy = small_network(), packed_policy()
    norms = []
    for layer in policy.layers:
        linear = network.layers[layer.name]
        plan = type(admissible_plans(linear.shape, DEGREE)[0]).from_tiling(linear.shape, DEGREE, layer.tiling)
        norms.append(plan.noise(linear.weight).norm)
    noise = noisiest_reply(network, policy)
    expected = math.hypot(max(norms) * math.sqrt(10.5 + 1 / 12), math.sqrt(10.5 * (4 * DEGREE / 3 + 1) + 1 / 12))
    assert noise.standard_deviation == pytest.approx(expected, rel=1e-9)
    with pytest.raises(UserError, match="in coefficient packing"):
        noisiest_reply(network, replace(policy, packing="slot"))
