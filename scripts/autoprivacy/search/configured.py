"""The search problem as the configuration describes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoprivacy.he.latency import Link
from autoprivacy.he.parameters import Flooding
from autoprivacy.he.profiling import OperationProfile
from autoprivacy.he.selection import layer_policy
from autoprivacy.policy import Policy
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.search.problem import Budget, Reward, SearchProblem
from autoprivacy.search.space import Space


def configured_problem(
    network: IntegerNetwork,
    darl: Policy,
    profile: OperationProfile,
    reward: Reward,
    space: Space,
    search: Mapping[str, Any],
    selection: Mapping[str, Any],
) -> SearchProblem:
    """The problem with selection and budget as in the config's parts `search` and `selection`, p as in `darl`."""
    flooding, link = Flooding(selection["flooding"], selection["kappa"]), Link(**selection["link"])
    return SearchProblem(
        network,
        darl,
        lambda layer, target: layer_policy(layer, target, darl.plaintext_modulus, flooding, profile, link),
        reward,
        Budget(**{search["budget"]["kind"]: search["budget"]["value"]}),
        space,
    )
