"""A network small enough for tests of the whole workflow; it is none of the paper's."""

from torch import nn


def tiny_network(classes: int) -> nn.Module:
    """Images [N, 3, 32, 32] to logits [N, classes]: two strided convolutions, mean pooling, fully connected."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 4 * 4, classes),
    )
