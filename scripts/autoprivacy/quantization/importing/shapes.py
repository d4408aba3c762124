"""Operations without weights that move, pad, join and add values, as they are imported."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, fx

from autoprivacy.errors import UserError
from autoprivacy.quantization.float_graph import FloatNode
from autoprivacy.quantization.importing.functions import product
from autoprivacy.quantization.importing.graph_builder import GraphBuilder, Value, where
from autoprivacy.quantization.importing.values import plain, subsampled, value_of


def reshape(builder: GraphBuilder, node: fx.Node, x: Any, *_: Any, **__: Any) -> Value:
    """view, reshape, flatten, squeeze, unsqueeze: by the shape that it gives.

    A map may become its pixels in one dimension, or all its values in one; the order never changes.
    """
    x = plain(node, x)
    old, new = builder.nodes[x.node].shape, tuple(node.meta["example"].shape)
    values = math.prod(old)
    # (values, 1, 1) where the map has one pixel is the map itself
    if new[0] == x.shape[0] and new[1:] in (old, (old[0], old[1] * old[2]), x.shape[1:]) and len(new) > 2:
        return value_of(builder, node, x.node)
    if new[0] != x.shape[0] or new[1:] not in ((values,), (values, 1), (values, 1, 1)):
        raise UserError(
            f"{where(node)}: from shape {x.shape} to {new}; expected dimensions 1 to the last in one, as x.flatten(1)"
        )
    if len(x.shape) < 4 and old == (values, 1, 1):  # flat already
        return value_of(builder, node, x.node)
    name = builder.numbered("flatten")
    return value_of(builder, node, builder.add_node(FloatNode(name, "flatten", (x.node,), (math.prod(old), 1, 1))))


def addition(builder: GraphBuilder, node: fx.Node, x: Any, other: Any, *, alpha: float = 1) -> Value:
    for constant, value in ((x, other), (other, x)):
        nothing = isinstance(constant, int | float) and constant == 0
        if isinstance(value, Value) and nothing:  # as Python's sum() begins
            return value_of(builder, node, value.node)
    if not isinstance(x, Value) or not isinstance(other, Value) or alpha != 1:
        raise UserError(f"{where(node)}: expected the sum of two values of the network, got {node.format_node()}")
    names = (plain(node, x).node, plain(node, other).node)
    shapes = [builder.nodes[name].shape for name in names]
    if shapes[0] != shapes[1]:
        raise UserError(f"{where(node)}: adds shapes {shapes[0]} and {shapes[1]}; expected equal shapes")
    return value_of(builder, node, builder.add_node(FloatNode(builder.numbered("add"), "add", names, shapes[0])))


def times(builder: GraphBuilder, node: fx.Node, x: Any, factor: Any) -> Value:
    """By 1, which is nothing, or by 0, which stands for channels of zeros in a concatenation; x f(x) is a table."""
    if isinstance(x, Value) and isinstance(factor, Value):
        gated = product(builder, node, plain(node, x), plain(node, factor))
        if gated:
            return gated
    if not isinstance(x, Value):
        x, factor = factor, x
    if not isinstance(factor, int | float) or factor not in (0, 1):
        raise UserError(
            f"{where(node)}: a product with {'another value' if isinstance(factor, Value) else factor}; expected 0 or "
            f"1: scale the weights before it, or normalise images by the config's normalisation"
        )
    return value_of(builder, node, plain(node, x).node, zero=factor == 0)


def concatenation(builder: GraphBuilder, node: fx.Node, parts: Any, dim: int = 0, **_: Any) -> Value:
    """Of channels: the sum of the parts, each with channels of zeros in the others' places."""
    example = node.meta["example"]
    values = [part for part in parts if isinstance(part, Value)]
    zeros = [isinstance(part, Tensor) and not part.any() for part in parts]
    if (
        dim % example.dim() != 1
        or not values
        or not all(z or isinstance(p, Value) for z, p in zip(zeros, parts, strict=True))
    ):
        raise UserError(
            f"{where(node)}: along dimension {dim}; expected channels (1) of values of the network or zeros"
        )
    before, name = 0, ""
    total = example.shape[1]
    shape = (total, *builder.nodes[values[0].node].shape[1:])
    for part in parts:
        channels = part.shape[1]
        if isinstance(part, Value) and not part.zero:
            source = plain(node, part).node
            after = total - before - channels
            if before or after:
                padded = FloatNode(
                    builder.numbered("pad"), "pad_channels", (source,), shape, before=before, after=after
                )
                source = builder.add_node(padded)
            added = FloatNode(builder.numbered("cat"), "add", (name, source), shape) if name else None
            name = builder.add_node(added) if added else source
        before += channels
    if not name:
        raise UserError(f"{where(node)}: of zeros alone; leave it out")
    return value_of(builder, node, name)


def item(builder: GraphBuilder, node: fx.Node, x: Any, taken: Any) -> Value:
    """x[:, :, ::s, ::s], as shortcuts without weights have it."""
    x = plain(node, x)
    parts = list(taken) if isinstance(taken, tuple) else [taken]
    if Ellipsis in parts:
        place = parts.index(Ellipsis)
        parts[place : place + 1] = [slice(None)] * (len(x.shape) - len(parts) + 1)
    parts += [slice(None)] * (len(x.shape) - len(parts))
    sizes = x.shape
    whole = len(parts) == len(sizes) and all(
        isinstance(part, slice) and part.indices(size)[:2] == (0, size) for part, size in zip(parts, sizes, strict=True)
    )
    steps = [part.indices(size)[2] for part, size in zip(parts, sizes, strict=True)] if whole else []
    if steps and all(step == 1 for step in steps):
        return value_of(builder, node, x.node)
    if len(steps) != 4 or steps[0] != 1 or steps[1] != 1:
        raise UserError(f"{where(node)}: takes {taken}; expected the slices [:, :, ::s, ::s]")
    return subsampled(builder, node, x, (steps[2], steps[3]))


def slice_one(
    builder: GraphBuilder,
    node: fx.Node,
    x: Any,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    """ATen's, one dimension at a time."""
    parts = [slice(None)] * len(plain(node, x).shape)
    parts[dim] = slice(start, end, step)
    return item(builder, node, x, tuple(parts))


def pad(builder: GraphBuilder, node: fx.Node, x: Any, pad: Any, mode: str = "constant", value: Any = None) -> Value:
    """Zeros: channels, as shortcuts without weights have them, or rows and columns before a convolution."""
    x = plain(node, x)
    numbers = list(pad) if isinstance(pad, tuple | list) else [pad] * 4
    numbers += [0] * (8 - len(numbers))
    if mode != "constant" or value or any(numbers[6:]) or min(numbers) < 0 or len(x.shape) != 4:
        raise UserError(
            f"{where(node)}: pads {pad} with mode {mode}, value {value}; expected (left, right, top, bottom) or (0, 0, "
            f"0, 0, before, after) with constant zeros"
        )
    left, right, top, bottom, before, after = numbers[:6]
    name, (channels, height, width) = x.node, builder.nodes[x.node].shape
    if before or after:
        shape = (channels + before + after, height, width)
        name = builder.add_node(
            FloatNode(builder.numbered("pad"), "pad_channels", (name,), shape, before=before, after=after)
        )
    return value_of(builder, node, name, padding=(left, right, top, bottom))
