"""The integer network: its file, and the fast evaluator against plain integer arithmetic, bit for bit."""

import dataclasses

import numpy as np
import pytest
import torch
from support.reference import reference_forward

from autoprivacy.data.dataset import Split
from autoprivacy.errors import UserError
from autoprivacy.quantization.evaluation import Evaluator, read_nodes, value_ranges
from autoprivacy.quantization.integer_network import (
    Architecture,
    IntegerNetwork,
    LayerShape,
    LinearLayer,
    Node,
    sign_threshold,
    to_signed,
)
from autoprivacy.storage import read_arrays, write_arrays

MODULI = (None, 251, 256, 12289, 1 << 14, 1032193, 1 << 20)


def random_layer(rng, shape):
    weight = rng.integers(-127, 128, (shape.output_channels, shape.input_shape[0] // shape.groups, *shape.kernel))
    return LinearLayer(shape, weight, rng.integers(-5000, 5000, shape.output_channels))


def network_of(nodes, layers):
    architecture = Architecture(
        tuple(nodes), tuple(layer.shape for layer in layers), (0.5, 0.4, 0.3)[: nodes[0].shape[0]], (0.2,) * 3, 0.02
    )
    return IntegerNetwork(architecture, {layer.shape.name: layer for layer in layers}, 0.01)


def residual_network(rng):
    """Every operation: strided, grouped and 1x1 convolutions, odd sizes, a scaled residual, sum pooling, flatten."""
    shapes = [
        LayerShape("first", "convolution", (3, 11, 9), 8, (3, 3), padding=1, input_maximum=128),
        LayerShape("grouped", "convolution", (8, 11, 9), 8, (3, 3), padding=1, groups=4),
        LayerShape("strided", "convolution", (8, 11, 9), 6, (5, 3), stride=2, padding=2),
        LayerShape("point", "convolution", (6, 3, 3), 4, (1, 1), input_maximum=1020),
        LayerShape("fc", "fully_connected", (36, 1, 1), 5, (1, 1), input_maximum=15),
    ]
    nodes = [
        Node("image", "input", (), (3, 11, 9)),
        Node("first", "linear", ("image",), (8, 11, 9)),
        Node("relu1", "activation", ("first",), (8, 11, 9), shift=9),
        Node("grouped", "linear", ("relu1",), (8, 11, 9)),
        Node("scaled", "scale", ("relu1",), (8, 11, 9), factor=64),
        Node("sum", "add", ("grouped", "scaled"), (8, 11, 9)),
        Node("relu2", "activation", ("sum",), (8, 11, 9), shift=8),
        Node("strided", "linear", ("relu2",), (6, 6, 6)),
        Node("relu3", "activation", ("strided",), (6, 6, 6), shift=11),
        Node("pool", "sum_pool", ("relu3",), (6, 3, 3), kernel=2, stride=2),
        Node("point", "linear", ("pool",), (4, 3, 3)),
        Node("relu4", "activation", ("point",), (4, 3, 3), shift=0, maximum=15),
        Node("flatten", "flatten", ("relu4",), (36, 1, 1)),
        Node("fc", "linear", ("flatten",), (5, 1, 1)),
    ]
    return network_of(nodes, [random_layer(rng, shape) for shape in shapes])


def random_images(rng, count, shape=(3, 11, 9)):
    return rng.integers(-128, 128, (count, *shape))


@pytest.mark.parametrize("modulus", MODULI)
@pytest.mark.parametrize("count", [1, 20])
def test_evaluator_equals_plain_integer_arithmetic(modulus, count):
    rng = np.random.default_rng(count)
    network = residual_network(rng)
    images = random_images(rng, count)
    evaluator = Evaluator(network, modulus)
    got = evaluator.forward(images)
    assert got.dtype == torch.int64
    np.testing.assert_array_equal(got.numpy(), [reference_forward(network, image, modulus) for image in images])
    assert set(evaluator.counts) == {"first", "sum", "strided", "point", "fc"}
    assert evaluator.counts["first"] == count * 8 * 11 * 9
    if modulus is None:
        assert not evaluator.wraps
    elif modulus <= 1 << 14:
        assert evaluator.wraps["first"] > 0 and evaluator.wraps["strided"] > 0


def test_a_modulus_that_holds_everything_changes_nothing():
    rng = np.random.default_rng(3)
    network = residual_network(rng)
    images = random_images(rng, 4)
    evaluator = Evaluator(network, (1 << 40) - 87)
    assert torch.equal(evaluator.forward(images), Evaluator(network, None).forward(images))
    assert evaluator.wraps.total() == 0


def test_wraps_are_counted_against_the_true_accumulators():
    rng = np.random.default_rng(4)
    network = residual_network(rng)
    first = network_of(network.architecture.nodes[:2], [network.layers["first"]])
    images = random_images(rng, 3)
    accumulators = np.array([reference_forward(first, image, None) for image in images])
    for modulus in (12289, 1 << 14):
        evaluator = Evaluator(first, modulus)
        np.testing.assert_array_equal(evaluator.forward(images).numpy(), to_signed(accumulators, modulus))
        assert evaluator.wraps["first"] == (to_signed(accumulators, modulus) != accumulators).sum() > 0
    statistics = Evaluator(network, None).statistics(images)["first"]
    assert (statistics.minimum, statistics.maximum) == (accumulators.min(), accumulators.max())
    assert statistics.largest == np.abs(accumulators).max()
    assert statistics.count == accumulators.size
    assert statistics.standard_deviation == pytest.approx(accumulators.std(), rel=1e-6)


def test_activation_output_is_read_signed_modulo_p_too():
    shape = LayerShape("conv", "convolution", (1, 2, 2), 1, (1, 1), input_maximum=128)
    nodes = [
        Node("image", "input", (), (1, 2, 2)),
        Node("conv", "linear", ("image",), (1, 2, 2)),
        Node("relu", "activation", ("conv",), (1, 2, 2)),
    ]
    network = network_of(nodes, [LinearLayer(shape, np.ones((1, 1, 1, 1), int), np.zeros(1, int))])
    image = np.array([[[-5, 0], [60, 100]]])
    assert reference_forward(network, image, None).tolist() == [0, 0, 60, 100]
    # 60 and 100 modulo 64 are 60 = -4 and 36 = -28, both below the ReLU
    assert reference_forward(network, image, 64).tolist() == [0, 0, 0, 0]
    assert Evaluator(network, 64).forward(image[None])[0].tolist() == [0, 0, 0, 0]
    assert Evaluator(network, 255).forward(image[None])[0].tolist() == reference_forward(network, image, 255).tolist()


@pytest.mark.parametrize(("channels", "size"), [(28, torch.float32), (57, torch.float64), (58, torch.float64)])
def test_sums_at_the_limit_of_float32_are_exact(channels, size):
    """All weights 127 and all inputs 255: 28 channels stay below 2^23, 57 below 2^24, 58 do not."""
    source = LayerShape("source", "convolution", (1, 4, 4), channels, (1, 1), input_maximum=128)
    wide = LayerShape("wide", "convolution", (channels, 4, 4), 2, (3, 3), padding=1)
    nodes = [
        Node("image", "input", (), (1, 4, 4)),
        Node("source", "linear", ("image",), (channels, 4, 4)),
        Node("relu", "activation", ("source",), (channels, 4, 4)),
        Node("wide", "linear", ("relu",), (2, 4, 4)),
    ]
    weight = np.full((2, channels, 3, 3), 127)
    weight[1, :, :, 1] = -126
    layers = [
        LinearLayer(source, np.full((channels, 1, 1, 1), 2), np.full(channels, 1)),
        LinearLayer(wide, weight, np.array([3, -3])),
    ]
    network = network_of(nodes, layers)
    images = np.full((20, 1, 4, 4), 127)
    images[1:, 0, 1, 2] = np.arange(19)
    evaluator = Evaluator(network, None)
    assert value_ranges(network)["wide"][1] == channels * 9 * 127 * 255 + 3
    seen = []
    perturb = lambda name, values: seen.append((name, values.dtype)) or values  # noqa: E731
    got = evaluator.forward(images, perturb).numpy()
    assert got[0].max() == channels * 9 * 127 * 255 + 3
    np.testing.assert_array_equal(got, [reference_forward(network, image, None) for image in images])
    assert dict(seen)["wide"] == size


def test_values_beyond_float64_are_refused():
    nodes = [Node("image", "input", (), (1, 2, 2)), Node("big", "scale", ("image",), (1, 2, 2), factor=1 << 46)]
    with pytest.raises(UserError, match="node big: values up to"):
        Evaluator(network_of(nodes, []), None)


def test_perturbation_sees_every_layer_and_acts_before_the_reduction():
    rng = np.random.default_rng(5)
    network = residual_network(rng)
    images = random_images(rng, 3)
    names = []

    def perturb(name, values):
        names.append(name)
        assert torch.equal(values, values.round())
        return values + 7 if name == "grouped" else values

    layer = network.layers["grouped"]
    shifted = network.with_weights({**network.layers, "grouped": dataclasses.replace(layer, bias=layer.bias + 7)})
    expected = [reference_forward(shifted, image, 12289) for image in images]
    np.testing.assert_array_equal(Evaluator(network, 12289).forward(images, perturb).numpy(), expected)
    assert names == ["first", "grouped", "strided", "point", "fc"]


def test_errors_of_the_size_of_the_modulus_are_added_exactly():
    """Garbage ciphertexts shift accumulators by up to p; adding p itself must then change nothing."""
    rng = np.random.default_rng(6)
    network = residual_network(rng)
    images = random_images(rng, 2)
    evaluator = Evaluator(network, 4079617)
    assert torch.equal(evaluator.forward(images, lambda _, values: values + 4079617), evaluator.forward(images))


def test_accuracy_counts_the_right_answers():
    rng = np.random.default_rng(7)
    network = residual_network(rng)
    images = rng.integers(0, 256, (230, 11, 9, 3)).astype(np.uint8)
    quantized = network.architecture.quantize_images(images)
    predicted = np.array([reference_forward(network, image, None).argmax() for image in quantized[:40]])
    labels = np.concatenate([predicted, np.full(190, 99)])
    labels[:10] = 99
    evaluator = Evaluator(network, None)
    assert evaluator.accuracy(Split(images, labels), limit=40) == 75.0
    assert evaluator.accuracy(Split(images, labels)) == pytest.approx(100 * 30 / 230)
    with pytest.raises(ValueError, match="no images"):
        evaluator.accuracy(Split(images[:0], labels[:0]))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 3, 9, 11), np.int64), "expected integers"),
        (np.zeros((0, 3, 11, 9), np.int64), "N > 0"),
        (np.zeros((2, 3, 11, 9)), "float64"),
        (np.full((1, 3, 11, 9), 128), "from 128 to 128"),
    ],
)
def test_wrong_images_are_refused(images, message):
    evaluator = Evaluator(residual_network(np.random.default_rng(8)), None)
    with pytest.raises(ValueError, match=message):
        evaluator.forward(images)


