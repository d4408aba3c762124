"""The searches as the config describes them, on a small network under a made-up profile."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from support.made_up_profile import LINK, PROFILE
from support.search_support import RuleReward, small_network

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.parameter_set import Flooding
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.residues import Residues
from autoprivacy.search.configured_problems import noise_problem, paper_problem, tolerant_modulus
from autoprivacy.search.problem import SearchProblem
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.garbled_costs import circuit_seconds, garbling, with_garbling
from autoprivacy.selection.schemes import darl
from autoprivacy.timing import quartiles

RATES = {"garble": 1e-6, "evaluate": 2e-6, "project": 4e-6, "label": 8e-7, "transfer": 6e-6}
SELECTION = Selection(
    replace(PROFILE, garbling={name: quartiles([value]) for name, value in RATES.items()}), LINK, Flooding("none")
)
SMALL = small_network()
# clips of which there are circuits
NODES = tuple(
    replace(node, minimum=-128, maximum=127) if node.name == "clipped" else node for node in SMALL.architecture.nodes
)
NETWORK = IntegerNetwork(replace(SMALL.architecture, nodes=NODES), SMALL.layers, SMALL.output_scale)
RANGES = {name: (-200_000, 200_000) for name in NETWORK.layers}
PLAINTEXT = {"bits": None, "kind": "cheapest"}
SEARCH = {"budget": {"kind": "way", "value": 0.5}}
P = 1 << 19


def problem_of(p: int) -> SearchProblem:
    policy = with_garbling(darl(NETWORK, "small", p, SELECTION), NETWORK.architecture, SELECTION.profile, LINK)
    return noise_problem(NETWORK, policy, SELECTION, RuleReward((5, 5, 5)), SEARCH, p)


@pytest.mark.parametrize(("p", "most"), [(P, (6, 7)), (524309, (2, 2)), (786433, (6, 7))])
def test_circuits_ignore_as_many_bits_as_shift_and_modulus_admit(p: int, most: tuple[int, int]) -> None:
    table = circuit_seconds(NETWORK.architecture, p, SELECTION.profile, LINK)
    assert {name: len(seconds) - 1 for name, seconds in table.items()} == {"first.relu": most[0], "clipped": most[1]}
    for t in range(most[0] + 1):
        residues = replace(Residues.uniform(NETWORK.architecture, p), ignored_bits={"first.relu": t, "clipped": 0})
        cost = garbling(NETWORK.architecture, residues, SELECTION.profile, LINK)["first"]
        assert table["first.relu"][t] == cost["garbled_seconds"]


def test_a_power_of_two_saves_with_every_bit() -> None:
    table = circuit_seconds(NETWORK.architecture, P, SELECTION.profile, LINK)
    for seconds in table.values():
        assert all(fewer > more for fewer, more in itertools.pairwise(seconds))


@pytest.mark.parametrize("p", [P, 786433])
def test_the_latency_of_levels_is_the_policys_whole_latency(p: int) -> None:
    problem = problem_of(p)
    assert problem.dimensions == 2
    for levels in (problem.loosest, problem.strictest, problem.constrain(problem.strictest)):
        policy = with_garbling(problem.policy(levels), NETWORK.architecture, SELECTION.profile, LINK)
        assert problem.latency(levels) == pytest.approx(policy.predicted["total_seconds"], rel=1e-12)
        assert policy.plaintext_modulus == p
    assert [layer.target.ignored_share_bits for layer in problem.policy(problem.loosest).layers] == [6, 7, 0]
    exact = problem.policy(problem.strictest)
    assert not exact.approximate
    assert problem.policy([problem.strictest[0], 0, *problem.strictest[2:]]).approximate


def test_the_papers_search_limits_linear_layers_and_ignores_no_bits() -> None:
    policy = darl(NETWORK, "small", P, SELECTION)
    problem = paper_problem(NETWORK, policy, SELECTION, RuleReward((5, 5, 5)), SEARCH)
    assert problem.dimensions == 1 and problem.sizes == [11] * 3
    found = problem.policy(problem.loosest)
    assert problem.latency(problem.loosest) == found.predicted["latency_seconds"]
    assert all(layer.target.ignored_share_bits == 0 for layer in found.layers)


def test_the_modulus_is_chosen_with_ignored_bits_counted() -> None:
    chosen = tolerant_modulus(NETWORK, RANGES, SELECTION, PLAINTEXT)
    assert chosen == P
    prime = tolerant_modulus(NETWORK, RANGES, SELECTION, {"bits": None, "kind": "prime"})
    assert prime % 2 == 1 and prime < P
    cheapest = [problem_of(p).latency(problem_of(p).loosest) for p in (chosen, prime)]
    assert cheapest[0] < cheapest[1]


def test_a_modulus_that_serves_no_layer_is_refused_with_its_reason() -> None:
    with pytest.raises(UserError, match="does not hold"):
        tolerant_modulus(NETWORK, {"first": (-(1 << 31), 1 << 31)}, SELECTION, PLAINTEXT)
    with pytest.raises(UserError, match="profile again"):
        tolerant_modulus(NETWORK, RANGES, replace(SELECTION, profile=PROFILE), PLAINTEXT)
