"""What the simulation of errors predicts is what encrypted inferences do: accuracy and margins of a reduced network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from support.garbled_sessions import session
from support.made_up_profile import LINK, PROFILE
from support.search_support import images_of, small_network

from autoprivacy.data.dataset import Split
from autoprivacy.he.parameters.parameter_set import Flooding, Target
from autoprivacy.he.parameters.policy import EXACT_TARGET, Policy
from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.search.decryption_errors import perturbation, simulated_shares
from autoprivacy.search.finetuning import FinetuneSettings, finetune
from autoprivacy.search.tolerance import NORMAL_95
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.schemes import layerwise

P = 1 << 20
FAINTER = 58  # of the 80 by which a quadrant is brighter than the others
IMAGES, SEEDS = 300, 100  # of a run of encrypted inferences; of simulations of each image
RUNS = 3  # two of them are to lie within 95% intervals, which chance alone denies once in 140 times
SHIFTS = {"first": 6, "body.second": 7, "fc": 0}
NOISY = {"first": 2.0**10, "body.second": 2.0**11, "fc": 2.0**14}


def faint_images(count: int, seed: int) -> Split:
    """The small network's task with quadrants that hardly stand out: answers are close, so errors change them."""
    split = images_of(count, seed)
    images = split.images.copy()
    for image, label in zip(images, split.labels, strict=True):
        row, column = divmod(int(label), 2)
        image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] -= FAINTER
    return Split(images, split.labels)


def trained_network() -> IntegerNetwork:
    """The small network with clips that there are circuits for, trained on its task."""
    small = small_network()
    nodes = tuple(
        replace(node, minimum=-128, maximum=127) if node.name == "clipped" else node
        for node in small.architecture.nodes
    )
    network = IntegerNetwork(replace(small.architecture, nodes=nodes), small.layers, small.output_scale)
    return finetune(network, faint_images(600, seed=5), None, FinetuneSettings(6, 32, 5e-3, crop_padding=0), 1)


def policy_of(network: IntegerNetwork, noise: float | None, ignoring: bool) -> Policy:
    """A set per layer; `noise` in units of NOISY, None for exact decryption; with t = f or with none."""
    targets = {
        name: replace(
            EXACT_TARGET if noise is None else Target(tau=tau * noise), ignored_share_bits=SHIFTS[name] * ignoring
        )
        for name, tau in NOISY.items()
    }
    return layerwise(network, "small", P, targets, Selection(PROFILE, LINK, Flooding("statistical")))


@dataclass(frozen=True)
class Answers:
    """What one pass over the images gave: whether each is right, and by how much its label's output leads, [N]."""

    right: np.ndarray
    margins: np.ndarray

    @classmethod
    def of(cls, outputs: np.ndarray, labels: np.ndarray) -> Answers:
        rows = np.arange(len(labels))
        others = outputs.astype(np.float64)
        others[rows, labels] = -np.inf
        return cls(outputs.argmax(1) == labels, outputs[rows, labels] - others.max(1))


def encrypted(network: IntegerNetwork, policy: Policy, images: np.ndarray) -> np.ndarray:
    """The outputs of private inferences under fresh keys, [N, classes]."""
    with session(policy, network) as client:
        return np.array([client.infer(client.prepare(), image) for image in images])


def simulated(network: IntegerNetwork, policy: Policy, split: Split) -> list[Answers]:
    """The same images under simulated errors of as many seeds."""
    architecture = network.architecture
    images = torch.from_numpy(architecture.quantize_images(split.images))
    found = []
    for seed in range(SEEDS):
        evaluator = Evaluator(network, policy.residues(architecture), simulated_shares("evaluate", seed))
        errors = perturbation(policy, architecture, "evaluate", seed)
        found.append(Answers.of(evaluator.forward(images, errors).numpy(), split.labels))
    return found


def deviation(real: Answers, predicted: list[Answers], of: Callable[[Answers], np.ndarray]) -> float:
    """How many standard deviations the images' sum is off its prediction: every image is paired with itself."""
    draws = np.stack([of(one) for one in predicted]).astype(np.float64)
    off = of(real).sum() - draws.mean(0).sum()
    return float(off / np.sqrt(draws.var(0, ddof=1).sum() * (1 + 1 / len(draws))))


def deviations(network: IntegerNetwork, policy: Policy, runs: list[tuple[Split, Answers]]) -> np.ndarray:
    """Of accuracy and of margins from what a policy's simulation predicts, [runs, 2]."""
    found = []
    for split, real in runs:
        predicted = simulated(network, policy, split)
        found.append([deviation(real, predicted, lambda own: own.right)])
        found[-1].append(deviation(real, predicted, lambda own: own.margins))
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "ignoring"), [(1.0, False), (1.0, True), (None, True)])
def test_encrypted_inferences_are_as_accurate_as_predicted(noise: float | None, ignoring: bool) -> None:
    network = trained_network()
    policy = policy_of(network, noise, ignoring)
    runs, exact = [], []
    for run in range(RUNS):
        split = faint_images(IMAGES, seed=6 + run)
        images = network.architecture.quantize_images(split.images)
        runs.append((split, Answers.of(encrypted(network, policy, images), split.labels)))
        exact.append(Answers.of(Evaluator(network, P).forward(images).numpy(), split.labels))
    assert np.mean([real.margins != own.margins for (_, real), own in zip(runs, exact, strict=True)]) > 0.9
    found = deviations(network, policy, runs)
    assert ((np.abs(found) < NORMAL_95).sum(0) >= RUNS - 1).all(), found
    assert (np.abs(found.sum(0)) / np.sqrt(RUNS) < 3.5).all(), found
    if noise is not None:
        right = [np.mean([answers.right.mean() for answers in side]) for side in (exact, [real for _, real in runs])]
        assert right[0] - right[1] > 0.06  # the errors do harm, so half of them would be told apart
        half = deviations(network, policy_of(network, noise / 2, ignoring), runs)
        assert half[:, 0].sum() / np.sqrt(RUNS) < -3.5
