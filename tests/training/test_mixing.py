"""Mixup and CutMix: what is blended, in which shares."""

import pytest
import torch

from autoprivacy.training.mixing import mix


def flat_batch(count=64):
    """Image i is i everywhere, so that a mixed pixel tells whence it came."""
    return torch.arange(count).float()[:, None, None, None].expand(count, 3, 8, 12).contiguous()


def test_mixup_blends_with_the_partner():
    images = flat_batch()
    mixed = mix(images, 0.4, 0, torch.Generator().manual_seed(1))
    expected = mixed.share * images + (1 - mixed.share) * images[mixed.partners]
    assert torch.allclose(mixed.images, expected, atol=1e-4)
    assert sorted(mixed.partners.tolist()) == list(range(64))


def test_cutmix_pastes_one_rectangle_of_the_partner_and_counts_its_pixels():
    images, generator = flat_batch(), torch.Generator().manual_seed(1)
    shares = []
    for _ in range(40):
        mixed = mix(images, 0, 1.0, generator)
        changed = mixed.partners != torch.arange(64)
        pasted = (mixed.images == images[mixed.partners])[changed]
        assert torch.equal(pasted | (mixed.images == images)[changed], torch.ones_like(pasted))
        one = pasted[0, 0]
        assert torch.equal(one, one.any(1)[:, None] & one.any(0)[None, :]) and bool((pasted == one).all())
        assert mixed.share == pytest.approx(1 - float(one.float().mean()))
        shares.append(mixed.share)
    assert min(shares) < 0.5 < max(shares)


def test_without_mixing_nothing_is_drawn_and_with_both_kinds_both_come():
    generator, images = torch.Generator().manual_seed(1), flat_batch()
    state = generator.get_state()
    assert mix(images, 0, 0, generator) is None and torch.equal(generator.get_state(), state)
    blends = [bool((mix(images, 0.5, 1.0, generator).images % 1 != 0).any()) for _ in range(30)]
    assert 5 < sum(blends) < 25
