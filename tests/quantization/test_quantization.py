"""Quantisation: scales, rows, and agreement of the integer network with the float network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from support.float_networks import NETWORKS, Residual, randomised, sequential, smooth_dataset
from support.reference import reference_forward
from torch import nn
from torch.nn import functional as F

from autoprivacy.errors import UserError
from autoprivacy.quantization.evaluation import Evaluator, read_nodes, wrap_rate_bound
from autoprivacy.quantization.integer_network import IntegerNetwork, rounding_constant
from autoprivacy.quantization.quantize import (
    QuantizationSettings,
    calibration_split,
    per_channel,
    plaintext_bits,
    quantize,
    required_range,
)
from autoprivacy.quantization.scales import ErrorCurve
from autoprivacy.training.batches import normalise


@pytest.fixture(scope="module", params=NETWORKS)
def quantized(request):
    """(module, data set, integer network, rows) of one of the networks."""
    build, size = NETWORKS[request.param]
    module, dataset = randomised(build()).eval(), smooth_dataset(size)
    network, rows = quantize(module, dataset, QuantizationSettings(calibration_images=50, margin=1.2))
    return module, dataset, network, rows


def logit_errors(module, network, dataset, split):
    """(integer network's logits minus the module's, the module's logits)."""
    with torch.no_grad():
        expected = module(normalise(torch.from_numpy(split.images), dataset.mean, dataset.std)).flatten(1).numpy()
    outputs = Evaluator(network, None).forward(network.architecture.quantize_images(split.images)).numpy()
    return outputs * network.output_scale - expected, expected


def test_integer_network_agrees_with_the_float_network(quantized):
    module, dataset, network, _ = quantized
    error, expected = logit_errors(module, network, dataset, dataset.test)
    assert np.sqrt(np.mean(error**2)) < 0.03 * expected.std()
    assert np.abs(error).max() < 0.15 * expected.std()
    assert np.mean((expected + error).argmax(1) == expected.argmax(1)) >= 0.9


def test_integer_network_is_what_the_reference_computes(quantized):
    _, dataset, network, _ = quantized
    images = network.architecture.quantize_images(dataset.test.images[:2])
    for modulus in (None, 65537, 1 << 20):
        expected = [reference_forward(network, image, modulus) for image in images]
        np.testing.assert_array_equal(Evaluator(network, modulus).forward(images).numpy(), expected)


def test_weights_activations_and_images_use_their_eight_bits(quantized):
    _, dataset, network, _ = quantized
    for layer in network.layers.values():
        # a shift can cost a factor of two, clipping an outlier gains some of it back
        assert 48 <= np.abs(layer.weight).max() <= 127
    images = network.architecture.quantize_images(np.array([[[[0, 0, 0], [255, 255, 255]]]], np.uint8))
    assert np.abs(images).max() == 127
    for node in network.architecture.nodes:
        if node.operation == "activation":
            assert (node.minimum, node.maximum) in ((0, 255), (-128, 127))
            assert node.shift > 0


@pytest.mark.parametrize("name", ["sequential", "residual", "bottlenecks"])
def test_more_bits_are_more_precise_and_take_as_many_more_of_p(name, tmp_path):
    build, size = NETWORKS[name]
    module, dataset = randomised(build()).eval(), smooth_dataset(size)
    errors, bits = [], []
    for width in (8, 11):
        settings = QuantizationSettings(calibration_images=50, weight_bits=width, activation_bits=width)
        network, rows = quantize(module, dataset, settings)
        errors.append(np.sqrt(np.mean(logit_errors(module, network, dataset, dataset.test)[0] ** 2)))
        bits.append(max(row["plaintext_bits"] for row in rows))
        assert max(np.abs(layer.weight).max() for layer in network.layers.values()) >> width - 2 == 1
        assert {node.maximum for node in network.architecture.nodes if node.operation == "activation"} <= {
            (1 << width) - 1,
            (1 << width - 1) - 1,
        }
        images = network.architecture.quantize_images(dataset.test.images[:2])
        expected = [reference_forward(network, image, None) for image in images]
        np.testing.assert_array_equal(Evaluator(network, None).forward(images).numpy(), expected)
        network.save(tmp_path / "network.npz")
        loaded = IntegerNetwork.load(tmp_path / "network.npz")
        assert all(np.array_equal(loaded.layers[name].weight, layer.weight) for name, layer in network.layers.items())
    # images keep their 8 bits, and the error of these with them
    assert errors[1] < errors[0] / 3 and 5 <= bits[1] - bits[0] <= 7


def test_rows_hold_the_state_features_and_the_measured_range(quantized):
    _, dataset, network, rows = quantized
    split = calibration_split(dataset, 50)
    statistics = Evaluator(network, None).statistics(network.architecture.quantize_images(split.images))
    assert [row["name"] for row in rows] == [shape.name for shape in network.architecture.layers]
    assert [row["index"] for row in rows] == list(range(len(rows)))
    for row, shape in zip(rows, network.architecture.layers, strict=True):
        layer = network.layers[row["name"]]
        assert (row["c_in"], row["x_h"], row["x_w"]) == shape.input_shape
        assert row["c_out"] == layer.weight.shape[0]
        assert (row["k_s"], row["s_s"]) == (
            (1, 0) if shape.kind == "fully_connected" else (max(shape.kernel), shape.stride)
        )
        assert row["weight_norm"] == pytest.approx(np.sqrt((layer.weight**2).sum((1, 2, 3)).max()))
        rounding = 2 ** (row["shift"] - 1) if row["shift"] else 0
        assert row["required_minimum"] <= 1.2 * row["accumulator_minimum"]
        assert row["required_maximum"] >= 1.2 * row["accumulator_maximum"] + rounding
        assert row["required_maximum"] < 1.2 * row["accumulator_maximum"] + rounding + 1
        half = 2 ** (row["plaintext_bits"] - 1)
        assert -half <= row["required_minimum"] and row["required_maximum"] < half
        assert row["worst_case_minimum"] <= row["accumulator_minimum"]
        assert row["worst_case_maximum"] >= row["accumulator_maximum"] + rounding
        assert row["worst_case_bits"] == plaintext_bits(row["worst_case_minimum"], row["worst_case_maximum"])
        if row["name"] in read_nodes(network.architecture):  # no residual: the layer's own weights decide
            highest = shape.input_maximum if shape.input_maximum > 128 else 127  # the image is signed
            lowest = 0 if shape.input_maximum > 128 else -128
            up, down = (np.maximum(sign * layer.weight, 0).sum((1, 2, 3)) for sign in (1, -1))
            expected = (up * highest - down * lowest + np.maximum(layer.bias, 0)).max() + rounding
            assert row["worst_case_maximum"] == expected <= row["worst_case"] + rounding
        largest = max(-row["accumulator_minimum"], row["accumulator_maximum"])
        assert row["margin"] == 1.2 and row["accumulators"] >= 50 * shape.output_shape[0]
        assert row["wrap_rate_bound"] == pytest.approx(3 / row["accumulators"], rel=0.01)
        assert row["largest_in_standard_deviations"] * row["accumulator_standard_deviation"] == pytest.approx(largest)
    assert min(s.minimum for s in statistics.values()) == min(row["accumulator_minimum"] for row in rows)
    assert max(s.maximum for s in statistics.values()) == max(row["accumulator_maximum"] for row in rows)
    low, high = required_range(rows)
    bits = plaintext_bits(low, high)
    assert bits == max(row["plaintext_bits"] for row in rows)
    evaluator = Evaluator(network, 1 << bits)
    evaluator.forward(network.architecture.quantize_images(split.images))
    assert evaluator.wraps.total() == 0
    narrow = Evaluator(network, 1 << (bits - 2))
    narrow.forward(network.architecture.quantize_images(split.images))
    assert narrow.wraps.total() > 0


def test_residuals_meet_at_one_scale():
    module, dataset = randomised(Residual()).eval(), smooth_dataset((13, 13))
    network, rows = quantize(module, dataset, QuantizationSettings(calibration_images=20))
    nodes = {node.name: node for node in network.architecture.nodes}
    assert [name for name, node in nodes.items() if node.operation == "add"] == ["add1", "add2", "add3"]
    for node in nodes.values():
        if node.operation == "scale":
            assert node.factor > 1 and node.factor & (node.factor - 1) == 0
    # the first two additions join an accumulator with an activation 255 wide, brought to the accumulator's scale
    assert nodes[nodes["add1"].inputs[1]].inputs == ("relu1",)
    assert set(read_nodes(network.architecture)) >= {"add1", "add2", "add3", "fc"}
    by_name = {row["name"]: row for row in rows}
    projection, main = by_name["blocks.2.shortcut.0"], by_name["blocks.2.conv2"]
    assert projection["accumulator_maximum"] == main["accumulator_maximum"]  # both end in add3
    assert network.architecture.nodes[-1].name == "fc"
    # the mean over the image is an 8-bit value again before the next layer
    assert network.architecture.layer("fc").input_maximum == 255
    requantized = nodes["flatten1.requantized"]
    assert (requantized.minimum, requantized.maximum) == (0, 255) and 0 < requantized.shift <= 6


@pytest.mark.parametrize("groups", [1, 3])
def test_rounded_weights_leave_the_mean_accumulator_where_it_was(groups):
    """Without a correction, rounding errors of the weights times a mean input far from zero shift every output."""
    module = randomised(nn.Sequential(nn.Conv2d(3, 6, 1, groups=groups)), seed=3).eval()
    module[0].weight.data[0, 0] = 20.0  # makes the scale coarse for the others
    dataset = smooth_dataset((8, 8))
    dataset.train.images[:] = 200 + dataset.train.images // 8
    network, _ = quantize(module, dataset, QuantizationSettings(80))
    layer = network.layers["conv1"]
    images = network.architecture.quantize_images(dataset.train.images)
    scale = network.output_scale / network.architecture.image_scale
    rounded = torch.from_numpy(layer.weight * scale - module[0].weight.detach().numpy())
    uncorrected = F.conv2d(torch.from_numpy(images * network.architecture.image_scale), rounded, groups=groups)
    error, _ = logit_errors(module, network, dataset, dataset.train)
    before, after = uncorrected.mean((0, 2, 3)).abs(), np.abs(error.reshape(80, 6, -1).mean((0, 2)))
    assert before.mean() > 0.05
    assert after.max() < 0.1 * before.max()


def test_a_mean_is_a_sum_whose_division_waits_for_the_next_shift():
    network, _ = quantize(randomised(sequential()).eval(), smooth_dataset((17, 17)), QuantizationSettings(20))
    pool = next(node for node in network.architecture.nodes if node.operation == "sum_pool")
    assert (pool.kernel, pool.stride, pool.shape) == (3, 2, (8, 8, 8))
    assert network.architecture.layer("conv1").input_maximum == 128
    assert network.architecture.layer("conv2").input_maximum == 9 * 255


def test_sums_of_activations_need_no_linear_layer_before_them():
    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.last = nn.Conv2d(4, 5, 1)

        def forward(self, x):
            y = torch.relu(self.conv(x))
            z = torch.relu(y + y)
            return self.last(F.avg_pool2d(z, 2) + F.avg_pool2d(y, 2))

    module, dataset = randomised(Sums()).eval(), smooth_dataset((8, 8))
    network, _ = quantize(module, dataset, QuantizationSettings(80))
    error, expected = logit_errors(module, network, dataset, dataset.train)
    assert np.sqrt(np.mean(error**2)) < 0.03 * expected.std()
    nodes = {node.name: node for node in network.architecture.nodes}
    (scale,) = [node for node in nodes.values() if node.operation == "scale"]
    assert network.architecture.layer("last").input_maximum == 4 * 255 * (1 + scale.factor)


def test_a_bottleneck_is_requantised_once_with_its_residual():
    build, size = NETWORKS["bottlenecks"]
    network, _ = quantize(randomised(build()).eval(), smooth_dataset(size), QuantizationSettings(20))
    nodes = {node.name: node for node in network.architecture.nodes}
    signed = [node.name for node in nodes.values() if node.minimum == -128]
    assert signed == ["add1.requantized", "add2.requantized", "3.conv.2.requantized"]
    # the second block adds to its accumulator what its own first convolution reads, times a power of two
    assert nodes["2.conv.0.0"].inputs == ("add1.requantized",)
    accumulator, scaled = (nodes[name] for name in nodes["add2"].inputs)
    if accumulator.operation == "scale":
        accumulator, scaled = scaled, accumulator
    assert (accumulator.operation, scaled.inputs) == ("linear", ("add1.requantized",))
    assert scaled.factor > 1 and scaled.factor & (scaled.factor - 1) == 0
    assert network.architecture.layer("2.conv.0.0").input_maximum == 128
    assert all(node.maximum == 127 for node in nodes.values() if node.minimum == -128)


def test_a_clipped_relu_is_clipped_by_its_8_bits_at_or_below_its_bound():
    module = randomised(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.Conv2d(8, 4, 1)), seed=2).eval()
    module[0].weight.data *= 8  # most values reach the bound
    dataset = smooth_dataset((8, 8))
    network, _ = quantize(module, dataset, QuantizationSettings(80))
    (activation,) = [node for node in network.architecture.nodes if node.operation == "activation"]
    assert (activation.minimum, activation.maximum) == (0, 255)
    nodes = network.architecture.nodes[:3]
    first = replace(
        network, architecture=replace(network.architecture, nodes=nodes, layers=network.architecture.layers[:1])
    )
    images = network.architecture.quantize_images(dataset.train.images)
    integers = Evaluator(first, None).forward(images).numpy()
    with torch.no_grad():
        expected = module[:2](normalise(torch.from_numpy(dataset.train.images), dataset.mean, dataset.std))
    scale = float(expected.double().flatten() @ torch.from_numpy(integers.flatten()).double()) / (integers**2).sum()
    assert (integers == 255).mean() > 0.2
    assert 255 * scale == pytest.approx(6.0, rel=0.01)
    assert np.abs(integers * scale - expected.flatten(1).numpy()).mean() < 0.1


