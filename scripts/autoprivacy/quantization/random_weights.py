"""Networks that nobody has trained yet: random weights with the statistics of real images, to choose parameters for."""

from __future__ import annotations

import torch
from torch import nn

from autoprivacy.data.dataset import Dataset
from autoprivacy.networks import build_for
from autoprivacy.training.batches import batches, normalise

IMAGES, BATCH = 256, 64  # that the statistics are taken from


def random_network(model: str, classes: int, dataset: Dataset, seed: int) -> nn.Module:
    """A network as it is before training, its batch normalisations set to what training images give.

    Without that activations grow or vanish from layer to layer, as they do in no trained network.

    Args:
        model, classes: as in `networks.build_for`.
        dataset: its training images give the statistics.
        seed: of the weights.

    Returns:
        The network in evaluation mode; torch's own random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build_for(model, classes, dataset)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.reset_running_stats()
            part.momentum = None  # the plain mean over all batches
    module.train()
    images = dataset.train.take(slice(0, IMAGES))
    with torch.no_grad():
        for values, _ in batches(images, BATCH):
            module(normalise(torch.from_numpy(values), dataset.mean, dataset.std))
    return module.eval()
