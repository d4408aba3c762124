"""The integer network's public part: the graph of its operations, the shapes of its layers, what its integers mean.

Both parties of the protocol know it and walk it on additive shares, so it needs numpy alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

Shape = tuple[int, int, int]  # channels, height, width
Operation = Literal[
    "input", "linear", "activation", "sum_pool", "flatten", "add", "scale", "subsample", "window", "pad_channels"
]
Interval = tuple[int, int]  # lowest, highest
# Operations that each party of the protocol does alone on its shares: linear, without constants.
LOCAL_OPERATIONS = ("sum_pool", "flatten", "add", "scale", "subsample", "window", "pad_channels")
SIGNED_RANGE: Interval = (-128, 127)  # of the image and of linear bottlenecks
UNSIGNED_RANGE: Interval = (0, 255)  # of ReLUs
MAXIMUM_MODULUS_BITS = 32  # that values are shared by: garbled outputs are scaled into [0, p) by 32-bit halves
# Of p under encryption: p^2 and what `he.bfv.encoding` adds to it stay below 2^63.
MAXIMUM_PLAINTEXT_BITS = 31


def to_signed(values: np.ndarray, modulus: int) -> np.ndarray:
    """Residues to signed integers: those with the top bit of `modulus` set are negative.

    The circuits read the sign off that bit, so this is what 'signed modulo p' means everywhere; for p = 2^k it is two's
    complement, for a prime p just under 2^k nearly symmetric. Takes any integers, returns int64.
    """
    residues = np.asarray(values, np.int64) % modulus
    return np.where(residues >= sign_threshold(modulus), residues - modulus, residues)


def both(number: int | tuple[int, int]) -> tuple[int, int]:
    """One number for rows and columns, or one for each."""
    return number if isinstance(number, tuple) else (number, number)


def sign_threshold(modulus: int) -> int:
    """The smallest residue that stands for a negative number, 2^(k-1) for a modulus of k bits."""
    return 1 << ((modulus - 1).bit_length() - 1)


def rounding_constant(shift: int, ignored_bits: int = 0) -> int:
    """What an activation adds before it shifts right by f bits.

    2^(f-1), so that it rounds to the nearest; 0 for f = 0. Where t low bits of both shares are ignored,
    (2^f - 2^t) / 2 + 2^t - 1: half a step of what is left to be rounded off, and the mean of what the lost bits add up
    to.
    """
    if not ignored_bits:
        return (1 << shift) >> 1
    return ((1 << shift) + (1 << ignored_bits)) // 2 - 1


@dataclass(frozen=True)
class LayerShape:
    """The public part of a linear layer. A fully connected layer is a 1x1 convolution of [features, 1, 1].

    Attributes:
        name: unique in the network.
        kind: what the float layer was; the search state needs it.
        input_shape: channels, height, width.
        output_channels: number of filters.
        kernel: height and width of a filter.
        stride, padding, groups: as in torch.nn.Conv2d, equal in both directions.
        input_maximum: largest |input| that can occur: 255 after a ReLU, 128 for images and linear bottlenecks, 1020
            after 2x2 sum pooling.
    """

    name: str
    kind: Literal["convolution", "fully_connected"]
    input_shape: Shape
    output_channels: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: int = 0
    groups: int = 1
    input_maximum: int = 255

    @property
    def output_shape(self) -> Shape:
        """Channels, height, width of the output."""
        _, height, width = self.input_shape
        rows = (height + 2 * self.padding - self.kernel[0]) // self.stride + 1
        columns = (width + 2 * self.padding - self.kernel[1]) // self.stride + 1
        return self.output_channels, rows, columns


@dataclass(frozen=True)
class Node:
    """One operation of the graph.

    Operations, all on integers modulo p:
        input: the signed 8-bit image.
        linear: the LinearLayer of the same name.
        activation: round, shift right by `shift`, clip to [`minimum`, `maximum`]: a ReLU for minimum 0, the signed
            requantisation of a linear bottleneck for minimum -128. Where `squared`, the square of that; with a
            `table` what that holds for the level, from that of `minimum` on: any function of one value. Values that no
            layer feeds may be read modulo 2^`modulus_bits` in place of the layers' p.
        sum_pool: sums over `kernel` x `kernel` windows at `stride`, each one number or (rows, columns);
            a mean's division goes into the next shift.
        flatten: [C, H, W] to [C*H*W, 1, 1].
        add: the sum of two values of one shape and scale.
        scale: multiplication by `factor`, one number (a residual brought to the accumulator's scale) or one for every
            channel (accumulators of channels whose weights have scales of their own brought to one).
        subsample: every `stride`-th row and column, the first included.
        window: every `stride`-th row and column from `offset` on, as many as `shape` has; in place of those beyond an
            edge the row or column at that edge. Maxima of windows are a pooling (`Architecture.maxima`).
        pad_channels: `before` channels of zeros in front and `after` at the end.
    """

    name: str
    operation: Operation
    inputs: tuple[str, ...] = ()
    shape: Shape = (0, 0, 0)  # of the output
    shift: int = 0
    minimum: int = 0
    maximum: int = 255
    squared: bool = False
    table: tuple[int, ...] = ()
    kernel: int | tuple[int, int] = 1
    stride: int | tuple[int, int] = 1
    factor: int | tuple[int, ...] = 1
    before: int = 0
    after: int = 0
    offset: tuple[int, int] = (0, 0)
    modulus_bits: int = 0

    @property
    def activated_range(self) -> Interval:
        """The smallest interval that holds what an activation gives."""
        if self.table:
            return min(self.table), max(self.table)
        if not self.squared:
            return self.minimum, self.maximum
        squares = self.minimum**2, self.maximum**2
        return 0 if self.minimum <= 0 <= self.maximum else min(squares), max(squares)

    def activated(self, levels: Any) -> Any:
        """What an activation makes of clipped levels: int64 arrays or tensors, to the same."""
        if self.squared:
            return levels * levels
        if not self.table:
            return levels
        table = np.asarray(self.table, np.int64) if isinstance(levels, np.ndarray) else levels.new_tensor(self.table)
        return table[levels - self.minimum]

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        """What an activation makes of its levels, from the lowest on; none where it is the levels themselves."""
        if not self.squared:
            return self.table
        return tuple(level * level for level in range(self.minimum, self.maximum + 1))

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of a pooling's windows."""
        return both(self.kernel)

    @property
    def strides(self) -> tuple[int, int]:
        """Rows and columns from one window, or pixel that is kept, to the next."""
        return both(self.stride)

    def places(self, sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """The rows and the columns that a window takes of a map of so many rows and columns."""
        rows, columns = (
            np.clip(offset + stride * np.arange(count), 0, size - 1)
            for offset, stride, count, size in zip(self.offset, self.strides, self.shape[1:], sizes, strict=True)
        )
        return rows, columns

    @property
    def factors(self) -> np.ndarray:
        """`factor` in a shape that multiplies [C, H, W]: int64 [C or 1, 1, 1]."""
        return np.asarray(self.factor, np.int64).reshape(-1, 1, 1)


@dataclass(frozen=True)
class Architecture:
    """What the client may know: the graph and the layers' shapes, no weights. The last node is the output.

    Attributes:
        nodes, layers: the graph and the public parts of its linear layers.
        image_mean, image_std: per channel, of pixels / 255, that images are normalised by.
        image_scale: of the normalised image's integers.
        class_names: of output 0, 1, ...; none where they are not known.
    """

    nodes: tuple[Node, ...]
    layers: tuple[LayerShape, ...]
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    image_scale: float
    class_names: tuple[str, ...] = ()

    def layer(self, name: str) -> LayerShape:
        """The shape of the layer of that name."""
        return next(layer for layer in self.layers if layer.name == name)

    @cached_property
    def linear_nodes(self) -> tuple[Node, ...]:
        """The linear layers, in order."""
        return tuple(node for node in self.nodes if node.operation == "linear")

    @cached_property
    def activations(self) -> tuple[Node, ...]:
        """The activations, in order."""
        return tuple(node for node in self.nodes if node.operation == "activation")

    @property
    def squares(self) -> tuple[Node, ...]:
        """The activations that square, in order."""
        return tuple(node for node in self.activations if node.squared)

    @property
    def tables(self) -> tuple[Node, ...]:
        """The activations that read a table, in order; they have no circuit."""
        return tuple(node for node in self.activations if node.table)

    @cached_property
    def maxima(self) -> dict[str, tuple[str, str]]:
        """The additions that are the larger of two values a and b, b + ReLU(a - b): by name, those of a and b."""
        nodes, found = {node.name: node for node in self.nodes}, dict[str, tuple[str, str]]()
        for node in self.nodes:
            gain = nodes[node.inputs[1]] if node.operation == "add" else node
            if gain.operation != "activation" or not gain.modulus_bits or gain.outputs or gain.shift or gain.minimum:
                continue
            difference = nodes[gain.inputs[0]]
            negated = nodes[difference.inputs[1]] if difference.operation == "add" else difference
            if negated.operation == "scale" and negated.factor == -1 and negated.inputs[0] == node.inputs[0]:
                found[node.name] = difference.inputs[0], node.inputs[0]
        return found

    def deciding_layers(self, node: Node) -> set[str]:
        """The layers whose policies say how an activation is computed: those that feed it.

        Of an activation with a modulus of its own it is the last layer before it.
        """
        if node.modulus_bits:
            before = self.preceding_layer[node.name]
            return {before if before != "input" else self.layers[0].name}
        return set(self.feeders[node.inputs[0]])

    @cached_property
    def preceding_layer(self) -> dict[str, str]:
        """Per node the linear layer that it is, or the last one before it; "input" before the first."""
        names, layer = {}, "input"
        for node in self.nodes:
            layer = node.name if node.operation == "linear" else layer
            names[node.name] = layer
        return names

    @cached_property
    def readers(self) -> dict[str, tuple[Node, ...]]:
        """Per node those that read it, in order."""
        return {node.name: tuple(other for other in self.nodes if node.name in other.inputs) for node in self.nodes}

    @cached_property
    def feeders(self) -> dict[str, dict[str, float]]:
        """Per node the linear layers whose accumulators reach it through local operations, itself if it is one.

        Each with the largest factor by which scalings on the way multiply the accumulators.
        """
        found: dict[str, dict[str, float]] = {}
        for node in self.nodes:
            own: dict[str, float] = {node.name: 1.0} if node.operation == "linear" else {}
            if node.operation in LOCAL_OPERATIONS:
                factor = float(np.abs(node.factors).max()) if node.operation == "scale" else 1.0
                for layer, before in (item for name in node.inputs for item in found[name].items()):
                    own[layer] = max(own.get(layer, 0.0), before * factor)
            found[node.name] = own
        return found

    @cached_property
    def reading_layers(self) -> dict[str, set[str]]:
        """Per node the linear layers that read it, through local operations too."""
        found: dict[str, set[str]] = {}
        for node in reversed(self.nodes):
            found[node.name] = set()
            for reader in self.readers[node.name]:
                if reader.operation in LOCAL_OPERATIONS:
                    found[node.name] |= found[reader.name]
                elif reader.operation == "linear":
                    found[node.name].add(reader.name)
        return found

    @cached_property
    def activations_of(self) -> dict[str, tuple[Node, ...]]:
        """Per linear layer the activations that read its accumulators, in order."""
        return {
            layer.name: tuple(node for node in self.activations if layer.name in self.feeders[node.inputs[0]])
            for layer in self.layers
        }

    def layer_steps(self) -> dict[str, float]:
        """Per linear layer the step of its accumulators, the units that are one unit after the next activation.

        2^shift over the factors on the way; where several activations follow, of the finest. Layers that no activation
        follows are left out.
        """
        return {
            layer: min(2.0**node.shift / self.feeders[node.inputs[0]][layer] for node in nodes)
            for layer, nodes in self.activations_of.items()
            if nodes
        }

    def quantize_images(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, C] to the signed 8-bit input int64 [N, C, H, W]; zero is the mean colour."""
        scale = np.asarray(self.image_std) * 255 * self.image_scale
        # a pixel has 256 values: looking them up is ten times as fast as computing every one
        values = (np.arange(256)[:, None] - np.asarray(self.image_mean) * 255) / scale
        table = np.clip(np.rint(values), *SIGNED_RANGE).astype(np.int64)
        return table[images, np.arange(table.shape[1])].transpose(0, 3, 1, 2)

    def as_json(self) -> dict[str, Any]:
        """The architecture as a JSON-able value."""
        return asdict(self)
