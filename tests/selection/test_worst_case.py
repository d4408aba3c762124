"""Worst-case bounds hold for real ciphertexts and for the worst ones, and the scheme's one set has room for them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.made_up_profile import LINK, PROFILE, made_up_profile
from support.rotation_bound import rotation_bound

from autoprivacy.errors import UserError
from autoprivacy.he.packing import packing_named
from autoprivacy.he.packing.public_noise import layer_noise, layer_noise_bound
from autoprivacy.he.parameters.noise import deployed_noise, fresh_noise, rerandomisation_noise, rotation_noise, z_of
from autoprivacy.he.parameters.noise_bounds import (
    NOISE_BOUND,
    NoiseBound,
    fresh_bound,
    reply_bound,
    rerandomisation_bound,
)
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet
from autoprivacy.he.ring.primes import ntt_primes, primes_for
from autoprivacy.quantization.integer_network import Architecture, IntegerNetwork, LayerShape, LinearLayer
from autoprivacy.randomness.generator import SecureRandom
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.plaintext_modulus import plaintext_modulus
from autoprivacy.selection.schemes import darl, delphi_worst_case
from autoprivacy.selection.secure_set import (
    ROTATION_SHARE,
    ROUNDING_SHARE,
    Setting,
    WorstCase,
    secure_set,
    worst_case_reply_bits,
)

RNG = np.random.default_rng(5)
P = plaintext_modulus(10_000_000, -10_000_000, degree_for_batching=16384)


def make_layer(name: str, channels: int, size: int, outputs: int, kernel: int, **more: int) -> LinearLayer:
    shape = LayerShape(
        name, "convolution", (channels, size, size), outputs, (kernel, kernel), padding=kernel // 2, **more
    )
    weight = RNG.integers(-127, 128, (outputs, channels // shape.groups, kernel, kernel))
    return LinearLayer(shape, weight, np.zeros(outputs, np.int64))


LAYERS = [make_layer("conv1", 3, 16, 16, 3), make_layer("depth", 8, 8, 8, 3, groups=8), make_layer("fc", 64, 1, 10, 1)]
NETWORK = IntegerNetwork(
    Architecture((), tuple(layer.shape for layer in LAYERS), (0.5,), (0.25,), 0.02),
    {layer.shape.name: layer for layer in LAYERS},
    1.0,
)


def plans(packing: str, layer: LinearLayer, degree: int) -> list:
    return list(packing_named(packing).plans(layer.shape, degree, P))


def test_draws_of_the_noise_stay_within_its_bound() -> None:
    values = SecureRandom().centred_binomial(200_000)
    assert 12 < np.abs(values).max() <= NOISE_BOUND
    assert fresh_bound() > 6 * fresh_noise() and rerandomisation_bound(2048) > 6 * rerandomisation_noise(2048)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.shape.name)
def test_the_coefficient_bound_is_what_the_worst_noise_gives(layer: LinearLayer) -> None:
    """With every coefficient of the noise at its bound and the signs of the weights, a product reaches the 1-norm."""
    for plan in plans("coefficient", layer, 2048):
        polynomials = np.abs(plan.encode_weights(layer.weight)).sum(1)
        largest = np.bincount(plan.products[1], polynomials).max()
        assert plan.noise_bound(layer.weight) == NoiseBound(float(largest))
        assert plan.noise_bound(layer.weight).norm >= plan.noise(layer.weight).norm


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.shape.name)
def test_the_slot_bound_exceeds_every_sum_of_weight_polynomials(layer: LinearLayer) -> None:
    degree, seen = 2048, set()
    for plan in plans("slot", layer, degree):
        bound = plan.noise_bound(layer.weight)
        polynomials = np.abs(plan.encode_weights(layer.weight)).sum(1, dtype=np.float64)
        sums = np.bincount(plan.products[1], polynomials)
        folds = bound.rotations + 1
        # an output block adds up its diagonals' sums, and folding doubles that
        assert folds == plan.features
        replies = sums.reshape(-1, plan.diagonals).sum(1).max() * plan.features // plan.diagonals
        assert replies <= bound.norm
        assert bound.norm > plan.noise(layer.weight).norm
        seen.add(plan.features)
    assert seen


def rounding_bound(parameters: ParameterSet) -> float:
    """The most that rounding a reply to the scheme's bits can add, every coefficient of the secret being 1."""
    bits = worst_case_reply_bits(parameters.polynomial_degree, parameters.plaintext_modulus)
    return parameters.q * (2.0 ** -(bits.c0 + 1) + parameters.polynomial_degree * 2.0 ** -(bits.c1 + 1))


