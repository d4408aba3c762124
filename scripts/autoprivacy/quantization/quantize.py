"""Post-training quantisation, to 8 bits unless more are asked for: float network and images in, integer network out.

Weights are symmetric per layer, activations unsigned, rescaling one right shift per activation (so a weight scale takes
up whatever a power of two cannot); a mean's division and a batch normalisation cost nothing at run time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from autoprivacy.data.dataset import Dataset, Split
from autoprivacy.errors import UserError
from autoprivacy.quantization.builder import build_network
from autoprivacy.quantization.evaluation import Evaluator, Statistics, read_nodes, value_ranges, wrap_rate_bound
from autoprivacy.quantization.float_graph import FloatGraph, requantized
from autoprivacy.quantization.importer import import_module
from autoprivacy.quantization.integer_network import (
    SIGNED_RANGE,
    WIDEST_BITS,
    Architecture,
    IntegerNetwork,
    Interval,
    LayerShape,
    rounding_constant,
    weight_maximum,
)
from autoprivacy.quantization.saturation import saturated
from autoprivacy.quantization.scales import SAMPLED, Calibration, ScaleChooser
from autoprivacy.training.batches import batches, normalise

SAMPLES = 1 << 15  # activation values, per node, from which its scale is chosen
BATCH = 100
MAXIMUM_HALVINGS = 4  # of a layer's scale by a channel: weights 16 times smaller than the largest have 8 bits, too


@dataclass(frozen=True)
class QuantizationSettings:
    """Settings of quantisation; the defaults are those of the schema in config/schema.yaml."""

    calibration_images: int = 1000  # spread evenly over the training split; all of them where it has fewer
    # How far beyond the calibration's extremes the plaintext range reaches: on 10,000 test images 7CNET's layers came
    # to 1.30 times the extremes of 1,000 training images at the most.
    margin: float = 1.3
    weights: Literal["per_tensor", "per_channel"] = "per_tensor"  # what has a scale of its own
    weight_bits: int = 8  # sign included
    activation_bits: int = 8
    finetuning_epochs: int = 0  # of quantisation-aware finetuning, after which the rows are measured again

    def __post_init__(self) -> None:
        if self.calibration_images < 1:
            raise UserError(f"quantization: calibration_images {self.calibration_images}; expected 1 or more")
        if self.margin < 1:
            raise UserError(f"quantization: margin {self.margin}; expected 1 or more: less cuts values already seen")
        if self.weights not in ("per_tensor", "per_channel"):
            raise UserError(f"quantization: weights {self.weights}; expected per_tensor or per_channel")
        for name, bits in (("weight_bits", self.weight_bits), ("activation_bits", self.activation_bits)):
            if not 8 <= bits <= WIDEST_BITS:
                raise UserError(f"quantization: {name} {bits}; expected 8 to {WIDEST_BITS}")
        if self.finetuning_epochs < 0:
            raise UserError(f"quantization: finetuning_epochs {self.finetuning_epochs}; expected 0 or more")


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
    graph = requantized(import_module(module, (channels, height, width)), settings.activation_bits)
    split = calibration_split(dataset, settings.calibration_images)
    scale = image_scale(dataset)
    calibration = calibrate(graph, dataset, split)
    largest = weight_maximum(settings.weight_bits)

    def quantized(halvings: dict[str, int]) -> tuple[IntegerNetwork, list[dict[str, Any]]]:
        scales = ScaleChooser(graph, calibration, scale, halvings, largest).choose()
        network = saturated(build_network(graph, calibration, scales, dataset, scale, largest))
        return network, measured_rows(network, dataset, settings)

    network, rows = quantized({})
    return (network, rows) if settings.weights == "per_tensor" else per_channel(rows, quantized)


def per_channel(
    rows: list[dict[str, Any]], quantized: Callable[[dict[str, int]], tuple[IntegerNetwork, list[dict[str, Any]]]]
) -> tuple[IntegerNetwork, list[dict[str, Any]]]:
    """Scales of their own for the channels of every layer, as far as they take no bits of p.

    Channels with small weights take a power of two of the layer's scale, so the others' accumulators are multiplied to
    match, which costs as many bits. The widest layer has set p already; the others have room for that.

    Args:
        rows: of the network with one scale per layer.
        quantized: quantises with so many halvings of the scale for each layer, and measures.
    """
    bits = max(row["plaintext_bits"] for row in rows)
    halvings = {row["name"]: min(bits - row["plaintext_bits"], MAXIMUM_HALVINGS) for row in rows}
    while True:
        network, rows = quantized(halvings)
        excess = {row["name"]: row["plaintext_bits"] - bits for row in rows}
        fewer = {name: max(0, min(count, count - excess[name])) for name, count in halvings.items()}
        if fewer == halvings:
            return network, rows
        halvings = fewer


def measured_rows(network: IntegerNetwork, dataset: Dataset, settings: QuantizationSettings) -> list[dict[str, Any]]:
    """One row per linear layer (see `layer_rows`) with what the calibration images give."""
    split = calibration_split(dataset, settings.calibration_images)
    statistics = Evaluator(network, None).statistics(network.architecture.quantize_images(split.images))
    return layer_rows(network, statistics, settings.margin)


def calibration_split(dataset: Dataset, count: int) -> Split:
    """At most `count` training images, spread evenly over the split."""
    total = len(dataset.train.labels)
    return dataset.train.take(np.arange(min(count, total)) * total // min(count, total))


def image_scale(dataset: Dataset) -> float:
    """The scale at which the most extreme normalised pixel becomes 127."""
    extremes = [max(mean, 1 - mean) / std for mean, std in zip(dataset.mean, dataset.std, strict=True)]
    return max(extremes) / SIGNED_RANGE[1]


def calibrate(graph: FloatGraph, dataset: Dataset, split: Split) -> Calibration:
    """Run the float graph on the images in float32 and collect what the choice of scales needs."""
    mean = {node.name: np.zeros(node.shape[0]) for node in graph.nodes}
    mean_square, largest = dict.fromkeys(mean, 0.0), dict.fromkeys(mean, 0.0)
    samples: dict[str, list[np.ndarray]] = {node.name: [] for node in graph.nodes if node.operation in SAMPLED}
    for images, _ in batches(split, BATCH):
        share = len(images) / len(split.labels)
        for name, value in graph.walk(normalise(torch.from_numpy(images), dataset.mean, dataset.std)):
            mean[name] += value.mean((0, 2, 3), dtype=torch.float64).numpy() * share
            mean_square[name] += float(value.square().mean(dtype=torch.float64)) * share
            largest[name] = max(largest[name], float(value.abs().max()))
            if name in samples:
                # an odd step does not fall in with rows and channels, whose sizes are mostly even
                step = int(value.numel() / share / SAMPLES) | 1
                samples[name].append(value.reshape(-1)[::step].double().numpy())
    return Calibration(mean, mean_square, largest, {name: np.concatenate(parts) for name, parts in samples.items()})


def layer_rows(network: IntegerNetwork, statistics: dict[str, Statistics], margin: float) -> list[dict[str, Any]]:
    """One row per linear layer, for a CSV file.

    The first columns are the state features of the paper's section 3.1. The accumulator columns tell of the value that
    the layer ends in and an activation (or the user) reads, residual included: it alone must not wrap modulo p. The
    required columns hold it, and a mean's sum behind it, with `margin` and the constant that rounds; plaintext_bits is
    what p takes for that. No calibration value wraps then; wrap_rate_bound says how much that proves (see there).
    worst_case is the sum of the layer's |weights| times its largest input. The worst_case_ columns are like the
    required ones for what any image can give (`value_ranges`): under that p nothing can wrap.

    Args:
        network: the integer network.
        statistics: of Evaluator.statistics on the calibration images.
        margin: see QuantizationSettings.
    """
    shifts, possible = read_nodes(network.architecture), value_ranges(network)
    rows: list[dict[str, Any]] = []
    for layer, (own, others) in _ends(network.architecture, shifts).items():
        end = max(own, key=lambda name: statistics[name].largest)
        seen = statistics[end]
        minimum, maximum = _hull(_required(statistics[name], shifts[name], margin) for name in (*own, *others))
        worst = _hull(_rounded(possible[name], shifts[name]) for name in (*own, *others))
        rows.append(
            {
                **_features(network.architecture.layer(layer), len(rows)),
                "shift": shifts[end],
                "weight_norm": network.layers[layer].weight_norm,
                "worst_case": network.layers[layer].worst_case,
                "accumulators": seen.count,
                "accumulator_minimum": seen.minimum,
                "accumulator_maximum": seen.maximum,
                "accumulator_standard_deviation": seen.standard_deviation,
                "largest_in_standard_deviations": seen.largest / (seen.standard_deviation or 1.0),
                "margin": margin,
                "required_minimum": minimum,
                "required_maximum": maximum,
                "plaintext_bits": plaintext_bits(minimum, maximum),
                "wrap_rate_bound": wrap_rate_bound(0, seen.count),
                "worst_case_minimum": worst[0],
                "worst_case_maximum": worst[1],
                "worst_case_bits": plaintext_bits(*worst),
            }
        )
    return rows


def _required(seen: Statistics, shift: int, margin: float) -> Interval:
    widened = math.floor(min(seen.minimum, 0) * margin), math.ceil(max(seen.maximum, 0) * margin)
    return _rounded(widened, shift)


def _rounded(interval: Interval, shift: int) -> Interval:
    """What is read where a value of the interval is about to be shifted: the constant that rounds is added."""
    return interval[0], interval[1] + rounding_constant(shift)


def _hull(intervals: Iterable[Interval]) -> Interval:
    lowest, highest = zip(*intervals, strict=True)
    return min(lowest), max(highest)


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


def _ends(architecture: Architecture, shifts: dict[str, int]) -> dict[str, tuple[list[str], list[str]]]:
    """Which of the nodes that are read as signed numbers (`shifts`) belong to which layer.

    First those after the layer with only local operations between; second those that are after no layer in this way
    (sums of activations) and come after this layer and before the next.
    """
    ends: dict[str, tuple[list[str], list[str]]] = {layer.name: ([], []) for layer in architecture.layers}
    for name in shifts:
        if feeders := architecture.feeders[name]:
            for layer in feeders:
                ends[layer][0].append(name)
        elif (layer := architecture.preceding_layer[name]) in ends:
            ends[layer][1].append(name)
    return ends


def plaintext_bits(minimum: int, maximum: int) -> int:
    """The fewest bits k with -2^(k-1) <= minimum and maximum < 2^(k-1)."""
    return max(maximum.bit_length(), (-minimum - 1).bit_length() if minimum < 0 else 0) + 1


def required_ranges(rows: list[dict[str, Any]], prefix: str = "required") -> dict[str, Interval]:
    """By layer the smallest and largest signed number that a plaintext modulus has to hold.

    Args:
        rows: of `layer_rows`, or read back from their file.
        prefix: of the columns: `required` as calibrated, `worst_case` for what any image can give.
    """
    return {row["name"]: (int(row[f"{prefix}_minimum"]), int(row[f"{prefix}_maximum"])) for row in rows}


def required_range(rows: list[dict[str, Any]]) -> Interval:
    """The smallest and largest signed number that one plaintext modulus for all layers has to hold."""
    return _hull(required_ranges(rows).values())
