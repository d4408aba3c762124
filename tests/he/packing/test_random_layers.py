"""Layers of every kind, drawn at random, through both parties with real ciphertexts: shares add up to the layer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch

from autoprivacy.he.bfv.cipher import ClientCipher, ServerCipher
from autoprivacy.he.bfv.linear import ClientLinear, ServerLinear, no_rotation
from autoprivacy.he.bfv.reply_bits import smallest_reply_bits
from autoprivacy.he.bfv.rotation import GaloisKeyMaker, Rotator
from autoprivacy.he.packing import packing_named
from autoprivacy.he.packing.plan import Plan, Rotate
from autoprivacy.he.packing.public_noise import layer_noise
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet
from autoprivacy.he.parameters.policy import EXACT_TARGET
from autoprivacy.protocol.shares import apply_layer
from autoprivacy.quantization.integer_network import LayerShape, LinearLayer, to_signed
from autoprivacy.selection.plaintext_modulus import composite_modulus, plaintext_modulus
from autoprivacy.selection.secure_set import AverageCase, Setting, secure_set

# Kind of layer -> channels, size of the image, outputs, kernel, and what else differs from the usual; each a choice.
KINDS = {
    "3x3": {"channels": (3, 8, 13), "size": (8, 16), "outputs": (4, 10), "padding": (1,)},
    "3x3 without padding": {"channels": (2, 5), "size": (7, 12), "outputs": (3, 6), "padding": (0,)},
    "5x5": {"channels": (2, 3), "size": (9, 16), "outputs": (3, 5), "kernel": (5,), "padding": (0, 2)},
    "1x1": {"channels": (16, 33), "size": (4, 8), "outputs": (5, 24), "kernel": (1,)},
    "stride 2": {"channels": (3, 6), "size": (15, 16), "outputs": (4, 9), "padding": (1,), "stride": (2,)},
    "stride 2, 1x1": {"channels": (8, 12), "size": (8, 9), "outputs": (6, 16), "kernel": (1,), "stride": (2,)},
    "depthwise": {"channels": (6, 12), "size": (8, 16), "padding": (1,), "groups": (0,)},
    "depthwise, stride 2": {"channels": (4, 9), "size": (15, 16), "padding": (1,), "stride": (2,), "groups": (0,)},
    "grouped": {"channels": (6, 12), "size": (6, 8), "outputs": (6, 9), "padding": (0, 1), "groups": (3,)},
    "fully connected": {"channels": (40, 300), "size": (1,), "outputs": (5, 10), "kernel": (1,)},
    "smaller than a lane": {"channels": (1, 2), "size": (1, 2), "outputs": (1, 2), "kernel": (1,)},
    "image larger than a ciphertext": {"channels": (2,), "size": (72,), "outputs": (2,), "kernel": (1, 3)},
    "many ciphertexts": {"channels": (40,), "size": (20,), "outputs": (24,), "kernel": (1,)},
}
DRAWS = 2  # layers of each kind
# Packing and number of factors of p -> polynomial degrees.
WAYS = {("coefficient", 1): (2048, 4096), ("slot", 1): (4096, 8192), ("slot", 2): (2048, 4096)}
# The range of a layer's inputs: signed pixels, activations, and sums over a 2x2 pool.
INPUT_MAXIMA = (128, 255, 1020)


def drawn_layer(kind: str, generator: np.random.Generator) -> LinearLayer:
    """A layer of the kind, with 8-bit weights."""

    def choice(name: str, *usual: int) -> int:
        return int(generator.choice(KINDS[kind].get(name, usual)))

    channels, kernel = choice("channels"), choice("kernel", 3)
    groups = choice("groups", 1) or channels
    shape = LayerShape(
        "layer",
        "fully_connected" if kind == "fully connected" else "convolution",
        (channels, choice("size"), choice("size")),
        choice("outputs", channels),
        (kernel, kernel),
        stride=choice("stride", 1),
        padding=choice("padding", 0),
        groups=groups,
        input_maximum=int(generator.choice(INPUT_MAXIMA)),
    )
    weight = generator.integers(-127, 128, (shape.output_channels, channels // groups, kernel, kernel))
    return LinearLayer(shape, weight, generator.integers(-3000, 3000, shape.output_channels))


def true_outputs(layer: LinearLayer, values: np.ndarray) -> np.ndarray:
    """The layer over the integers, by torch in double precision, exact below 2^53."""
    shape = layer.shape
    outputs = torch.nn.functional.conv2d(
        torch.from_numpy(values).double()[None],
        torch.from_numpy(layer.weight).double(),
        torch.from_numpy(layer.bias).double(),
        shape.stride,
        shape.padding,
        groups=shape.groups,
    )
    return outputs[0].numpy().astype(np.int64)


def drawn_set(
    layer: LinearLayer, packing: str, factors: int, degrees: tuple[int, ...], generator: np.random.Generator
) -> tuple[ParameterSet, Plan, Flooding]:
    """Any tiling, degree and flood for which there is a secure set that decrypts without errors."""
    bound = layer.shape.input_maximum * int(np.abs(layer.weight).sum((1, 2, 3)).max()) + 3000
    kinds = [Flooding("statistical"), Flooding("none")]
    for flooding, degree in generator.permutation(np.array(list(product(kinds, degrees)), object)):
        if factors == 1:
            p = plaintext_modulus(bound, -bound, degree_for_batching=max(degrees))
        else:
            p = composite_modulus(bound, -bound, degree)
        own = packing_named(packing).plaintext_factors(p, degree)
        plans = packing_named(packing).plans(layer.shape, degree, p)
        for index in generator.permutation(len(plans))[:4]:
            noise = plans[index].noise(layer.weight)
            if parameters := secure_set(noise, AverageCase(EXACT_TARGET), Setting(degree, p, flooding, factors=own)):
                return parameters, plans[index], flooding
    raise AssertionError(f"{layer.shape}: no set")


def draws(kind: str, way: tuple[str, int]) -> Iterator[tuple[LinearLayer, ParameterSet, Plan, Flooding]]:
    """Layers of a kind with their sets and plans, the same at every call."""
    for number in range(DRAWS):
        generator = np.random.default_rng([sum(kind.encode()), len(way[0]), way[1], number])
        layer = drawn_layer(kind, generator)
        yield layer, *drawn_set(layer, *way, WAYS[way], generator)


def test_what_is_drawn_covers_what_can_go_wrong() -> None:
    """Rotations, floods, bands, inputs of more than 8 bits."""
    drawn = [draw for kind, way in product(KINDS, WAYS) for draw in draws(kind, way)]
    assert {layer.shape.input_maximum for layer, *_ in drawn} == set(INPUT_MAXIMA)
    assert {flooding.kind for *_, flooding in drawn} == {"statistical", "none"}
    assert {parameters.polynomial_degree for _, parameters, _, _ in drawn} == {2048, 4096, 8192}
    assert {bool(plan.galois_elements) for _, _, plan, _ in drawn} == {True, False}
    assert {len(part.products[0]) > 1 for _, _, plan, _ in drawn for part in plan.components} == {True, False}
    assert any(part.bands > 1 for _, _, plan, _ in drawn for part in plan.components)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way[0]}, {way[1]} factors" if way[1] > 1 else way[0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_parties_shares_add_up_to_the_layer(kind: str, way: tuple[str, int]) -> None:
    for layer, parameters, plan, flooding in draws(kind, way):
        assert len(parameters.components) == way[1] and not parameters.insecure_for_test
        shape, p, most = layer.shape, parameters.plaintext_modulus, layer.shape.input_maximum
        keys = ClientCipher(parameters)
        bits = smallest_reply_bits(
            plan.workload, parameters, EXACT_TARGET, layer_noise(layer, plan, flooding), flooding
        )
        client = ClientLinear(plan, keys, bits)
        server = ServerLinear(layer, plan, parameters, flooding, EXACT_TARGET, bits)
        rotate: Rotate = no_rotation
        if elements := plan.galois_elements:
            rotate = Rotator(parameters, elements, GaloisKeyMaker(keys).keys(elements)).rotate
        generator = np.random.default_rng(most)
        values = generator.integers(-most, most + 1, shape.input_shape)
        mask, reply_mask = (generator.integers(0, p, size) for size in (shape.input_shape, shape.output_shape))
        message, cipher = client.encrypt(mask.astype(np.uint64)), ServerCipher(parameters, keys.public_key())
        reply = server.evaluate(cipher, message, reply_mask.astype(np.uint64), rotate)
        client_share = client.decrypt(reply).astype(np.int64)
        server_share = (apply_layer(layer, (values - mask) % p, p) + reply_mask) % p
        np.testing.assert_array_equal(to_signed(client_share + server_share, p), true_outputs(layer, values))
