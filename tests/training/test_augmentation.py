"""Random erasing and smaller images."""

import torch

from autoprivacy.training.augmentation import AREAS, erase, resized


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
