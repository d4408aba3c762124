"""ResNets for 32x32 images, with the shortcuts without parameters that He et al. chose for CIFAR-10.

He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = (16, 32, 64)  # of the three stages (section 4.2)


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut of option A: every second pixel, missing channels zero.

    The paper does not say where the zero channels stand; here they are split evenly before and behind.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = _convolution(outputs, outputs, 1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.halves = stride == 2
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.halves:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))
        return self.relu2(out + x)


class CifarResNet(nn.Module):
    """6n + 2 layers: a convolution, three stages of n basic blocks, the mean over all pixels, fully connected.

    Args:
        blocks: n, basic blocks in each stage.
        classes: number of outputs.
        width: the channels of every stage are this many times the paper's.
    """

    def __init__(self, blocks: int, classes: int, width: int = 1) -> None:
        super().__init__()
        channels = CHANNELS[0] * width
        self.conv = _convolution(3, channels, 1)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        stages = []
        for stage, base in enumerate(CHANNELS):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                stages.append(BasicBlock(channels, base * width, stride))
                channels = base * width
        self.blocks = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.relu(self.bn(self.conv(x))))
        return self.fc(torch.flatten(self.pool(x), 1))


def resnet32(classes: int) -> nn.Module:
    """Images [N, 3, 32, 32] to logits [N, classes]; 32 linear layers, 303,104 ReLUs."""
    return CifarResNet(5, classes)


def resnet32x4(classes: int) -> nn.Module:
    """ResNet-32 with four times the channels: a teacher to distil ResNet-32 from, not meant for private inference."""
    return CifarResNet(5, classes, width=4)
