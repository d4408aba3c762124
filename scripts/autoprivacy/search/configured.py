"""The search problem as the configuration describes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoprivacy.he.layer_selection import layer_policy
from autoprivacy.he.selection import Selection
from autoprivacy.policy import Policy
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.search.problem import Budget, Reward, SearchProblem
from autoprivacy.search.space import Space


def configured_problem(
    network: IntegerNetwork,
    darl: Policy,
    selection: Selection,
    reward: Reward,
    space: Space,
    search: Mapping[str, Any],
) -> SearchProblem:
    """The problem with the budget of the config's part `search`, and p as in `darl`."""
    p = darl.plaintext_modulus
    return SearchProblem(
        network,
        darl,
        lambda layer, target: layer_policy(layer, target, p, selection),
        reward,
        Budget(**{search["budget"]["kind"]: search["budget"]["value"]}),
        space,
    )
