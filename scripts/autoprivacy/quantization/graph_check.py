"""Checks that an architecture is a graph that both parties can walk: a client believes what a server announces.

Only what passes is ever evaluated, so a node cannot take another's name (and with it its masks), read what does not
exist yet, or ask for more memory than the bounds below allow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from autoprivacy.errors import UserError
from autoprivacy.quantization.architecture import MAXIMUM_MODULUS_BITS, Architecture, LayerShape, Node, Shape
from autoprivacy.quantization.operations import OPERATIONS, Operations

MAXIMUM_NAME = 100  # characters
MAXIMUM_NODES = 1 << 12
MAXIMUM_SIDE = 1 << 16  # of an image, a kernel, a stride; channels may be as many as values
MAXIMUM_VALUES = 1 << 24  # of a node's output
MAXIMUM_TOTAL = 1 << 27  # of all nodes' outputs
MAXIMUM_WEIGHTS = 1 << 28  # of a layer
MAXIMUM_INTEGER = 1 << 31  # of everything else that is a number
MAXIMUM_SHIFT = 31
MAXIMUM_LEVELS = 1 << 15  # of a table, or of an activation that squares
MAXIMUM_SQUARED = 1 << 20  # levels of all activations that square, which make a list of each
MAXIMUM_TABLE_VALUE = 1 << 14  # what it may hold, in size

ARITY = {"input": 0, "add": 2}  # of all other operations: 1


def read_architecture(value: dict[str, Any]) -> Architecture:
    """The inverse of `Architecture.as_json`, checked; UserError says what is wrong."""
    try:
        nodes = tuple(Node(**_with_tuples(node)) for node in value["nodes"])
        layers = tuple(LayerShape(**_with_tuples(layer)) for layer in value["layers"])
        image = tuple(value["image_mean"]), tuple(value["image_std"]), value["image_scale"]
        names = tuple(value.get("class_names", ()))  # which older files lack
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"architecture: damaged: {type(error).__name__} {error}; make it again") from None
    architecture = Architecture(nodes, layers, *image, names)
    check_architecture(architecture)
    return architecture


def _with_tuples(value: dict[str, Any]) -> dict[str, Any]:
    """Lists, which JSON makes of tuples, back to tuples."""
    return {name: tuple(part) if isinstance(part, list) else part for name, part in value.items()}


def check_architecture(architecture: Architecture) -> None:
    """UserError, naming the node or layer, unless the architecture is a graph with one input that holds together.

    Checked are: types and bounds of every field; printable names, each used once; one input, the first node; inputs
    that stand before their use, as many as the operation takes; all shapes, computed anew; linear nodes and layers, the
    same names in the same order.
    """
    _check_image(architecture)
    if not 2 <= len(architecture.nodes) <= MAXIMUM_NODES:
        raise UserError(f"architecture: {len(architecture.nodes)} nodes; expected 2 to {MAXIMUM_NODES}")
    layers = {layer.name: layer for layer in architecture.layers}
    for layer in architecture.layers:
        _wrap(f"layer {layer.name!r}", _check_layer, layer)
    linear = [node.name for node in architecture.nodes if node.operation == "linear"]
    if linear != [layer.name for layer in architecture.layers]:
        raise UserError(f"architecture: linear nodes {linear}; expected the layers {[*layers]}, each once and in order")
    shapes: dict[str, Shape] = {}
    operations = _Shapes(layers)
    for node in architecture.nodes:
        _wrap(f"node {node.name!r}", _check_fields, node)
        _wrap(f"node {node.name!r}", _check_place, node, shapes)
        expected = _wrap(f"node {node.name!r}", operations.step, node, [shapes[name] for name in node.inputs])
        if node.shape != expected:
            raise UserError(f"architecture: node {node.name!r}: shape {node.shape}; expected {expected}")
        shapes[node.name] = node.shape
    for node in architecture.activations:
        _wrap(f"node {node.name!r}", _check_modulus, node, architecture)
    squared = sum(node.maximum - node.minimum + 1 for node in architecture.squares)
    if squared > MAXIMUM_SQUARED:
        raise UserError(f"architecture: {squared} levels of squared activations in all; allowed {MAXIMUM_SQUARED}")
    names, outputs = architecture.class_names, math.prod(architecture.nodes[-1].shape)
    for name in names:
        _wrap("class_names", _check_name, name)
    if names and len(names) != outputs:
        raise UserError(f"architecture: {len(names)} class_names; expected one for each of {outputs} outputs, or none")
    total = sum(math.prod(shape) for shape in shapes.values())
    if total > MAXIMUM_TOTAL:
        raise UserError(f"architecture: {total} values in all; allowed {MAXIMUM_TOTAL}")


def _wrap(where: str, check: Any, *arguments: Any) -> Any:
    try:
        return check(*arguments)
    except ValueError as error:
        raise UserError(f"architecture: {where}: {error}") from None


def _check_image(architecture: Architecture) -> None:
    mean, deviation, scale = architecture.image_mean, architecture.image_std, architecture.image_scale
    channels = architecture.nodes[0].shape[0] if architecture.nodes and len(architecture.nodes[0].shape) == 3 else None
    for name, values in (("image_mean", mean), ("image_std", deviation), ("image_scale", (scale,))):
        if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
            raise UserError(f"architecture: {name} {values}: expected finite numbers")
    if len(mean) != channels or len(deviation) != channels or scale <= 0 or min(deviation) <= 0:
        raise UserError(
            f"architecture: image_mean {mean}, image_std {deviation}, image_scale {scale}: expected {channels} means "
            f"and {channels} standard deviations, one a channel, the latter and the scale above 0"
        )


def _integer(name: str, value: Any, lowest: int, highest: int = MAXIMUM_INTEGER) -> None:
    if type(value) is not int or not lowest <= value <= highest:
        raise ValueError(f"{name} {value!r}: expected an integer from {lowest} to {highest}")


def _check_name(value: Any) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= MAXIMUM_NAME or not value.isprintable():
        raise ValueError(f"name: expected 1 to {MAXIMUM_NAME} printable characters")


def _check_sizes(name: str, values: Any, length: int) -> None:
    if not isinstance(values, tuple) or len(values) != length:
        raise ValueError(f"{name} {values!r}: expected {length} sizes")
    for value in values:
        _integer(name, value, 1, MAXIMUM_VALUES)
    if math.prod(values) > MAXIMUM_VALUES:
        raise ValueError(f"{name} {values}: {math.prod(values)} values; allowed {MAXIMUM_VALUES}")


def _check_layer(layer: LayerShape) -> None:
    _check_name(layer.name)
    if layer.kind not in ("convolution", "fully_connected"):
        raise ValueError(f"kind {layer.kind!r}: expected convolution or fully_connected")
    _check_sizes("input_shape", layer.input_shape, 3)
    _check_sizes("kernel", layer.kernel, 2)
    _integer("output_channels", layer.output_channels, 1, MAXIMUM_VALUES)
    _integer("stride", layer.stride, 1, MAXIMUM_SIDE)
    _integer("padding", layer.padding, 0, MAXIMUM_SIDE)
    _integer("groups", layer.groups, 1, MAXIMUM_VALUES)
    _integer("input_maximum", layer.input_maximum, 1)
    channels, height, width = layer.input_shape
    if channels % layer.groups or layer.output_channels % layer.groups:
        raise ValueError(f"{layer.groups} groups: expected a divisor of {channels} and {layer.output_channels}")
    if layer.kernel[0] > height + 2 * layer.padding or layer.kernel[1] > width + 2 * layer.padding:
        raise ValueError(f"kernel {layer.kernel}: expected at most the padded image, {height} x {width}")
    weights = layer.output_channels * (channels // layer.groups) * math.prod(layer.kernel)
    if weights > MAXIMUM_WEIGHTS:
        raise ValueError(f"{weights} weights; allowed {MAXIMUM_WEIGHTS}")
    if layer.kind == "fully_connected" and (layer.input_shape[1:] != (1, 1) or layer.kernel != (1, 1)):
        raise ValueError("fully_connected: expected an input of [features, 1, 1] and a kernel of 1 x 1")
    _check_sizes("output", layer.output_shape, 3)


def _check_fields(node: Node) -> None:
    _check_name(node.name)
    if node.operation not in OPERATIONS:
        raise ValueError(f"operation {node.operation!r}: expected one of {', '.join(OPERATIONS)}")
    if not isinstance(node.inputs, tuple) or not all(isinstance(name, str) for name in node.inputs):
        raise ValueError(f"inputs {node.inputs!r}: expected names")
    _check_sizes("shape", node.shape, 3)
    _integer("shift", node.shift, 0, MAXIMUM_SHIFT)
    _integer("minimum", node.minimum, -MAXIMUM_INTEGER)
    _integer("maximum", node.maximum, node.minimum)
    if type(node.squared) is not bool:
        raise ValueError(f"squared {node.squared!r}: expected true or false")
    _check_table(node)
    for name, sides in (("kernel", node.kernel), ("stride", node.stride)):
        if isinstance(sides, tuple):
            _check_sizes(name, sides, 2)
        else:
            _integer(name, sides, 1, MAXIMUM_SIDE)
    if not isinstance(node.offset, tuple) or len(node.offset) != 2:
        raise ValueError(f"offset {node.offset!r}: expected 2 integers")
    for offset in node.offset:
        _integer("offset", offset, -MAXIMUM_SIDE, MAXIMUM_SIDE)
    _integer("modulus_bits", node.modulus_bits, 0, MAXIMUM_MODULUS_BITS)
    _integer("before", node.before, 0, MAXIMUM_VALUES)
    _integer("after", node.after, 0, MAXIMUM_VALUES)
    for factor in node.factor if isinstance(node.factor, tuple) else (node.factor,):
        _integer("factor", factor, -MAXIMUM_INTEGER)


def _check_table(node: Node) -> None:
    """A value for every level of an activation that does not square, or no table."""
    if not isinstance(node.table, tuple):
        raise ValueError(f"table {node.table!r}: expected a list of integers")
    levels = node.maximum - node.minimum + 1
    if node.squared and levels > MAXIMUM_LEVELS:
        raise ValueError(f"{levels} levels that are squared; allowed {MAXIMUM_LEVELS}")
    if not node.table:
        return
    if node.operation != "activation" or node.squared:
        raise ValueError("a table: expected one at activations alone that do not square")
    if levels > MAXIMUM_LEVELS or len(node.table) != levels:
        raise ValueError(
            f"a table of {len(node.table)} values; expected one for each of {levels} levels, at most {MAXIMUM_LEVELS}"
        )
    for value in node.table:
        _integer("table value", value, -MAXIMUM_TABLE_VALUE, MAXIMUM_TABLE_VALUE)


def _check_place(node: Node, before: Mapping[str, Shape]) -> None:
    """A name that is new, the only input first, and inputs that stand before it."""
    if node.name in before:
        raise ValueError("the name is another node's too; expected every name once")
    if (node.operation == "input") != (not before):
        raise ValueError(f"operation {node.operation}: expected one input, the first node")
    arity = ARITY.get(node.operation, 1)
    if len(node.inputs) != arity:
        raise ValueError(f"{len(node.inputs)} inputs; expected {arity} for {node.operation}")
    unknown = [name for name in node.inputs if name not in before]
    if unknown:
        raise ValueError(f"inputs {unknown}: expected nodes that stand before it")


def _check_modulus(node: Node, architecture: Architecture) -> None:
    """A modulus of its own only for values that no layer feeds, and that nothing else reads: they have one modulus."""
    if node.modulus_bits and (architecture.feeders[node.inputs[0]] or len(architecture.readers[node.inputs[0]]) > 1):
        raise ValueError(
            f"modulus_bits {node.modulus_bits}: expected 0, as a layer feeds {node.inputs[0]!r} or other nodes read it"
        )


class _Shapes(Operations[Shape]):
    """The shapes of the nodes' outputs, from those of their inputs; ValueError where they do not fit."""

    def __init__(self, layers: Mapping[str, LayerShape]) -> None:
        self._layers = layers

    def input(self, node: Node) -> Shape:
        return node.shape

    def linear(self, node: Node, x: Shape) -> Shape:
        layer = self._layers[node.name]
        if layer.input_shape != x:
            raise ValueError(f"reads {x}; its layer takes {layer.input_shape}")
        return layer.output_shape

    def activation(self, node: Node, x: Shape) -> Shape:
        return x

    def sum_pool(self, node: Node, x: Shape) -> Shape:
        (channels, height, width), (rows, columns) = x, node.window
        if rows > height or columns > width:
            raise ValueError(f"kernel {node.kernel}: expected at most the image, {height} x {width}")
        return channels, (height - rows) // node.strides[0] + 1, (width - columns) // node.strides[1] + 1

    def flatten(self, node: Node, x: Shape) -> Shape:
        return math.prod(x), 1, 1

    def add(self, node: Node, x: Shape, y: Shape) -> Shape:
        if x != y:
            raise ValueError(f"adds shapes {x} and {y}; expected the same")
        return x

    def scale(self, node: Node, x: Shape) -> Shape:
        if isinstance(node.factor, tuple) and len(node.factor) != x[0]:
            raise ValueError(f"{len(node.factor)} factors; expected one, or one for each of {x[0]} channels")
        return x

    def subsample(self, node: Node, x: Shape) -> Shape:
        return x[0], -(-x[1] // node.strides[0]), -(-x[2] // node.strides[1])

    def window(self, node: Node, x: Shape) -> Shape:
        return x[0], *node.shape[1:]

    def pad_channels(self, node: Node, x: Shape) -> Shape:
        return x[0] + node.before + node.after, x[1], x[2]