def test_two_layers_without_a_relu_between_are_joined_by_signed_8_bits():
    module = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1))).eval()
    dataset = smooth_dataset((6, 6))
    network, rows = quantize(module, dataset, QuantizationSettings(80))
    assert network.architecture.layer("conv2").input_maximum == 128
    error, expected = logit_errors(module, network, dataset, dataset.train)
    assert np.sqrt(np.mean(error**2)) < 0.03 * expected.std()
    assert [row["shift"] > 0 for row in rows] == [True, True, False]


def test_channels_of_their_own_scale_are_more_precise_and_take_no_bits_of_p():
    module = randomised(nn.Sequential(nn.Conv2d(3, 14, 9), nn.ReLU(), nn.Conv2d(14, 14, 1, groups=14))).eval()
    module[2].weight.data *= 2.0 ** -(torch.arange(14) % 7)[:, None, None, None]
    dataset = smooth_dataset((13, 13))
    tensor, tensor_rows = quantize(module, dataset, QuantizationSettings(80))
    channel, channel_rows = quantize(module, dataset, QuantizationSettings(80, weights="per_channel"))
    errors = []
    for network in (tensor, channel):
        error, expected = (
            values.reshape(60, 14, -1) for values in logit_errors(module, network, dataset, dataset.test)
        )
        errors.append(error.std((0, 2)) / expected.std((0, 2)))
    assert errors[0].max() > 0.9  # all weights of a channel became 0
    assert errors[1].max() < 0.25 and errors[1].mean() < 0.3 * errors[0].mean()
    bits = [max(row["plaintext_bits"] for row in rows) for rows in (tensor_rows, channel_rows)]
    assert bits[1] <= bits[0]
    scales = {node.name: node for node in channel.architecture.nodes if node.operation == "scale"}
    assert "conv2.scale" in scales and not [n for n in tensor.architecture.nodes if n.operation == "scale"]
    for node in scales.values():
        assert len(node.factor) == node.shape[0] and min(node.factor) == 1 < max(node.factor) <= 16
    images = channel.architecture.quantize_images(dataset.test.images[:2])
    for modulus in (None, 1 << 12):
        expected = [reference_forward(channel, image, modulus) for image in images]
        np.testing.assert_array_equal(Evaluator(channel, modulus).forward(images).numpy(), expected)


