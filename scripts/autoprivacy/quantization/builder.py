"""From a float graph and its scales to the integer network: rounded weights, shifts, residuals brought to one scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autoprivacy.data.dataset import Dataset
from autoprivacy.quantization.float_graph import FloatGraph, FloatLayer, FloatNode
from autoprivacy.quantization.integer_network import (
    SIGNED_RANGE,
    WEIGHT_MAXIMUM,
    Architecture,
    IntegerNetwork,
    Interval,
    LinearLayer,
    Node,
    Shape,
)
from autoprivacy.quantization.scales import Calibration, Scales, allowed_range, table_range


def build_network(
    graph: FloatGraph,
    calibration: Calibration,
    scales: Scales,
    dataset: Dataset,
    image_scale: float,
    weight_maximum: int = WEIGHT_MAXIMUM,
) -> IntegerNetwork:
    """The integer network of a float graph.

    Args:
        graph: with its requantize nodes.
        calibration: of the graph.
        scales: as ScaleChooser gives them.
        dataset: determines how images are normalised.
        image_scale: of the image.
        weight_maximum: the largest weight allowed; the smallest is its negative.
    """
    builder = _Builder(graph, calibration, scales, weight_maximum)
    for node in graph.nodes:
        builder.build(node)
    shapes = tuple(layer.shape for layer in builder.layers.values())
    architecture = Architecture(
        tuple(builder.nodes), shapes, dataset.mean, dataset.std, image_scale, dataset.class_names
    )
    return IntegerNetwork(architecture, builder.layers, 2.0 ** scales.log2[graph.nodes[-1].name])


class _Builder:
    """Collects the integer network's nodes and layers."""

    def __init__(self, graph: FloatGraph, calibration: Calibration, scales: Scales, weight_maximum: int) -> None:
        self.graph = graph
        self.weight_maximum = weight_maximum
        self.calibration = calibration
        self.scales, self.halvings = dict(scales.log2), scales.halvings
        self.nodes: list[Node] = []
        self.layers: dict[str, LinearLayer] = {}
        self.ranges: dict[str, Interval | None] = {}  # that hold a node's values; None for accumulators
        self.stands_for: dict[str, str] = {}  # by a layer whose channels have scales of their own, what is read instead

    def build(self, node: FloatNode) -> None:
        """Build one node, after all its inputs."""
        node = replace(node, inputs=tuple(self.stands_for.get(name, name) for name in node.inputs))
        if node.operation == "linear":
            self._linear(node)
        elif node.operation == "add":
            self._add(node)
        elif node.operation in ("relu", "requantize"):
            self._activation(node)
        elif node.operation == "max_pool":
            self._max_pool(node)
        elif node.operation in ("square", "table"):
            self._function(node)
        else:
            self._local(node)

    def _linear(self, node: FloatNode) -> None:
        source = node.inputs[0]
        interval = self.ranges[source]
        assert interval is not None  # an accumulator that a linear layer reads has a requantize node after it
        halvings, scale = self.halvings[node.name], self.scales[node.name]
        coarser = halvings.max() - halvings  # than the finest channel, in bits
        self.layers[node.name] = _integer_layer(
            self.graph.layers[node.name],
            max(-interval[0], interval[1]),
            self.calibration.mean[source],
            self.scales[source],
            scale + coarser,
            self.weight_maximum,
        )
        self.nodes.append(Node(node.name, "linear", node.inputs, node.shape))
        self.ranges[node.name] = None
        if coarser.any():
            name = f"{node.name}.scale"
            self.nodes.append(Node(name, "scale", (node.name,), node.shape, factor=tuple((1 << coarser).tolist())))
            self.stands_for[node.name], self.scales[name], self.ranges[name] = name, scale, None

    def _add(self, node: FloatNode) -> None:
        """Bring the inputs to the finest of their scales, then add."""
        inputs, intervals = [], []
        for position, source in enumerate(node.inputs):
            factor = 1 << round(self.scales[source] - self.scales[node.name])
            interval = self.ranges[source]
            intervals.append(None if interval is None else (interval[0] * factor, interval[1] * factor))
            if factor > 1:
                name = f"{node.name}.scale{position + 1}"
                self.nodes.append(Node(name, "scale", (source,), node.shape, factor=factor))
                source = name
            inputs.append(source)
        self.nodes.append(Node(node.name, "add", tuple(inputs), node.shape))
        first, second = intervals
        self.ranges[node.name] = (first[0] + second[0], first[1] + second[1]) if first and second else None

    def _activation(self, node: FloatNode) -> None:
        scale = self.scales[node.name]
        minimum, maximum = allowed_range(node)
        if node.bound is not None:
            maximum = min(maximum, round(node.bound / 2.0**scale))
        shift = round(scale - self.scales[node.inputs[0]])
        self.nodes.append(Node(node.name, "activation", node.inputs, node.shape, shift, minimum, maximum))
        self.ranges[node.name] = (minimum, maximum)

    def _function(self, node: FloatNode) -> None:
        """One activation of the requantisation before, which nothing else reads, and the square or the table."""
        requantized = self.nodes.pop()
        assert (requantized.name,) == node.inputs  # as the importer puts them
        if node.operation == "square":
            built = replace(requantized, name=node.name, squared=True)
        else:
            built = replace(requantized, name=node.name, table=self._table(node, requantized))
        self.nodes.append(built)
        self.ranges[node.name] = built.activated_range

    def _table(self, node: FloatNode, requantized: Node) -> tuple[int, ...]:
        """The function of every level, rounded to the table's own scale."""
        levels = np.arange(requantized.minimum, requantized.maximum + 1)
        values = node.array_function(levels * 2.0 ** self.scales[requantized.name]) / 2.0 ** self.scales[node.name]
        return tuple(np.clip(np.rint(values), *table_range(node, self.calibration)).astype(int).tolist())

    def _max_pool(self, node: FloatNode) -> None:
        """Maxima of rows, then of columns: two values at a time, so that 3 take two activations one after the other."""
        source, interval = node.inputs[0], self.ranges[node.inputs[0]]
        assert interval is not None  # an accumulator has a requantize node after it
        shape = next(built.shape for built in reversed(self.nodes) if built.name == source)
        for axis, kind in enumerate(("row", "column")):
            steps = [1, 1]
            steps[axis] = node.strides[axis]
            sizes = list(shape)
            sizes[1 + axis] = node.shape[1 + axis]
            shape, parts = (sizes[0], sizes[1], sizes[2]), list[str]()
            for place in range(node.window[axis]):
                offset = (node.offset[0] + place, 0) if axis == 0 else (0, node.offset[1] + place)
                parts.append(f"{node.name}.{kind}{place + 1}")
                window = Node(parts[-1], "window", (source,), shape, stride=(steps[0], steps[1]), offset=offset)
                self.nodes.append(window)
            while len(parts) > 1:
                pairs = zip(parts[::2], parts[1::2], strict=False)
                larger = [self._larger(a, b, shape, interval) for a, b in pairs]
                parts = [*larger, *parts[len(parts) - len(parts) % 2 :]]
            source = parts[0]
        last = next(index for index, built in enumerate(self.nodes) if built.name == source)
        self.nodes[last] = replace(self.nodes[last], name=node.name)
        self.ranges[node.name] = interval

    def _larger(self, a: str, b: str, shape: Shape, interval: Interval) -> str:
        """b + ReLU(a - b), and its name."""
        name, bits = f"{a}+", max(1, (interval[1] - interval[0]).bit_length())
        self.nodes += [
            Node(f"{name}.negated", "scale", (b,), shape, factor=-1),
            Node(f"{name}.difference", "add", (a, f"{name}.negated"), shape),
            Node(
                f"{name}.gain",
                "activation",
                (f"{name}.difference",),
                shape,
                maximum=(1 << bits) - 1,
                modulus_bits=bits + 1,
            ),
            Node(name, "add", (b, f"{name}.gain"), shape),
        ]
        return name

    def _local(self, node: FloatNode) -> None:
        """Operations on one value without weights, and the image."""
        interval = self.ranges[node.inputs[0]] if node.inputs else SIGNED_RANGE
        built = Node(node.name, "flatten", node.inputs, node.shape)
        if node.operation == "input":
            built = replace(built, operation="input")
        elif node.operation == "average_pool":
            interval = interval and (interval[0] * node.window_size, interval[1] * node.window_size)
            built = replace(built, operation="sum_pool", kernel=node.kernel, stride=node.stride)
        elif node.operation == "subsample":
            built = replace(built, operation="subsample", stride=node.stride)
        elif node.operation == "pad_channels":
            built = replace(built, operation="pad_channels", before=node.before, after=node.after)
        self.nodes.append(built)
        self.ranges[node.name] = interval


def _integer_layer(
    layer: FloatLayer,
    input_maximum: int,
    input_mean: np.ndarray,
    input_scale: float,
    accumulator_scales: np.ndarray,
    weight_maximum: int,
) -> LinearLayer:
    """Round a layer's weights and bias.

    The scales are log2, the accumulators' one for all output channels or one for each; the mean is the input's per
    channel, in float units.

    Rounded weights shift the mean output, since the inputs' mean is not zero after a ReLU; the bias takes that back
    (Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019, section 4.2).
    """
    exact, scale = layer.weight.numpy(), 2.0 ** (accumulator_scales - input_scale)[:, None, None, None]
    weight = np.clip(np.rint(exact / scale), -weight_maximum, weight_maximum).astype(np.int64)
    groups = np.arange(len(weight)) * layer.shape.groups // len(weight)
    shift = ((weight * scale - exact).sum((2, 3)) * input_mean.reshape(layer.shape.groups, -1)[groups]).sum(1)
    bias = np.rint((layer.bias.numpy() - shift) / 2.0**accumulator_scales).astype(np.int64)
    return LinearLayer(replace(layer.shape, input_maximum=input_maximum), weight, bias)
