"""Simulation of the decryption errors that a policy's deployed parameter sets cause in coefficient packing.

A layer's decryption noise is a Gaussian of tau accumulator LSBs (tau = sigma * p / q of the deployed set), so every
output value of the layer is off by that noise rounded to an integer. As in the paper (section 3.1, Reward) the
simulated errors fall into two halves: one to finetune with, the other to measure the accuracy with. The errors of a
layer are one counter-based random stream; its period is cut in two, so the halves share no draw.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import cache
from typing import Literal

import numpy as np
import torch
from scipy.special import erfc, ndtri
from torch import Tensor

from autoprivacy.errors import UserError
from autoprivacy.policy import Policy

Half = Literal["finetune", "evaluate"]
HALVES: tuple[Half, ...] = ("finetune", "evaluate")

# Above this rate a value per output is cheaper to draw than the gaps between errors and their sizes.
DENSE_RATE = 0.25


def error_rate(tau: float) -> float:
    """The probability that one coefficient decrypts wrongly, erfc(z / sqrt 2) with z = 1 / (2 tau)."""
    return float(erfc(1 / (2 * math.sqrt(2) * tau)))


def magnitude_tail(tau: float) -> np.ndarray:
    """P(|error| >= k | error) for k = 2, 3, ... while a double can tell it from 0, decreasing; float64."""
    rate = error_rate(tau)
    tail: list[float] = []
    while (above := float(erfc((len(tail) + 1.5) / (math.sqrt(2) * tau))) / rate) > 2.0**-53:
        tail.append(above)
    return np.array(tail)


class Perturbation:
    """Adds simulated decryption errors to accumulators: the `perturb` of the evaluator and of finetuning.

    The errors are a function of (seed, layer, half, block) and the number of draws before, whatever the tensor's
    memory layout.

    Args:
        taus: noise of every layer in accumulator LSBs, in network order; 0 for a layer without errors.
        half: which half of the simulated errors is read.
        seed: the config's seed; it reaches the simulation only.
        block: which of the half's 2^64 blocks is read; see `at`.
    """

    def __init__(self, taus: Mapping[str, float], half: Half, seed: int, block: int = 0) -> None:
        if half not in HALVES:
            raise ValueError(f"half '{half}': expected one of {HALVES}")
        wrong = {name: tau for name, tau in taus.items() if not 0 <= tau < math.inf}
        if wrong:
            raise UserError(f"decryption errors: tau {wrong}: expected 0 or more accumulator LSBs")
        self.taus = dict(taus)
        self.half: Half = half
        self.seed = seed
        counter = np.array([0, 0, block, HALVES.index(half) << 63], np.uint64)
        self._generators = {}
        for index, name in enumerate(taus):
            key = np.random.SeedSequence([seed, index]).generate_state(2, np.uint64)
            self._generators[name] = np.random.Generator(np.random.Philox(counter=counter, key=key))

    def at(self, block: int) -> Perturbation:
        """A fresh perturbation on another block of the same half; a block per step makes training resumable."""
        return Perturbation(self.taus, self.half, self.seed, block)

    @property
    def fingerprint(self) -> str:
        """What the errors depend on, for state files that must not be mixed up."""
        return hashlib.sha256(repr((sorted(self.taus.items()), self.half, self.seed)).encode()).hexdigest()

    def __call__(self, name: str, accumulator: Tensor) -> Tensor:
        """The accumulator [N, C, H, W] with errors added, itself unchanged; UserError for a layer without a tau."""
        if name not in self.taus:
            raise UserError(f"decryption errors: layer {name} is not in the policy, which has {list(self.taus)}")
        tau = self.taus[name]
        rate = error_rate(tau) if tau else 0.0
        if rate == 0.0:
            return accumulator
        generator = self._generators[name]
        images, channels, height, width = accumulator.shape
        shape = (images, height, width, channels)  # the order of the stream: that of channels-last memory
        if rate > DENSE_RATE:
            errors = torch.from_numpy(dense_errors(generator, tau, accumulator.numel())).view(shape)
            return accumulator + errors.permute(0, 3, 1, 2).to(accumulator.device, accumulator.dtype)
        positions = error_positions(generator, rate, accumulator.numel())
        values = torch.from_numpy(error_values(generator, tau, len(positions)))
        where = tuple(torch.from_numpy(axis).to(accumulator.device) for axis in np.unravel_index(positions, shape))
        perturbed = accumulator.clone()
        perturbed.permute(0, 2, 3, 1).index_put_(
            where, values.to(accumulator.device, accumulator.dtype), accumulate=True
        )
        return perturbed


@cache
def _normal_quantiles() -> np.ndarray:
    """The middle quantiles of 2^16 equal shares of the standard normal distribution."""
    return ndtri((np.arange(1 << 16) + 0.5) / (1 << 16))


def dense_errors(generator: np.random.Generator, tau: float, count: int) -> np.ndarray:
    """`count` draws of round(Gaussian * tau), float32.

    The Gaussian is one of 2^16 quantiles, a quarter of the time of a true one: its standard deviation is right to 2e-5,
    and it ends at 4.3 standard deviations.
    """
    words = generator.bit_generator.random_raw((count + 3) // 4)
    return np.rint(_normal_quantiles() * tau).astype(np.float32)[words.view(np.uint16)[:count]]


def error_positions(generator: np.random.Generator, rate: float, count: int) -> np.ndarray:
    """Which of `count` values are wrong, each independently with probability `rate`: sorted indices, int64.

    The gaps between such positions are geometric, so the work is proportional to the errors, not to the values.
    """
    expected = count * rate
    positions = np.empty(0, np.int64)
    last = -1
    while last < count:
        draws = int(expected + 6 * math.sqrt(expected)) + 16
        gaps = np.minimum(generator.standard_exponential(draws) / -math.log1p(-rate), count)
        found = last + np.cumsum(gaps.astype(np.int64) + 1)
        positions = np.concatenate([positions, found])
        last = int(found[-1])
    return positions[positions < count]


def error_values(generator: np.random.Generator, tau: float, count: int) -> np.ndarray:
    """`count` draws of round(Gaussian * tau) given that it is not zero, float64."""
    uniform = generator.uniform(-1.0, 1.0, count)
    tail = magnitude_tail(tau)[::-1]
    magnitude = 1 + len(tail) - np.searchsorted(tail, np.abs(uniform), side="right")
    return np.where(uniform < 0, -magnitude, magnitude).astype(np.float64)


def simulated_shares(half: Half, seed: int) -> torch.Generator:
    """What the evaluator draws the client's shares with, where a policy's activations ignore share bits.

    The shares' low bits decide how such an activation rounds (`truncated_activation`). Simulation only; the halves draw
    from different streams, and neither is one of a layer's errors.
    """
    key = np.random.SeedSequence([seed, HALVES.index(half)], spawn_key=(1,)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(key[0] >> np.uint64(1)))


def simulates(policy: Policy) -> bool:
    """Whether `perturbation` knows the errors of the policy's packing."""
    return policy.packing == "coefficient"


def perturbation(policy: Policy, half: Half, seed: int) -> Perturbation:
    """The errors of the sets that a policy deploys: tau is each layer's predicted["tau"], not its target's.

    Raises UserError for slot packing, whose errors are whole ciphertexts of garbage, and for a layer without tau.
    """
    if not simulates(policy):
        raise UserError(
            f"decryption errors of policy {policy.scheme} of {policy.network}: packing '{policy.packing}'; "
            f"only 'coefficient' can be simulated"
        )
    missing = [layer.name for layer in policy.layers if "tau" not in layer.predicted]
    if missing:
        raise UserError(
            f"decryption errors of policy {policy.scheme} of {policy.network}: no predicted tau for layers {missing}; "
            f"make the policy again with parameter selection"
        )
    return Perturbation({layer.name: layer.predicted["tau"] for layer in policy.layers}, half, seed)
