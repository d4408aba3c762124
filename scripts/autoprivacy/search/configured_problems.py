"""The search problems as the configuration describes them: the paper's, and that of tolerant."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.policy import EXACT_TARGET, Policy
from autoprivacy.quantization.integer_network import IntegerNetwork, Interval
from autoprivacy.search.problem import Budget, Reward, SearchProblem, Select, latency_of
from autoprivacy.search.space import ErrorRates, NoiseLevels
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.garbled_costs import circuit_seconds
from autoprivacy.selection.layer_selection import layer_policy
from autoprivacy.selection.plaintext_modulus import PlaintextRule


def paper_problem(
    network: IntegerNetwork, darl: Policy, selection: Selection, reward: Reward, search: Mapping[str, Any]
) -> SearchProblem:
    """Error rates per layer under `darl`'s p; the budget of the config's part `search` is the linear layers'."""
    select = _select(darl.plaintext_modulus, selection)
    return SearchProblem(network, darl, select, reward, _budget(search), ErrorRates())


def noise_problem(
    network: IntegerNetwork,
    darl: Policy,
    selection: Selection,
    reward: Reward,
    search: Mapping[str, Any],
    p: int,
) -> SearchProblem:
    """Noise and ignored share bits per layer under a p of its own; the budget is that of linear layers and circuits."""
    circuits = circuit_seconds(network.architecture, p, selection.profile, selection.link)
    return SearchProblem(network, darl, _select(p, selection), reward, _budget(search), NoiseLevels(), circuits)


def _select(p: int, selection: Selection) -> Select:
    return lambda layer, target: layer_policy(layer, target, p, selection)


def _budget(search: Mapping[str, Any]) -> Budget:
    return Budget(**{search["budget"]["kind"]: search["budget"]["value"]})


def tolerant_modulus(
    network: IntegerNetwork, ranges: Mapping[str, Interval], selection: Selection, plaintext: Mapping[str, Any]
) -> int:
    """Of the moduli that hold accumulators of these ranges that of least predicted latency where every circuit ignores
    as many share bits as it can.

    Linear layers count with an error rate of 2^-40: what errors they tolerate depends little on p. `plaintext` is the
    part of that name of the config's selection.

    Raises:
        UserError: none of them serves all layers; the first one's reason.
    """
    seconds: dict[int, float] = {}
    refusals: list[UserError] = []
    for p in PlaintextRule(**plaintext).candidates(ranges, selection.packing, selection.profile.degrees):
        try:
            seconds[p] = _tolerant_seconds(network, p, selection)
            logging.info("p = %d: %.3f s predicted with ignored share bits", p, seconds[p])
        except UserError as error:  # no matter where another p serves
            logging.info("%s", error)
            refusals.append(error)
    if not seconds:
        raise refusals[0]
    return min(seconds, key=lambda p: seconds[p])


def _tolerant_seconds(network: IntegerNetwork, p: int, selection: Selection) -> float:
    circuits = circuit_seconds(network.architecture, p, selection.profile, selection.link)
    linear = (latency_of(layer_policy(layer, EXACT_TARGET, p, selection)) for layer in network.layers.values())
    return sum(linear) + sum(min(seconds) for seconds in circuits.values())
