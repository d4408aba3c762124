"""Mixup and CutMix: training images that are blends of two, drawn for a whole batch at a time.

Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018; Yun et al., CutMix: Regularization Strategy to Train
Strong Classifiers with Localizable Features, ICCV 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixed:
    """A mixed batch: images [N, C, H, W]; `share` of image i is its own and the rest is image `partners[i]`."""

    images: Tensor
    partners: Tensor
    share: float


def mix(images: Tensor, mixup: float, cutmix: float, generator: torch.Generator) -> Mixed | None:
    """Mix a batch with a permutation of itself; None when both settings are 0.

    Args:
        images: [N, C, H, W].
        mixup, cutmix: alpha of the Beta(alpha, alpha) that the share is drawn from; 0 turns the kind off. With both
            on, every batch is mixed in one of the two ways, each as often as the other.
        generator: everything is drawn from it.
    """
    if not mixup and not cutmix:
        return None
    # torch's Beta takes no generator
    rng = np.random.default_rng(int(torch.randint(1 << 62, (1,), generator=generator)))
    cut = bool(cutmix) and (not mixup or rng.random() < 0.5)
    alpha = cutmix if cut else mixup
    share = float(rng.beta(alpha, alpha))
    partners = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    if not cut:
        return Mixed(torch.lerp(images[partners], images, share), partners, share)
    height, width = images.shape[2:]
    top, bottom = _span(height, share, rng)
    left, right = _span(width, share, rng)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[partners, :, top:bottom, left:right]
    return Mixed(mixed, partners, 1 - (bottom - top) * (right - left) / (height * width))


def _span(size: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    """One side of CutMix's rectangle: sqrt(1 - share) of the size around a uniform centre, cut off at the edges."""
    half = int(size * (1 - share) ** 0.5) // 2
    centre = int(rng.integers(size))
    return max(centre - half, 0), min(centre + half, size)
