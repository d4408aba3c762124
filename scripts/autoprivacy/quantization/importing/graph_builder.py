"""Collects the nodes and layers of a float graph while a traced module is imported; names them, folds affine parts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from autoprivacy.errors import UserError
from autoprivacy.quantization.float_graph import FloatLayer, FloatNode
from autoprivacy.quantization.integer_network import LayerShape, Shape


@dataclass(frozen=True)
class Value:
    """What a traced value is in the float graph.

    Attributes:
        node: the float node that has it.
        traced: the operation that gave it.
        shape: in torch, the batch first; the node's own is always channels, height, width.
        padding: rows and columns of zeros around it, (left, right, top, bottom), that a convolution is to take up.
        zero: whether it is another value times 0.
    """

    node: str
    traced: fx.Node
    shape: tuple[int, ...]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    zero: bool = False


class GraphBuilder:
    """The nodes and layers so far.

    Args:
        input_shape: of an image.
        linear_operations: how many fully connected layers there will be.
    """

    def __init__(self, input_shape: Shape, linear_operations: int) -> None:
        self.input_shape = input_shape
        self.linear_operations = linear_operations
        self.nodes: dict[str, FloatNode] = {}
        self.layers: dict[str, FloatLayer] = {}
        self.values: dict[fx.Node, Value | Tensor] = {}
        self.output = ""  # the node that the network returns
        self.final: Callable[[Tensor], Tensor] | None = None  # of the classes, at the end: a softmax, say
        self._counts: dict[str, int] = {}

    def add_node(self, node: FloatNode) -> str:
        """Append a node and return its name; its shape must not be empty."""
        if min(node.shape) < 1:
            raise UserError(f"node {node.name}: output shape {node.shape}; the image {self.input_shape} is too small")
        self.nodes[node.name] = node
        return node.name

    def numbered(self, prefix: str) -> str:
        """`prefix` with the next number that makes it unique."""
        while True:
            self._counts[prefix] = self._counts.get(prefix, 0) + 1
            name = f"{prefix}{self._counts[prefix]}"
            if name not in self.nodes:
                return name

    def layer_name(self, path: str, prefix: str) -> str:
        """The module's path, or conv1, conv2, fc for modules that are only numbered in a Sequential."""
        if re.fullmatch(r"[\d.]*", path):
            alone = prefix == "fc" and self.linear_operations == 1 and prefix not in self.nodes
            return prefix if alone else self.numbered(prefix)
        return path if path not in self.nodes else self.numbered(f"{path}_")

    def add_layer(self, source: Value, shape: LayerShape, weight: Tensor, bias: Tensor | None, place: str) -> str:
        """Append a linear layer and its node; UserError for weights that are not finite, `place` first."""
        bias = torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias
        for kind, tensor in (("weight", weight), ("bias", bias)):
            check_finite(place, kind, tensor)
        self.layers[shape.name] = FloatLayer(shape, weight.detach().double().clone(), bias.detach().double().clone())
        return self.add_node(FloatNode(shape.name, "linear", (source.node,), shape.output_shape))

    def foldable(self, source: Value) -> bool:
        """Whether an affine part of what reads `source` may be folded into the layer that gives it."""
        readers = [
            len(traced.users)
            for traced, value in self.values.items()
            if isinstance(value, Value) and value.node == source.node
        ]
        return source.node in self.layers and not any(source.padding) and all(count == 1 for count in readers)

    def fold(self, source: Value, gain: Tensor, moved: Tensor, place: str) -> None:
        """Make a layer's outputs gain * y + moved, channel by channel: w' = g w, b' = g b + m."""
        layer = self.layers[source.node]
        for kind, tensor in (("scale", gain), ("bias", moved)):
            check_finite(place, kind, tensor)
        weight = layer.weight * gain[:, None, None, None]
        self.layers[source.node] = replace(layer, weight=weight, bias=gain * layer.bias + moved)


def check_finite(place: str, kind: str, tensor: Tensor) -> None:
    """UserError, naming the layer, for weights that are NaN or infinite."""
    finite = tensor.isfinite()
    if not finite.all():
        what = "NaN" if tensor.isnan().any() else "infinite"
        raise UserError(
            f"{place}: its {kind} has {int((~finite).sum())} of {tensor.numel()} values not finite ({what} among "
            f"them); load other weights or train again with a smaller learning rate"
        )


def where(node: fx.Node) -> str:
    """Where in the network a traced node stands, for messages."""
    if node.op == "call_module":
        return f"layer {node.target}"
    inside = list(node.meta.get("nn_module_stack", {}).values())
    place = f" in {inside[-1][0]}" if inside and inside[-1][0] else ""
    return f"operation {operation_name(node)}{place}"


def operation_name(node: fx.Node) -> str:
    """What an operation is called, whoever calls it."""
    packet = getattr(node.target, "_opname", None)  # of ATen's operations
    return packet or str(getattr(node.target, "__name__", node.target))
