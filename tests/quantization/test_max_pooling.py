"""Max pooling: imported as torch computes it, and in integers the maxima of windows, whatever the padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.float_networks import convolution, randomised, smooth_dataset
from support.reference import reference_forward
from torch import Tensor, nn
from torch.nn import functional as F

from autoprivacy.errors import UserError
from autoprivacy.quantization.builder import _Builder
from autoprivacy.quantization.evaluation import Evaluator, value_ranges
from autoprivacy.quantization.float_graph import FloatGraph, FloatNode, requantized
from autoprivacy.quantization.graph_check import check_architecture
from autoprivacy.quantization.importer import import_module
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.operations import ArrayOperations
from autoprivacy.quantization.quantize import QuantizationSettings, quantize
from autoprivacy.quantization.scales import Calibration, Scales
from autoprivacy.search.finetuning import TrainableNetwork
from autoprivacy.training.batches import normalise

POOLS = [
    {"kernel_size": 2},
    {"kernel_size": 3},
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 1, "padding": 1},
    {"kernel_size": 2, "stride": 1, "padding": 1},
    {"kernel_size": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
    {"kernel_size": (1, 4), "stride": (1, 2)},
    {"kernel_size": 5, "stride": 3, "padding": 2, "ceil_mode": True},
]


class Pooled(nn.Module):
    """A convolution, what is done with it, and a fully connected layer."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor], features: int) -> None:
        super().__init__()
        self.conv, self.bn = convolution(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.fc, self.compute = nn.Linear(features, 6), forward

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.compute(self, self.bn(self.conv(x))).flatten(1))


def network_of(forward: Callable[[nn.Module, Tensor], Tensor], size: tuple[int, int] = (11, 8)) -> Pooled:
    features = forward(nn.Module(), torch.zeros(1, 4, *size)).numel()
    return randomised(Pooled(forward, features)).eval()


@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("values", ["unsigned", "signed"])
def test_integers_are_the_maxima_of_windows(pool: dict, values: str) -> None:
    """The nodes that a pooling becomes, in integer arithmetic, against torch."""
    low, high = (0, 255) if values == "unsigned" else (-90, 40)
    x = torch.randint(low, high + 1, (3, 11, 8), generator=torch.Generator().manual_seed(1))
    wanted = nn.MaxPool2d(**pool)(x[None].double())[0].long().numpy()
    graph = import_module(nn.Sequential(nn.ReLU(), nn.MaxPool2d(**pool), nn.Flatten()), (3, 11, 8))
    pooled = next(node for node in graph.nodes if node.operation in ("max_pool", "subsample"))
    assert pooled.operation == "max_pool" and pooled.shape == wanted.shape
    built = nodes_of(pooled, (3, 11, 8), (low, high))
    taken = {"x": x.numpy()}
    for node in built:
        inputs = [taken[name] for name in node.inputs]
        taken[node.name] = (
            inputs[0].clip(node.minimum, node.maximum)
            if node.operation == "activation"
            else ArrayOperations().step(node, inputs)
        )
    assert built[-1].name == pooled.name
    np.testing.assert_array_equal(taken[pooled.name], wanted)


