"""The float network as a small graph: what import gives, and where activations that only requantise are put into it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

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
        kernel: of average_pool, as integer_network.Node has it.
        stride: of average_pool and subsample.
        bound: at which a relu is cut off, 6 for ReLU6; None for a plain ReLU.
        signed: of requantize, which changes nothing but the integers' scale: whether values may be negative.
        magnitude_bits: of an activation, b: its integers are 0 to 2^b - 1, of a signed requantize -2^b to 2^b - 1.
        before, after: of pad_channels.
    """

    name: str
    operation: Literal[
        "input", "linear", "relu", "requantize", "square", "average_pool", "flatten", "add", "subsample", "pad_channels"
    ]
    inputs: tuple[str, ...]
    shape: Shape
    kernel: int | tuple[int, int] = 1
    stride: int | tuple[int, int] = 1
    bound: float | None = None
    signed: bool = False
    magnitude_bits: int = 7
    before: int = 0
    after: int = 0

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of an average_pool's windows."""
        return both(self.kernel)

    @property
    def strides(self) -> tuple[int, int]:
        """Rows and columns from one window, or pixel that is kept, to the next."""
        return both(self.stride)

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
        if node.operation == "average_pool":
            return F.avg_pool2d(x, node.kernel, node.stride)
        if node.operation == "flatten":
            return x.flatten(1)[:, :, None, None]
        if node.operation == "add":
            return x + inputs[1]
        if node.operation == "subsample":
            return x[:, :, :: node.strides[0], :: node.strides[1]]
        if node.operation == "pad_channels":
            return F.pad(x, (0, 0, 0, 0, node.before, node.after))
        return x


def requantized(graph: FloatGraph, bits: int = 8) -> FloatGraph:
    """The graph with activations of so many bits, and a requantize node behind every wider value that a layer reads.

    Two kinds of values are wider: an accumulator that no ReLU follows (a linear bottleneck, with the residual already
    added), and a mean over the whole image, whose sum would otherwise make the next accumulator the network's widest.
    Whatever else reads such a value reads it requantised too, but a ReLU and a square, which requantise for themselves.
    The bits of what is squared are the square's own.
    """
    wanted = {source for node in graph.nodes if node.operation == "linear" for source in node.inputs}
    reads: dict[str, str] = {}  # what stands in for a node
    facts: dict[str, _Facts] = {}
    nodes: list[FloatNode] = []
    for node in graph.nodes:
        own = node.operation in ("relu", "requantize")
        inputs = node.inputs if own else tuple(reads.get(name, name) for name in node.inputs)
        node = replace(node, inputs=inputs)
        nodes.append(replace(node, magnitude_bits=bits) if node.operation == "relu" else node)
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
    if node.operation in ("relu", "requantize", "square"):
        return _Facts(False, False, node.signed)
    mean = node.operation == "average_pool" and node.window_size > 1 and node.shape[1:] == (1, 1)
    return _Facts(
        any(fact.accumulator for fact in inputs),
        mean or any(fact.global_mean for fact in inputs),
        any(fact.signed for fact in inputs),
    )
