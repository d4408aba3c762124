"""Parameter selection for a layer: the cheapest secure parameter set and tiling that meet its target."""

from __future__ import annotations

import math

from autoprivacy.errors import UserError
from autoprivacy.he.packing import packing_named
from autoprivacy.he.packing.plan import Plan, Workload
from autoprivacy.he.packing.public_noise import layer_noise
from autoprivacy.he.parameters.commitment import coarse_bound
from autoprivacy.he.parameters.noise import LayerNoise, decryption_error_rate, deployed_noise, tau_of, z_of
from autoprivacy.he.parameters.parameter_set import ParameterSet, ReplyBits, Target
from autoprivacy.he.parameters.policy import LayerPolicy
from autoprivacy.he.parameters.security import security_bits
from autoprivacy.quantization.integer_network import LinearLayer
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.latency import layer_cost
from autoprivacy.selection.least_latency import Choice, least_latency


def select_layer(layer: LinearLayer, target: Target, p: int, selection: Selection) -> tuple[Choice[Plan], ReplyBits]:
    """The set, tiling and bits of replies of least predicted latency that meet a layer's target.

    Args:
        layer: the layer with its weights; what is chosen depends on the coarse bound of their norm alone.
        target: the error rate or noise that it tolerates.
        p: the plaintext modulus; in slot packing it may be a product of distinct primes that batch.
        selection: what all layers have in common.

    Raises:
        UserError: no secure set that the profile covers meets the target, or the packing cannot use p or the target.
    """
    _check_target(layer.shape.name, target, selection.packing)
    plans = (plan for degree in selection.degrees(p) for plan in selection.plans(layer.shape, degree, p))
    noises = ((plan, layer_noise(layer, plan, selection.flooding)) for plan in plans)
    found = least_latency(noises, p, target, selection)
    if found is None:
        raise UserError(nothing_meets(f"layer {layer.shape.name}", target, p, selection))
    return found


def _check_target(layer: str, target: Target, packing: str) -> None:
    if target.tau is not None and packing_named(packing).in_slots:
        raise UserError(
            f"layer {layer}: target tau {target.tau} in {packing} packing, whose errors spoil whole ciphertexts: one "
            "wrong coefficient changes every slot to any residue, so noise has no size there; give a decryption error "
            "rate, which is a ciphertext's, or take coefficient packing"
        )


def predict(
    layer: LinearLayer, target: Target, parameters: ParameterSet, plan: Plan, bits: ReplyBits, selection: Selection
) -> dict[str, float]:
    """`prediction` for a layer."""
    noise = layer_noise(layer, plan, selection.flooding)
    return prediction(noise, target, parameters, plan.workload, bits, selection)


def prediction(
    noise: LayerNoise,
    target: Target,
    parameters: ParameterSet,
    workload: Workload,
    bits: ReplyBits,
    selection: Selection,
) -> dict[str, float]:
    """What is predicted for a layer, or anything else that is evaluated, as deployed.

    Args:
        noise: what the evaluation does to fresh noise.
        target, parameters: what it is to meet, and under which set.
        workload: what it sends and does.
        bits: what its reply is sent in.
        selection: what all layers have in common.

    Returns:
        log2_noise (of the standard deviation, all parts), z, tau in accumulator LSBs where an output depends on one
        coefficient, decryption_error_rate of an output (in slot packing that of its ciphertext), security_bits, and
        what `layer_cost` lists.
    """
    deployed = deployed_noise(noise, parameters, selection.flooding, target, bits)
    total = deployed.total
    z = z_of(parameters.q, parameters.largest_factor, total)
    tau = tau_of(parameters.q, parameters.largest_factor, total)
    return {
        "log2_noise": math.log2(total),
        "z": z,
        **({"tau": tau} if noise.coefficients == 1 else {}),
        "decryption_error_rate": decryption_error_rate(z, noise.coefficients),
        "security_bits": security_bits(parameters.polynomial_degree, parameters.log2_q),
        **layer_cost(workload, parameters, bits, selection.profile, selection.link, deployed.flood),
    }


def layer_policy(layer: LinearLayer, target: Target, p: int, selection: Selection) -> LayerPolicy:
    """`select_layer`'s choice and what is predicted for it, as a policy holds them."""
    choice, bits = select_layer(layer, target, p, selection)
    predicted = predict(layer, target, choice.parameters, choice.plan, bits, selection)
    bound = coarse_bound(layer.weight_norm)
    return LayerPolicy(layer.shape.name, target, choice.parameters, bound, predicted, choice.plan.tiling, bits)


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
