"""Networks of random 8-bit weights: as good as trained ones where only the layers' shapes matter, as in timings."""

from __future__ import annotations

import numpy as np
from torch import nn

from autoprivacy.quantization.importer import import_module
from autoprivacy.quantization.integer_network import (
    WEIGHT_MAXIMUM,
    Architecture,
    IntegerNetwork,
    LinearLayer,
    Shape,
)


def untrained_network(module: nn.Module, image: Shape) -> IntegerNetwork:
    """The linear layers of a module with random weights, without the graph that connects them.

    Args:
        module: the float network; its weights do not matter.
        image: channels, height and width of its input.

    Raises:
        UserError: the network has an operation that has no integer form.
    """
    generator = np.random.default_rng(0)
    layers = {}
    for name, layer in import_module(module.eval(), image).layers.items():
        weight = generator.integers(-WEIGHT_MAXIMUM, WEIGHT_MAXIMUM + 1, tuple(layer.weight.shape))
        layers[name] = LinearLayer(layer.shape, weight, np.zeros(len(weight), np.int64))
    shapes = tuple(layer.shape for layer in layers.values())
    mean, deviation = (0.5,) * image[0], (0.25,) * image[0]
    return IntegerNetwork(Architecture((), shapes, mean, deviation, 0.02), layers, 1.0)