def test_bits_of_p_that_refinement_would_take_are_given_back():
    """Here a halving costs two bits: the first try exceeds the widest layer, and the search for less must end."""
    widths = {"a": 20, "b": 17, "c": 19}
    tried = []

    def quantized(halvings):
        tried.append(dict(halvings))
        rows = [{"name": name, "plaintext_bits": bits + 2 * halvings.get(name, 0)} for name, bits in widths.items()]
        return None, rows

    _, rows = per_channel(quantized({})[1], quantized)
    assert tried[1:] == [{"a": 0, "b": 3, "c": 1}, {"a": 0, "b": 0, "c": 0}]
    assert max(row["plaintext_bits"] for row in rows) == 20


def test_the_required_range_holds_the_sum_of_a_mean_over_the_image():
    """A large image and a small convolution: the sum of the pooled ReLUs is the widest value of all."""
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    dataset = smooth_dataset((32, 32), train=20)
    network, rows = quantize(randomised(module).eval(), dataset, QuantizationSettings(20, margin=1.0))
    statistics = Evaluator(network, None).statistics(network.architecture.quantize_images(dataset.train.images))
    pooled = statistics["flatten1"].maximum
    assert pooled > statistics["conv1"].largest and pooled > statistics["fc"].largest
    assert rows[0]["accumulator_maximum"] == statistics["conv1"].maximum
    evaluator = Evaluator(network, 1 << plaintext_bits(*required_range(rows)))
    evaluator.forward(network.architecture.quantize_images(dataset.train.images))
    assert evaluator.wraps.total() == 0 < evaluator.counts["flatten1"]
    assert rows[0]["required_maximum"] >= pooled