def test_read_nodes_are_those_that_activations_or_the_user_read():
    network = residual_network(np.random.default_rng(9))
    assert read_nodes(network.architecture) == {"first": 9, "sum": 8, "strided": 11, "point": 0, "fc": 0}


@pytest.mark.parametrize("modulus", [13, 16, 17, 251, 256, 65537])
def test_to_signed_maps_residues_with_the_top_bit_below_zero(modulus):
    values = np.arange(-2 * modulus, 2 * modulus)
    signed = to_signed(values, modulus)
    top = 1 << (len(bin(modulus - 1)) - 3)
    assert np.all((signed - values) % modulus == 0)
    assert signed.max() == top - 1 == sign_threshold(modulus) - 1
    assert signed.min() == top - modulus


def test_quantized_images_are_rounded_and_clipped():
    architecture = Architecture((), (), (0.5, 0.5, 0.5), (0.25, 0.25, 0.1), 1 / 64)
    images = np.array([[[[128, 255, 255]], [[127, 0, 0]]]], np.uint8)
    # (128/255 - 0.5) / 0.25 * 64 = 0.502; 0.5 / 0.25 * 64 = 128 and 0.5 / 0.1 * 64 = 320 are clipped
    assert architecture.quantize_images(images)[0, :, :, 0].tolist() == [[1, -1], [127, -128], [127, -128]]


