"""Integer networks drawn at random from all operations, for comparing evaluators with plain integer arithmetic."""

from __future__ import annotations

import numpy as np
import torch

from autoprivacy.quantization.evaluation import value_ranges
from autoprivacy.quantization.integer_network import (
    Architecture,
    IntegerNetwork,
    LayerShape,
    LinearLayer,
    Node,
    Shape,
)

torch.set_num_threads(1)  # networks this small: more threads only wait for each other

CLIPS = ((0, 255), (-128, 127), (0, 15), (-3, 200), (5, 9))
SQUARED_CLIPS = ((-16, 15), (-64, 63), (-2, 1), (3, 9))
FACTORS = (2, 64, 3, -2)
READABLE = 1 << 12  # linear layers read values up to here, as after quantisation


class RandomNetwork:
    """Draws node after node; a node whose values could exceed `limit` is drawn again."""

    def __init__(self, seed: int, steps: int = 14, limit: int = 1 << 30) -> None:
        self.rng = np.random.default_rng(seed)
        self.limit = limit
        self.nodes = [Node("image", "input", (), (3, *self.rng.integers(5, 9, 2).tolist()))]
        self.layers: dict[str, LinearLayer] = {}
        while len(self.nodes) < steps:
            getattr(self, f"_{self.rng.choice(OPERATIONS)}")(f"n{len(self.nodes)}")
        self._activation("last")
        self._flatten("flat", self.nodes[-1])
        self._linear("fc", self.nodes[-1])

    def network(self) -> IntegerNetwork:
        """The network as drawn so far."""
        shapes = tuple(layer.shape for layer in self.layers.values())
        architecture = Architecture(tuple(self.nodes), shapes, (0.5,) * 3, (0.25,) * 3, 0.02)
        return IntegerNetwork(architecture, self.layers, 0.01)

    def _keep(self, node: Node, layer: LinearLayer | None = None) -> None:
        self.nodes.append(node)
        if layer is not None:
            self.layers[node.name] = layer
        low, high = value_ranges(self.network())[node.name]
        if max(-low, high) > self.limit or min(node.shape) < 1:
            self.nodes.pop()
            self.layers.pop(node.name, None)

    def _drawn(self) -> Node:
        """A node, the latest ones more often than others."""
        return self._whole[-1 - min(int(self.rng.geometric(0.4)) - 1, len(self._whole) - 1)]

    @property
    def _whole(self) -> list[Node]:
        """The nodes but for those inside a maximum, which nothing else may read."""
        return [node for node in self.nodes if "." not in node.name]

    def _linear(self, name: str, source: Node | None = None) -> None:
        source = source or self._drawn()
        low, high = value_ranges(self.network())[source.name]
        if max(-low, high) > READABLE:
            return
        channels = source.shape[0]
        groups = int(self.rng.choice([g for g in (1, 2, channels) if channels % g == 0]))
        shape = LayerShape(
            name,
            "convolution",
            source.shape,
            groups * int(self.rng.integers(1, 4)),
            (1, 1) if source.shape[1:] == (1, 1) else tuple(self.rng.choice([1, 2, 3], 2).tolist()),
            stride=int(self.rng.integers(1, 3)),
            padding=int(self.rng.integers(0, 2)),
            groups=groups,
            input_maximum=max(-low, high),
        )
        if min(shape.output_shape) < 1:
            return
        size = (shape.output_channels, channels // groups, *shape.kernel)
        weight = self.rng.integers(-127, 128, size)
        layer = LinearLayer(shape, weight, self.rng.integers(-3000, 3000, shape.output_channels))
        self._keep(Node(name, "linear", (source.name,), shape.output_shape), layer)

    def _activation(self, name: str) -> None:
        source, (minimum, maximum) = self._drawn(), self.rng.choice(CLIPS).tolist()
        if source.operation == "activation":  # changes little
            return
        shift = int(self.rng.integers(0, 12))
        self._keep(Node(name, "activation", (source.name,), source.shape, shift, minimum, maximum))

    def _square(self, name: str) -> None:
        source, (minimum, maximum) = self._drawn(), self.rng.choice(SQUARED_CLIPS).tolist()
        shift = int(self.rng.integers(0, 12))
        node = Node(name, "activation", (source.name,), source.shape, shift, minimum, maximum, squared=True)
        self._keep(node)

    def _add(self, name: str) -> None:
        first = self._drawn()
        second = self.rng.choice([node.name for node in self._whole if node.shape == first.shape])
        self._keep(Node(name, "add", (first.name, str(second)), first.shape))

    def _scale(self, name: str) -> None:
        source = self._drawn()
        factor = int(self.rng.choice(FACTORS))
        if self.rng.random() < 0.5:
            factor = tuple((1 << self.rng.integers(0, 4, source.shape[0])).tolist())
        self._keep(Node(name, "scale", (source.name,), source.shape, factor=factor))

    def _sum_pool(self, name: str) -> None:
        source = self._drawn()
        kernel, stride = self.rng.integers(1, 4, 2).tolist()
        self._keep(
            Node(name, "sum_pool", (source.name,), self._pooled(source, kernel, stride), kernel=kernel, stride=stride)
        )

    def _pooled(self, source: Node, kernel: int, stride: int) -> Shape:
        channels, height, width = source.shape
        return channels, (height - kernel) // stride + 1, (width - kernel) // stride + 1

    def _subsample(self, name: str) -> None:
        source, stride = self._drawn(), int(self.rng.integers(2, 4))
        shape = self._pooled(source, 1, stride)
        self._keep(Node(name, "subsample", (source.name,), shape, stride=stride))

    def _window(self, name: str) -> None:
        source, strides = self._drawn(), tuple(self.rng.integers(1, 4, 2).tolist())
        channels, height, width = source.shape
        shape = (channels, -(-height // strides[0]), -(-width // strides[1]))
        offset = tuple(self.rng.integers(-2, 3, 2).tolist())
        self._keep(Node(name, "window", (source.name,), shape, stride=strides, offset=offset))

    def _maximum(self, name: str) -> None:
        """Of two values that no layer feeds, narrow enough to be looked up."""
        architecture, ranges = self.network().architecture, value_ranges(self.network())
        narrow = [n for n in self._whole if not architecture.feeders[n.name] and -600 < ranges[n.name][0] < 600]
        first = narrow[int(self.rng.integers(len(narrow)))]
        second = narrow[int(self.rng.choice([i for i, n in enumerate(narrow) if n.shape == first.shape]))]
        lows, highs = zip(ranges[first.name], ranges[second.name], strict=True)
        bits = max(1, (max(highs) - min(lows)).bit_length())
        if bits > 11:
            return
        names = [f"{name}.{part}" for part in ("negated", "difference", "gain")]
        self._keep(Node(names[0], "scale", (second.name,), first.shape, factor=-1))
        self._keep(Node(names[1], "add", (first.name, names[0]), first.shape))
        gain = Node(names[2], "activation", (names[1],), first.shape, maximum=(1 << bits) - 1, modulus_bits=bits + 1)
        self._keep(gain)
        self._keep(Node(name, "add", (second.name, names[2]), first.shape))

    def _pad_channels(self, name: str) -> None:
        source = self._drawn()
        before, after = self.rng.integers(0, 3, 2).tolist()
        channels, *size = source.shape
        shape = (channels + before + after, *size)
        self._keep(Node(name, "pad_channels", (source.name,), shape, before=before, after=after))

    def _flatten(self, name: str, source: Node) -> None:
        self._keep(Node(name, "flatten", (source.name,), (int(np.prod(source.shape)), 1, 1)))


OPERATIONS = ("linear", "linear", "linear", "activation", "activation", "square", "add", "add", "scale", "sum_pool") + (
    "subsample",
    "window",
    "maximum",
    "pad_channels",
)


def random_images(network: IntegerNetwork, count: int, seed: int = 0) -> np.ndarray:
    """Signed 8-bit images for the network, int64 [N, C, H, W]."""
    return np.random.default_rng(seed).integers(-128, 128, (count, *network.architecture.nodes[0].shape))
