"""The search environment: states, actions, the latency budget and its constraint, rewards."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from support.search_support import (
    RuleReward,
    darl_policy,
    exponent_of,
    exponents_of,
    layers_of,
    levels_of_exponents,
    parameters_of,
    rule_environment,
    rule_problem,
    select_by_rule,
    small_network,
)

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.parameter_set import Target
from autoprivacy.he.parameters.policy import LayerPolicy, Policy
from autoprivacy.quantization.integer_network import LinearLayer
from autoprivacy.search.environment import LayerwiseEnvironment
from autoprivacy.search.problem import Budget, SearchProblem
from autoprivacy.search.space import ErrorRates, action_of, level_of

LAYERS = 3


def play(environment: LayerwiseEnvironment, actions: list[float]) -> tuple[float, dict]:
    environment.reset()
    for action in actions:
        _, reward, finished, truncated, info = environment.step(np.array([action], np.float32))
        assert not truncated
    assert finished
    return reward, info


@pytest.mark.parametrize(
    ("action", "exponent"),
    [(0.0, 5), (0.049, 5), (0.051, 6), (0.26, 8), (0.5, 10), (0.949, 14), (0.951, 15), (1.0, 15)],
)
def test_actions_map_to_error_rates_as_in_the_paper(action: float, exponent: int) -> None:
    targets = ErrorRates().targets(shift=9)
    assert targets[level_of(action, len(targets))] == Target(decryption_error_rate=2.0**-exponent)
    problem = rule_problem(budget=Budget(way=1.0))
    chosen = problem.policy([level_of(action, size) for size in problem.sizes])
    assert [exponent_of(layer.target) for layer in chosen.layers] == [exponent] * LAYERS


def test_every_error_rate_has_an_action_that_stands_for_it() -> None:
    targets = ErrorRates().targets(0)
    assert [exponent_of(target) for target in targets] == list(range(5, 16))
    assert [level_of(action_of(level, 11), 11) for level in range(11)] == list(range(11))
    assert (action_of(0, 11), action_of(10, 11), action_of(0, 1)) == (0.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="expected 0 to 1"):
        level_of(1.01, 11)
    with pytest.raises(UserError, match="expected 0 < D_l < D_r"):
        ErrorRates(7, 7)


@pytest.mark.filterwarnings("ignore::UserWarning:gymnasium")
def test_gymnasium_accepts_the_environment() -> None:
    check_env(rule_environment(), skip_render_check=True)


def test_states_are_the_papers_features_scaled_to_the_unit_interval() -> None:
    environment = rule_environment()
    observation, _ = environment.reset(seed=1)
    rows = [observation]
    for action in (0.3, 0.7, 0.9):
        rows.append(environment.step(np.array([action], np.float32))[0])
    table = np.stack(rows)
    assert table.shape == (LAYERS + 1, 11) and table.dtype == np.float32
    assert table.min() >= 0 and table.max() <= 1
    assert table[:3, 0].tolist() == [0.0, 0.5, 1.0]
    # channels 3, 6, 24 in and 6, 6, 4 out; 8, 8, 1 wide and high; kernels 3, 3, 1 and strides 1, 1, 0
    assert table[:3, 1] == pytest.approx([0, 3 / 21, 1])
    assert table[:3, 2].tolist() == [1, 1, 0]
    assert all(table[:3, k].tolist() == [1, 1, 0] for k in (3, 4, 5, 6))
    assert not table[:, 7:10].any()  # darl has one set: a feature that is the same everywhere is 0
    assert table[:, 10] == pytest.approx([0, 0.3, 0.7, 0.9])


def test_parameters_that_differ_between_layers_are_scaled_by_their_logarithms() -> None:
    network = small_network()
    darl = darl_policy(network)
    layers = (replace(darl.layers[0], parameters=parameters_of(1024)), *darl.layers[1:])
    problem = SearchProblem(network, replace(darl, layers=layers), select_by_rule, RuleReward((5, 5, 5)))
    states = np.stack([LayerwiseEnvironment(problem).observation(i, (0.0,)) for i in range(LAYERS)])
    assert not states[:, 7].any()  # p
    assert states[:, 8].tolist() == states[:, 9].tolist() == [0, 1, 1]  # q, n


def test_only_the_last_step_is_rewarded_and_ends_the_episode() -> None:
    environment = rule_environment((5, 10, 15), Budget(way=1.0))
    environment.reset()
    for action in (0.0, 0.5):
        _, reward, finished, _, info = environment.step(np.array([action], np.float32))
        assert (reward, finished, info) == (0.0, False, {})
    _, reward, finished, _, info = environment.step(np.array([1.0], np.float32))
    assert (reward, finished) == (0.0, True)
    expected = {"levels": [0, 5, 10], "actions": [(0.0,), (0.5,), (1.0,)], "latency_seconds": pytest.approx(2.3)}
    assert info == expected
    with pytest.raises(RuntimeError, match="reset first"):
        environment.step(np.array([1.0], np.float32))


def test_transitions_carry_the_final_reward_and_the_actions_used() -> None:
    environment = rule_environment()
    transitions = environment.transitions([(0.2,), (0.4,), (0.6,)], -0.25)
    assert [t.action for t in transitions] == [(0.2,), (0.4,), (0.6,)]
    assert [t.reward for t in transitions] == [-0.25] * 3
    assert [t.last for t in transitions] == [False, False, True]
    assert [float(t.observation[-1]) for t in transitions] == pytest.approx([0.0, 0.2, 0.4])
    for now, following in itertools.pairwise(transitions):
        assert np.array_equal(now.next_observation, following.observation)


def test_default_budget_binds_and_the_constraint_meets_it_layer_by_layer() -> None:
    # by the rule 1.5 s (2^-5 in every layer) to 3.0 s (2^-15), so 2.25 s by default
    environment = rule_environment((15, 15, 15))
    assert environment.problem.budget_seconds == pytest.approx(2.25)
    reward, info = play(environment, [1.0, 1.0, 1.0])
    # the next cheaper set of 2^-15 is that of 2^-13: rounds to (13, 13, 13), (11, 11, 11), then two more layers
    assert exponents_of(info["levels"]) == [9, 9, 11]
    assert info["actions"] == [(0.4,), (0.4,), (0.6,)]
    assert info["latency_seconds"] == pytest.approx(2.2)
    assert reward == pytest.approx(-(3 + 3 + 2) / 15)


def test_the_constraint_leaves_alone_what_meets_the_budget() -> None:
    _, info = play(rule_environment(), [0.43, 0.02, 0.31])
    assert exponents_of(info["levels"]) == [9, 5, 8]
    assert [action for (action,) in info["actions"]] == pytest.approx([0.43, 0.02, 0.31])


def test_every_policy_meets_every_budget_with_selected_sets_only() -> None:
    generator = np.random.default_rng(1)
    for way in (0.0, 0.1, 0.5, 0.93, 1.0):
        problem = rule_problem(budget=Budget(way=way))
        for _ in range(20):
            proposed = [int(level) for level in generator.integers(0, 11, LAYERS)]
            used = problem.constrain(proposed)
            assert problem.latency(used) <= problem.budget_seconds * (1 + 1e-9) and problem.admits(used)
            assert all(after <= before for before, after in zip(proposed, used, strict=True))
            for layer, exponent in zip(problem.policy(used).layers, exponents_of(used), strict=True):
                assert layer == select_by_rule(problem.network.layers[layer.name], Target(2.0**-exponent))


def test_budgets_in_seconds_and_in_shares_of_darl() -> None:
    assert rule_problem(budget=Budget(seconds=1.9)).budget_seconds == 1.9
    assert rule_problem(budget=Budget(share_of_darl=0.6)).budget_seconds == pytest.approx(1.8)
    assert rule_problem(budget=Budget(seconds=1.5)).constrain([10] * 3) == [0, 0, 0]


def test_a_budget_that_cannot_be_met_is_refused_with_the_smallest_latency() -> None:
    for budget in (Budget(seconds=1.4), Budget(share_of_darl=0.4)):
        with pytest.raises(UserError, match=r"cannot be met; the cheapest admissible policy takes 1\.5 s"):
            rule_environment(budget=budget)
    with pytest.raises(UserError, match="not several"):
        Budget(seconds=1.0, way=0.5)
    with pytest.raises(UserError, match="way 1.5"):
        Budget(way=1.5)
    for seconds in (0.0, -1.0, math.nan):
        with pytest.raises(UserError, match="positive"):
            Budget(seconds=seconds)


def test_a_set_that_is_cheaper_at_a_smaller_error_rate_serves_the_larger_too() -> None:
    def select(layer: LinearLayer, target: Target) -> LayerPolicy:
        chosen = select_by_rule(layer, target)
        if exponent_of(target) < 10:
            return replace(chosen, predicted={"tau": 0.2, "latency_seconds": 5.0})
        return chosen

    network = small_network()
    problem = SearchProblem(network, darl_policy(network), select, RuleReward((5, 5, 5)), Budget(way=0.0))
    loose, strict = levels_of_exponents([5, 5, 5]), levels_of_exponents([10, 10, 10])
    assert problem.budget_seconds == problem.latency(loose) == problem.latency(strict)
    assert problem.policy(loose).layers[0] == select_by_rule(network.layers["first"], Target(2.0**-10))
    # 2^-11 is as cheap as 2^-10, and better
    assert problem.constrain(levels_of_exponents([15, 15, 15])) == levels_of_exponents([11, 11, 11])


def test_sets_that_all_cost_the_same_leave_the_budget_without_effect(caplog: pytest.LogCaptureFixture) -> None:
    def select(layer: LinearLayer, target: Target) -> LayerPolicy:
        return replace(select_by_rule(layer, target), predicted={"tau": 0.1, "latency_seconds": 1 / 3})

    network = small_network()
    problem = SearchProblem(network, darl_policy(network), select, RuleReward((5, 5, 5)))
    assert problem.constrain([0, 5, 10]) == [0, 5, 10]
    assert "limits nothing" in caplog.text


def test_the_reward_is_computed_once_per_assignment_of_deployed_sets() -> None:
    problem = rule_problem((5, 5, 5), Budget(way=1.0))
    reward = problem.reward_of
    assert isinstance(reward, RuleReward)
    problem.reward([0, 0, 0])
    problem.reward([0, 0, 0])
    assert len(reward.policies) == 1
    problem.reward([0, 0, 1])
    problem.reward([0, 0, 2])  # 2^-6 and 2^-7 deploy the same set in the rule
    assert len(reward.policies) == 2
    assert len(problem.rewards) == 2


def test_the_policy_is_complete() -> None:
    problem = rule_problem()
    policy = problem.policy(levels_of_exponents([5, 8, 11]))
    assert isinstance(policy, Policy)
    assert (policy.scheme, policy.network, policy.packing) == ("autoprivacy", "small", "coefficient")
    assert [layer.name for layer in policy.layers] == problem.names
    assert [exponent_of(layer.target) for layer in policy.layers] == [5, 8, 11]
    assert policy.predicted["latency_seconds"] == pytest.approx(problem.latency([0, 3, 6]))
    assert problem.label([0, 3, 6]) == "5 8 11"
    policy.check_layers(["first", "body.second", "fc"])
    problem.darl = replace(problem.darl, predicted={"tau": 0.21, "latency_seconds": 3.0, "of_activations": 1.0})
    totals = problem.policy(levels_of_exponents([5, 9, 15])).predicted
    assert totals == pytest.approx({"tau": 0.6, "latency_seconds": 2.2})


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_is_refused(wrong: float) -> None:
    problem = rule_problem(budget=Budget(way=1.0))
    problem.reward_of = RuleReward((5, 5, 5), constant=wrong)
    with pytest.raises(UserError, match=r"reward (nan|inf|-inf) for targets 5 6 7; expected -error"):
        problem.reward([0, 1, 2])


def test_mistakes_are_named() -> None:
    network = small_network()
    darl = darl_policy(network)
    environment = rule_environment()
    for method in (environment.problem.policy, environment.problem.latency, environment.problem.constrain):
        with pytest.raises(UserError, match="2 choices for 3 linear layers with 1 each"):
            method([0, 0])
    with pytest.raises(UserError, match="2 choices for 3 linear layers"):
        environment.transitions([(0.5,), (0.5,)], -1.0)
    with pytest.raises(UserError, match="the network has"):
        SearchProblem(network, replace(darl, layers=darl.layers[:2]), select_by_rule, RuleReward((5,) * 3))
    bare = replace(darl, layers=tuple(replace(layer, predicted={}) for layer in darl.layers))
    with pytest.raises(UserError, match="no predicted latency_seconds"):
        SearchProblem(network, bare, select_by_rule, RuleReward((5,) * 3))

    def no_latency(layer: LinearLayer, target: Target) -> LayerPolicy:
        return replace(select_by_rule(layer, target), predicted={"tau": 0.1})

    with pytest.raises(UserError, match="predicted latency nan; expected seconds"):
        SearchProblem(network, darl, no_latency, RuleReward((5,) * 3))
    environment.reset()
    with pytest.raises(ValueError, match="action nan"):
        environment.step(np.array([np.nan], np.float32))


@pytest.mark.parametrize("model", ["seven_cnet:seven_cnet", "resnet:resnet32", "mobilenet_v2:mobilenet_v2"])
def test_states_of_the_papers_networks_lie_in_the_unit_interval(model: str) -> None:
    network = layers_of(f"autoprivacy.networks.{model}")
    darl = darl_policy(network)
    problem = SearchProblem(network, darl, select_by_rule, RuleReward((5,) * len(darl.layers)))
    environment = LayerwiseEnvironment(problem)
    observation, _ = environment.reset()
    rows = [observation]
    for index in range(len(problem.names) - 1):
        rows.append(environment.step(np.array([index % 2], np.float32))[0])
    table = np.stack(rows)
    assert table.min() == 0 and table.max() == 1 and environment.observation_space.contains(table[-1])
    assert (np.ptp(table[:, [0, 1, 2, 3, 4, 6]], axis=0) == 1).all()  # all but kernels differ in every network