@pytest.mark.parametrize("kind", ["statistical", "none"])
@pytest.mark.parametrize("rotations", [0.0, 15.0])
def test_the_set_has_room_for_the_bound_and_little_more(kind: str, rotations: float) -> None:
    bound, degree, flooding = NoiseBound(2.0**30 if rotations else 20_000.0, rotations), 8192, Flooding(kind)  # type: ignore[arg-type]
    parameters = secure_set(bound, WorstCase(), Setting(degree, P, flooding, 60))
    assert parameters is not None and (parameters.key_switching_prime is None) == (not rotations)
    products, turns = fresh_bound() * bound.norm, 0.0
    if parameters.key_switching_prime:
        one = rotation_bound(degree, parameters.primes, parameters.key_switching_prime)
        assert one > 6 * rotation_noise(parameters)
        turns = rotations * one
        assert 0.9 * ROTATION_SHARE * products < turns <= ROTATION_SHARE * products
    total = reply_bound(degree, products + turns, flooding)
    assert 2 * P * rounding_bound(parameters) <= ROUNDING_SHARE * parameters.q
    total /= 1 - ROUNDING_SHARE
    assert 2 * P * total <= parameters.q <= 2 * P * total * 1.1
    if kind == "statistical":
        assert total > 2.0**40 * products


def test_paper_flooding_triples_the_unflooded_bits_of_a_quarter_of_n() -> None:
    bound = NoiseBound(20_000.0)
    small, large = (
        secure_set(bound, WorstCase(), Setting(n, P, Flooding(k), 60)) for n, k in ((4096, "none"), (16384, "paper"))
    )  # type: ignore[arg-type]
    assert small is not None and large is not None
    assert large.log2_q == pytest.approx(3 * small.log2_q, abs=0.1)
    assert secure_set(bound, WorstCase(), Setting(2048, P, Flooding("paper"), 60)) is None  # n / 4 would be 512


def test_what_does_not_fit_is_no_set() -> None:
    assert secure_set(NoiseBound(1e30), WorstCase(), Setting(2048, P, Flooding("none"), 60)) is None
    assert (
        secure_set(NoiseBound(1.0, 1.0), WorstCase(), Setting(8192, P, Flooding("none"), 60)) is None
    )  # rotations outweigh products


@pytest.mark.parametrize("packing", ["coefficient", "slot"])
@pytest.mark.parametrize("kind", ["statistical", "none"])
def test_one_set_serves_every_layer_and_average_case_noise_needs_less(packing: str, kind: str) -> None:
    selection = Selection(PROFILE, LINK, Flooding(kind), packing)  # type: ignore[arg-type]
    policy = delphi_worst_case(NETWORK, "net", P, selection)
    assert policy.scheme == "delphi-worst-case" and not policy.approximate
    (parameters,) = {layer.parameters for layer in policy.layers}
    for layer in policy.layers:
        shape, degree = NETWORK.layers[layer.name].shape, parameters.polynomial_degree
        plan = packing_named(packing).from_tiling(shape, degree, P, layer.tiling)
        bound = layer_noise_bound(NETWORK.layers[layer.name], plan, selection.flooding)
        weighted = fresh_bound() * bound.norm
        if parameters.key_switching_prime:
            weighted += bound.rotations * rotation_bound(degree, parameters.primes, parameters.key_switching_prime)
        total = reply_bound(degree, weighted, selection.flooding) + rounding_bound(parameters)
        assert layer.reply_bits == worst_case_reply_bits(degree, P) and 2 * P * total <= parameters.q
        growth = layer_noise(NETWORK.layers[layer.name], plan, selection.flooding)
        noise = deployed_noise(growth, parameters, selection.flooding, layer.target, layer.reply_bits)
        assert layer.predicted["z"] == pytest.approx(z_of(parameters.q, P, noise.total))
        assert layer.predicted["z"] > 12 and layer.predicted["security_bits"] >= 128
    average = darl(NETWORK, "net", P, selection)
    assert average.predicted["latency_seconds"] <= policy.predicted["latency_seconds"]
    assert math.log2(parameters.q) > math.log2(average.layers[0].parameters.q)


def test_a_network_without_a_set_is_refused() -> None:
    with pytest.raises(UserError, match=r"network net: no secure set with p = .*profile larger n or more primes"):
        delphi_worst_case(NETWORK, "net", P, Selection(made_up_profile((1024,)), LINK, Flooding("statistical")))


@pytest.mark.parametrize(
    ("degree", "primes", "message"),
    [
        (3000, (12289,), r"polynomial degree 3000: expected a power of two among .*; take one of them"),
        (1024, ntt_primes(1 << 20, 1024, 1), r"ciphertext modulus \d+: expected above the plaintext modulus"),
        (1024, primes_for(60.0, 1024), "needed 128"),
    ],
)
def test_sets_that_cannot_be_are_refused(degree: int, primes: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ParameterSet(1 << 20, degree, primes)


def test_weights_beyond_fourteen_bits_are_refused() -> None:
    shape, bias = LAYERS[2].shape, np.zeros(10, np.int64)
    LinearLayer(shape, np.full((10, 64, 1, 1), -8191), bias)
    with pytest.raises(UserError, match=r"layer fc: a weight of 8192 in size; allowed 8191, 14 bits; quantize"):
        LinearLayer(shape, np.full((10, 64, 1, 1), -8192), bias)
