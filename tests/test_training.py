"""Training: it learns, a kill changes nothing, augmentation and checkpoints do what they say."""

import numpy as np
import pytest
import torch
from torch import nn

from autoprivacy.data import Dataset, Split
from autoprivacy.errors import UserError
from autoprivacy.networks import build
from autoprivacy.training import Trainer, TrainingSettings, augment, load_weights, normalise, save_weights

SETTINGS = TrainingSettings(epochs=3, batch_size=16, learning_rate=0.1, ema_decay=0.8)


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
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


def trained(state, interrupt_after=None, monkeypatch=None):
    trainer = Trainer(toy_network(), toy_dataset(), SETTINGS, state)
    if interrupt_after is not None:
        step, calls = trainer._train_step, []

        def interrupted(*arguments):
            if len(calls) == interrupt_after:
                trainer.save()
                raise KeyboardInterrupt
            calls.append(1)
            return step(*arguments)

        monkeypatch.setattr(trainer, "_train_step", interrupted)
    return trainer.run(), trainer


def test_it_learns_and_records_its_progress(tmp_path):
    _, trainer = trained(tmp_path / "state.pt")
    assert trainer.progress.accuracies[-1] == 100.0 and len(trainer.progress.losses) == 3


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, monkeypatch):
    whole, _ = trained(tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "state.pt", 7, monkeypatch)  # in the middle of the second epoch
    resumed, trainer = trained(tmp_path / "state.pt")
    assert trainer.step == 15
    for (name, a), (_, b) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_state_of_other_settings_is_refused(tmp_path):
    trained(tmp_path / "state.pt")
    with pytest.raises(UserError, match="other training settings"):
        Trainer(toy_network(), toy_dataset(), TrainingSettings(epochs=4, batch_size=16), tmp_path / "state.pt")


def test_too_large_a_batch_is_refused(tmp_path):
    with pytest.raises(UserError, match="batch_size 100 exceeds the 80"):
        Trainer(toy_network(), toy_dataset(), TrainingSettings(epochs=1, batch_size=100), tmp_path / "state.pt")


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


def test_checkpoints_round_trip_and_mismatches_are_named(tmp_path):
    model = toy_network()
    save_weights(model, tmp_path / "a.npz", {"model": "toy"})
    other = toy_network()
    assert load_weights(other, tmp_path / "a.npz") == {"model": "toy"}
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    wrong = nn.Sequential(*list(toy_network())[:-1], nn.Linear(4, 3))
    with pytest.raises(UserError, match=r"another network or class count: 5.bias is \(2,\), expected \(3,\)"):
        load_weights(wrong, tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="not a readable npz"):
        load_weights(other, tmp_path / "b.npz")


def test_7cnet_is_the_network_of_the_papers():
    model = build("autoprivacy.networks.seven_cnet:seven_cnet", 10)
    relus, linear = [], []
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda m, i, out: relus.append(out[0].numel()))
        if isinstance(module, nn.Conv2d | nn.Linear):
            linear.append(module)
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert len(linear) == 8 and sum(relus) == 173056


def test_a_model_that_is_not_there_is_named():
    for name in ("autoprivacy.networks.seven_cnet:nine", "no_module:f", "nocolon"):
        with pytest.raises(UserError, match="expected .package.module:function"):
            build(name, 10)
    with pytest.raises(UserError, match="returned int"):
        build("operator:neg", 10)