def test_the_bound_on_the_rate_of_wraps_is_that_of_the_binomial():
    assert wrap_rate_bound(0, 10**6) == pytest.approx(3e-6, rel=0.01)  # the rule of three
    for wraps, count in ((0, 40), (1, 50), (7, 90)):
        bound = wrap_rate_bound(wraps, count)
        # at the bound, so few wraps or fewer are seen once in twenty times
        assert stats.binom.cdf(wraps, count, bound) == pytest.approx(0.05, rel=1e-6)
    assert wrap_rate_bound(5, 5) == 1.0


def test_scales_that_no_shift_can_join_are_refused():
    class Clash(nn.Module):
        def forward(self, x):
            return F.avg_pool2d(x, 3, 2) + F.avg_pool2d(x, 2)

    with pytest.raises(UserError, match=r"addition add1: its inputs' scales differ by 2\^.*put a convolution"):
        quantize(Clash(), smooth_dataset((7, 7)), QuantizationSettings(5))


def test_dead_layers_are_quantised():
    module = randomised(sequential()).eval()
    with torch.no_grad():
        module[4].weight.zero_()
        module[5].bias.fill_(-10)
    network, rows = quantize(module, smooth_dataset((17, 17)), QuantizationSettings(5))
    assert not network.layers["conv2"].weight.any()
    shift = next(node.shift for node in network.architecture.nodes if node.inputs == ("conv2",))
    # saturated: the largest bias that the activation still cuts off
    assert rows[1]["accumulator_maximum"] + rounding_constant(shift) < 1 << shift
    assert rows[1]["accumulator_maximum"] <= rows[1]["required_maximum"]
    outputs = Evaluator(network, None).forward(np.zeros((1, 3, 17, 17), int))[0].numpy() * network.output_scale
    np.testing.assert_allclose(outputs, module[9].bias.detach().numpy(), atol=0.01)


