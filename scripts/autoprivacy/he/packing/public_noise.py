"""What selection, servers and clients count on of a layer's noise: what a public bound of its weights' norm admits.

Noise, flood, q and the bits of replies follow from the bound and the packing alone, so that they are the same for all
weights within it. Replies that are not flooded hide nothing: there the weights themselves are counted with.
"""

from __future__ import annotations

from autoprivacy.he.packing.plan import Plan
from autoprivacy.he.parameters.commitment import coarse_bound
from autoprivacy.he.parameters.noise import LayerNoise
from autoprivacy.he.parameters.noise_bounds import NoiseBound
from autoprivacy.he.parameters.parameter_set import Flooding
from autoprivacy.quantization.integer_network import LinearLayer


def layer_noise(layer: LinearLayer, plan: Plan, flooding: Flooding, norm_bound: float | None = None) -> LayerNoise:
    """What an evaluation of a layer does to fresh noise, as far as its replies depend on it.

    Args:
        layer: with its weights, whose norm the bound holds for.
        plan: how it is packed.
        flooding: how replies hide the weights; with none the weights count.
        norm_bound: the policy's for this layer; None: the coarse bound of its weights.
    """
    if flooding.kind == "none":
        return plan.noise(layer.weight)
    return plan.public_noise(coarse_bound(layer.weight_norm) if norm_bound is None else norm_bound)


def layer_noise_bound(layer: LinearLayer, plan: Plan, flooding: Flooding) -> NoiseBound:
    """The same of worst-case bounds of noise, under the coarse bound of its weights."""
    if flooding.kind == "none":
        return plan.noise_bound(layer.weight)
    return plan.public_noise_bound(coarse_bound(layer.weight_norm))
