"""Slot packing under a composite plaintext modulus: one plan per prime factor, alike but for their modulus.

The paper's section 2 (BFV Batching, equations 3 to 6) takes p as a product of primes, so that p holds a network's
intermediate results where no single prime is to. Z_p is the product of the fields modulo the primes, so a layer is
evaluated once modulo each, and the results are put together by the Chinese remainder theorem
(`he.bfv.chinese_remainder`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from autoprivacy.he.packing.plan import Plan, Workload
from autoprivacy.he.packing.slot import SlotPlan
from autoprivacy.he.parameters.noise import LayerNoise
from autoprivacy.he.parameters.noise_bounds import NoiseBound
from autoprivacy.quantization.integer_network import LayerShape


@dataclass(frozen=True)
class CompositePlan:
    """How one layer is laid out in slots once for every factor of p; ciphertexts and operations are those of all.

    Attributes:
        components: the plan under each factor, ascending by factor, with one tiling.
    """

    components: tuple[SlotPlan, ...]

    @property
    def shape(self) -> LayerShape:
        """The layer."""
        return self.components[0].shape

    @property
    def degree(self) -> int:
        """n."""
        return self.components[0].degree

    @property
    def tiling(self) -> dict[str, int]:
        """What a policy file holds of it."""
        return self.components[0].tiling

    @cached_property
    def workload(self) -> Workload:
        """Ciphertexts and operations under all factors; an output depends on a ciphertext under every one."""
        first, *others = (plan.workload for plan in self.components)
        return sum(others, first)

    @property
    def galois_elements(self) -> tuple[int, ...]:
        """The automorphisms of every component: the same, with the same keys."""
        return self.components[0].galois_elements

    @property
    def groups(self) -> np.ndarray:
        """Outputs that decrypt wrongly together have one number: those of a ciphertext, under whichever factor."""
        return self.components[0].groups

    def noise(self, weight: np.ndarray) -> LayerNoise:
        """What the layer does to fresh noise, for the largest factor; an output depends on one of every factor.

        Noise grows with the factor and half the distance between plaintexts shrinks with it, so the largest factor
        decides but for the sparsest weight polynomials; there another may, and its norm is scaled to the largest's
        distance.
        """
        return self._worst([plan.noise(weight) for plan in self.components])

    def public_noise(self, norm_bound: float) -> LayerNoise:
        """The same for any weights within a bound."""
        return self._worst([plan.public_noise(norm_bound) for plan in self.components])

    def _worst(self, noises: Sequence[LayerNoise]) -> LayerNoise:
        """The noise that decides, of those under every factor."""
        moduli = [plan.plaintext_modulus for plan in self.components]
        worst = max(noise.norm * p for noise, p in zip(noises, moduli, strict=True)) / max(moduli)
        return replace(noises[-1], norm=worst, coefficients=self.workload.coefficients_per_output)

    def noise_bound(self, weight: np.ndarray) -> NoiseBound:
        """What the layer does to bounds of noise, for the largest factor: they grow with it."""
        return self.components[-1].noise_bound(weight)

    def public_noise_bound(self, norm_bound: float) -> NoiseBound:
        """The same for any weights within a bound."""
        return self.components[-1].public_noise_bound(norm_bound)


def composed(plan: SlotPlan, factors: Sequence[int]) -> Plan:
    """The plan with that tiling modulo the product of the factors: one under each; with one factor that alone."""
    plans = tuple(replace(plan, plaintext_modulus=factor) for factor in factors)
    return plans[0] if len(plans) == 1 else CompositePlan(plans)
