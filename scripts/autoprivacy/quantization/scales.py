"""The scale of every value of the integer network: real value = scale * integer.

Rescaling is a right shift, so along a path without a linear layer all scales differ by powers of two, and only a
linear layer's weights can take up the rest. Values tied in this way form a class; within a class one free factor in
[1, 2) remains. It is searched for, class by class, to keep the rounding errors of weights and activations small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.quantization.float_graph import FloatGraph, FloatNode
from autoprivacy.quantization.integer_network import WEIGHT_MAXIMUM, Interval

RESCALED = ("relu", "requantize")  # the float operations that become activations
SAMPLED = (*RESCALED, "table")  # whose values the choice of scales looks at
STEPS_PER_OCTAVE = 8  # scales are tried at 2^(k/8), never further than a factor 2^(1/16) from the best
ROUNDING = 1e-9  # errors of sums of logarithms stay below it
Function = Callable[[np.ndarray], np.ndarray]
SWEEPS = 3  # over all classes; the choices for 7CNET and a 10-block residual network no longer change in the third


class ErrorCurve:
    """The mean squared error of rounding and clipping `values` to integers times a scale, as a function of the scale.

    Args:
        values: float64, any shape.
        minimum, maximum: the integers allowed.
        largest: the largest |value|, where `values` is only a sample.
        halvings: how often a channel, an entry of the first axis, may halve the scale for itself.
        function: of the values, whose error counts; None for their own.
    """

    OCTAVES_CLIPPED, OCTAVES_COARSER = 4, 3  # tried on either side of the scale that just holds the largest value

    def __init__(
        self,
        values: np.ndarray,
        minimum: int,
        maximum: int,
        largest: float,
        halvings: int = 0,
        function: Function | None = None,
    ) -> None:
        start = math.log2(largest / maximum) if largest > 0 else 0.0
        octaves = range(-self.OCTAVES_CLIPPED - halvings, self.OCTAVES_COARSER)
        steps = np.arange(octaves.start * STEPS_PER_OCTAVE, octaves.stop * STEPS_PER_OCTAVE + 1)
        scales = start + steps / STEPS_PER_OCTAVE
        rows = values.reshape(len(values), -1) if halvings else values.reshape(1, -1)
        errors = np.array([_squared_errors(rows, 2.0**s, minimum, maximum, function) for s in scales])
        first = halvings * STEPS_PER_OCTAVE
        halved = np.stack([errors[first - k * STEPS_PER_OCTAVE :][: len(scales) - first] for k in range(halvings + 1)])
        self.log2_scales = scales[first:]
        self.errors = halved.min(0).mean(1)
        self._halvings = halved.argmin(0)

    def halvings(self, log2_scale: float) -> np.ndarray:
        """How often each channel best halves a scale for itself, int64; [1] where they may not."""
        nearest = int(np.abs(self.log2_scales - log2_scale).argmin())
        return self._halvings[nearest]

    def __call__(self, log2_scale: float) -> float:
        """The error at a scale, interpolated."""
        return float(np.interp(log2_scale, self.log2_scales, self.errors))

    def best(self, fraction: float, at_least: float = -math.inf, at_most: float = math.inf) -> float:
        """The log2 scale of the form fraction + integer with the least error.

        It is not below `at_least` and, where that leaves any, not above `at_most`.
        """
        low, high = max(float(self.log2_scales[0]), at_least), min(float(self.log2_scales[-1]), at_most)
        first = fraction + math.ceil(low - fraction - ROUNDING)
        candidates = [first]
        while candidates[-1] + 1 <= high + ROUNDING:
            candidates.append(candidates[-1] + 1)
        return min(candidates, key=self)


def _squared_errors(
    rows: np.ndarray, scale: float, minimum: int, maximum: int, function: Function | None
) -> np.ndarray:
    rounded = scale * np.clip(np.rint(rows / scale), minimum, maximum)
    errors = function(rows) - function(rounded) if function else rows - rounded
    return (errors**2).mean(1)


@dataclass(frozen=True)
class Calibration:
    """What calibration images say about the float graph.

    Attributes:
        mean: of every node's values, per channel.
        mean_square: of every node's values.
        largest: the largest |value| of every node.
        samples: some values of each node that becomes an activation, or a table of one.
    """

    mean: dict[str, np.ndarray]
    mean_square: dict[str, float]
    largest: dict[str, float]
    samples: dict[str, np.ndarray]


@dataclass(frozen=True)
class Scales:
    """What ScaleChooser chooses.

    Attributes:
        log2: of every node's scale; of a linear layer's it is that of its finest channel.
        halvings: per linear layer how often each output channel halves the scale of its weights, [1] for all alike.
    """

    log2: dict[str, float]
    halvings: dict[str, np.ndarray]


def allowed_range(node: FloatNode) -> Interval:
    """The integers that an activation may give."""
    return (-(1 << node.magnitude_bits) if node.signed else 0, (1 << node.magnitude_bits) - 1)


def table_range(node: FloatNode, calibration: Calibration) -> Interval:
    """The integers that a table may hold: 2^b consecutive ones, shared out by how far values reach to either side."""
    values, most = calibration.samples[node.name], (1 << node.magnitude_bits) - 1
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    below = min(math.ceil(most * -low / (high - low)), most - 1) if high > low else 0
    return -below, most - below


def _table_curve(node: FloatNode, calibration: Calibration) -> ErrorCurve:
    """The error of a table's values."""
    values, (minimum, maximum) = calibration.samples[node.name], table_range(node, calibration)
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    grown = calibration.largest[node.name] / (max(-low, high) or 1.0)  # the samples need not have the largest
    return ErrorCurve(values, minimum, maximum, (high - low) * grown * maximum / (maximum - minimum))


