"""Rewards of the search: the exploration subset, finetuning with errors, growing subsets of images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.search_support import darl_policy, images_of, small_network

from autoprivacy.data.dataset import Split
from autoprivacy.errors import UserError
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.search.finetuning import FinetuneSettings
from autoprivacy.search.reward import (
    ExplorationSplits,
    FinetunedReward,
    SimulatedReward,
    exploration_splits,
    may_reach,
)


def policy_of_noise(tau: float) -> Policy:
    """All layers with that noise, under a modulus in which nothing wraps."""
    darl = darl_policy(small_network())
    layers = tuple(
        replace(layer, parameters=replace(layer.parameters, plaintext_modulus=2**26 - 5), predicted={"tau": tau})
        for layer in darl.layers
    )
    return replace(darl, layers=layers)


def test_exploration_splits_are_disjoint_and_of_the_chosen_categories() -> None:
    train = images_of(400)
    splits = exploration_splits(train, 2, 60, 40, seed=3)
    assert (len(splits.finetune.labels), len(splits.evaluate.labels)) == (60, 40)
    assert len(np.unique([*splits.finetune.labels, *splits.evaluate.labels])) == 2
    images = {image.tobytes() for split in (splits.finetune, splits.evaluate) for image in split.images}
    assert len(images) == 100
    again, other = (exploration_splits(train, 2, 60, 40, seed=s) for s in (3, 4))
    assert np.array_equal(again.finetune.images, splits.finetune.images)
    assert not np.array_equal(other.finetune.images, splits.finetune.images)
    with pytest.raises(UserError, match="expected 1 to the 4 of the data set"):
        exploration_splits(train, 5, 60, 40, seed=3)
    for sizes in ((0, 10), (10, 0), (300, 300)):
        with pytest.raises(UserError, match="at least 1 of each"):
            exploration_splits(train, 2, *sizes, seed=3)


def numbered(labels: np.ndarray) -> Split:
    """An image of one pixel for each label, told apart by its colour."""
    colours = np.arange(len(labels))[:, None] >> np.array([0, 8, 16])
    return Split((colours & 255).astype(np.uint8).reshape(-1, 1, 1, 3), labels.astype(np.int64))


@pytest.mark.parametrize(
    ("classes", "images", "expected"),
    [
        (10, 5000, (2, 7500, 2500)),  # CIFAR-10
        (100, 500, (10, 3750, 1250)),  # CIFAR-100
        (2, 7, (2, 11, 3)),
        (43, 100, (4, 300, 100)),
        (3, 6000, (2, 7500, 2500)),  # no more than of CIFAR-10
    ],
)
def test_the_subset_of_a_data_set_by_its_classes(classes: int, images: int, expected: tuple[int, int, int]) -> None:
    train = numbered(np.arange(classes * images) % classes)
    splits = exploration_splits(train, None, None, None, seed=1)
    labels = np.unique([*splits.finetune.labels, *splits.evaluate.labels])
    assert (len(labels), len(splits.finetune.labels), len(splits.evaluate.labels)) == expected
    both = np.concatenate([splits.finetune.images, splits.evaluate.images])
    assert len(np.unique(both.reshape(len(both), 3), axis=0)) == len(both)
    given = exploration_splits(train, 2, 5, None, seed=1)
    assert (len(given.finetune.labels), len(given.evaluate.labels)) == (5, min(2 * images // 4, 2500))


def test_the_finetuned_reward_falls_with_the_errors_and_is_reproducible() -> None:
    network, train = small_network(), images_of(600)
    splits = ExplorationSplits(train.take(slice(0, 400)), train.take(slice(400, 600)))
    assert splits.together.labels.tolist() == [*train.labels[400:600], *train.labels[:400]]
    assert np.array_equal(splits.together.images[:200], splits.evaluate.images)
    settings = FinetuneSettings(4, 32, 5e-3, crop_padding=0)
    reward = FinetunedReward(network, splits, settings, seed=1)
    clean, noisy = policy_of_noise(0.07), policy_of_noise(1e5)
    clean_reward, noisy_reward = reward(clean), reward(noisy)
    assert -0.2 < clean_reward <= 0
    assert noisy_reward < -0.5  # of 4 classes, errors larger than any accumulator leave a guess
    assert reward(clean, to_beat=0.0) == clean_reward
    assert FinetunedReward(network, splits, settings, seed=1)(noisy) == noisy_reward


def test_no_image_is_no_reward() -> None:
    network, train = small_network(), images_of(20)
    none = train.take(slice(0, 0))
    with pytest.raises(UserError, match="no image to evaluate on"):
        FinetunedReward(network, ExplorationSplits(train, none), FinetuneSettings(1, 32, 5e-3), seed=1)
    with pytest.raises(UserError, match="no image to evaluate on"):
        SimulatedReward(network, none, seed=1)
    with pytest.raises(UserError, match="the split holds no image"):
        FinetunedReward(network, ExplorationSplits(none, train), FinetuneSettings(1, 32, 5e-3), seed=1)(
            policy_of_noise(0.07)
        )


class Counting(Evaluator):
    """Counts the images that it is shown."""

    shown = 0

    def forward(self, images, perturb=None):  # type: ignore[no-untyped-def]
        type(self).shown += len(images)
        return super().forward(images, perturb)


def test_images_are_spared_where_a_policy_cannot_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoprivacy.search.reward.Evaluator", Counting)
    network, images = small_network(), images_of(1200)
    # labels as the clean network gives them: without errors it is always right
    labels = Evaluator(network, 2**26 - 5).predictions(images)
    reward = SimulatedReward(network, replace(images, labels=labels), seed=1)
    for tau, to_beat, shown, low, high in (
        (1e-3, None, 1200, 0.0, 0.0),
        (1e-3, -0.001, 1200, 0.0, 0.0),
        (1e5, None, 1200, -1.0, -0.4),
        (1e5, -0.001, 250, -1.0, -0.4),
        (1e5, -0.99, 1200, -1.0, -0.4),
    ):
        Counting.shown = 0
        assert low <= reward(policy_of_noise(tau), to_beat) <= high
        assert Counting.shown == shown


def test_a_policy_is_given_up_as_rarely_as_stated() -> None:
    """Of a thousand policies as good as the best at most one is lost at each look; what is hopeless ends."""
    generator = np.random.default_rng(5)
    total, accuracy = 2500, 0.9
    right = np.arange(total) < accuracy * total
    looks = (250, 500, 1000, 2000)
    lost = [
        any(not may_reach(int(order[:seen].sum()), seen, total, accuracy) for seen in looks)
        for order in (generator.permutation(right) for _ in range(2000))
    ]
    assert sum(lost) < 2000 * len(looks) * 1e-3 + 8  # three standard deviations above the most there may be
    assert not may_reach(200, 250, total, accuracy)
    assert may_reach(1000, 1000, 1200, 1.0) and not may_reach(999, 1000, 1200, 1.0)
    assert may_reach(0, 1, total, 0.5)
