"""Small float networks with every kind of layer that can be imported, and a data set for them; shared by tests."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from autoprivacy.data.dataset import Dataset, Split
from autoprivacy.data.torchvision_operators import declare_missing_operators

torch.set_num_threads(1)  # networks this small: more threads only wait for each other


def convolution(inputs, outputs, kernel, **more):
    return nn.Conv2d(inputs, outputs, kernel, bias=False, **more)


def sequential():
    """7CNET's kinds of layers, smaller, and a mean whose division by 9 is no shift."""
    return nn.Sequential(
        convolution(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(3, 2),
        nn.Conv2d(8, 12, 1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(12 * 8 * 8, 6),
    )


class Block(nn.Module):
    """A residual block with an identity, or a strided 1x1 projection where the shape changes."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1 = convolution(inputs, outputs, 3, stride=stride, padding=1)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = convolution(outputs, outputs, 3, padding="same")
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(convolution(inputs, outputs, 1, stride=stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class Residual(nn.Module):
    """Stem, two identity blocks, a projection, global mean, fully connected."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(convolution(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.Sequential(Block(8, 8), Block(8, 8), Block(8, 12, 2))
        self.fc = nn.Linear(12, 6)

    def forward(self, x):
        x = self.blocks(self.stem(x))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def grouped():
    """Depthwise and grouped convolutions with strides, oblong kernels and a batch norm after a Linear."""
    return nn.Sequential(
        convolution(3, 6, 3, stride=2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        convolution(6, 12, 3, groups=6, padding=1),
        nn.BatchNorm2d(12, affine=False),
        nn.ReLU(),
        nn.Conv2d(12, 8, (3, 1), groups=2, padding="valid"),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
        nn.Linear(8, 10, bias=False),
        nn.BatchNorm1d(10),
        nn.ReLU(),
        nn.Linear(10, 6),
    )


class OptionA(nn.Module):
    """Residual blocks whose shortcut has no weights: every second pixel, channels of zeros (He et al., option A)."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(convolution(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.conv1 = nn.Sequential(convolution(4, 10, 3, stride=2, padding=1), nn.BatchNorm2d(10), nn.ReLU())
        self.conv2 = nn.Sequential(convolution(10, 10, 3, padding=1), nn.BatchNorm2d(10))
        self.identity = Block(10, 10)
        self.fc = nn.Linear(10, 6)

    def forward(self, x):
        x = self.stem(x)
        out = self.conv2(self.conv1(x))
        x = F.relu(out + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 4)))
        return self.fc(self.identity(x).mean((2, 3)))


def bottlenecks():
    """torchvision's inverted residuals: two with a shortcut, the second from a bottleneck, and one with a stride."""
    declare_missing_operators()
    from torchvision.models.mobilenetv2 import InvertedResidual

    return nn.Sequential(
        nn.Sequential(convolution(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)),
        InvertedResidual(8, 8, stride=1, expand_ratio=2),
        InvertedResidual(8, 8, stride=1, expand_ratio=2),
        InvertedResidual(8, 12, stride=2, expand_ratio=3),
        nn.Sequential(convolution(12, 16, 1), nn.BatchNorm2d(16), nn.ReLU6(inplace=True)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 6),
    )


def randomised(module, seed=0):
    """He-like weights, batch norm with statistics and gains unlike the initial ones."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            fan_in = part.weight[0].numel()
            part.weight.data = torch.randn(part.weight.shape, generator=generator) * (2 / fan_in) ** 0.5
            if part.bias is not None:
                part.bias.data = torch.randn(part.bias.shape, generator=generator) * 0.1
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
            part.running_mean.copy_(torch.randn(part.num_features, generator=generator) * 0.1)
            part.running_var.copy_(torch.rand(part.num_features, generator=generator) + 0.5)
            if part.affine:
                part.weight.data = torch.rand(part.num_features, generator=generator) + 0.5
                part.bias.data = torch.randn(part.num_features, generator=generator) * 0.2
    return module


def smooth_split(count, size, seed):
    """Blurred noise: pixels as correlated, and about as bright, as in photographs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    images = F.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return Split(pixels, np.arange(count) % 6)


def smooth_dataset(size=(16, 16), train=80, test=60):
    return Dataset(
        "noise",
        smooth_split(train, size, 1),
        smooth_split(test, size, 2),
        (0.5, 0.45, 0.4),
        (0.25, 0.25, 0.3),
        "drawn at random",
    )


NETWORKS = {
    "sequential": (sequential, (17, 17)),
    "residual": (Residual, (13, 13)),
    "grouped": (grouped, (17, 13)),
    "option_a": (OptionA, (15, 15)),
    "bottlenecks": (bottlenecks, (11, 11)),
}
