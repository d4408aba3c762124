"""The float network as a small graph: what import gives, and where activations that only requantise are put into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from autoprivacy.quantization.integer_network import LayerShape, Shape, both


@dataclass(frozen=True)
class FloatLayer:
    """A linear layer before quantisation: weight and bias are float64, batch normalisation is folded in.

    Shapes are those of integer_network.LinearLayer; the input maximum in `shape` is not known yet.
    """

    shape: LayerShape
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class FloatNode:
    """One operation of the float graph, as integer_network.Node.

    Attributes:
        kernel: of average_pool and max_pool, as integer_network.Node has it.
        stride: of average_pool, max_pool and subsample.
        offset: of max_pool, where the first window begins: padding as negative numbers. Windows are cut off at edges.
        bound: at which a relu is cut off, 6 for ReLU6; None for a plain ReLU.
        signed: of requantize, which changes nothing but the integers' scale: whether values may be negative.
        magnitude_bits: of an activation, b: its integers are 0 to 2^b - 1, of a signed requantize -2^b to 2^b - 1, of a
            table 2^b consecutive ones.
        function: of a table, value by value; it follows a requantize, which nothing else reads.
        before, after: of pad_channels.
    """

    name: str
    operation: Literal[
        "input",
        "linear",
        "relu",
        "requantize",
        "square",
        "table",
        "average_pool",
        "max_pool",
        "flatten",
        "add",
        "subsample",
        "pad_channels",
    ]
    inputs: tuple[str, ...]
    shape: Shape
    kernel: int | tuple[int, int] = 1
    stride: int | tuple[int, int] = 1
    bound: float | None = None
    signed: bool = False
    magnitude_bits: int = 7
    function: Callable[[Tensor], Tensor] | None = None
    before: int = 0
    after: int = 0
    offset: tuple[int, int] = (0, 0)

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of an average_pool's windows."""
        return both(self.kernel)

    @property
    def strides(self) -> tuple[int, int]:
        """Rows and columns from one window, or pixel that is kept, to the next."""
        return both(self.stride)

    def array_function(self, values: np.ndarray) -> np.ndarray:
        """What a square or a table makes of values, float64."""
        if self.function is None:
            return np.square(values)
        array: np.ndarray = self.function(torch.from_numpy(np.asarray(values, np.float64))).numpy()
        return array

    @property
    def window_size(self) -> int:
        """Values that an average_pool takes the mean of."""
        return self.window[0] * self.window[1]


