"""Images of a data set as a float network takes them, and its accuracy on a split."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from autoprivacy.data.dataset import Dataset, Split


def device() -> torch.device:
    """The GPU when there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [N, H, W, C] to normalised float [N, C, H, W] in channels-last memory."""
    scale = images.new_tensor(std, dtype=torch.float32) * 255
    shift = images.new_tensor(mean, dtype=torch.float32) * 255
    return ((images.float() - shift) / scale).permute(0, 3, 1, 2)


def batches(split: Split, size: int = 500) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Consecutive (images, labels) of at most `size`."""
    for start in range(0, len(split.labels), size):
        yield split.images[start : start + size], split.labels[start : start + size]


@torch.no_grad()
def accuracy(model: nn.Module, dataset: Dataset, split: Split) -> float:
    """Top-1 accuracy in percent of the float network on a split of the data set."""
    where = next(model.parameters()).device
    training = model.training
    model.eval()
    right = 0
    for images, labels in batches(split):
        logits = model(normalise(torch.from_numpy(images).to(where), dataset.mean, dataset.std))
        right += int((logits.argmax(1).cpu() == torch.from_numpy(labels)).sum())
    model.train(training)
    return 100.0 * right / len(split.labels)
