"""7CNET: the 7-convolution CIFAR-10 network of MiniONN that DELPHI and the paper use.

Liu et al., Oblivious Neural Network Predictions via MiniONN Transformations, CCS 2017, Fig. 13. The paper's section 4
describes its last two convolutions as 3x3; the network that it cites has 1x1 there, which is what stands here.
"""

from __future__ import annotations

from torch import nn


def _convolution(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


def seven_cnet(classes: int) -> nn.Module:
    """Images [N, 3, 32, 32] to logits [N, classes]; 8 linear layers, 173,056 ReLUs."""
    return nn.Sequential(
        *_convolution(3, 64, 3),
        *_convolution(64, 64, 3),
        nn.AvgPool2d(2),
        *_convolution(64, 64, 3),
        *_convolution(64, 64, 3),
        nn.AvgPool2d(2),
        *_convolution(64, 64, 3),
        *_convolution(64, 64, 1),
        *_convolution(64, 16, 1),
        nn.Flatten(),
        nn.Linear(16 * 8 * 8, classes),
    )
