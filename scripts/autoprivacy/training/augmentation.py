"""Random changes of training images: flips, crops, cutout, random erasing, and the smaller images of first epochs.

Zhong et al., Random Erasing Data Augmentation, AAAI 2020; Tan, Le, EfficientNetV2: Smaller Models and Faster Training,
ICML 2021, section 4 (images that grow as training goes on).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from autoprivacy.training.settings import TrainingSettings

# Of the rectangles: share of the image's area, and height over width (Zhong et al., section 4.1).
AREAS = (0.02, 0.33)
ASPECTS = (0.3, 1 / 0.3)


def augment(images: Tensor, settings: TrainingSettings, generator: torch.Generator) -> Tensor:
    """Random flip, crop and cutout of normalised images [N, C, H, W]; zero (the mean colour) fills the gaps."""
    count, _, height, width = images.shape
    pad = settings.crop_padding

    def draw(high: int) -> Tensor:
        return torch.randint(high, (count, 1), generator=generator).to(images.device)

    flip, top, left = draw(2), draw(2 * pad + 1), draw(2 * pad + 1)
    rows = torch.arange(height, device=images.device) + top
    columns = torch.arange(width, device=images.device)
    columns = torch.where(flip == 1, width - 1 - columns, columns) + left
    padded = F.pad(images, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    index = torch.arange(count, device=images.device)[:, None, None]
    cropped = padded[index, rows[:, :, None], columns[:, None, :]]
    if settings.cutout:
        y, x = draw(height), draw(width)
        half = settings.cutout // 2
        inside_rows = (torch.arange(height, device=images.device) - y).abs() <= half
        inside_columns = (torch.arange(width, device=images.device) - x).abs() <= half
        cropped = cropped.masked_fill((inside_rows[:, :, None] & inside_columns[:, None, :])[..., None], 0.0)
    return cropped.permute(0, 3, 1, 2)


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
