"""What the handlers of imported operations share: arguments read, values made."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from autoprivacy.errors import UserError
from autoprivacy.quantization.float_graph import FloatNode
from autoprivacy.quantization.importing.graph_builder import GraphBuilder, Value, where


def plain(node: fx.Node, value: Any) -> Value:
    """A value of the network without padding that waits for a convolution."""
    if not isinstance(value, Value):
        raise UserError(f"{where(node)}: of a constant; expected a value that depends on the image")
    if any(value.padding):
        raise UserError(
            f"{where(node)}: of a value that was padded with rows or columns; expected a convolution right behind that "
            f"padding"
        )
    return value


def pair_of(value: Any) -> tuple[int, int]:
    """A number for both directions, or one for each."""
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    return (int(numbers[0]), int(numbers[-1]))


def one_number(value: Any, node: fx.Node, what: str) -> int:
    """The common value of a number or an equal pair."""
    first, second = pair_of(value)
    if first != second:
        raise UserError(f"{where(node)}: {what} {value}; expected the same number in both directions")
    return first


def value_of(builder: GraphBuilder, node: fx.Node, name: str, **more: Any) -> Value:
    example = node.meta.get("example")
    shape = tuple(example.shape) if isinstance(example, Tensor) else (0, *builder.nodes[name].shape)
    return Value(name, node, shape, **more)


def nothing(builder: GraphBuilder, node: fx.Node, x: Any, *_: Any, **__: Any) -> Value:
    return value_of(builder, node, plain(node, x).node)


def subsampled(builder: GraphBuilder, node: fx.Node, x: Any, strides: tuple[int, int]) -> Value:
    """Every so many-th row and column."""
    x = plain(node, x)
    channels, height, width = builder.nodes[x.node].shape
    shape = (channels, -(-height // strides[0]), -(-width // strides[1]))
    stride = strides[0] if strides[0] == strides[1] else strides
    name = builder.numbered("subsample")
    return value_of(builder, node, builder.add_node(FloatNode(name, "subsample", (x.node,), shape, stride=stride)))
