"""Fast evaluation of an integer network in torch: accuracy, wraps and accumulator statistics, bit for bit exact.

Floating point holds the integers: a type is chosen per layer so that every partial sum, in whatever order a
convolution kernel adds, is an integer that the type represents exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from autoprivacy.data import Split
from autoprivacy.errors import UserError
from autoprivacy.quantization.integer_network import (
    Architecture,
    IntegerNetwork,
    LinearLayer,
    Node,
    sign_threshold,
)
from autoprivacy.quantization.reference import rounding_constant
from autoprivacy.training import device

Perturbation = Callable[[str, Tensor], Tensor]
Interval = tuple[int, int]

FLOAT32_EXACT = 1 << 24  # float32 holds every integer up to here
# Values are kept in float32 up to half of that, so that the errors which a perturbation adds find room.
FLOAT32_LIMIT = FLOAT32_EXACT // 2
FLOAT64_LIMIT = 1 << 52  # the same half for float64
IMAGE_RANGE = (-128, 127)
BATCH = 100  # images at a time: the largest values of 7CNET then take 26 MB each


@dataclass(frozen=True)
class Statistics:
    """What was seen of one accumulator over all its positions and images."""

    minimum: int
    maximum: int
    standard_deviation: float
    count: int

    @property
    def largest(self) -> int:
        """The largest absolute value."""
        return max(-self.minimum, self.maximum)


class _Moments:
    """Running extremes and moments of one node's values."""

    def __init__(self) -> None:
        self.minimum, self.maximum = np.inf, -np.inf
        self.count, self.sum, self.squares = 0, 0.0, 0.0

    def add(self, values: Tensor) -> None:
        low, high = torch.aminmax(values)
        self.minimum, self.maximum = min(self.minimum, low.item()), max(self.maximum, high.item())
        self.count += values.numel()
        self.sum += float(values.sum(dtype=torch.float64))
        self.squares += float(values.square().sum(dtype=torch.float64))

    def statistics(self) -> Statistics:
        variance = max(self.squares / self.count - (self.sum / self.count) ** 2, 0.0)
        return Statistics(int(self.minimum), int(self.maximum), variance**0.5, self.count)


def value_ranges(network: IntegerNetwork) -> dict[str, Interval]:
    """For every node the interval that holds its integers (before any reduction modulo p) for every image."""
    ranges: dict[str, Interval] = {}
    for node in network.architecture.nodes:
        low, high = ranges[node.inputs[0]] if node.inputs else IMAGE_RANGE
        if node.operation == "linear":
            low, high = _accumulator_range(network.layers[node.name], low, high)
        elif node.operation == "activation":
            low, high = node.minimum, node.maximum
        elif node.operation == "sum_pool":
            low, high = low * node.kernel**2, high * node.kernel**2
        elif node.operation == "add":
            other = ranges[node.inputs[1]]
            low, high = low + other[0], high + other[1]
        elif node.operation == "scale":
            low, high = sorted((low * node.factor, high * node.factor))
        ranges[node.name] = (low, high)
        size = _size(ranges[node.name])
        if size > FLOAT64_LIMIT:
            raise UserError(f"node {node.name}: values up to {size}; allowed {FLOAT64_LIMIT}: put an activation before")
    return ranges


def _size(interval: Interval) -> int:
    return max(-interval[0], interval[1])


def _accumulator_range(layer: LinearLayer, low: int, high: int) -> Interval:
    """Bounds of every partial sum: zero padding and an empty sum count too, so the terms' range includes 0."""
    low, high = min(low, 0), max(high, 0)
    weight = layer.weight.reshape(len(layer.weight), -1)
    positive, negative = np.maximum(weight, 0).sum(1), np.minimum(weight, 0).sum(1)
    highest = positive * high + negative * low + np.maximum(layer.bias, 0)
    lowest = positive * low + negative * high + np.minimum(layer.bias, 0)
    return int(lowest.min()), int(highest.max())


def read_nodes(architecture: Architecture) -> dict[str, int]:
    """The nodes whose values are read as signed numbers, each with the shift of the activation that reads it.

    Activations read their inputs, the user reads the output (shift 0); everywhere else residues modulo p will do.
    """
    shifts = {node.inputs[0]: node.shift for node in architecture.nodes if node.operation == "activation"}
    return {**shifts, architecture.nodes[-1].name: 0}


