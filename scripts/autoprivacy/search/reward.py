"""Rewards: the accuracy of a policy by simulation of its decryption errors, after finetuning with them or without.

The images are a subset of the training split, drawn once; the test split takes no part in the search.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import hypergeom

from autoprivacy.data.dataset import Split
from autoprivacy.errors import UserError
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.quantization.evaluation import BATCH, Evaluator
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.search.decryption_errors import perturbation, simulated_shares
from autoprivacy.search.finetuning import FinetuneSettings, finetune

# A policy is given up on when one as good as the best would do as badly on the images so far with less than this
# probability: of a thousand policies that are no worse at most one is lost at each look.
GIVE_UP_RISK = 1e-3
FIRST_IMAGES = 5 * BATCH  # looked at before the first decision; their number doubles from look to look


# Of the exploration subset where nothing else is asked for. The paper takes 2 of CIFAR-10's classes and 10 of
# CIFAR-100's (section 3.1, Finetuning); 10,000 images are all that 2 classes of CIFAR-10 have.
CLASS_SHARE, FEWEST_CLASSES = 10, 2
EVALUATION_SHARE, MOST_EVALUATION_IMAGES, MOST_FINETUNE_IMAGES = 4, 2500, 7500


@dataclass(frozen=True)
class ExplorationSplits:
    """The images of the search: `finetune` to finetune with, `evaluate` to reward by; no image is in both."""

    finetune: Split
    evaluate: Split

    @property
    def together(self) -> Split:
        """All of them, those to reward by first: for rewards without finetuning, which may be measured on every one."""
        parts = (self.evaluate, self.finetune)
        return Split(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "labels")))


def exploration_splits(
    train: Split, categories: int | None, finetune_images: int | None, evaluation_images: int | None, seed: int
) -> ExplorationSplits:
    """Draw the exploration subset from the training split: random categories and disjoint random images of them.

    The test split takes no part in the search.

    Args:
        train: the training split.
        categories: how many; None takes a tenth of all, at least 2.
        finetune_images: how many; None takes three quarters of the categories' images, at most 7,500.
        evaluation_images: how many; None takes a quarter of them, at most 2,500.
        seed: of both draws.

    Raises:
        UserError: there are not that many categories or images.
    """
    labels = np.unique(train.labels)
    if categories is None:
        categories = max(len(labels) // CLASS_SHARE, FEWEST_CLASSES)
    if not 1 <= categories <= len(labels):
        raise UserError(f"search categories: got {categories}; expected 1 to the {len(labels)} of the data set")
    generator = np.random.default_rng(seed)
    usable = np.flatnonzero(np.isin(train.labels, generator.choice(labels, categories, replace=False)))
    quarter = len(usable) // EVALUATION_SHARE
    if evaluation_images is None:
        evaluation_images = min(quarter, MOST_EVALUATION_IMAGES)
    if finetune_images is None:
        finetune_images = min(len(usable) - quarter, MOST_FINETUNE_IMAGES)
    wanted = finetune_images + evaluation_images
    if finetune_images < 1 or evaluation_images < 1 or wanted > len(usable):
        raise UserError(
            f"search images: got {finetune_images} to finetune with and {evaluation_images} to evaluate on; expected "
            f"at least 1 of each and at most {len(usable)} together, which {categories} categories have"
        )
    chosen = generator.permutation(usable)[:wanted]
    return ExplorationSplits(train.take(chosen[:finetune_images]), train.take(chosen[finetune_images:]))


class FinetunedReward:
    """R = -error after finetuning with one half of the simulated errors, measured with the other half.

    The reward of a policy is a function of its deployed sets and the seed alone, so it can be cached and resumed.

    Args:
        network: the integer network.
        splits: the images to finetune with and to measure on.
        settings: of the finetuning; zero epochs measure the network as it is.
        seed: of errors, order and augmentation; the same for every policy, which compares them on equal terms.
    """

    def __init__(
        self, network: IntegerNetwork, splits: ExplorationSplits, settings: FinetuneSettings, seed: int
    ) -> None:
        _check_images(splits.evaluate)
        self.network, self.splits, self.settings, self.seed = network, splits, settings, seed

    def __call__(self, policy: Policy, to_beat: float | None = None) -> float:
        """The reward of a policy, from -1 to 0, whatever there is to beat."""
        architecture = self.network.architecture
        errors = perturbation(policy, architecture, "finetune", self.seed)
        network = finetune(self.network, self.splits.finetune, errors, self.settings, self.seed)
        evaluator = Evaluator(network, policy.residues(architecture), simulated_shares("evaluate", self.seed))
        errors = perturbation(policy, architecture, "evaluate", self.seed)
        return evaluator.accuracy(self.splits.evaluate, perturb=errors) / 100 - 1


class SimulatedReward:
    """R = -error of the network as it is, with simulated decryption errors.

    The images are looked at in growing subsets, 250, 500, 1,000 and so on. Where there is a reward to beat the rest is
    spared as soon as a policy of that reward would get so few images of the subset right once in a thousand times at
    most (the subset is a random sample without replacement); the reward is then the accuracy on the subset.

    Args:
        network: the integer network.
        images: to measure on, in random order.
        seed: of the errors; the same for every policy.
    """

    def __init__(self, network: IntegerNetwork, images: Split, seed: int) -> None:
        _check_images(images)
        self.network, self.images, self.seed = network, images, seed

    def __call__(self, policy: Policy, to_beat: float | None = None) -> float:
        """The reward of a policy, from -1 to 0."""
        architecture, total = self.network.architecture, len(self.images.labels)
        evaluator = Evaluator(self.network, policy.residues(architecture), simulated_shares("evaluate", self.seed))
        errors = perturbation(policy, architecture, "evaluate", self.seed)
        right = seen = 0
        while seen < total and (to_beat is None or seen == 0 or may_reach(right, seen, total, 1 + to_beat)):
            until = total if to_beat is None else min(max(2 * seen, FIRST_IMAGES), total)
            part = self.images.take(slice(seen, until))
            right += int((evaluator.predictions(part, errors) == part.labels).sum())
            seen = until
        return right / seen - 1


def may_reach(right: int, seen: int, total: int, accuracy: float) -> bool:
    """Whether `right` of `seen` images, drawn from `total`, leave an accuracy on all of them likely enough."""
    # a reward is an accuracy less 1, which rounding may have moved above the count it came from
    needed = math.ceil(accuracy * total - 1e-6)
    return bool(hypergeom.cdf(right, total, needed, seen) >= GIVE_UP_RISK)


def _check_images(images: Split) -> None:
    if not len(images.labels):
        raise UserError("search: no image to evaluate on; choose categories or image numbers that leave some")