@dataclass(frozen=True)
class FloatGraph:
    """The float network as a graph in topological order; the last node is the output."""

    nodes: tuple[FloatNode, ...]
    layers: dict[str, FloatLayer]

    @torch.no_grad()
    def walk(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Every node's name and value [N, C, H, W], in order; no value is kept longer than the graph needs it.

        `images` are normalised [N, C, H, W]; all values have their type and place.
        """
        last_use = {name: index for index, node in enumerate(self.nodes) for name in node.inputs}
        values: dict[str, Tensor] = {}
        for index, node in enumerate(self.nodes):
            values[node.name] = self._value(node, [values[name] for name in node.inputs] or [images])
            yield node.name, values[node.name]
            for name in node.inputs:
                if last_use[name] == index:
                    values.pop(name, None)

    def outputs(self, images: Tensor) -> Tensor:
        """The last node's value, [N, outputs]."""
        for _, value in self.walk(images):
            last = value
        return last.flatten(1)

    def _value(self, node: FloatNode, inputs: list[Tensor]) -> Tensor:
        x = inputs[0]
        if node.operation == "linear":
            layer = self.layers[node.name]
            shape = layer.shape
            return F.conv2d(x, layer.weight.to(x), layer.bias.to(x), shape.stride, shape.padding, groups=shape.groups)
        if node.operation == "relu":
            return x.clamp(0, node.bound)
        if node.operation == "square":
            return x.square()
        if node.function is not None:
            return node.function(x)
        if node.operation == "average_pool":
            return F.avg_pool2d(x, node.kernel, node.stride)
        if node.operation == "max_pool":
            return _max_pool(node, x)
        if node.operation == "flatten":
            return x.flatten(1)[:, :, None, None]
        if node.operation == "add":
            return x + inputs[1]
        if node.operation == "subsample":
            return x[:, :, :: node.strides[0], :: node.strides[1]]
        if node.operation == "pad_channels":
            return F.pad(x, (0, 0, 0, 0, node.before, node.after))
        return x


def _max_pool(node: FloatNode, x: Tensor) -> Tensor:
    """Row by row, then column by column; a row or column at the edge stands for those beyond, which changes nothing."""
    for axis in (0, 1):
        first = node.offset[axis] + node.strides[axis] * torch.arange(node.shape[1 + axis], device=x.device)
        places = [(first + step).clamp(0, x.shape[2 + axis] - 1) for step in range(node.window[axis])]
        x = torch.stack([x.index_select(2 + axis, place) for place in places]).amax(0)
    return x


def with_relus_before_pools(graph: FloatGraph) -> FloatGraph:
    """The same function where every ReLU that alone reads a max pooling comes before it.

    A ReLU requantises accumulators for itself; a max pooling of accumulators would need a requantisation more, and a
    sign.
    """
    readers: dict[str, list[FloatNode]] = {}
    for node in graph.nodes:
        for source in node.inputs:
            readers.setdefault(source, []).append(node)
    moved = {  # pooling by the ReLU that reads it
        own[0].name: node
        for node in graph.nodes
        if node.operation == "max_pool" and len(own := readers.get(node.name, [])) == 1 and own[0].operation == "relu"
    }
    before = {pool.name: name for name, pool in moved.items()}
    nodes, shapes = list[FloatNode](), {node.name: node.shape for node in graph.nodes}
    for node in graph.nodes:
        node = replace(node, inputs=tuple(moved[name].name if name in moved else name for name in node.inputs))
        if node.name in moved:
            continue
        if node.name in before:
            relu = next(reader for reader in readers[node.name])
            nodes.append(replace(relu, inputs=node.inputs, shape=shapes[node.inputs[0]]))
            node = replace(node, inputs=(relu.name,))
        nodes.append(node)
    return FloatGraph(tuple(nodes), graph.layers)


def requantized(graph: FloatGraph, bits: int = 8) -> FloatGraph:
    """The graph with activations of so many bits, and a requantize node behind every wider value that a layer reads.

    Two kinds of values are wider: an accumulator that no ReLU follows (a linear bottleneck, with the residual already
    added), and a mean over the whole image, whose sum would otherwise make the next accumulator the network's widest.
    A max pooling reads no accumulators either.
    Whatever else reads such a value reads it requantised too, but a ReLU and a square, which requantise for themselves.
    The bits of what is squared are the square's own; what a table reads has a sign besides its bits, which makes its
    positive levels as fine as a ReLU's.
    """
    graph = with_relus_before_pools(graph)
    tables = {node.inputs[0] for node in graph.nodes if node.operation == "table"}
    wanted = {source for node in graph.nodes if node.operation in ("linear", "max_pool") for source in node.inputs}
    reads: dict[str, str] = {}  # what stands in for a node
    facts: dict[str, _Facts] = {}
    nodes: list[FloatNode] = []
    for node in graph.nodes:
        own = node.operation in ("relu", "requantize")
        inputs = node.inputs if own else tuple(reads.get(name, name) for name in node.inputs)
        node = replace(node, inputs=inputs)
        given = node.operation in ("relu", "table") or node.name in tables
        nodes.append(replace(node, magnitude_bits=bits) if given else node)
        fact = _facts(node, [facts[name] for name in inputs])
        facts[node.name] = fact
        if node.name in wanted and (fact.accumulator or fact.global_mean):
            name = f"{node.name}.requantized"
            reads[node.name] = name
            facts[name] = _Facts(False, False, fact.signed)
            magnitude = bits - 1 if fact.signed else bits
            nodes.append(
                FloatNode(name, "requantize", (node.name,), node.shape, signed=fact.signed, magnitude_bits=magnitude)
            )
    return FloatGraph(tuple(nodes), graph.layers)


@dataclass(frozen=True)
class _Facts:
    """Whether a value is an accumulator, is a mean over whole images, may be negative."""

    accumulator: bool
    global_mean: bool
    signed: bool


def _facts(node: FloatNode, inputs: list[_Facts]) -> _Facts:
    if node.operation == "input":
        return _Facts(False, False, True)
    if node.operation == "linear":
        return _Facts(True, False, True)
    if node.operation in ("relu", "requantize", "square", "table"):
        return _Facts(False, False, node.signed)
    mean = node.operation == "average_pool" and node.window_size > 1 and node.shape[1:] == (1, 1)
    return _Facts(
        any(fact.accumulator for fact in inputs),
        mean or any(fact.global_mean for fact in inputs),
        any(fact.signed for fact in inputs),
    )
