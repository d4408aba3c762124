"""Networks with squared activations."""

import numpy as np

from autoprivacy.quantization.integer_network import Architecture, IntegerNetwork, LayerShape, LinearLayer, Node


def one_square(minimum=-16, maximum=15):
    """A 1x1 convolution of one channel, its square, and a 1x1 convolution."""
    shapes = tuple(LayerShape(name, "convolution", (1, 4, 4), 1, (1, 1)) for name in ("first", "second"))
    nodes = (
        Node("image", "input", (), (1, 4, 4)),
        Node("first", "linear", ("image",), (1, 4, 4)),
        Node("square", "activation", ("first",), (1, 4, 4), 3, minimum, maximum, squared=True),
        Node("second", "linear", ("square",), (1, 4, 4)),
    )
    layers = {
        shape.name: LinearLayer(shape, np.full((1, 1, 1, 1), weight), np.array([bias]))
        for shape, weight, bias in zip(shapes, (3, -2), (5, 7), strict=True)
    }
    return IntegerNetwork(Architecture(nodes, shapes, (0.5,), (0.25,), 0.02), layers, 1.0)
