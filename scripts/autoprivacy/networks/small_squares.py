"""A small convolutional network with ReLUs or with squares in their places, to compare the two; a file to copy.

After Mishra et al., DELPHI, USENIX Security 2020, section 5, which replaces some of a network's ReLUs by polynomials of
degree two.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from autoprivacy.networks.square import Square


def _convolution(inputs: int, outputs: int, stride: int, activation: nn.Module) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),  # without it squares grow from layer to layer
        activation,
    ]


# Of the squares. After 3 epochs on CIFAR-10, learning rate 0.1, 1 led to 60.8% right, 2 to 58.9%; 0, at 0.05, to 55.8%.
SHIFT = 1.0


def _network(classes: int, activation: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(
        *_convolution(3, 16, 2, activation()),
        *_convolution(16, 32, 2, activation()),
        *_convolution(32, 32, 1, activation()),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, classes),
    )


def small_relus(classes: int) -> nn.Module:
    """Images [N, 3, 32, 32] to logits [N, classes]; 4 linear layers, 8,192 ReLUs."""
    return _network(classes, nn.ReLU)


def small_squares(classes: int) -> nn.Module:
    """The same with 8,192 squares."""
    return _network(classes, partial(Square, shift=SHIFT))