def test_quantisation_is_repeatable_and_leaves_the_module_alone():
    module, dataset = randomised(Residual()), smooth_dataset((13, 13))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    first, rows = quantize(module, dataset, QuantizationSettings(10))
    second, same_rows = quantize(module, dataset, QuantizationSettings(10))
    assert module.training and all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert first.architecture == second.architecture and rows == same_rows
    for name, layer in first.layers.items():
        np.testing.assert_array_equal(layer.weight, second.layers[name].weight)


def test_calibration_images_are_spread_and_at_most_all():
    dataset = smooth_dataset((4, 4), train=80)
    np.testing.assert_array_equal(calibration_split(dataset, 4).images, dataset.train.images[[0, 20, 40, 60]])
    np.testing.assert_array_equal(calibration_split(dataset, 500).images, dataset.train.images)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"calibration_images": 0}, "calibration_images 0"),
        ({"margin": 0.9}, "margin 0.9"),
        ({"weights": "per_layer"}, "weights per_layer; expected per_tensor or per_channel"),
        ({"finetuning_epochs": -1}, "finetuning_epochs -1"),
        ({"weight_bits": 7}, "weight_bits 7; expected 8 to 14"),
        ({"activation_bits": 15}, "activation_bits 15; expected 8 to 14"),
    ],
)
def test_settings_are_checked(values, message):
    with pytest.raises(UserError, match=message):
        QuantizationSettings(**values)


@pytest.mark.parametrize(
    ("minimum", "maximum", "bits"), [(0, 0, 1), (-1, 0, 1), (-8, 7, 4), (-9, 0, 5), (0, 8, 5), (-1, 1023, 11)]
)
def test_plaintext_bits_hold_the_range_and_no_more(minimum, maximum, bits):
    assert plaintext_bits(minimum, maximum) == bits


def test_error_curve_finds_the_scale_of_least_error():
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(size=4000))
    values[0] = 40.0  # an outlier worth clipping
    curve = ErrorCurve(values, 0, 255, 40.0)

    def error(log2_scale):
        scale = 2.0**log2_scale
        return np.mean((values - scale * np.clip(np.round(values / scale), 0, 255)) ** 2)

    best = curve.best(0.3)
    assert (best - 0.3) == pytest.approx(round(best - 0.3))
    assert error(best) <= min(error(best - 1), error(best + 1))
    assert curve(best) == pytest.approx(error(best), rel=0.3)
    assert curve.best(0.3, at_least=best + 0.5) == pytest.approx(best + 1)
    assert curve.best(0.3, at_least=50.0) == pytest.approx(50.3)