def test_saved_network_is_loaded_unchanged(tmp_path):
    rng = np.random.default_rng(10)
    network = residual_network(rng)
    network.save(tmp_path / "network.npz", note="more")
    loaded = IntegerNetwork.load(tmp_path / "network.npz")
    assert loaded.architecture == network.architecture
    assert loaded.output_scale == network.output_scale
    images = random_images(rng, 2)
    assert torch.equal(Evaluator(loaded, 12289).forward(images), Evaluator(network, 12289).forward(images))
    for name, layer in network.layers.items():
        np.testing.assert_array_equal(loaded.layers[name].weight, layer.weight)
        np.testing.assert_array_equal(loaded.layers[name].bias, layer.bias)


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "network.npz"
    residual_network(np.random.default_rng(11)).save(path)
    arrays, header = read_arrays(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a readable npz"):
        IntegerNetwork.load(path)
    write_arrays(path, arrays, {**header, "format": 99})
    with pytest.raises(UserError, match="not an integer network of format 1"):
        IntegerNetwork.load(path)
    lost = {name: array for name, array in arrays.items() if name != "fc.bias"}
    write_arrays(path, lost, header)
    with pytest.raises(UserError, match="damaged: KeyError 'fc.bias'"):
        IntegerNetwork.load(path)
    write_arrays(path, {**arrays, "fc.bias": np.zeros(4)}, header)
    with pytest.raises(UserError, match=r"layer fc: weights .* bias \(4,\); expected"):
        IntegerNetwork.load(path)
    with pytest.raises(UserError, match="no such file"):
        IntegerNetwork.load(tmp_path / "nowhere.npz")


def test_weights_have_8_bits_or_more_and_beyond_14_they_are_refused():
    shape = LayerShape("fc", "fully_connected", (2, 1, 1), 1, (1, 1))
    for largest, maximum in ((1, 127), (-127, 127), (-128, 255), (2047, 2047), (8191, 8191)):
        assert LinearLayer(shape, np.array([[[[1]], [[largest]]]]), np.zeros(1, int)).weight_maximum == maximum
    with pytest.raises(UserError, match="layer fc: a weight of 8192 in size; allowed 8191, 14 bits"):
        LinearLayer(shape, np.array([[[[1]], [[-8192]]]]), np.zeros(1, int))


def test_norm_and_worst_case_of_a_layer():
    shape = LayerShape("fc", "fully_connected", (2, 1, 1), 2, (1, 1), input_maximum=10)
    layer = LinearLayer(shape, np.array([3, 4, -6, 8]).reshape(2, 2, 1, 1), np.array([1000, -5]))
    assert layer.weight_norm == 10.0
    assert layer.worst_case == 1070
