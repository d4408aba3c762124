"""Crops, flips, cutout, random erasing, smaller images, normalisation."""

import torch

from autoprivacy.training.augmentation import AREAS, augment, erase, resized
from autoprivacy.training.batches import normalise
from autoprivacy.training.settings import TrainingSettings


def test_erasing_blanks_one_rectangle_of_as_many_images_as_it_should():
    images = torch.ones(2000, 2, 32, 24)
    out = erase(images, 0.3, torch.Generator().manual_seed(1))
    blank = (out == 0).all(1)
    assert torch.equal(blank, (out == 0).any(1)) and set(out.unique().tolist()) == {0.0, 1.0}
    changed = blank.flatten(1).any(1)
    assert 0.25 < float(changed.float().mean()) < 0.35
    rows, columns = blank.any(2), blank.any(1)
    assert torch.equal(blank, rows[:, :, None] & columns[:, None, :])
    for sides in (rows, columns):  # each side is one run of pixels
        assert int((sides[:, 1:] & ~sides[:, :-1]).sum(1).max()) <= 1
    shares = blank[changed].float().mean((1, 2))
    assert AREAS[0] * 0.5 < float(shares.min()) and float(shares.max()) < AREAS[1] * 1.1
    assert float(shares.mean()) > 0.12


def test_erasing_never_and_always():
    images = torch.ones(50, 3, 8, 8)
    assert torch.equal(erase(images, 0.0, torch.Generator().manual_seed(1)), images)
    assert bool((erase(images, 1.0, torch.Generator().manual_seed(1)) == 0).flatten(1).any(1).all())


def test_smaller_images_are_antialiased_and_keep_their_mean():
    images = torch.zeros(1, 3, 32, 32)
    images[..., ::2] = 1.0  # stripes that plain sampling would keep or lose
    small = resized(images, 16)
    assert small.shape == (1, 3, 16, 16)
    assert torch.allclose(small[..., 2:-2], torch.full_like(small[..., 2:-2], 0.5), atol=1e-6)
    assert resized(images, None) is images and resized(images, 32) is images


def test_augmentation_crops_and_flips_within_the_padding():
    image = torch.arange(1, 1 + 8 * 8).float().reshape(1, 1, 8, 8).repeat(200, 1, 1, 1)
    out = augment(image, TrainingSettings(epochs=1, crop_padding=2), torch.Generator().manual_seed(1))
    assert out.shape == image.shape
    padded = torch.nn.functional.pad(image[0, 0], (2, 2, 2, 2))
    crops = [padded[y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
    allowed = {tuple(crop.flatten().tolist()) for c in crops for crop in (c, c.flip(1))}
    seen = {tuple(sample.flatten().tolist()) for sample in out}
    assert seen <= allowed and len(seen) > 30


def test_no_padding_and_cutout():
    image = torch.ones(50, 2, 8, 8)
    out = augment(image, TrainingSettings(epochs=1, crop_padding=0, cutout=4), torch.Generator().manual_seed(1))
    blank = (out[:, 0] == 0).flatten(1).sum(1)
    assert torch.equal(out[:, 0], out[:, 1]) and blank.min() >= 9 and blank.max() <= 25


def test_normalisation_matches_torch():
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    expected = (images.double() / 255 - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.1, 0.2, 0.3])
    got = normalise(images, (0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
    assert torch.allclose(got.double(), expected.permute(0, 3, 1, 2), atol=1e-5)
