"""A data set and a network that are trained in a second."""

from __future__ import annotations

import numpy as np
from torch import nn

from autoprivacy.data.dataset import Dataset, Split


def toy_dataset():
    """Two classes told apart by brightness."""
    rng = np.random.default_rng(1)
    labels = np.arange(80) % 2
    images = (rng.integers(0, 60, (80, 32, 32, 3)) + 150 * labels[:, None, None, None]).astype(np.uint8)
    split = Split(images, labels.astype(np.int64))
    return Dataset("toy", split, split, (0.4, 0.4, 0.4), (0.3, 0.3, 0.3), "made here")


def toy_network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
