"""Post-training quantisation to 8 bits: float network and calibration images in, integer network out.

Weights are symmetric per layer, activations unsigned, rescaling one right shift per activation (so a weight scale takes
up whatever a power of two cannot); a mean's division and a batch normalisation cost nothing at run time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprivacy.data import Dataset, Split
from autoprivacy.errors import UserError
from autoprivacy.quantization.evaluation import Evaluator, Statistics, read_nodes
from autoprivacy.quantization.importer import FloatGraph, FloatLayer, FloatNode, import_module
from autoprivacy.quantization.integer_network import Architecture, IntegerNetwork, LayerShape, LinearLayer, Node
from autoprivacy.quantization.reference import rounding_constant
from autoprivacy.quantization.scales import ACTIVATION_MAXIMUM, WEIGHT_MAXIMUM, Calibration, ScaleChooser
from autoprivacy.training import batches, normalise

IMAGE_MAXIMUM = 128  # of the signed 8-bit image
SAMPLES = 1 << 15  # activation values, per node, from which its scale is chosen
BATCH = 100


@dataclass(frozen=True)
class QuantizationSettings:
    """Settings of quantisation; the defaults are those of the schema in config/schema.yaml."""

    calibration_images: int = 1000  # spread evenly over the training split; all of them where it has fewer
    # How far beyond the calibration's extremes the plaintext range reaches: on 10,000 test images 7CNET's layers came
    # to 1.30 times the extremes of 1,000 training images at the most.
    margin: float = 1.3

    def __post_init__(self) -> None:
        if self.calibration_images < 1:
            raise UserError(f"quantization: calibration_images {self.calibration_images}; expected 1 or more")
        if self.margin < 1:
            raise UserError(f"quantization: margin {self.margin}; expected 1 or more: less cuts values already seen")


def quantize(
    module: nn.Module, dataset: Dataset, settings: QuantizationSettings
) -> tuple[IntegerNetwork, list[dict[str, Any]]]:
    """Quantise a trained network.

    Args:
        module: the float network.
        dataset: its training split calibrates the scales and the accumulators' range.
        settings: see QuantizationSettings.

    Returns:
        The integer network and one row per linear layer (see `layer_rows`).

    Raises:
        UserError: the network has an operation that has no integer form.
    """
    _, height, width, channels = dataset.train.images.shape
    graph = import_module(module, (channels, height, width))
    split = calibration_split(dataset, settings.calibration_images)
    scale = image_scale(dataset)
    calibration = calibrate(graph, dataset, split)
    scales = ScaleChooser(graph, calibration, scale).choose()
    network = _Builder(graph, calibration, scales, dataset, scale).build()
    statistics = Evaluator(network, None).statistics(network.architecture.quantize_images(split.images))
    return network, layer_rows(network, statistics, settings.margin)


def calibration_split(dataset: Dataset, count: int) -> Split:
    """At most `count` training images, spread evenly over the split."""
    total = len(dataset.train.labels)
    return dataset.train.take(np.arange(min(count, total)) * total // min(count, total))


def image_scale(dataset: Dataset) -> float:
    """The scale at which the most extreme normalised pixel becomes 127."""
    extremes = [max(mean, 1 - mean) / std for mean, std in zip(dataset.mean, dataset.std, strict=True)]
    return max(extremes) / (IMAGE_MAXIMUM - 1)


def calibrate(graph: FloatGraph, dataset: Dataset, split: Split) -> Calibration:
    """Run the float graph on the images in float32 and collect what the choice of scales needs."""
    mean = {node.name: np.zeros(node.shape[0]) for node in graph.nodes}
    mean_square, largest = dict.fromkeys(mean, 0.0), dict.fromkeys(mean, 0.0)
    samples: dict[str, list[np.ndarray]] = {node.name: [] for node in graph.nodes if node.operation == "relu"}
    for images, _ in batches(split, BATCH):
        values = graph.run(normalise(torch.from_numpy(images), dataset.mean, dataset.std))
        share = len(images) / len(split.labels)
        for name, value in values.items():
            mean[name] += value.mean((0, 2, 3), dtype=torch.float64).numpy() * share
            mean_square[name] += float(value.square().mean(dtype=torch.float64)) * share
            largest[name] = max(largest[name], float(value.abs().max()))
        for name, sample in samples.items():
            flat = values[name].reshape(-1)
            # an odd step does not fall in with rows and channels, whose sizes are mostly even
            step = int(flat.numel() / share / SAMPLES) | 1
            sample.append(flat[::step].double().numpy())
    return Calibration(mean, mean_square, largest, {name: np.concatenate(parts) for name, parts in samples.items()})


class _Builder:
    """Turns a float graph and its scales into an integer network."""

    def __init__(
        self, graph: FloatGraph, calibration: Calibration, scales: dict[str, float], dataset: Dataset, scale: float
    ) -> None:
        self.graph = graph
        self.calibration = calibration
        self.scales = scales
        self.dataset = dataset
        self.image_scale = scale
        self.nodes: list[Node] = []
        self.layers: dict[str, LinearLayer] = {}
        self.maximum: dict[str, int | None] = {}  # largest |value| of a node; None for accumulators

    def build(self) -> IntegerNetwork:
        """Build every node in turn."""
        for node in self.graph.nodes:
            if node.operation == "linear":
                self._linear(node)
            elif node.operation == "add":
                self._add(node)
            else:
                self._local(node)
        architecture = Architecture(
            tuple(self.nodes),
            tuple(layer.shape for layer in self.layers.values()),
            self.dataset.mean,
            self.dataset.std,
            self.image_scale,
        )
        return IntegerNetwork(architecture, self.layers, 2.0 ** self.scales[self.graph.nodes[-1].name])

    def _linear(self, node: FloatNode) -> None:
        source = node.inputs[0]
        maximum = self.maximum[source]
        if maximum is None:
            raise UserError(
                f"layer {node.name}: its input {source} is a linear layer's accumulator; expected the image, a ReLU's "
                f"output, or a mean or sum of these: put a ReLU between the two layers"
            )
        self.layers[node.name] = _integer_layer(
            self.graph.layers[node.name],
            maximum,
            self.calibration.mean[source],
            self.scales[source],
            self.scales[node.name],
        )
        self.nodes.append(Node(node.name, "linear", node.inputs, node.shape))
        self.maximum[node.name] = None

    def _add(self, node: FloatNode) -> None:
        """Bring the inputs to the finest of their scales, then add."""
        inputs, maxima = [], []
        for position, source in enumerate(node.inputs):
            factor = 1 << round(self.scales[source] - self.scales[node.name])
            maximum = self.maximum[source]
            maxima.append(None if maximum is None else maximum * factor)
            if factor > 1:
                name = f"{node.name}.scale{position + 1}"
                self.nodes.append(Node(name, "scale", (source,), node.shape, factor=factor))
                source = name
            inputs.append(source)
        self.nodes.append(Node(node.name, "add", tuple(inputs), node.shape))
        known = [maximum for maximum in maxima if maximum is not None]
        self.maximum[node.name] = sum(known) if len(known) == len(maxima) else None

    def _local(self, node: FloatNode) -> None:
        """Operations on one value without weights, and the image."""
        maximum = self.maximum[node.inputs[0]] if node.inputs else IMAGE_MAXIMUM
        built = Node(node.name, "flatten", node.inputs, node.shape)
        if node.operation == "input":
            built = replace(built, operation="input")
        elif node.operation == "relu":
            maximum = ACTIVATION_MAXIMUM
            shift = round(self.scales[node.name] - self.scales[node.inputs[0]])
            built = replace(built, operation="activation", shift=shift, minimum=0, maximum=maximum)
        elif node.operation == "average_pool":
            maximum = None if maximum is None else maximum * node.kernel**2
            built = replace(built, operation="sum_pool", kernel=node.kernel, stride=node.stride)
        self.nodes.append(built)
        self.maximum[node.name] = maximum


def _integer_layer(
    layer: FloatLayer, input_maximum: int, input_mean: np.ndarray, input_scale: float, accumulator_scale: float
) -> LinearLayer:
    """Round a layer's weights and bias; the scales are log2, the mean is the input's per channel, in float units.

    Rounded weights shift the mean output, since the inputs' mean is not zero after a ReLU; the bias takes that back
    (Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019, section 4.2).
    """
    exact, scale = layer.weight.numpy(), 2.0 ** (accumulator_scale - input_scale)
    weight = np.clip(np.rint(exact / scale), -WEIGHT_MAXIMUM, WEIGHT_MAXIMUM).astype(np.int64)
    groups = np.arange(len(weight)) * layer.shape.groups // len(weight)
    shift = ((weight * scale - exact).sum((2, 3)) * input_mean.reshape(layer.shape.groups, -1)[groups]).sum(1)
    bias = np.rint((layer.bias.numpy() - shift) / 2.0**accumulator_scale).astype(np.int64)
    return LinearLayer(replace(layer.shape, input_maximum=input_maximum), weight, bias)


def layer_rows(network: IntegerNetwork, statistics: dict[str, Statistics], margin: float) -> list[dict[str, Any]]:
    """One row per linear layer, for a CSV file.

    The first columns are the state features of the paper's section 3.1. The accumulator columns tell of the value that
    the layer ends in and an activation (or the user) reads, residual included: it alone must not wrap modulo p. The
    required columns hold it with `margin` and the constant that rounds.

    Args:
        network: the integer network.
        statistics: of Evaluator.statistics on the calibration images.
        margin: see QuantizationSettings.
    """
    shifts = read_nodes(network.architecture)
    rows: list[dict[str, Any]] = []
    for shape in network.architecture.layers:
        ends = _ends(network.architecture, shape.name, shifts)
        end = max(ends, key=lambda name: statistics[name].largest)
        seen = statistics[end]
        minimum = math.floor(min(seen.minimum, 0) * margin)
        maximum = math.ceil(max(seen.maximum, 0) * margin) + rounding_constant(shifts[end])
        rows.append(
            {
                **_features(shape, len(rows)),
                "shift": shifts[end],
                "weight_norm": network.layers[shape.name].weight_norm,
                "worst_case": network.layers[shape.name].worst_case,
                "accumulator_minimum": seen.minimum,
                "accumulator_maximum": seen.maximum,
                "accumulator_standard_deviation": seen.standard_deviation,
                "largest_in_standard_deviations": seen.largest / (seen.standard_deviation or 1.0),
                "required_minimum": minimum,
                "required_maximum": maximum,
                "plaintext_bits": plaintext_bits(minimum, maximum),
            }
        )
    return rows


def _features(shape: LayerShape, index: int) -> dict[str, Any]:
    channels, height, width = shape.input_shape
    fully_connected = shape.kind == "fully_connected"
    return {
        "index": index,
        "name": shape.name,
        "kind": shape.kind,
        "c_in": channels,
        "c_out": shape.output_channels,
        "x_w": width,
        "x_h": height,
        "k_s": 1 if fully_connected else max(shape.kernel),
        "s_s": 0 if fully_connected else shape.stride,
        "groups": shape.groups,
        "padding": shape.padding,
        "input_maximum": shape.input_maximum,
    }


def _ends(architecture: Architecture, layer: str, shifts: dict[str, int]) -> list[str]:
    """The nodes behind a layer, with only additions and poolings between, whose values are read as signed numbers."""
    behind = [layer]
    for node in architecture.nodes:
        if node.operation in ("add", "scale", "sum_pool", "flatten") and any(name in behind for name in node.inputs):
            behind.append(node.name)
    return [name for name in behind if name in shifts]


def plaintext_bits(minimum: int, maximum: int) -> int:
    """The fewest bits k with -2^(k-1) <= minimum and maximum < 2^(k-1)."""
    return max(maximum.bit_length(), (-minimum - 1).bit_length() if minimum < 0 else 0) + 1


def required_range(rows: list[dict[str, Any]]) -> tuple[int, int]:
    """The smallest and largest signed number that one plaintext modulus for all layers has to hold."""
    return min(int(row["required_minimum"]) for row in rows), max(int(row["required_maximum"]) for row in rows)
