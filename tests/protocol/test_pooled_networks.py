"""Max pooling in the protocol, by lookups and by circuits: equal to the integer network bit for bit."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from support.float_networks import convolution, randomised, smooth_dataset
from support.protocol_sessions import FLOODED, FLOODED_SLOTS, payload_lengths, session
from support.reference import reference_forward
from torch import nn

from autoprivacy.he.parameters.policy import EXACT_TARGET, Policy
from autoprivacy.protocol.messages import Message
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.quantize import QuantizationSettings, measured_rows, quantize, required_ranges
from autoprivacy.selection.exact import layer_moduli
from autoprivacy.selection.plaintext_modulus import PlaintextRule
from autoprivacy.selection.schemes import darl, delphi, layerwise
from autoprivacy.selection.share_windows import share_windows, with_share_windows

SIZE, SETTINGS = (12, 12), QuantizationSettings()


def stage(inputs: int, outputs: int, *pool: nn.Module, activation: type[nn.Module] = nn.ReLU) -> list[nn.Module]:
    return [convolution(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), activation(), *pool]


def vgg() -> nn.Module:
    """VGG's kind, smaller: two poolings of 2x2."""
    head = [nn.Flatten(), nn.Linear(8 * 9, 10), nn.ReLU(), nn.Linear(10, 6)]
    return nn.Sequential(*stage(3, 4, nn.MaxPool2d(2)), *stage(4, 8, nn.MaxPool2d(2)), *head)


def stem() -> nn.Module:
    """A ResNet's stem: 3x3 at stride 2 with padding; SiLU, so that values are signed, and a pooling of the image."""
    pool = nn.MaxPool2d(3, 2, 1)
    head = [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, 6)]
    return nn.Sequential(nn.MaxPool2d(2, 1), *stage(3, 4, pool, activation=nn.SiLU), *stage(4, 6, nn.Identity()), *head)


@cache
def quantised(build) -> tuple[IntegerNetwork, dict[str, tuple[int, int]]]:
    network, rows = quantize(randomised(build()).eval(), smooth_dataset(SIZE), SETTINGS)
    return network, required_ranges(rows)


def own_moduli(build, activation: str) -> Policy:
    network, ranges = quantised(build)
    moduli = layer_moduli(network.architecture, ranges, FLOODED, PlaintextRule())[-1]
    policy = layerwise(network, "n", moduli, dict.fromkeys(network.layers, EXACT_TARGET), FLOODED)
    policy = with_share_windows(policy, share_windows(network.architecture, ranges))
    if activation == "garbled":
        return policy
    return replace(policy, layers=tuple(replace(layer, activation="lookup") for layer in policy.layers))


def check(network: IntegerNetwork, policy: Policy, lookups: int) -> None:
    residues = policy.residues(network.architecture)
    images = network.architecture.quantize_images(smooth_dataset(SIZE).test.images[:2])
    with session(policy, network) as (client, (up, _)):
        for image in images:
            assert (client.infer(client.prepare(), image) == reference_forward(network, image, residues)).all()
            assert (reference_forward(network, image, residues) == reference_forward(network, image, None)).all()
        assert len(payload_lengths(bytes(up.sent), Message.LOOKUP_ANSWER)) == 2 * lookups


@pytest.mark.parametrize("activation", ["garbled", "lookup"])
def test_a_network_of_vggs_kind(activation: str) -> None:
    policy = own_moduli(vgg, activation)
    check(quantised(vgg)[0], policy, 7 if activation == "lookup" else 0)


@pytest.mark.parametrize(
    "policy",
    [
        lambda network: darl(network, "vgg", 1032193, FLOODED),
        lambda network: delphi(network, "vgg", (-60_000, 60_000), FLOODED_SLOTS),
    ],
)
def test_circuits_take_any_plaintext_modulus(policy) -> None:
    network, _ = quantised(vgg)
    check(network, policy(network), 0)


def test_signed_values_overlapping_windows_padding_and_the_image() -> None:
    policy = own_moduli(stem, "lookup")
    network, _ = quantised(stem)
    check(network, policy, len(network.architecture.activations))


def test_poolings_behind_layers_that_are_looked_up_are_looked_up() -> None:
    network, _ = quantised(vgg)
    policy = own_moduli(vgg, "garbled")
    first, *others = policy.layers
    mixed = replace(policy, layers=(replace(first, activation="lookup"), *others))
    check(network, mixed, 3)
    rows = measured_rows(network, smooth_dataset(SIZE), SETTINGS)
    assert [row["name"] for row in rows] == [layer.name for layer in policy.layers]
