"""Activations of any form: imported, quantised to tables, evaluated and finetuned as plain integer arithmetic says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.float_networks import convolution, randomised, smooth_dataset
from support.function_networks import FUNCTIONS, SIZE, ResidualOf, images_of, integer_network
from support.reference import reference_forward
from torch import Tensor, nn
from torch.nn import functional as F

from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.quantization.importer import import_module
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.quantize import QuantizationSettings, quantize
from autoprivacy.quantization.residues import Residues
from autoprivacy.search.decryption_errors import simulated_shares
from autoprivacy.search.finetuning import TrainableNetwork
from autoprivacy.training.batches import normalise


class Gated(nn.Module):
    """A convolution and any activation written out."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.fc, self.activation = convolution(3, 4, 3), nn.Linear(4, 6), activation

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.activation(self.conv(x)).mean((2, 3)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_modules_are_imported_as_one_table_each(name: str) -> None:
    graph = import_module(randomised(ResidualOf(FUNCTIONS[name])), (3, *SIZE))
    assert sum(node.operation == "table" for node in graph.nodes) == 3  # one module used three times


@pytest.mark.parametrize(
    "activation",
    [
        lambda x: x * torch.sigmoid(x),
        lambda x: F.hardsigmoid(x) * x,
        lambda x: x.mul(x.tanh()),
        lambda x: F.relu6(x) * torch.sigmoid(x),
        lambda x: F.leaky_relu(x, negative_slope=0.3),
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: F.silu(x, inplace=True),
    ],
)
def test_functions_and_products_of_functions_are_one_table(activation: Callable[[Tensor], Tensor]) -> None:
    graph = import_module(randomised(Gated(activation)), (3, 8, 8))  # which compares it with the module
    operations = [node.operation for node in graph.nodes]
    assert operations == ["input", "linear", "requantize", "table", "average_pool", "linear"]


def test_a_function_that_is_read_elsewhere_too_stays() -> None:
    graph = import_module(randomised(Gated(lambda x: x * torch.sigmoid(x) + torch.sigmoid(x))), (3, 8, 8))
    assert sum(node.operation == "table" for node in graph.nodes) == 2


@pytest.mark.parametrize("name", FUNCTIONS)
def test_tables_are_the_function_rounded_in_8_bits(name: str) -> None:
    network, function = integer_network(name), FUNCTIONS[name]
    assert len(network.architecture.tables) == 3
    for node in network.architecture.tables:
        levels, table = np.arange(-256, 256), np.array(node.table)
        assert (node.minimum, node.maximum) == (-256, 255)
        assert table.max() - table.min() <= 255 and len(np.unique(table)) > 60
        assert farthest(function, levels, table) <= 0.5 + 1e-6


def farthest(function: nn.Module, levels: np.ndarray, table: np.ndarray) -> float:
    """The largest distance of a table from the clipped function, at the best scales of levels and values there are.

    Both are tried at all eighths of an octave, which is where quantisation looks.
    """
    scales = 2.0 ** (np.arange(-12 * 8, 8) / 8)[:, None]
    found = []
    for scale in scales[:, 0]:
        values = function(torch.from_numpy(levels * scale)).numpy() / scales
        found.append(np.abs(np.clip(values, table.min(), table.max()) - table).max(1).min())
    return float(min(found))


@pytest.mark.parametrize("modulus", [None, 1 << 18, 1032193])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_evaluator_equals_plain_integer_arithmetic(name: str, modulus: int | None) -> None:
    network = integer_network(name)
    images = images_of(network, 3)
    outputs = Evaluator(network, modulus).forward(images)
    expected = [reference_forward(network, image, modulus) for image in images.numpy()]
    np.testing.assert_array_equal(outputs, expected)
    assert len(np.unique(expected)) > 12


def test_share_bits_may_be_ignored_before_a_table() -> None:
    network = integer_network("silu")
    names = [node.name for node in network.architecture.tables]
    residues = replace(Residues.uniform(network.architecture, 1 << 20), ignored_bits=dict.fromkeys(names, 3))
    exact = Evaluator(network, 1 << 20).forward(images_of(network, 20))
    rounded = Evaluator(network, residues, simulated_shares("finetune", 1, 1)).forward(images_of(network, 20))
    assert (exact != rounded).any() and ((exact - rounded).abs().float().mean() < 0.1 * exact.abs().float().mean())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_outputs_are_close_to_the_float_networks(name: str) -> None:
    module, data = randomised(ResidualOf(FUNCTIONS[name])).eval(), smooth_dataset(SIZE)
    network = integer_network(name)
    images = images_of(network, len(data.test.labels))
    outputs = Evaluator(network, None).forward(images).numpy() * network.output_scale
    with torch.no_grad():
        wanted = module(normalise(torch.from_numpy(data.test.images), data.mean, data.std)).numpy()
    error = np.sqrt(((outputs - wanted) ** 2).mean()) / wanted.std(0).mean()
    assert error < TOLERANCES.get(name, TOLERANCE), error


# Of the root mean square error of the logits, in their standard deviations from image to image, which are small behind
# sigmoids: these stay near a half.
TOLERANCE = 0.08
TOLERANCES = {"sigmoid": 0.13, "hardsigmoid": 0.17}


def test_more_bits_make_finer_tables() -> None:
    module, data = randomised(ResidualOf(nn.SiLU())).eval(), smooth_dataset(SIZE)
    with torch.no_grad():
        wanted = module(normalise(torch.from_numpy(data.test.images), data.mean, data.std)).numpy()
    errors = []
    for bits in (8, 10):
        network, _ = quantize(module, data, QuantizationSettings(activation_bits=bits, weight_bits=bits))
        images = network.architecture.quantize_images(data.test.images)
        outputs = Evaluator(network, None).forward(images).numpy() * network.output_scale
        errors.append(((outputs - wanted) ** 2).mean())
        assert len(network.architecture.tables[0].table) == 2 << bits
    assert errors[1] < errors[0]


def test_networks_with_tables_come_back_from_their_files(tmp_path) -> None:
    network = integer_network("gelu")
    network.save(tmp_path / "network.npz")
    assert IntegerNetwork.load(tmp_path / "network.npz").architecture == network.architecture


@pytest.mark.parametrize("name", FUNCTIONS)
def test_finetuning_computes_the_integer_network(name: str) -> None:
    network = integer_network(name)
    images = images_of(network, 4)
    expected = np.stack([reference_forward(network, image, None) for image in images.numpy()])
    with torch.no_grad():
        logits = TrainableNetwork(network)(images.float())
    assert torch.equal(logits, torch.from_numpy(expected).float() * network.output_scale)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_those_of_the_function(name: str) -> None:
    """Of the integer network's weights, against automatic differentiation of the float network of the same weights."""
    network = integer_network(name)
    trainable, images = TrainableNetwork(network), images_of(network, 40)
    weight = torch.linspace(-1, 1, 6)
    (trainable(images.float()) * weight).sum().backward()
    layer = trainable.layers[trainable.index["first.0"]]
    got = layer.weight_change.grad / layer.weight_unit

    module = randomised(ResidualOf(FUNCTIONS[name])).double().eval()
    convolution_layer, norm = module.first
    gain = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    values = images.double() * network.architecture.image_scale
    (module(values) * weight).sum().backward()
    wanted = convolution_layer.weight.grad / gain[:, None, None, None]
    assert torch.nn.functional.cosine_similarity(got.flatten().double(), wanted.flatten(), 0) > 0.98