def largest_scale(node: FloatNode) -> float:
    """log2 of the scale above which the integers' own clip of a ReLU6 would come later than its own."""
    return math.inf if node.bound is None else math.log2(node.bound / allowed_range(node)[1])


@dataclass(frozen=True)
class Tie:
    """How log2 of a node's scale depends on the factor of its class: multiplier * factor + offset + an integer.

    Attributes:
        root: the first node of the class, which names it.
        multiplier: 1, doubled by every square on the way, where no addition ties it otherwise.
        offset: what means divide by.
    """

    root: str
    multiplier: float = 1.0
    offset: float = 0.0

    def fraction(self, factors: Mapping[str, float]) -> float:
        """The log2 scale up to an integer."""
        return self.multiplier * factors[self.root] + self.offset


def scale_classes(graph: FloatGraph) -> dict[str, Tie]:
    """What every node's scale is tied to.

    A class is named by the first node in it (so the image, whose scale is given, names its own). Only linear layers and
    tables begin a new one; a mean over k values divides the scale by k; a square squares it; an addition joins two
    classes.
    """
    ties: dict[str, Tie] = {}
    for node in graph.nodes:
        if node.operation in ("input", "linear", "table"):
            ties[node.name] = Tie(node.name)
            continue
        tie = ties[node.inputs[0]]
        if node.operation == "average_pool":
            tie = replace(tie, offset=tie.offset - math.log2(node.window_size))
        elif node.operation == "square":
            tie = replace(tie, multiplier=2 * tie.multiplier, offset=2 * tie.offset)
        ties[node.name] = tie
        if node.operation == "add":
            _join(ties, tie, ties[node.inputs[1]], node)
    return ties


def _join(ties: dict[str, Tie], first: Tie, second: Tie, node: FloatNode) -> None:
    """Make two scales differ by a power of two, by the factor of the class that begins later."""
    if first.root == second.root:
        difference = first.offset - second.offset
        if first.multiplier != second.multiplier:
            raise UserError(
                f"addition {node.name}: one of its inputs is the other squared, so their scales differ by no power of "
                f"two; put a convolution on one of the paths"
            )
        if abs(difference - round(difference)) > ROUNDING:
            raise UserError(
                f"addition {node.name}: its inputs' scales differ by 2^{difference:.3f}, no power of two, because of "
                f"an average pooling on one of the paths; put a convolution on that path"
            )
        return
    order = list(ties)
    keep, drop = (first, second) if order.index(first.root) < order.index(second.root) else (second, first)
    # the dropped factor as keep's multiplied and moved
    ratio, moved = keep.multiplier / drop.multiplier, (keep.offset - drop.offset) / drop.multiplier
    for name, tie in ties.items():
        if tie.root == drop.root:
            ties[name] = Tie(keep.root, tie.multiplier * ratio, tie.offset + tie.multiplier * moved)


