"""Changes of training images that some epochs alone make: random erasing and smaller images.

Zhong et al., Random Erasing Data Augmentation, AAAI 2020; Tan, Le, EfficientNetV2: Smaller Models and Faster Training,
ICML 2021, section 4 (images that grow as training goes on).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# Of the rectangles: share of the image's area, and height over width (Zhong et al., section 4.1).
AREAS = (0.02, 0.33)
ASPECTS = (0.3, 1 / 0.3)


def erase(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Blank a random rectangle of some images; zero (the mean colour) fills it.

    Args:
        images: normalised, [N, C, H, W].
        probability: of an image to be changed.
        generator: everything is drawn from it.
    """
    count, _, height, width = images.shape
    chosen, area, aspect, top, left = torch.rand(5, count, generator=generator)
    area = AREAS[0] + (AREAS[1] - AREAS[0]) * area
    aspect = torch.exp(math.log(ASPECTS[0]) + math.log(ASPECTS[1] / ASPECTS[0]) * aspect)
    rows = _inside(height, (area * aspect).sqrt(), top)
    columns = _inside(width, (area / aspect).sqrt(), left)
    blank = (chosen < probability)[:, None, None] & rows[:, :, None] & columns[:, None, :]
    return images.masked_fill(blank[:, None].to(images.device), 0.0)


def _inside(size: int, share: Tensor, position: Tensor) -> Tensor:
    """[N, size]: the pixels of one side that lie in rectangles of these shares of it, at these positions in 0..1."""
    length = (share * size).round().clamp(1, size)
    start = (position * (size - length + 1)).floor()
    pixels = torch.arange(size)
    return (pixels >= start[:, None]) & (pixels < (start + length)[:, None])


def resized(images: Tensor, pixels: int | None) -> Tensor:
    """Images [N, C, H, W] at pixels x pixels, antialiased and bilinear; None leaves them as they are."""
    if pixels is None or tuple(images.shape[2:]) == (pixels, pixels):
        return images
    return F.interpolate(images, size=(pixels, pixels), mode="bilinear", antialias=True)
