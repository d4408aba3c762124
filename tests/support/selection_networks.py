"""A network to select parameters for."""

from __future__ import annotations

import numpy as np

from autoprivacy.quantization.integer_network import (
    Architecture,
    IntegerNetwork,
    LayerShape,
    LinearLayer,
)


def make_layer(name: str, channels: int, size: int, outputs: int, kernel: int, **more: int) -> LinearLayer:
    kind = "convolution" if size > 1 else "fully_connected"
    shape = LayerShape(name, kind, (channels, size, size), outputs, (kernel, kernel), padding=kernel // 2, **more)  # type: ignore[arg-type]
    weight = np.rint(np.random.default_rng(len(name)).normal(0, 30, (outputs, channels, kernel, kernel)))
    return LinearLayer(shape, weight.clip(-127, 127).astype(np.int64), np.zeros(outputs, np.int64))


LAYERS = [make_layer("conv1", 3, 32, 64, 3), make_layer("conv20", 64, 16, 64, 3), make_layer("fc", 256, 1, 10, 1)]
NETWORK = IntegerNetwork(
    Architecture((), tuple(layer.shape for layer in LAYERS), (0.5,), (0.25,), 0.02),
    {layer.shape.name: layer for layer in LAYERS},
    1.0,
)