def nodes_of(pooled: FloatNode, shape: tuple[int, int, int], interval: tuple[int, int]) -> list:
    """What is built of a max pooling of a value x."""
    graph = FloatGraph((FloatNode("x", "input", (), shape),), {})
    builder = _Builder(graph, Calibration({}, {}, {}, {}), Scales({}, {}), 127)
    builder.build(graph.nodes[0])
    builder.ranges["x"] = interval
    builder.build(replace(pooled, inputs=("x",)))
    return builder.nodes[1:]


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: F.max_pool2d(F.relu(x), 2),
        lambda m, x: F.max_pool2d(F.relu(x), 3, 2, 1),
        lambda m, x: F.relu(F.max_pool2d(x, 2)),
        lambda m, x: F.max_pool2d(F.silu(x), 3, 2, 1),
        lambda m, x: F.max_pool2d(x, 2),
        lambda m, x: F.max_pool2d(F.max_pool2d(F.relu6(x), 2, 1), 2),
        lambda m, x: F.adaptive_max_pool2d(F.relu(x), 1),
        lambda m, x: F.max_pool2d(F.relu(x), 3, 1, 1) + F.relu(x),
        lambda m, x: F.max_pool2d(F.avg_pool2d(F.relu(x), 2), 2),
        lambda m, x: torch.cat([F.max_pool2d(F.relu(x), 3, 1, 1), F.relu(x)], 1),
    ],
)
def test_networks_are_quantised_evaluated_and_finetuned(forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
    module, data = network_of(forward, (12, 12)), smooth_dataset((12, 12))
    network, _ = quantize(module, data, QuantizationSettings())
    check_architecture(network.architecture)
    images = torch.from_numpy(network.architecture.quantize_images(data.test.images))
    for modulus in (None, 1 << 20, 1032193):
        expected = np.stack([reference_forward(network, image, modulus) for image in images[:3].numpy()])
        np.testing.assert_array_equal(Evaluator(network, modulus).forward(images[:3]), expected)
    with torch.no_grad():
        logits = TrainableNetwork(network)(images[:3].float())
    assert torch.equal(logits, torch.from_numpy(expected).float() * network.output_scale)
    outputs = Evaluator(network, None).forward(images).numpy() * network.output_scale
    with torch.no_grad():
        wanted = module(normalise(torch.from_numpy(data.test.images), data.mean, data.std)).numpy()
    assert np.sqrt(((outputs - wanted) ** 2).mean()) < 0.06 * wanted.std(0).mean()


def integer_network(forward: Callable[[nn.Module, Tensor], Tensor]) -> IntegerNetwork:
    return quantize(network_of(forward, (12, 12)), smooth_dataset((12, 12)), QuantizationSettings())[0]


def test_a_relu_right_behind_a_pooling_comes_before_it() -> None:
    before, behind = (
        integer_network(f) for f in (lambda m, x: F.max_pool2d(F.relu(x), 2), lambda m, x: F.relu(F.max_pool2d(x, 2)))
    )
    assert [node.operation for node in before.architecture.nodes] == [
        node.operation for node in behind.architecture.nodes
    ]
    assert [layer.weight.tolist() for layer in before.layers.values()] == [
        layer.weight.tolist() for layer in behind.layers.values()
    ]


def test_a_relu_stays_behind_a_pooling_that_is_read_elsewhere_too() -> None:
    graph = import_module(network_of(lambda m, x: F.relu(y := F.max_pool2d(x, 2)) + y), (3, 11, 8))
    operations = [node.operation for node in requantized(graph).nodes]
    assert operations[:5] == ["input", "linear", "requantize", "max_pool", "relu"]


def test_pooling_2x2_takes_three_activations_of_9_bits_an_output() -> None:
    architecture = integer_network(lambda m, x: F.max_pool2d(F.relu(x), 2)).architecture
    relu, *maxima = architecture.activations
    assert sum(int(np.prod(node.shape)) for node in maxima) == 3 * 4 * 6 * 6
    assert {(node.modulus_bits, node.maximum, node.shift) for node in maxima} == {(9, 255, 0)}
    assert len(architecture.maxima) == 2


def test_ranges_do_not_grow() -> None:
    network = integer_network(lambda m, x: F.max_pool2d(F.relu(x), 3, 2, 1))
    ranges = value_ranges(network)
    assert len(network.architecture.maxima) == 4
    assert all(ranges[name] == (0, 255) for name in network.architecture.maxima)


def test_gradients_are_those_of_torchs_max_pooling() -> None:
    """Of the integer network's own function, in floats, in the places that no two values share."""
    network = integer_network(lambda m, x: F.max_pool2d(F.relu(x), 3, 2, 1))
    trainable = TrainableNetwork(network)
    images = torch.from_numpy(network.architecture.quantize_images(smooth_dataset((12, 12)).test.images)).float()
    weight = torch.linspace(-1, 1, 6)
    (trainable(images) * weight).sum().backward()
    conv, fc = (trainable.layers[trainable.index[name]] for name in ("conv", "fc"))
    node = network.architecture.activations[0]

    kernel, bias = conv.start_weight.clone().requires_grad_(), conv.start_bias
    accumulators = F.conv2d(images, kernel, bias, padding=1) / 2**node.shift
    pooled = F.max_pool2d(accumulators.clamp(0, 255), 3, 2, 1)
    (
        F.linear(pooled.flatten(1), fc.start_weight.flatten(1), fc.start_bias) * network.output_scale * weight
    ).sum().backward()
    got = conv.weight_change.grad / conv.weight_unit
    assert F.cosine_similarity(got.flatten(), kernel.grad.flatten(), 0) > 0.95


def test_a_modulus_of_its_own_is_for_values_that_no_layer_feeds() -> None:
    architecture = integer_network(lambda m, x: F.max_pool2d(F.relu(x), 2)).architecture
    relu, gain = architecture.activations[:2]
    wrong = {node: replace(node, modulus_bits=9) for node in (relu,)}
    with pytest.raises(UserError, match="node 'relu1': modulus_bits 9: expected 0, as a layer feeds 'conv'"):
        check_architecture(replace(architecture, nodes=tuple(wrong.get(node, node) for node in architecture.nodes)))
    for bits in (-1, 33, 2.5):
        wrong = {gain: replace(gain, modulus_bits=bits)}
        with pytest.raises(UserError, match=f"modulus_bits {bits}: expected an integer from 0 to 32"):
            check_architecture(replace(architecture, nodes=tuple(wrong.get(node, node) for node in architecture.nodes)))
