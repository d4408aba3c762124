"""Shapes of convolutions and their plain evaluation."""

from __future__ import annotations

import numpy as np

from autoprivacy.quantization.integer_network import LayerShape


def convolve(shape: LayerShape, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The convolution as torch.nn.Conv2d defines it, one output at a time."""
    padded = np.pad(values, ((0, 0), (shape.padding,) * 2, (shape.padding,) * 2))
    per_group_in, per_group_out = weight.shape[1], shape.output_channels // shape.groups
    out = np.zeros(shape.output_shape, np.int64)
    for o, y, x in np.ndindex(*shape.output_shape):
        channel = o // per_group_out * per_group_in
        rows, columns = y * shape.stride, x * shape.stride
        patch = padded[
            channel : channel + per_group_in, rows : rows + shape.kernel[0], columns : columns + shape.kernel[1]
        ]
        out[o, y, x] = (patch * weight[o]).sum()
    return out


def make_shape(channels: int, size: tuple[int, int], outputs: int, kernel: tuple[int, int], **more: int) -> LayerShape:
    return LayerShape("layer", "convolution", (channels, *size), outputs, kernel, **more)


SHAPES = {
    "3x3 padded": (make_shape(5, (6, 7), 7, (3, 3), padding=1), 256),
    "3x3 unpadded": (make_shape(3, (6, 6), 4, (3, 3)), 128),
    "3x3 wide padding": (make_shape(2, (5, 5), 3, (3, 3), padding=2), 256),
    "1x1": (make_shape(7, (4, 4), 9, (1, 1)), 64),
    "1x1 padded": (make_shape(2, (4, 4), 3, (1, 1), padding=1), 128),
    "uneven kernel": (make_shape(3, (5, 8), 2, (1, 3), padding=0), 128),
    "5x5": (make_shape(2, (9, 9), 3, (5, 5), padding=2), 256),
    "depthwise": (make_shape(9, (5, 5), 9, (3, 3), padding=1, groups=9), 256),
    "depthwise with multiplier": (make_shape(4, (5, 5), 8, (3, 3), padding=1, groups=4), 256),
    "grouped": (make_shape(6, (4, 4), 10, (3, 3), padding=1, groups=2), 128),
    "stride 2": (make_shape(3, (8, 8), 5, (3, 3), stride=2, padding=1), 128),
    "stride 2, odd image": (make_shape(3, (7, 9), 4, (3, 3), stride=2, padding=1), 128),
    "stride 2, 1x1": (make_shape(5, (8, 8), 6, (1, 1), stride=2), 64),
    "stride 2, depthwise": (make_shape(4, (8, 8), 4, (3, 3), stride=2, padding=1, groups=4), 256),
    "stride 3": (make_shape(2, (10, 10), 3, (3, 3), stride=3, padding=1), 128),
    "image smaller than kernel": (make_shape(4, (1, 1), 5, (3, 3), padding=1), 64),
    "2x2 image": (make_shape(6, (2, 2), 5, (3, 3), padding=1), 64),
    "fully connected": (LayerShape("fc", "fully_connected", (40, 1, 1), 10, (1, 1)), 64),
    "fully connected over several ciphertexts": (LayerShape("fc", "fully_connected", (150, 1, 1), 3, (1, 1)), 64),
    "bands": (make_shape(2, (16, 8), 3, (3, 3), padding=1), 64),
    "bands of a strided layer": (make_shape(2, (16, 16), 2, (3, 3), stride=2, padding=1), 64),
}
