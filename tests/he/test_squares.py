"""The square as an activation: import, scales, integer semantics, gradients; no protocol."""

import json

import numpy as np
import pytest
import torch
from support.float_networks import convolution, randomised, smooth_dataset
from support.reference import reference_forward
from support.squares import one_square
from torch import nn

from autoprivacy.errors import UserError
from autoprivacy.networks.square import Square
from autoprivacy.quantization.evaluation import Evaluator, value_ranges
from autoprivacy.quantization.graph_check import read_architecture
from autoprivacy.quantization.importer import import_module
from autoprivacy.quantization.quantize import QuantizationSettings, quantize
from autoprivacy.quantization.residues import Residues
from autoprivacy.search.finetuning import TrainableNetwork
from autoprivacy.training.batches import normalise

SETTINGS = QuantizationSettings(calibration_images=50, margin=1.2)


class Squares(nn.Module):
    """A square with a residual that is squared itself, a mean, a ReLU beside them."""

    def __init__(self, bits=7):
        super().__init__()
        self.stem = nn.Sequential(convolution(3, 8, 3, padding=1), nn.BatchNorm2d(8), Square(bits))
        self.body = nn.Sequential(convolution(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.square = Square(bits)
        self.last = nn.Sequential(nn.AvgPool2d(2), convolution(8, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten())
        self.fc = nn.Linear(6 * 4 * 4, 5)

    def forward(self, x):
        x = self.stem(x)
        return self.fc(self.last(self.square(self.body(x) + x)))


def logits(module, dataset):
    with torch.no_grad():
        return module(normalise(torch.from_numpy(dataset.test.images), dataset.mean, dataset.std)).numpy()


@pytest.fixture(scope="module")
def data():
    return smooth_dataset((8, 8))


@pytest.mark.parametrize(("bits", "limit"), [(7, 0.06), (5, 0.2), (4, 0.25)])
def test_the_integer_network_is_near_the_float_network(data, bits, limit):
    module = randomised(Squares(bits)).eval()
    network, rows = quantize(module, data, SETTINGS)
    expected = logits(module, data)
    outputs = Evaluator(network, None).forward(network.architecture.quantize_images(data.test.images)).numpy()
    assert np.sqrt(np.mean((outputs * network.output_scale - expected) ** 2)) < limit * expected.std()
    first, second = network.architecture.squares
    assert (first.name, second.name) == ("square1", "square2")
    for node in (first, second):
        assert (node.minimum, node.maximum, node.activated_range) == (-(1 << bits), (1 << bits) - 1, (0, 4**bits))
    by_name = {row["name"]: row for row in rows}
    assert by_name["body.0"]["input_maximum"] == 4**bits
    assert by_name["last.1"]["input_maximum"] == 4 * 4**bits
    for image in network.architecture.quantize_images(data.test.images[:2]):
        for modulus in (None, 65537, 1 << 20):
            evaluated = Evaluator(network, modulus).forward(image[None]).numpy()[0]
            np.testing.assert_array_equal(evaluated, reference_forward(network, image, modulus))


def test_no_accumulator_that_calibration_saw_wraps(data):
    network, rows = quantize(randomised(Squares()).eval(), data, SETTINGS)
    evaluator = Evaluator(network, 1 << max(row["plaintext_bits"] for row in rows))
    evaluator.forward(network.architecture.quantize_images(data.train.images[:50]))
    assert evaluator.wraps.total() == 0


def test_functions_square_with_the_default_bits_and_modules_with_their_own():
    class Functions(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.own = Square(2)

        def forward(self, x):
            return self.own(self.conv(torch.square(self.conv(x.square()))))

    graph = import_module(Functions(), (3, 4, 4))
    kinds = ["requantize", "square", "linear"]
    assert [node.operation for node in graph.nodes] == ["input", *kinds, *kinds, "requantize", "square"]
    assert [node.magnitude_bits for node in graph.nodes if node.operation == "requantize"] == [4, 4, 2]


@pytest.mark.parametrize("bits", [0, 8])
def test_bits_are_checked(bits):
    with pytest.raises(UserError, match=f"Square: bits {bits}; expected 1 to 7"):
        Square(bits)


def test_a_shift_joins_the_bias_of_the_layer_before():
    conv = nn.Conv2d(3, 4, 1)
    graph = import_module(nn.Sequential(conv, nn.BatchNorm2d(4), Square(shift=1.5)), (3, 4, 4))
    plain = import_module(nn.Sequential(conv, nn.BatchNorm2d(4), Square()), (3, 4, 4))
    torch.testing.assert_close(graph.layers["conv1"].bias, plain.layers["conv1"].bias + 1.5)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = (conv.double()(x) / np.sqrt(1 + 1e-5) + 1.5) ** 2
    torch.testing.assert_close(graph.outputs(x), expected.flatten(1))
    with pytest.raises(UserError, match="layer 1: Square can be folded only into a convolution or Linear"):
        import_module(nn.Sequential(nn.AvgPool2d(2), Square(shift=1.0)), (3, 4, 4))
    assert import_module(nn.Sequential(nn.AvgPool2d(2), Square()), (3, 4, 4)).nodes[-1].operation == "square"


def test_a_value_and_its_square_are_not_added(data):
    class Clash(nn.Module):
        def forward(self, x):
            return x + torch.square(x)

    with pytest.raises(UserError, match="addition add1: one of its inputs is the other squared.*put a convolution"):
        quantize(Clash(), data, SETTINGS)


def test_squares_of_values_of_different_classes_are_added(data):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = (nn.Sequential(convolution(3, 4, 1), nn.BatchNorm2d(4), Square(7)) for _ in range(2))
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            y = self.one(x) + self.two(x)
            return self.conv(y) + y + self.conv(torch.square(self.conv(y) + y))

    module = randomised(Sum()).eval()
    network, _ = quantize(module, data, SETTINGS)
    expected = logits(module, data).reshape(len(data.test.images), -1)
    outputs = Evaluator(network, None).forward(network.architecture.quantize_images(data.test.images)).numpy()
    assert np.sqrt(np.mean((outputs * network.output_scale - expected) ** 2)) < 0.1 * expected.std()


def test_the_square_is_that_of_the_rounded_and_clipped_value():
    network = one_square()
    image = np.linspace(-128, 127, 16).astype(np.int64).reshape(1, 4, 4)
    clipped = [min(max((3 * x + 5 + 4) // 8, -16), 15) for x in image.reshape(-1).tolist()]
    assert {-16, 15} < set(clipped)
    np.testing.assert_array_equal(reference_forward(network, image, None), [7 - 2 * y * y for y in clipped])
    np.testing.assert_array_equal(Evaluator(network, None).forward(image[None])[0], [7 - 2 * y * y for y in clipped])


@pytest.mark.parametrize(
    ("clip", "interval"), [((-16, 15), (0, 256)), ((3, 9), (9, 81)), ((-5, -2), (4, 25)), ((0, 15), (0, 225))]
)
def test_ranges_are_those_of_squares(clip, interval):
    network = one_square(*clip)
    assert value_ranges(network)["square"] == interval
    assert network.architecture.squares[0].activated_range == interval


def test_shares_that_lose_bits_are_squared_after_their_rounding():
    network = one_square()
    residues = Residues.of(network.architecture, {"first": 1 << 12, "second": 1 << 12}, {"first": 2, "second": 0})
    rng = np.random.default_rng(2)
    image = rng.integers(-128, 128, (1, 4, 4))
    share = rng.integers(0, 1 << 12, (1, 4, 4))
    outputs = reference_forward(network, image, residues, {"square": share})
    dropped = (3 * image + 5 + (8 + 4) // 2 - 1) - share % 4  # the constant that rounds, what the share loses
    clipped = np.clip(dropped >> 3, -16, 15)
    np.testing.assert_array_equal(outputs, (7 - 2 * clipped**2).reshape(-1))
    evaluated = Evaluator(network, residues, np.random.default_rng(1)).forward(image[None])[0].numpy()
    near = [(np.clip((3 * image + 5 + more) // 8, -16, 15) ** 2).reshape(-1) for more in range(9)]
    assert all(value in options for value, options in zip((7 - evaluated) // 2, np.transpose(near), strict=True))


def test_gradients_are_those_of_the_square_inside_the_clip():
    model = TrainableNetwork(one_square())
    image = torch.tensor([[[[-128.0, -20, 0, 3], [9, 20, 30, 127], [1, 2, 4, 5], [6, 7, 8, 10]]]], requires_grad=True)
    model(image).sum().backward()
    clipped = torch.floor((3 * image.detach() + 5) / 8 + 0.5)
    inside = (clipped >= -16) & (clipped <= 15)
    expected = -2 * 2 * clipped * inside * 3 / 8
    assert inside.any() and not inside.all()
    torch.testing.assert_close(image.grad, expected)


def test_architectures_written_before_there_were_squares_are_read():
    value = json.loads(json.dumps(one_square().architecture.as_json()))
    for node in value["nodes"]:
        del node["squared"]
    read = read_architecture(value)
    assert read.squares == () and len(read.nodes) == 4
