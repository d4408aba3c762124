"""A small integer network of MobileNet-V2's kind: inverted residuals, signed bottlenecks, depthwise convolutions."""

from __future__ import annotations

import math

import numpy as np

from autoprivacy.quantization.integer_network import Architecture, IntegerNetwork, LayerShape, LinearLayer, Node, Shape

SPREAD = 90  # about the root mean square of what layers read


class Builder:
    """Adds layers with random weights, and activations whose shifts bring accumulators to 8 bits."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes = [Node("image", "input", (), (3, 8, 8))]
        self.layers: dict[str, LinearLayer] = {}

    @property
    def shape(self) -> Shape:
        """Of the last node's value."""
        return self.nodes[-1].shape

    def linear(self, name: str, channels: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> int:
        """A convolution; its accumulators' number of bits beyond the 7 of a typical output."""
        signed = self.nodes[-1].minimum < 0 or self.nodes[-1].operation == "input"
        kind = "convolution" if self.shape[1] > 1 else "fully_connected"
        size, padding = (kernel, kernel), kernel // 2
        maximum = 128 if signed else 255
        shape = LayerShape(name, kind, self.shape, channels, size, stride, padding, groups, maximum)
        weight = self.rng.normal(0, 40, (channels, self.shape[0] // groups, *size)).round().clip(-127, 127)
        layer = LinearLayer(shape, weight.astype(np.int64), self.rng.integers(-2000, 2000, channels))
        self.layers[name] = layer
        self.nodes.append(Node(name, "linear", (self.nodes[-1].name,), shape.output_shape))
        return round(math.log2(layer.weight_norm * SPREAD / 100))

    def activation(self, shift: int, signed: bool = False) -> None:
        """A ReLU, or the requantisation of a bottleneck, on the last node."""
        last = self.nodes[-1]
        low, high = (-128, 127) if signed else (0, 255)
        self.nodes.append(Node(f"{last.name}.out", "activation", (last.name,), last.shape, shift, low, high))

    def bottleneck(self, name: str, channels: int, stride: int) -> None:
        """Expansion, depthwise convolution, projection; added to its own input where shapes allow."""
        source = self.nodes[-1]
        expanded = 2 * source.shape[0]
        self.activation(self.linear(f"{name}.expand", expanded))
        self.activation(self.linear(f"{name}.depthwise", expanded, 3, stride, expanded))
        shift = self.linear(f"{name}.project", channels)
        last = self.nodes[-1]
        if last.shape == source.shape:
            self.nodes.append(Node(f"{name}.scaled", "scale", (source.name,), last.shape, factor=1 << shift))
            self.nodes.append(Node(f"{name}.sum", "add", (last.name, f"{name}.scaled"), last.shape))
        self.activation(shift, signed=True)

    def network(self) -> IntegerNetwork:
        """The network as built so far."""
        shapes = tuple(layer.shape for layer in self.layers.values())
        return IntegerNetwork(Architecture(tuple(self.nodes), shapes, (0.5,) * 3, (0.25,) * 3, 0.02), self.layers, 1e-4)


def inverted_residual_network(seed: int = 5) -> IntegerNetwork:
    """8x8 images: a strided stem, a bottleneck with a residual, one with stride 2, a mean of its own, 4 classes."""
    builder = Builder(seed)
    builder.activation(builder.linear("stem", 4, 3, 2))
    builder.bottleneck("narrow", 4, 1)
    builder.bottleneck("residual", 4, 1)
    builder.bottleneck("strided", 6, 2)
    builder.activation(builder.linear("head", 8))
    side = builder.shape[1]
    builder.nodes.append(Node("pool", "sum_pool", (builder.nodes[-1].name,), (8, 1, 1), kernel=side, stride=side))
    builder.activation(2 * (side.bit_length() - 1))
    builder.linear("fc", 4)
    return builder.network()
