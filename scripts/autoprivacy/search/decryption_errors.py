"""Simulation of the decryption errors that a policy's deployed parameter sets cause, as they occur in its packing.

The noise of every coefficient of a reply is a Gaussian of tau plaintext units, tau = sigma * p / q of the deployed
set, so the coefficient is off by that noise rounded to an integer. In coefficient packing that is one output; in slot
packing a single wrong coefficient changes all outputs of its ciphertext. As in the paper (section 3.1, Reward) the
simulated errors fall into two halves: one to finetune with, the other to measure the accuracy with. They are not
recorded in files: the errors of a layer are one counter-based random stream, and its period is cut in two, so that the
halves share no draw and any error can be drawn again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.chinese_remainder import combine
from autoprivacy.he.packing import packing_named
from autoprivacy.he.packing.plan import EvaluationPlan, Plan
from autoprivacy.he.parameters.policy import LayerPolicy, Policy
from autoprivacy.quantization.integer_network import Architecture, Node, rounding_constant, sign_threshold, to_signed
from autoprivacy.quantization.residues import low_share_bits
from autoprivacy.search.error_draws import DENSE_RATE, dense_errors, error_rate, wrong_values

Half = Literal["finetune", "evaluate"]
HALVES: tuple[Half, ...] = ("finetune", "evaluate")


class LayerErrors(Protocol):
    """The decryption errors of one layer; its repr distinguishes it from others."""

    def add(self, generator: np.random.Generator, accumulator: Tensor) -> Tensor:
        """The accumulator [N, C, H, W], floats that hold integers, with errors added; itself unchanged."""


@dataclass(frozen=True)
class CoefficientErrors:
    """Every output is off by round(Gaussian * tau), independently: coefficient packing.

    Attributes:
        tau: noise in accumulator LSBs; 0 for none. UserError unless it is finite and 0 or more.
    """

    tau: float

    def __post_init__(self) -> None:
        _check_tau(self.tau)

    def add(self, generator: np.random.Generator, accumulator: Tensor) -> Tensor:
        """See LayerErrors."""
        rate = error_rate(self.tau)
        if rate == 0.0:
            return accumulator
        images, channels, height, width = accumulator.shape
        shape = (images, height, width, channels)  # the order of the stream: that of channels-last memory
        if rate > DENSE_RATE:
            errors = torch.from_numpy(dense_errors(generator, self.tau, accumulator.numel())).view(shape)
            return errors.permute(0, 3, 1, 2).to(accumulator.device, accumulator.dtype).add_(accumulator)
        positions, values = wrong_values(generator, self.tau, accumulator.numel())
        where = torch.from_numpy(positions).to(accumulator.device)
        perturbed = accumulator.clone(memory_format=torch.channels_last)
        flat = perturbed.permute(0, 2, 3, 1).view(-1)
        flat[where] += torch.from_numpy(values).to(accumulator.device, accumulator.dtype)  # no position comes twice
        return perturbed


@dataclass(frozen=True)
class PackedErrors:
    """Every coefficient of a reply is off by round(Gaussian * tau), and outputs follow from coefficients by the plan.

    In slot packing the outputs of a ciphertext are off by the transform of its coefficients' errors: most ciphertexts
    have none, one with an error is garbage in all its outputs. Outputs that are off become signed residues modulo p.

    Attributes:
        tau: noise of a coefficient in plaintext units, those of the largest factor of p; UserError unless it is finite
            and 0 or more.
        plan: how the layer is packed.
        plaintext_modulus: p.
        plaintext_factors: of a composite p, ascending; else none.
    """

    tau: float
    plan: Plan
    plaintext_modulus: int
    plaintext_factors: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_tau(self.tau)

    def add(self, generator: np.random.Generator, accumulator: Tensor) -> Tensor:
        """See LayerErrors."""
        if tuple(accumulator.shape[1:]) != self.plan.shape.output_shape:
            raise ValueError(f"accumulators {tuple(accumulator.shape)}; expected [N, *{self.plan.shape.output_shape}]")
        wrong = [self._wrong(generator, len(accumulator), part, factor) for part, factor in self._parts()]
        perturbed = accumulator
        for image in sorted(set().union(*wrong)):
            if perturbed is accumulator:
                perturbed = accumulator.clone()
            errors = torch.from_numpy(self._outputs([own.get(image) for own in wrong]))
            perturbed[image] = self._added(accumulator[image], errors.to(accumulator.device))
        return perturbed

    def _parts(self) -> Iterator[tuple[EvaluationPlan, int]]:
        """The plans that evaluate the layer, each with its factor of p, or p itself."""
        return zip(self.plan.components, self.plaintext_factors or (self.plaintext_modulus,), strict=True)

    def _wrong(
        self, generator: np.random.Generator, images: int, part: EvaluationPlan, factor: int
    ) -> dict[int, np.ndarray]:
        """The polynomials of one part's errors modulo its factor, uint64 [ciphertexts, n], of images that have any."""
        shape = (part.output_ciphertexts, part.degree)
        coefficients, tau = math.prod(shape), self.tau * factor / max(self.plaintext_factors, default=factor)
        positions, values = wrong_values(generator, tau, images * coefficients)
        bounds = np.searchsorted(positions, np.arange(images + 1) * coefficients)
        wrong = {}
        for image in np.flatnonzero(np.diff(bounds)).tolist():
            own, polynomials = slice(bounds[image], bounds[image + 1]), np.zeros(shape, np.uint64)
            residues = (values[own].astype(np.int64) % factor).astype(np.uint64)
            polynomials.reshape(-1)[positions[own] - image * coefficients] = residues
            wrong[image] = polynomials
        return wrong

    def _outputs(self, polynomials: list[np.ndarray | None]) -> np.ndarray:
        """What one image's errors, part by part, do to its outputs: signed modulo p, float64 [C, H, W]."""
        right = np.zeros(self.plan.shape.output_shape, np.uint64)
        outputs = [
            right if errors is None else part.decode_output(errors)
            for errors, (part, _) in zip(polynomials, self._parts(), strict=True)
        ]
        together = combine(outputs, [factor for _, factor in self._parts()])
        return to_signed(together, self.plaintext_modulus).astype(np.float64)

    def _added(self, accumulator: Tensor, errors: Tensor) -> Tensor:
        lowest = sign_threshold(self.plaintext_modulus) - self.plaintext_modulus
        sums = accumulator.double() + errors
        residues = torch.remainder(sums - lowest, self.plaintext_modulus) + lowest
        return torch.where(errors == 0, accumulator, residues.to(accumulator.dtype))


