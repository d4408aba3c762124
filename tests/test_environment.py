"""The search environment: states, actions, the latency budget and its constraint, rewards."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from search_support import (
    RuleReward,
    darl_policy,
    exponent_of,
    images_of,
    parameters_of,
    rule_environment,
    select_by_rule,
    small_network,
)

from autoprivacy.errors import UserError
from autoprivacy.he.parameters import Target
from autoprivacy.policy import LayerPolicy, Policy
from autoprivacy.quantization.integer_network import LinearLayer
from autoprivacy.search.environment import Budget, ErrorRates, LayerwiseEnvironment
from autoprivacy.search.finetuning import FinetuneSettings
from autoprivacy.search.search import ExplorationSplits, FinetunedReward, exploration_splits

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
    assert ErrorRates().exponent(action) == exponent


def test_every_error_rate_has_an_action_that_stands_for_it() -> None:
    rates = ErrorRates()
    assert list(rates.exponents) == list(range(5, 16))
    assert [rates.exponent(rates.action(e)) for e in rates.exponents] == list(rates.exponents)
    assert (rates.action(5), rates.action(15)) == (0.0, 1.0)
    with pytest.raises(ValueError, match="expected 0 to 1"):
        rates.exponent(1.01)
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
    environment = LayerwiseEnvironment(network, replace(darl, layers=layers), select_by_rule, RuleReward((5, 5, 5)))
    states = np.stack([environment.observation(i, 0.0) for i in range(LAYERS)])
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
    assert info == {"exponents": [5, 10, 15], "actions": [0.0, 0.5, 1.0], "latency_seconds": pytest.approx(2.3)}
    with pytest.raises(RuntimeError, match="reset first"):
        environment.step(np.array([1.0], np.float32))


def test_transitions_carry_the_final_reward_and_the_actions_used() -> None:
    environment = rule_environment()
    transitions = environment.transitions([0.2, 0.4, 0.6], -0.25)
    assert [t.action for t in transitions] == [0.2, 0.4, 0.6]
    assert [t.reward for t in transitions] == [-0.25] * 3
    assert [t.last for t in transitions] == [False, False, True]
    assert [float(t.observation[-1]) for t in transitions] == pytest.approx([0.0, 0.2, 0.4])
    for now, following in itertools.pairwise(transitions):
        assert np.array_equal(now.next_observation, following.observation)


def test_default_budget_binds_and_the_constraint_meets_it_layer_by_layer() -> None:
    # by the rule 1.5 s (2^-5 in every layer) to 3.0 s (2^-15), so 2.25 s by default
    environment = rule_environment((15, 15, 15))
    assert environment.budget_seconds == pytest.approx(2.25)
    reward, info = play(environment, [1.0, 1.0, 1.0])
    # the next cheaper set of 2^-15 is that of 2^-13: rounds to (13, 13, 13), (11, 11, 11), then two more layers
    assert info["exponents"] == [9, 9, 11]
    assert info["actions"] == pytest.approx([0.4, 0.4, 0.6])
    assert info["latency_seconds"] == pytest.approx(2.2)
    assert reward == pytest.approx(-(3 + 3 + 2) / 15)


def test_the_constraint_leaves_alone_what_meets_the_budget() -> None:
    _, info = play(rule_environment(), [0.43, 0.02, 0.31])
    assert info["exponents"] == [9, 5, 8]
    assert info["actions"] == pytest.approx([0.43, 0.02, 0.31])


def test_every_policy_meets_every_budget_with_selected_sets_only() -> None:
    generator = np.random.default_rng(1)
    for way in (0.0, 0.1, 0.5, 0.93, 1.0):
        environment = rule_environment(budget=Budget(way=way))
        for _ in range(20):
            proposed = [int(e) for e in generator.integers(5, 16, LAYERS)]
            used = environment.constrain(proposed)
            assert environment.latency(used) <= environment.budget_seconds * (1 + 1e-9)
            assert all(after <= before for before, after in zip(proposed, used, strict=True))
            for layer, exponent in zip(environment.policy(used).layers, used, strict=True):
                chosen = select_by_rule(environment.network.layers[layer.name], Target(2.0**-exponent))
                assert layer == chosen


def test_budgets_in_seconds_and_in_shares_of_darl() -> None:
    assert rule_environment(budget=Budget(seconds=1.9)).budget_seconds == 1.9
    assert rule_environment(budget=Budget(share_of_darl=0.6)).budget_seconds == pytest.approx(1.8)
    assert rule_environment(budget=Budget(seconds=1.5)).constrain([15] * 3) == [5, 5, 5]


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
    environment = LayerwiseEnvironment(network, darl_policy(network), select, RuleReward((5, 5, 5)), Budget(way=0.0))
    assert environment.budget_seconds == environment.latency([5, 5, 5]) == environment.latency([10, 10, 10])
    layer = environment.policy([5, 5, 5]).layers[0]
    assert layer == select_by_rule(network.layers["first"], Target(2.0**-10))
    assert environment.constrain([15, 15, 15]) == [11, 11, 11]  # as cheap as 2^-10 and better


def test_sets_that_all_cost_the_same_leave_the_budget_without_effect(caplog: pytest.LogCaptureFixture) -> None:
    def select(layer: LinearLayer, target: Target) -> LayerPolicy:
        return replace(select_by_rule(layer, target), predicted={"tau": 0.1, "latency_seconds": 1 / 3})

    network = small_network()
    environment = LayerwiseEnvironment(network, darl_policy(network), select, RuleReward((5, 5, 5)))
    assert environment.constrain([5, 10, 15]) == [5, 10, 15]
    assert "limits nothing" in caplog.text


def test_the_reward_is_computed_once_per_assignment_of_deployed_sets() -> None:
    environment = rule_environment((5, 5, 5), Budget(way=1.0))
    reward = environment.reward_of
    assert isinstance(reward, RuleReward)
    environment.reward([5, 5, 5])
    environment.reward([5, 5, 5])
    assert len(reward.policies) == 1
    environment.reward([5, 5, 6])
    environment.reward([5, 5, 7])  # 2^-6 and 2^-7 deploy the same set in the rule
    assert len(reward.policies) == 2
    assert len(environment.rewards) == 2


def test_the_policy_is_complete() -> None:
    environment = rule_environment()
    policy = environment.policy([5, 9, 15])
    assert isinstance(policy, Policy)
    assert (policy.network, policy.scheme, policy.packing) == ("small", "autoprivacy", "coefficient")
    assert [exponent_of(layer.target) for layer in policy.layers] == [5, 9, 15]
    assert policy.predicted["latency_seconds"] == pytest.approx(sum((0.5, 0.7, 1.0)))
    policy.check_layers(["first", "body.second", "fc"])
    environment.darl = replace(environment.darl, predicted={"tau": 0.21, "latency_seconds": 3.0, "of_activations": 1.0})
    assert environment.policy([5, 9, 15]).predicted == pytest.approx({"tau": 0.6, "latency_seconds": 2.2})


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_reward_that_is_no_number_is_refused(value: float) -> None:
    environment = rule_environment()
    environment.reward_of = RuleReward((5, 5, 5), constant=value)
    with pytest.raises(UserError, match=f"reward {value} for error rates"):
        play(environment, [0.0] * LAYERS)


def test_mistakes_are_named() -> None:
    network = small_network()
    darl = darl_policy(network)
    environment = rule_environment()
    for method in (environment.policy, environment.latency):
        with pytest.raises(UserError, match="2 choices for 3 linear layers"):
            method([5, 5])
    with pytest.raises(UserError, match="2 choices for 3 linear layers"):
        environment.transitions([0.5, 0.5], -1.0)
    with pytest.raises(UserError, match="the network has"):
        LayerwiseEnvironment(network, replace(darl, layers=darl.layers[:2]), select_by_rule, RuleReward((5,) * 3))
    bare = replace(darl, layers=tuple(replace(layer, predicted={}) for layer in darl.layers))
    with pytest.raises(UserError, match="no predicted latency_seconds"):
        LayerwiseEnvironment(network, bare, select_by_rule, RuleReward((5,) * 3))

    def no_latency(layer: LinearLayer, target: Target) -> LayerPolicy:
        return replace(select_by_rule(layer, target), predicted={"tau": 0.1})

    with pytest.raises(UserError, match="predicted latency nan; expected seconds"):
        LayerwiseEnvironment(network, darl, no_latency, RuleReward((5,) * 3))
    environment.reset()
    with pytest.raises(ValueError, match="action nan"):
        environment.step(np.array([np.nan], np.float32))


def test_exploration_splits_are_disjoint_and_of_the_chosen_categories() -> None:
    train = images_of(400)
    splits = exploration_splits(train, 2, 60, 40, seed=3)
    assert (len(splits.finetune.labels), len(splits.evaluate.labels)) == (60, 40)
    assert len(np.unique([*splits.finetune.labels, *splits.evaluate.labels])) == 2
    images = {image.tobytes() for split in (splits.finetune, splits.evaluate) for image in split.images}
    assert len(images) == 100
    again, other = (exploration_splits(train, 2, 60, 40, seed=s) for s in (3, 4))
    assert np.array_equal(again.finetune.images, splits.finetune.images)
    assert not np.array_equal(other.finetune.images, splits.finetune.images)
    with pytest.raises(UserError, match="expected 1 to the 4 of the data set"):
        exploration_splits(train, 5, 60, 40, seed=3)
    for sizes in ((0, 10), (10, 0), (300, 300)):
        with pytest.raises(UserError, match="at least 1 of each"):
            exploration_splits(train, 2, *sizes, seed=3)


def test_the_finetuned_reward_falls_with_the_errors_and_is_reproducible() -> None:
    network, train = small_network(), images_of(600)
    splits = ExplorationSplits(train.take(slice(0, 400)), train.take(slice(400, 600)))
    reward = FinetunedReward(network, splits, FinetuneSettings(4, 32, 5e-3, crop_padding=0), seed=1)
    darl = replace(
        darl_policy(network),
        layers=tuple(
            replace(layer, parameters=replace(layer.parameters, plaintext_modulus=2**26 - 5), predicted={"tau": 0.07})
            for layer in darl_policy(network).layers
        ),
    )
    noisy = replace(darl, layers=tuple(replace(layer, predicted={"tau": 1e5}) for layer in darl.layers))
    clean_reward, noisy_reward = reward(darl), reward(noisy)
    assert -0.2 < clean_reward <= 0
    assert noisy_reward < -0.5  # of 4 classes, errors larger than any accumulator leave a guess
    assert reward(darl) == clean_reward
    again = FinetunedReward(network, splits, FinetuneSettings(4, 32, 5e-3, crop_padding=0), seed=1)
    other = FinetunedReward(network, splits, FinetuneSettings(4, 32, 5e-3, crop_padding=0), seed=2)
    assert again.fingerprint == reward.fingerprint != other.fingerprint
    with pytest.raises(UserError, match="no image to evaluate on"):
        FinetunedReward(network, replace(splits, evaluate=train.take(slice(0, 0))), FinetuneSettings(), seed=1)
