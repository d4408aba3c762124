"""Activations of any form as they are imported: functions of one value, which become public tables.

A product of a value with a function of that value (`x * sigmoid(x)`, as ONNX has SiLU) is a function of one value too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from autoprivacy.errors import UserError
from autoprivacy.quantization.float_graph import FloatNode
from autoprivacy.quantization.importing.graph_builder import GraphBuilder, Value, where
from autoprivacy.quantization.importing.values import plain, value_of

Function = Callable[[Tensor], Tensor]
REACH, POINTS = 50.0, 4001  # where it is looked whether a function has negative values


def table(builder: GraphBuilder, node: fx.Node, x: Value, name: str, function: Function) -> Value:
    """Signed requantisation, which the table alone reads, and the table."""
    name, shape = builder.numbered(name), builder.nodes[x.node].shape
    signed = FloatNode(f"{name}.requantized", "requantize", (x.node,), shape, signed=True)
    negative = bool((function(torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)) < 0).any())
    read = FloatNode(name, "table", (builder.add_node(signed),), shape, function=function, signed=negative)
    return value_of(builder, node, builder.add_node(read))


def silu(builder: GraphBuilder, node: fx.Node, x: Any, inplace: bool = False) -> Value:
    return table(builder, node, plain(node, x), "silu", F.silu)


def hardswish(builder: GraphBuilder, node: fx.Node, x: Any, inplace: bool = False) -> Value:
    return table(builder, node, plain(node, x), "hardswish", F.hardswish)


def hardsigmoid(builder: GraphBuilder, node: fx.Node, x: Any, inplace: bool = False) -> Value:
    return table(builder, node, plain(node, x), "hardsigmoid", F.hardsigmoid)


def mish(builder: GraphBuilder, node: fx.Node, x: Any, inplace: bool = False) -> Value:
    return table(builder, node, plain(node, x), "mish", F.mish)


def gelu(builder: GraphBuilder, node: fx.Node, x: Any, approximate: str = "none") -> Value:
    return table(builder, node, plain(node, x), "gelu", partial(F.gelu, approximate=approximate))


def sigmoid(builder: GraphBuilder, node: fx.Node, x: Any) -> Value:
    return table(builder, node, plain(node, x), "sigmoid", F.sigmoid)


def tanh(builder: GraphBuilder, node: fx.Node, x: Any) -> Value:
    return table(builder, node, plain(node, x), "tanh", F.tanh)


def leaky_relu(
    builder: GraphBuilder, node: fx.Node, x: Any, negative_slope: float = 0.01, inplace: bool = False
) -> Value:
    return table(builder, node, plain(node, x), "leaky_relu", partial(F.leaky_relu, negative_slope=negative_slope))


def elu(builder: GraphBuilder, node: fx.Node, x: Any, alpha: float = 1.0, *scales: Any, inplace: bool = False) -> Value:
    """With two scales, of the result and of the input, as ATen has SELU: refused unless both are 1."""
    if any(scale != 1 for scale in scales if not isinstance(scale, bool)):
        raise UserError(f"{where(node)}: scales {scales}; expected 1: give the scale to the weights behind it")
    return table(builder, node, plain(node, x), "elu", partial(F.elu, alpha=alpha))


def product(builder: GraphBuilder, node: fx.Node, x: Value, other: Value) -> Value | None:
    """f(z) g(z) as one table where both values are functions of one value z, or z itself and a function; else None."""
    ends = [_function_of(builder, value) for value in (x, other)]
    sources = [end[0] for end in ends if end]
    for source in sources:
        functions = [
            end[1] if end and end[0] == source else (_itself if value.node == source else None)
            for end, value in zip(ends, (x, other), strict=True)
        ]
        first, second = functions
        if first and second:
            return table(builder, node, Value(source, node, x.shape), "gated", partial(_product, first, second))
    return None


def _function_of(builder: GraphBuilder, value: Value) -> tuple[str, Function] | None:
    """What a table or a ReLU reads, before it is requantised, and its function; None for other nodes."""
    read = builder.nodes[value.node]
    if read.operation == "relu":
        return read.inputs[0], partial(torch.clamp, min=0, max=read.bound)
    if read.function is None:
        return None
    return builder.nodes[read.inputs[0]].inputs[0], read.function


def _itself(x: Tensor) -> Tensor:
    return x


def _product(first: Function, second: Function, x: Tensor) -> Tensor:
    return first(x) * second(x)
