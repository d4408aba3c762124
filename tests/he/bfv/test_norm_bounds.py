"""Nothing that a client sees depends on private weights beyond the policy's norm bounds: not the policy, not floods."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from support.made_up_profile import LINK, PROFILE
from support.protocol_sessions import NETWORK
from support.real_noise import decrypt_with_noise

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.cipher import ClientCipher, ServerCipher
from autoprivacy.he.bfv.linear import ClientLinear, ServerComponent
from autoprivacy.he.bfv.reply_bits import default_reply_bits
from autoprivacy.he.packing import PACKINGS
from autoprivacy.he.packing.coefficient import CoefficientPlan
from autoprivacy.he.parameters.commitment import coarse_bound
from autoprivacy.he.parameters.noise import fresh_noise, switching_noise
from autoprivacy.he.parameters.parameter_set import Flooding, Target
from autoprivacy.he.parameters.policy import EXACT_TARGET
from autoprivacy.protocol.server_session import Model
from autoprivacy.protocol.session import Agreement
from autoprivacy.quantization.integer_network import IntegerNetwork, LayerShape, LinearLayer
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.layer_selection import select_layer
from autoprivacy.selection.schemes import darl, delphi_worst_case, layerwise

P = 1 << 17
FLOODING = Flooding("statistical")
SHAPE = LayerShape("layer", "convolution", (1, 32, 32), 16, (3, 3), padding=1)
IMAGES = 6


def slightly_larger(weight: np.ndarray, step: int = 1) -> np.ndarray:
    """Every weight that is not at its limit a step further from zero."""
    return np.clip(weight + step * np.sign(weight), -127, 127)


def a_pair(shape: LayerShape) -> tuple[LinearLayer, LinearLayer]:
    """Two layers of one coarse bound whose norms differ by some percent."""
    rng = np.random.default_rng(5)
    weight = rng.integers(-100, 101, (shape.output_channels, shape.input_shape[0], *shape.kernel))
    pair = [LinearLayer(shape, w, np.zeros(len(w), np.int64)) for w in (weight, slightly_larger(weight, 4))]
    assert coarse_bound(pair[0].weight_norm) == coarse_bound(pair[1].weight_norm)
    assert 1.04 < pair[1].weight_norm / pair[0].weight_norm < 1.1
    return pair[0], pair[1]


def norm_estimates(layer: LinearLayer, norm_bound: float | None) -> tuple[np.ndarray, float]:
    """What a client takes a layer's norm to be from each of some images' replies, and its relative standard error."""
    selection = Selection(PROFILE, LINK, FLOODING)
    choice, _ = select_layer(layer, EXACT_TARGET, P, selection)
    parameters, plan = choice.parameters, choice.plan
    assert isinstance(plan, CoefficientPlan)
    bits = default_reply_bits(plan.workload, parameters, EXACT_TARGET)  # little rounding on top of the flood
    cipher = ClientCipher(parameters)
    server_cipher = ServerCipher(parameters, cipher.public_key())
    client = ClientLinear(plan, cipher, bits)
    server = ServerComponent(layer, plan, parameters, FLOODING, EXACT_TARGET, bits, norm_bound)
    rng, switching = np.random.default_rng(1), parameters.q * switching_noise(parameters.polynomial_degree, bits)
    estimates, count = [], 0
    for _ in range(IMAGES):
        masks = (rng.integers(0, P, shape, dtype=np.uint64) for shape in (SHAPE.input_shape, SHAPE.output_shape))
        own, theirs = masks
        reply = server.evaluate(server_cipher, client.encrypt(own), theirs)
        _, noise = decrypt_with_noise(cipher, reply, client.form)
        noise = noise.reshape(-1)[client.form.positions]
        count = noise.size
        estimates.append(math.sqrt(np.mean(noise.astype(float) ** 2) - switching**2) / 2.0**40 / fresh_noise())
    return np.array(estimates), 1 / math.sqrt(2 * count)


def test_replies_tell_no_more_of_a_norm_than_its_bound() -> None:
    """The client's estimate is that of the bound for both layers; sized by the norm itself it would tell them apart."""
    small, large = a_pair(SHAPE)
    bound = coarse_bound(small.weight_norm)
    (of_small, error), (of_large, _) = (norm_estimates(layer, bound) for layer in (small, large))
    deviation = error * math.sqrt(2 / IMAGES) * of_small.mean()
    assert abs(of_small.mean() - of_large.mean()) < 4 * deviation
    channels = (of_small.mean() / bound) ** 2  # of a ciphertext: the client estimates the bound, which it knows
    assert abs(channels - round(channels)) < 8 * error * channels
    # the same attack on floods as wide as the weights themselves would ask for
    (apart_small, _), (apart_large, _) = (norm_estimates(layer, layer.weight_norm) for layer in (small, large))
    assert apart_large.mean() - apart_small.mean() > 4 * deviation


