"""Parameter selection for a layer: the cheapest secure parameter set and tiling that meet its target."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from autoprivacy.errors import UserError
from autoprivacy.he.latency import Link, layer_cost, operation_counts
from autoprivacy.he.noise import decryption_error_rate, deployed_noise, tau_of, z_of
from autoprivacy.he.packing import packing_named
from autoprivacy.he.packing.plan import Plan
from autoprivacy.he.parameters import Flooding, ParameterSet, Target
from autoprivacy.he.primes import MAXIMUM_PRIME_BITS, PRIME_SIZES
from autoprivacy.he.profiling import OperationProfile
from autoprivacy.he.security import security_bits
from autoprivacy.he.smallest_set import secure_set
from autoprivacy.policy import LayerPolicy
from autoprivacy.quantization.integer_network import LayerShape, LinearLayer

COEFFICIENT = "coefficient"  # the packing where none is named

Choice = tuple[ParameterSet, Plan, dict[str, float]]


@dataclass(frozen=True)
class Selection:
    """What parameters are selected under, the same for all layers.

    Attributes:
        profile: what latency is predicted with; n, prime counts and sizes that it lacks are not considered.
        link: the network between the parties.
        flooding: how replies hide the weights.
        packing: the packing's name. In slot packing a target's error rate is a ciphertext's.
        maximum_prime_bits: no prime of q is larger; among the sizes that there are kernels for the latency decides.
    """

    profile: OperationProfile
    link: Link
    flooding: Flooding
    packing: str = COEFFICIENT
    maximum_prime_bits: int = MAXIMUM_PRIME_BITS

    @classmethod
    def from_config(cls, settings: Mapping[str, Any], profile: OperationProfile, packing: str) -> Selection:
        """What the config's `selection` says (config/schema.yaml)."""
        return cls(profile, Link(**settings["link"]), Flooding(settings["flooding"], settings["kappa"]), packing)

    def degrees(self, p: int) -> list[int]:
        """The polynomial degrees measured at which p can be used; UserError where there is none."""
        return packing_named(self.packing).degrees(self.profile.degrees, p)

    @property
    def prime_sizes(self) -> tuple[int, ...]:
        """Bounds on the bits of primes that are worth trying: the sizes of the kernels as far as they are allowed."""
        return tuple(sorted({min(size, self.maximum_prime_bits) for size in PRIME_SIZES}))

    def plans(self, shape: LayerShape, degree: int, p: int) -> tuple[Plan, ...]:
        """The tilings of a layer worth considering."""
        return _plans(self.packing, shape, degree, p)

    def covers(self, plan: Plan, parameters: ParameterSet) -> bool:
        """Whether the profile has all operations of a plan at a set."""
        needed = [operation for operation, count in operation_counts(plan).items() if count]
        return self.profile.covers(parameters, needed)

    def latency(self, plan: Plan, parameters: ParameterSet) -> float:
        """The predicted latency of a layer in seconds."""
        return layer_cost(plan, parameters, self.profile, self.link)["latency_seconds"]

    def cheapest_plan(self, plans: Iterable[Plan], parameters: ParameterSet) -> Plan:
        """The tiling of least predicted latency under a set."""
        return min(plans, key=lambda plan: self.latency(plan, parameters))


@cache
def _plans(packing: str, shape: LayerShape, degree: int, p: int) -> tuple[Plan, ...]:
    return tuple(packing_named(packing).plans(shape, degree, p))


def select_layer(layer: LinearLayer, target: Target, p: int, selection: Selection) -> Choice:
    """The set and tiling of least predicted latency that meet a layer's target, and what is predicted for them.

    Args:
        layer: the layer with its weights, whose 2-norm the noise grows by.
        target: the error rate or noise that it tolerates.
        p: the plaintext modulus.
        selection: what all layers have in common.

    Returns:
        The set, the packing plan, and the numbers that `predict` lists.

    Raises:
        UserError: no secure set that the profile covers meets the target, or the packing cannot use p or the target.
    """
    _check_target(layer.shape.name, target, selection.packing)
    choices = [
        (parameters, plan)
        for degree in selection.degrees(p)
        for plan in selection.plans(layer.shape, degree, p)
        for size in selection.prime_sizes
        if (parameters := secure_set(plan.noise(layer.weight), degree, target, p, selection.flooding, size))
        and selection.covers(plan, parameters)
    ]
    if not choices:
        raise UserError(nothing_meets(f"layer {layer.shape.name}", target, p, selection))
    parameters, plan = min(choices, key=lambda choice: selection.latency(choice[1], choice[0]))
    return parameters, plan, predict(layer, target, parameters, plan, selection)


def _check_target(layer: str, target: Target, packing: str) -> None:
    if target.tau is not None and packing_named(packing).in_slots:
        raise UserError(
            f"layer {layer}: target tau {target.tau} in {packing} packing, whose errors spoil whole ciphertexts: one "
            "wrong coefficient changes every slot to any residue, so noise has no size there; give a decryption error "
            "rate, which is a ciphertext's, or take coefficient packing"
        )


def predict(
    layer: LinearLayer, target: Target, parameters: ParameterSet, plan: Plan, selection: Selection
) -> dict[str, float]:
    """What is predicted for a layer as deployed.

    Returns:
        log2_noise (of the standard deviation, all parts), z, tau in accumulator LSBs where an output hangs on one
        coefficient, decryption_error_rate of an output (in slot packing that of its ciphertext), security_bits, and
        what `layer_cost` lists.
    """
    noise = plan.noise(layer.weight)
    total = deployed_noise(noise, parameters, selection.flooding, target).total
    z = z_of(parameters.q, parameters.plaintext_modulus, total)
    tau = tau_of(parameters.q, parameters.plaintext_modulus, total)
    return {
        "log2_noise": math.log2(total),
        "z": z,
        **({"tau": tau} if noise.coefficients == 1 else {}),
        "decryption_error_rate": decryption_error_rate(z, noise.coefficients),
        "security_bits": security_bits(parameters.polynomial_degree, parameters.log2_q),
        **layer_cost(plan, parameters, selection.profile, selection.link),
    }


def layer_policy(layer: LinearLayer, target: Target, p: int, selection: Selection) -> LayerPolicy:
    """`select_layer`'s choice as a policy holds it."""
    parameters, plan, predicted = select_layer(layer, target, p, selection)
    return LayerPolicy(layer.shape.name, target, parameters, predicted, plan.tiling)


def nothing_meets(what: str, target: Target, p: int, selection: Selection) -> str:
    """The message where no admissible set serves."""
    if target.decryption_error_rate is not None:
        wish = f"a decryption error rate of 2^{math.log2(target.decryption_error_rate):g}"
    else:
        wish = f"tau {target.tau}"
    return (
        f"{what}: no secure set with p = {p} gives {wish} under flooding {selection.flooding.kind} in "
        f"{selection.packing} packing among the profile's {sorted(selection.profile.table)} (n, primes, bits of a "
        "prime); profile larger n or more primes, or flood less"
    )
