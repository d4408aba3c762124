"""Small float networks whose activations are functions of any form, and integer networks of them."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprivacy.data.dataset import Dataset
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.quantize import QuantizationSettings, quantize
from support.float_networks import convolution, randomised, smooth_dataset

FUNCTIONS: dict[str, nn.Module] = {
    "silu": nn.SiLU(),
    "hardswish": nn.Hardswish(),
    "gelu": nn.GELU(),
    "gelu tanh": nn.GELU(approximate="tanh"),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "leaky_relu": nn.LeakyReLU(0.1),
    "hardsigmoid": nn.Hardsigmoid(),
    "mish": nn.Mish(),
    "elu": nn.ELU(),
}
SIZE, SETTINGS = (12, 12), QuantizationSettings()


class ResidualOf(nn.Module):
    """A strided convolution, a residual one, a mean and a fully connected layer, activations of one kind."""

    def __init__(self, activation: nn.Module, groups: int = 1) -> None:
        super().__init__()
        self.first = nn.Sequential(convolution(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8))
        self.second = nn.Sequential(convolution(8, 8, 3, padding=1, groups=groups), nn.BatchNorm2d(8))
        self.third = nn.Sequential(convolution(8, 8, 3, padding=1, groups=groups), nn.BatchNorm2d(8))
        self.activation, self.fc = activation, nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.first(x))
        x = x + self.activation(self.second(x))
        x = self.activation(self.third(x) + x)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


@cache
def data() -> Dataset:
    """Blurred noise."""
    return smooth_dataset(SIZE)


@cache
def integer_network(name: str, groups: int = 1) -> IntegerNetwork:
    """The network of one of `FUNCTIONS` with random weights, quantised on blurred noise."""
    module = randomised(ResidualOf(FUNCTIONS[name], groups)).eval()
    return quantize(module, data(), SETTINGS)[0]


def images_of(network: IntegerNetwork, count: int) -> Tensor:
    """Quantised images of the test split."""
    return torch.from_numpy(network.architecture.quantize_images(data().test.images[:count]))