def bound_pair() -> tuple[IntegerNetwork, IntegerNetwork]:
    """The network of the protocol's tests, and one with other weights within the same bounds."""
    other = {
        name: LinearLayer(layer.shape, slightly_larger(layer.weight), layer.bias)
        for name, layer in NETWORK.layers.items()
    }
    for name, layer in other.items():
        if coarse_bound(layer.weight_norm) != coarse_bound(NETWORK.layers[name].weight_norm):
            other[name] = NETWORK.layers[name]
    assert sum(layer is not NETWORK.layers[name] for name, layer in other.items()) >= 2
    return NETWORK, NETWORK.with_weights(other)


@pytest.mark.parametrize("packing", PACKINGS)
def test_clients_of_two_networks_within_one_bound_are_told_the_same(packing: str) -> None:
    """Sets, tilings, bits of replies and bounds; provenance, predictions and the commitment stay with the server."""
    selection = Selection(PROFILE, LINK, FLOODING, packing)
    p, exponent = 1032193, {"first": 9, "second": 12, "fc": 7}
    targets = {name: Target(decryption_error_rate=2.0 ** -exponent[name]) for name in NETWORK.layers}
    for choose in (
        lambda network: darl(network, "net", p, selection),
        lambda network: delphi_worst_case(network, "net", p, selection),
        lambda network: layerwise(network, "net", p, targets, selection),
    ):
        told = [Agreement(network.architecture, choose(network)).to_bytes() for network in bound_pair()]
        assert told[0] == told[1]
        assert not any(word in told[0] for word in (b"log2_noise", b"cpu", b"digest"))


def test_a_server_refuses_weights_above_the_bound_and_other_networks() -> None:
    own, other = bound_pair()
    policy = darl(own, "net", 1032193, Selection(PROFILE, LINK, FLOODING))
    Model(own, policy)
    with pytest.raises(UserError, match="made for another network"):
        Model(other, policy)
    Model(other, replace(policy, commitment=None))  # within the bounds
    low = tuple(replace(layer, norm_bound=layer.norm_bound / 2) for layer in policy.layers)
    with pytest.raises(UserError, match="layer first: weights of norm .*; the policy's norm_bound is"):
        Model(own, replace(policy, layers=low))


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("outputs", [3, 16])
def test_public_noise_is_the_most_that_weights_within_the_bound_can_make(packing: str, outputs: int) -> None:
    rng = np.random.default_rng(2)
    for size, kernel in ((32, 3), (8, 3), (1, 1)):
        shape = LayerShape("layer", "convolution", (4, size, size), outputs, (kernel, kernel), padding=kernel // 2)
        for weight in (
            rng.integers(-127, 128, (outputs, 4, kernel, kernel)),
            np.full((outputs, 4, kernel, kernel), 90),
        ):
            layer = LinearLayer(shape, weight, np.zeros(outputs, np.int64))
            for plan in Selection(PROFILE, LINK, FLOODING, packing).plans(shape, 4096, 40961):
                public, bound = plan.public_noise(layer.weight_norm), plan.public_noise_bound(layer.weight_norm)
                assert plan.noise(weight).norm <= public.norm * (1 + 1e-9)
                assert plan.noise(weight).rotations == public.rotations
                assert plan.noise_bound(weight).norm <= bound.norm * (1 + 1e-9)