class Evaluator:
    """Evaluates an integer network on batches of images.

    Args:
        network: the integer network.
        modulus: p; None for integers without a modulus.

    Attributes:
        wraps: per node that is read as a signed number (the linear layers, or the additions and poolings behind them),
            how many values so far had a signed residue other than the true value.
        counts: how many values there were.

    Raises:
        UserError: a value can exceed what float64 holds exactly.
    """

    def __init__(self, network: IntegerNetwork, modulus: int | None) -> None:
        self.network = network
        self.modulus = modulus
        self.device = device()
        self.wraps: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self._nodes = network.architecture.nodes
        self._read = read_nodes(network.architecture)
        self._ranges = value_ranges(network)
        self._last_use = {name: i for i, node in enumerate(self._nodes) for name in node.inputs}
        self._weights = {name: self._prepared(layer) for name, layer in network.layers.items()}

    def _type(self, name: str) -> torch.dtype:
        """In what the node's values are kept."""
        return torch.float32 if _size(self._ranges[name]) < FLOAT32_LIMIT else torch.float64

    def _prepared(self, layer: LinearLayer) -> tuple[Tensor, Tensor]:
        # cuDNN may answer float32 convolutions with Winograd or FFT kernels, which round; in float64 it has neither
        small = _size(self._ranges[layer.shape.name]) <= FLOAT32_EXACT and self.device.type == "cpu"
        kind = torch.float32 if small else torch.float64
        weight = torch.tensor(layer.weight, dtype=kind, device=self.device).to(memory_format=torch.channels_last)
        return weight, torch.tensor(layer.bias, dtype=kind, device=self.device)

    def forward(self, images: np.ndarray | Tensor, perturb: Perturbation | None = None) -> Tensor:
        """Integer outputs, signed modulo p: int64 [N, outputs] on the processor.

        Args:
            images: int64 [N, C, H, W], as Architecture.quantize_images gives them.
            perturb: called with a layer's name and its exact accumulators (a float tensor of integers [N, C, H, W],
                before reduction modulo p) and returns them with errors added, each below 2^23.

        Raises:
            ValueError: the images are not signed 8-bit integers of the network's shape.
        """
        return self._forward(images, perturb, None)

    @torch.no_grad()
    def _forward(
        self, images: np.ndarray | Tensor, perturb: Perturbation | None, moments: dict[str, _Moments] | None
    ) -> Tensor:
        images = images if isinstance(images, Tensor) else torch.tensor(images)
        expected = self._nodes[0].shape
        if tuple(images.shape[1:]) != expected or images.is_floating_point() or not len(images):
            raise ValueError(f"images {images.dtype} {tuple(images.shape)}; expected integers [N, *{expected}], N > 0")
        low, high = torch.aminmax(images)
        if low < IMAGE_RANGE[0] or high > IMAGE_RANGE[1]:
            raise ValueError(f"image values from {int(low)} to {int(high)}; allowed {IMAGE_RANGE}")
        return torch.cat([self._batch(batch, perturb, moments) for batch in images.split(BATCH)])

    def _batch(self, images: Tensor, perturb: Perturbation | None, moments: dict[str, _Moments] | None) -> Tensor:
        values: dict[str, Tensor] = {}
        with torch.backends.nnpack.flags(enabled=False):  # NNPACK's convolutions round, oneDNN's do not
            for index, node in enumerate(self._nodes):
                inputs = [values[name] for name in node.inputs]
                value = images.to(self.device, torch.float32) if not inputs else self._value(node, inputs)
                if perturb is not None and node.operation == "linear":
                    value = perturb(node.name, value)
                if moments is not None and node.name in self._read:
                    moments.setdefault(node.name, _Moments()).add(value)
                values[node.name] = value
                for name in node.inputs:
                    if self._last_use[name] == index:
                        values.pop(name, None)
        output = self._nodes[-1].name
        return self._signed(output, values[output]).flatten(1).to(torch.int64).cpu()

    def _value(self, node: Node, inputs: list[Tensor]) -> Tensor:
        x = inputs[0]
        if node.operation == "linear":
            shape = self.network.layers[node.name].shape
            weight, bias = self._weights[node.name]
            x = x.to(weight.dtype, memory_format=torch.channels_last)
            x = F.conv2d(x, weight, bias, shape.stride, shape.padding, groups=shape.groups)
            return x.to(self._type(node.name))
        if node.operation == "activation":
            # `+` makes a new tensor, the rest works in place on it
            x = self._signed(node.inputs[0], x + rounding_constant(node.shift))
            x = x.mul_(2.0**-node.shift).floor_().clamp_(node.minimum, node.maximum)
            return x.to(self._type(node.name))
        x = x.to(torch.promote_types(self._type(node.name), x.dtype))
        if node.operation == "sum_pool":
            return F.avg_pool2d(x, node.kernel, node.stride, divisor_override=1)
        if node.operation == "flatten":
            return x.flatten(1)[:, :, None, None]
        if node.operation == "add":
            return x + inputs[1]
        return x * node.factor

    def _signed(self, name: str, values: Tensor) -> Tensor:
        """`values` signed modulo p; counts those that change."""
        self.counts[name] += values.numel()
        if self.modulus is None:
            return values
        highest = sign_threshold(self.modulus) - 1
        lowest = highest + 1 - self.modulus
        low, high = torch.aminmax(values)
        if low >= lowest and high <= highest:
            return values
        # the remainder of floats is exact; float64 because p may be larger than float32 counts
        exact = values.double()
        signed = torch.remainder(exact - lowest, self.modulus) + lowest
        self.wraps[name] += int((signed != exact).sum())
        return signed

    def accuracy(self, split: Split, perturb: Perturbation | None = None, limit: int | None = None) -> float:
        """Top-1 accuracy in percent on a split, or on its first `limit` images; ValueError on an empty one."""
        split = split if limit is None else split.take(slice(0, limit))
        if not len(split.labels):
            raise ValueError("accuracy of no images")
        right = 0
        for start in range(0, len(split.labels), BATCH):
            images = self.network.architecture.quantize_images(split.images[start : start + BATCH])
            predicted = self.forward(images, perturb).numpy().argmax(1)
            right += int((predicted == split.labels[start : start + BATCH]).sum())
        return 100.0 * right / len(split.labels)

    def statistics(self, images: np.ndarray | Tensor) -> dict[str, Statistics]:
        """Per node that is read as a signed number, what its values were on these images, before reduction."""
        moments: dict[str, _Moments] = {}
        self._forward(images, None, moments)
        return {name: moment.statistics() for name, moment in moments.items()}