class ScaleChooser:
    """Chooses the scales of all nodes of a float graph.

    Args:
        graph: with its requantize nodes.
        calibration: of the graph.
        image_scale: of the image.
        halvings: per linear layer how often a channel may halve the scale of its weights for itself; 0 where missing.
        weight_maximum: the largest weight allowed; the smallest is its negative.
    """

    def __init__(
        self,
        graph: FloatGraph,
        calibration: Calibration,
        image_scale: float,
        halvings: dict[str, int],
        weight_maximum: int = WEIGHT_MAXIMUM,
    ) -> None:
        self.graph = graph
        self.calibration = calibration
        self.image = math.log2(image_scale)
        self.classes = scale_classes(graph)
        self.starts = self._starts()
        # what is made of requantised values, whose error counts in place of theirs
        self.read_by = {node.inputs[0]: node for node in graph.nodes if node.operation in ("square", "table")}
        self.weight_curves, self.activation_curves = {}, {}
        for name, layer in graph.layers.items():
            weight = layer.weight.numpy()
            largest = float(np.abs(weight).max(initial=0))
            self.weight_curves[name] = ErrorCurve(
                weight, -weight_maximum, weight_maximum, largest, halvings.get(name, 0)
            )
        for node in graph.nodes:
            if node.operation in RESCALED:
                values, largest = calibration.samples[node.name], calibration.largest[node.name]
                reader = self.read_by.get(node.name)
                function = reader.array_function if reader else None
                self.activation_curves[node.name] = ErrorCurve(values, *allowed_range(node), largest, 0, function)
            elif node.operation == "table":
                self.activation_curves[node.name] = _table_curve(node, calibration)

    def _starts(self) -> dict[str, float]:
        """Where the factors tried for a class start: so that the first ReLU6 in it can be cut off exactly at 6."""
        starts: dict[str, float] = {}
        for node in self.graph.nodes:
            tie = self.classes[node.name]
            if node.bound is not None:
                starts.setdefault(tie.root, (largest_scale(node) - tie.offset) / tie.multiplier)
        return starts

    def choose(self) -> Scales:
        """Coordinate descent over the classes' factors."""
        names = dict.fromkeys(tie.root for tie in self.classes.values())
        factors = dict.fromkeys(names, 0.0)
        factors[self.graph.nodes[0].name] = self.image
        free = [name for name in factors if name != self.graph.nodes[0].name]
        for _ in range(SWEEPS):
            for name in free:
                start = self.starts.get(name, 0.0)
                tried = [{**factors, name: start + step / STEPS_PER_OCTAVE} for step in range(STEPS_PER_OCTAVE)]
                factors = min(tried, key=lambda f: self.assign(f)[1])
        return self.assign(factors)[0]

    def assign(self, factors: dict[str, float]) -> tuple[Scales, float]:
        """The scales for given classes' factors, and the sum of relative squared errors."""
        scales: dict[str, float] = {}
        halvings: dict[str, np.ndarray] = {}
        cost = 0.0
        for node in self.graph.nodes:
            fraction = self.classes[node.name].fraction(factors)
            before = [scales[source] for source in node.inputs]
            if node.operation == "input":
                scales[node.name] = self.image
            elif node.operation == "linear":
                curve = self.weight_curves[node.name]
                weight_scale = curve.best(fraction - before[0])
                halvings[node.name] = curve.halvings(weight_scale)
                scales[node.name] = weight_scale + before[0] - int(halvings[node.name].max())
                layer = self.graph.layers[node.name]
                terms = layer.weight[0].numel() * self.calibration.mean_square[node.inputs[0]]
                cost += self._relative(node.name, curve(weight_scale) * terms)
            elif node.operation in RESCALED:
                # a shift cannot be negative
                curve = self.activation_curves[node.name]
                scales[node.name] = curve.best(fraction, at_least=before[0], at_most=largest_scale(node))
                cost += self._relative(self.read_by.get(node.name, node).name, curve(scales[node.name]))
            elif node.operation == "table":
                curve = self.activation_curves[node.name]
                scales[node.name] = curve.best(fraction)
                cost += self._relative(node.name, curve(scales[node.name]))
            elif node.operation == "average_pool":
                scales[node.name] = before[0] - math.log2(node.window_size)
            elif node.operation == "square":
                scales[node.name] = 2 * before[0]
            else:
                scales[node.name] = min(before)
        return Scales(scales, halvings), cost

    def _relative(self, name: str, squared_error: float) -> float:
        mean_square = self.calibration.mean_square[name]
        return squared_error / mean_square if mean_square else 0.0