def _check_tau(tau: float) -> None:
    if not 0 <= tau < math.inf:
        raise UserError(f"decryption errors: tau {tau}: expected 0 or more accumulator LSBs")


class Perturbation:
    """Adds simulated decryption errors to accumulators: the `perturb` of the evaluator and of finetuning.

    For finetuning it also draws how activations round that ignore share bits; the evaluator is given shares instead.

    The errors are a function of (seed, layer, half, block) and the number of draws before, whatever the tensor's
    memory layout.

    Args:
        layers: the errors of every layer, in network order.
        half: which half of the simulated errors is read.
        seed: the config's seed; it reaches the simulation only.
        block: which of the half's 2^64 blocks is read; see `at`.
        ignored_bits: by activation the share bits that it ignores; none where it is not named.
    """

    def __init__(
        self,
        layers: Mapping[str, LayerErrors],
        half: Half,
        seed: int,
        block: int = 0,
        ignored_bits: Mapping[str, int] | None = None,
    ) -> None:
        if half not in HALVES:
            raise ValueError(f"half '{half}': expected one of {HALVES}")
        self.layers = dict(layers)
        self.half: Half = half
        self.seed = seed
        self.ignored_bits = dict(ignored_bits or {})
        self._shares = simulated_shares(half, seed, block)
        counter = np.array([0, 0, block, HALVES.index(half) << 63], np.uint64)
        self._generators = {}
        for index, name in enumerate(layers):
            key = np.random.SeedSequence([seed, index]).generate_state(2, np.uint64)
            self._generators[name] = np.random.Generator(np.random.Philox(counter=counter, key=key))

    def at(self, block: int) -> Perturbation:
        """A fresh perturbation on another block of the same half; a block per step makes training resumable."""
        return Perturbation(self.layers, self.half, self.seed, block, self.ignored_bits)

    def __call__(self, name: str, accumulator: Tensor) -> Tensor:
        """The accumulator [N, C, H, W] with errors added, itself unchanged; UserError for an unknown layer."""
        if name not in self.layers:
            raise UserError(f"decryption errors: layer {name} is not in the policy, which has {list(self.layers)}")
        return self.layers[name].add(self._generators[name], accumulator)

    def rounding(self, node: Node, accumulator: Tensor) -> Tensor | int:
        """What an activation adds to what it reads, [N, C, H, W], before it shifts, as its circuit modulo 2^k does.

        The constant of its rounding less the lost low bits of fresh shares. Modulo a prime a circuit loses 1 more with
        the probability of the value's residue over p, which is left out.
        """
        ignored = self.ignored_bits.get(node.name, 0)
        constant = rounding_constant(node.shift, ignored)
        if not ignored:
            return constant
        images, channels, height, width = accumulator.shape
        lost = torch.from_numpy(low_share_bits(self._shares, ignored, (images, height, width, channels)))
        return (constant - lost.permute(0, 3, 1, 2).int()).to(accumulator.device)


def layer_errors(policy: Policy, layer: LayerPolicy, architecture: Architecture) -> LayerErrors:
    """The errors of the set that a policy deploys for a layer: by its predicted noise, not by its target.

    Raises:
        UserError: the policy does not predict the layer's noise, or its tiling does not fit.
    """
    packing, parameters = packing_named(policy.packing), layer.parameters
    key = "z" if packing.in_slots else "tau"
    if key not in layer.predicted:
        raise UserError(
            f"decryption errors of policy {policy.scheme} of {policy.network}: no predicted {key} for layer "
            f"{layer.name}; make the policy again with parameter selection"
        )
    if not packing.in_slots:
        return CoefficientErrors(layer.predicted[key])
    p, shape = parameters.plaintext_modulus, architecture.layer(layer.name)
    plan = packing.from_tiling(shape, parameters.polynomial_degree, p, layer.tiling)
    return PackedErrors(1 / (2 * layer.predicted[key]), plan, p, parameters.plaintext_factors)


def perturbation(policy: Policy, architecture: Architecture, half: Half, seed: int) -> Perturbation:
    """The errors of all sets that a policy deploys (see `layer_errors`), and the share bits that it ignores."""
    policy.check_layers([shape.name for shape in architecture.layers])
    layers = {layer.name: layer_errors(policy, layer, architecture) for layer in policy.layers}
    return Perturbation(layers, half, seed, ignored_bits=policy.residues(architecture).ignored_bits)


def simulated_shares(half: Half, seed: int, block: int = 0) -> np.random.Generator:
    """What the client's shares are drawn with, where a policy's activations ignore share bits.

    The shares' low bits decide how such an activation rounds (`truncated_activation`). Simulation only; halves and
    blocks draw from different streams, and none is one of a layer's errors.
    """
    key = np.random.SeedSequence([seed, HALVES.index(half), block], spawn_key=(1,))
    return np.random.Generator(np.random.SFC64(key))  # of numpy's the fastest: it draws for every value of the network
