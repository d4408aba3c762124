"""Policies in slot packing at small degrees."""

from __future__ import annotations

from dataclasses import replace

from autoprivacy.he.packing.slot import admissible_plans
from autoprivacy.he.parameters.parameter_set import ParameterSet
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.he.ring.ring import ntt_primes
from support.search_support import darl_policy, small_network

DEGREE = 1024
P = ntt_primes(1 << 17, DEGREE, 1)[0]


def slot_policy(z: float) -> Policy:
    """A slot policy of the small network; every layer's noise is the one that z says."""
    network = small_network()
    layers = []
    for layer in darl_policy(network).layers:
        plan = admissible_plans(network.architecture.layer(layer.name), DEGREE, P)[0]
        parameters = ParameterSet(P, DEGREE, ntt_primes(1 << 40, DEGREE, 1), insecure_for_test=True)
        layers.append(replace(layer, parameters=parameters, tiling=plan.tiling, predicted={"z": z}))
    return replace(darl_policy(network), packing="slot", layers=tuple(layers))
