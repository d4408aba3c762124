"""The search strategies and the search around them: known optima, repetition for a seed, going on after a kill."""

from __future__ import annotations

import csv
import io
import itertools
import logging
import math
import multiprocessing
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.search_support import (
    NoiseReward,
    RuleReward,
    circuit_table,
    darl_policy,
    exponent_of,
    exponents_of,
    noisy_select,
    rule_problem,
    small_network,
)

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.policy import EXACT_TARGET, Policy
from autoprivacy.quantization.integer_network import IntegerNetwork, LayerShape, LinearLayer, Node
from autoprivacy.report.figures import search_figure
from autoprivacy.report.page import search_table
from autoprivacy.report.results import read_search
from autoprivacy.search.environment import LayerwiseEnvironment
from autoprivacy.search.problem import Budget, SearchProblem
from autoprivacy.search.search import Finals, SearchResult, SearchSettings, run_search
from autoprivacy.search.space import NoiseLevels, Rounding, roundings
from autoprivacy.search.strategies import STRATEGIES, make_strategy
from autoprivacy.search.strategies.dynamic_programming import DynamicProgramming, solve
from autoprivacy.search.strategies.least_latency import LeastLatency
from autoprivacy.search.strategies.strategy import StrategySettings, Trial
from autoprivacy.storage import write_rows

BEST = (5, 13, 9)
OWN = [name for name in STRATEGIES if name != "stable-baselines3"]
STEPS = tuple(rounding.shift for rounding in roundings(small_network()).values())
FACTORS = (2e-3, 5e-2, 1e-2)


def settings(strategy: str, evaluations: int = 8, seed: int = 1, **more: object) -> SearchSettings:
    return SearchSettings(strategy, StrategySettings(evaluations, seed, warm_up=3), **more)  # type: ignore[arg-type]


def short_search(strategy: str, seed: int = 1, evaluations: int = 8, state: Path | None = None) -> SearchResult:
    return run_search(rule_problem(BEST), settings(strategy, evaluations, seed), state)


def noise_problem(circuits: object = None, way: float = 0.3, factors: tuple[float, ...] = FACTORS) -> SearchProblem:
    network = small_network()
    reward = NoiseReward(factors, STEPS)
    space = NoiseLevels()
    return SearchProblem(network, darl_policy(network), noisy_select, reward, Budget(way=way), space, circuits)  # type: ignore[arg-type]


def exhaustive(problem: SearchProblem) -> float:
    """The best reward of all policies that meet the budget."""
    policies = itertools.product(*(range(size) for size in problem.sizes))
    return max(problem.reward(list(levels)) for levels in policies if problem.admits(levels))


def test_what_rounds_a_layers_output() -> None:
    first, second, last = roundings(small_network()).values()
    assert first == Rounding(6, "first", ("first.relu",))
    assert second == Rounding(7, "body.second", ("clipped",))  # the residual that is added comes from an activation
    assert (last.activations, last.decided_by) == ((), "fc")
    layer = small_network().layers["fc"]
    deviation = layer.weight_norm * 1020 / math.sqrt(12)
    assert 2.0**last.shift <= deviation / 256 < 2.0 ** (last.shift + 1)


def test_a_sum_of_two_layers_has_one_circuit_and_a_factor_makes_noise_coarser() -> None:
    network = small_network()
    shape = LayerShape("side", "convolution", (3, 8, 8), 6, (1, 1), input_maximum=128)
    side = LinearLayer(shape, np.ones((6, 3, 1, 1), np.int64), np.zeros(6, np.int64))
    nodes = list(network.architecture.nodes)
    at = next(index for index, node in enumerate(nodes) if node.name == "scaled")
    nodes[at] = Node("scaled", "scale", ("side",), (6, 8, 8), factor=32)
    nodes.insert(at, Node("side", "linear", ("image",), (6, 8, 8)))
    layers = (*network.architecture.layers, shape)
    changed = replace(network.architecture, nodes=tuple(nodes), layers=layers)
    network = IntegerNetwork(changed, {**network.layers, "side": side}, network.output_scale)
    found = roundings(network)
    assert found["side"] == Rounding(7 - 5, "side", ("clipped",))  # listed last, so the sum's circuit is its
    assert found["body.second"] == Rounding(7, "side", ())
    problem = SearchProblem(
        network, darl_policy(network), noisy_select, RuleReward(BEST), None, NoiseLevels(), circuit_table()
    )
    assert problem.sizes[1::2] == [7, 1, 1, 8]
    policy = problem.policy([*problem.strictest[:-1], 6])
    assert [layer.target.ignored_share_bits for layer in policy.layers] == [0, 1, 0, 1]
    assert policy.residues(changed).ignored_bits == {"first.relu": 0, "clipped": 1}


def test_noise_goes_on_from_the_exact_target_to_above_the_step() -> None:
    targets = NoiseLevels().targets(shift=9)
    taus = [target.tau for target in targets[:-1]]
    assert taus == [2.0**k for k in range(13, -4, -1)] and targets[-1] == EXACT_TARGET
    assert [target.z for target in targets] == sorted(target.z for target in targets)
    assert [NoiseLevels().label(target) for target in targets[-3:]] == ["-2", "-3", "exact"]


def test_the_problem_of_noise_and_ignored_bits() -> None:
    problem = noise_problem(circuit_table())
    assert problem.dimensions == 2
    # f ignored bits at most where a circuit reads the layer
    assert problem.sizes[1::2] == [6 + 1, 7 + 1, 1]
    policy = problem.policy([0, 0, 3, 2, 4, 0])
    assert [layer.target.ignored_share_bits for layer in policy.layers] == [6, 5, 0]
    assert policy.scheme == "tolerant" and policy.layers[0].target.tau == 2.0**10
    circuits = 384e-3 * (9 - 6 + 9 - 5)
    linear = sum(layer.predicted["latency_seconds"] for layer in policy.layers)
    assert problem.latency([0, 0, 3, 2, 4, 0]) == pytest.approx(linear + circuits)
    assert policy.predicted["latency_seconds"] == pytest.approx(linear)
    assert problem.label([0, 0, 3, 2, 4, 0]).split()[0] == "10:6"
    assert problem.key([0, 0, 3, 2, 4, 0]) != problem.key([0, 1, 3, 2, 4, 0])
    variance = problem.coordinates[3].variance
    assert variance[-1] == 0 and variance[0] == pytest.approx(1 / 6)  # t = f


def test_the_knapsack_finds_the_optimum() -> None:
    generator = np.random.default_rng(3)
    for way in (0.0, 0.2, 0.5, 0.8, 1.0):
        problem = noise_problem(way=way)
        losses = [np.sort(generator.random(size))[::-1] for size in problem.sizes]
        levels = solve(problem, losses)
        assert problem.admits(levels)
        policies = itertools.product(*(range(size) for size in problem.sizes))
        # rounding up wastes at most a bucket per coordinate
        margin = problem.budget_seconds - 3e-4 * (problem.budget_seconds - problem.latency(problem.loosest))
        best = min(
            sum(loss[k] for loss, k in zip(losses, policy, strict=True))
            for policy in policies
            if problem.latency(policy) <= margin + 1e-12
        )
        assert sum(loss[k] for loss, k in zip(losses, levels, strict=True)) <= best + 1e-12


def test_layers_that_meet_in_any_circuit_ignore_the_same_bits() -> None:
    network = small_network()
    nodes = list(network.architecture.nodes)
    at = next(index for index, node in enumerate(nodes) if node.name == "pooled")
    # what the second layer gives is read before the addition too, and the sum of two layers by a third activation
    nodes[at:at] = [
        Node("early", "activation", ("body.second",), (6, 8, 8), shift=3),
        Node("again", "activation", ("clipped",), (6, 8, 8), shift=1),
    ]
    shape = LayerShape("side", "convolution", (3, 8, 8), 6, (1, 1), input_maximum=128)
    side = LinearLayer(shape, np.ones((6, 3, 1, 1), np.int64), np.zeros(6, np.int64))
    scaled = next(index for index, node in enumerate(nodes) if node.name == "scaled")
    nodes[scaled : scaled + 1] = [
        Node("side", "linear", ("image",), (6, 8, 8)),
        Node("scaled", "flatten", ("side",), (6, 8, 8)),
    ]
    layers = (*network.architecture.layers, shape)
    changed = replace(network.architecture, nodes=tuple(nodes), layers=layers)
    network = IntegerNetwork(changed, {**network.layers, "side": side}, network.output_scale)
    found = roundings(network)
    assert found["side"] == Rounding(7, "side", ("clipped", "early"))
    assert found["body.second"] == Rounding(3, "side", ())
    table = {**circuit_table(), "early": [3.0, 2.0, 1.0, 1.0], "again": [0.5, 0.25]}
    problem = SearchProblem(network, darl_policy(network), noisy_select, RuleReward(BEST), None, NoiseLevels(), table)
    # early's shift bounds them; its third bit saves nothing there, but one with clipped
    assert problem.sizes[1::2] == [7, 1, 1, 4]
    policy = problem.policy(problem.loosest)
    assert policy.residues(changed).ignored_bits == {"first.relu": 6, "clipped": 3, "early": 3, "again": 0}
    linear = sum(layer.predicted["latency_seconds"] for layer in policy.layers)
    # no layer feeds the activation that reads another one: it stays exact
    circuits = table["first.relu"][6] + table["clipped"][3] + 1.0 + 0.5
    assert problem.latency(problem.loosest) == pytest.approx(linear + circuits)


def test_bits_that_save_nothing_are_no_choice() -> None:
    table = circuit_table()
    table["first.relu"] = [4.0, 5.0, 3.0, 3.0, 3.5, 2.0, 2.0]
    problem = noise_problem(table)
    assert problem.coordinates[1].seconds.tolist() == [2.0, 3.0, 4.0]
    policies = [problem.policy([0, level, *problem.strictest[2:]]) for level in range(3)]
    assert [policy.layers[0].target.ignored_share_bits for policy in policies] == [5, 2, 0]
    assert noise_problem({name: own[:1] for name, own in table.items()}).sizes[1::2] == [1, 1, 1]


def test_darls_share_counts_its_circuits() -> None:
    network = small_network()
    arguments = (network, darl_policy(network), noisy_select, RuleReward(BEST), Budget(share_of_darl=20.0))
    assert SearchProblem(*arguments, NoiseLevels()).budget_seconds == pytest.approx(20 * 3)
    problem = SearchProblem(*arguments, NoiseLevels(), circuit_table())
    assert problem.budget_seconds == pytest.approx(20 * (3 + 5))


@pytest.mark.parametrize("circuits", [None, circuit_table()])
def test_dynamic_programming_finds_the_optimum_of_an_additive_loss(circuits: object) -> None:
    problem = noise_problem(circuits)
    result = run_search(problem, settings("dynamic_programming", 30))
    random = run_search(noise_problem(circuits), settings("random", 30))
    assert result.reward > random.reward
    if circuits is None:
        assert result.reward >= exhaustive(problem) * 1.1 - 1e-9  # rewards are negative
    assert len(result.history) < 30  # it ends when there is nothing left to measure


def test_dynamic_programming_checks_that_losses_add_up() -> None:
    problem = noise_problem()
    strategy = DynamicProgramming(problem, StrategySettings(30, 1))
    while (proposal := strategy.ask()) is not None:
        strategy.tell(Trial(proposal.levels, problem.reward(proposal.levels)))
    assert strategy.additivity
    for predicted, measured in strategy.additivity:
        assert predicted == pytest.approx(measured, rel=1e-6)


def test_the_fastest_policy_without_a_loss_is_found_and_taken() -> None:
    factors, allowed = (1e-3, 1e-5, 1e-2), 0.01
    problem = noise_problem(factors=factors, way=1.0)
    run = StrategySettings(30, 1, allowed_loss=allowed)
    result = run_search(problem, SearchSettings("least_latency", run))
    enough = problem.reward(problem.strictest) - allowed
    fit = [levels for levels in itertools.product(*map(range, problem.sizes)) if problem.reward(list(levels)) >= enough]
    assert result.reward >= enough
    least_noise = sum(float(c.variance[k]) for c, k in zip(problem.coordinates, result.levels, strict=True))
    # it knows noise, not how sensitive each layer is: nothing faster has as little noise
    fastest = min(
        problem.latency(list(levels))
        for levels in itertools.product(*map(range, problem.sizes))
        if sum(float(c.variance[k]) for c, k in zip(problem.coordinates, levels, strict=True)) <= least_noise
    )
    assert result.latency_seconds <= fastest * 1.01
    assert min(map(problem.latency, map(list, fit))) <= result.latency_seconds < problem.latency(problem.strictest)
    assert len(result.history) < 30


def test_the_time_left_counts_the_policies_that_a_bisection_still_takes() -> None:
    problem = noise_problem(factors=(1e-3, 1e-5, 1e-2), way=1.0)
    strategy = LeastLatency(problem, StrategySettings(80, 1, allowed_loss=0.01))
    expected = []
    while (proposal := strategy.ask()) is not None:
        strategy.tell(Trial(proposal.levels, problem.reward(proposal.levels)))
        expected.append(strategy.expected)
    left = list(range(len(expected)))[::-1]
    assert len(expected) < 20 and expected[-1] == 0
    # a knapsack may leave a rest, so that a halving closes more than half of what is open
    assert all(e is not None and own <= e <= own + 2 for e, own in zip(expected, left, strict=True))


def test_where_all_lose_too_much_the_most_accurate_policy_is_taken() -> None:
    problem = noise_problem(factors=(1e-2, 1e-2, 1e-2), way=0.2)
    run = StrategySettings(20, 1, allowed_loss=0.0)
    rewards = [row["reward"] for row in run_search(problem, SearchSettings("random", run)).history]
    result = run_search(problem, SearchSettings("random", run))
    assert max(rewards) < problem.reward(problem.strictest) and result.reward == max(rewards)


def test_greedy_loosens_what_buys_most_latency() -> None:
    # the last layer is a thousand times as sensitive: it keeps the smallest errors
    problem = noise_problem(factors=(1e-5, 1e-5, 1e-2), way=0.7)
    result = run_search(problem, settings("greedy", 40))
    assert problem.admits(result.levels)
    assert result.levels[2] == problem.strictest[2] and result.levels != problem.strictest
    assert result.reward >= 3 * exhaustive(problem) - 1e-3
    probes = [row for row in result.history if not row["within_budget"]]
    assert probes and result.history[-1]["within_budget"]
    assert result.levels[2] == problem.strictest[2]


def test_the_history_and_its_figure_name_no_best_policy_before_one_meets_the_budget(tmp_path: Path) -> None:
    problem = noise_problem(factors=(1e-5, 1e-5, 1e-2), way=0.7)
    result = run_search(problem, settings("greedy", 40))
    write_rows(tmp_path / "history.csv", result.history)
    rows = read_search(tmp_path / "history.csv")
    first = next(index for index, row in enumerate(rows) if row["within_budget"] == "True")
    assert first > 0 and all(math.isnan(row["best_episode"]) for row in rows[:first])
    for row in rows[first:]:
        best = rows[int(row["best_episode"]) - 1]
        assert best["within_budget"] == "True" and row["best_reward"] == best["reward"]
        assert row["best_latency_seconds"] == best["latency_seconds"]
    assert rows[-1]["best_reward"] == result.reward
    reward, latency = search_figure(rows, "tolerant").axes
    for axis, column in ((reward, "best_reward"), (latency, "best_latency_seconds")):
        np.testing.assert_array_equal(axis.lines[1].get_ydata(), [row[column] for row in rows])
    assert [row[0] for row in search_table(rows).rows][0] == str(first + 1)


@pytest.mark.parametrize("evaluations", [2, 3, 5])
def test_greedy_ends_with_a_policy_however_few_evaluations_there_are(evaluations: int) -> None:
    problem = noise_problem()
    result = run_search(problem, settings("greedy", evaluations))
    assert len(result.history) <= evaluations and problem.admits(result.levels)


def test_uniform_tries_every_rate_that_meets_the_budget_the_smallest_first() -> None:
    result = short_search("uniform", evaluations=20)
    targets = [row["targets"].split() for row in result.history]
    assert all(len(set(own)) == 1 for own in targets)
    exponents = [int(own[0]) for own in targets]
    problem = rule_problem(BEST)
    assert exponents == [e for e in range(15, 4, -1) if problem.admits([e - 5] * 3)]


def test_uniform_pairs_both_choices() -> None:
    problem = noise_problem(circuit_table(), way=1.0)
    strategy = make_strategy("uniform", problem, StrategySettings(500, 1))
    seen = set()
    while (proposal := strategy.ask()) is not None:
        seen.add(tuple(proposal.levels))
        strategy.tell(Trial(proposal.levels, -0.5))
    assert tuple(problem.strictest) in seen and tuple(problem.loosest) in seen
    assert len(seen) >= max(problem.sizes[::2]) * max(problem.sizes[1::2]) / 2


@pytest.mark.parametrize("name", OWN)
def test_every_strategy_beats_or_equals_one_random_guess(name: str) -> None:
    problem = noise_problem()
    result = run_search(problem, settings(name, 25))
    assert problem.admits(result.levels) and -1 <= result.reward <= 0
    guess = run_search(noise_problem(), settings("random", 1))
    assert result.reward >= guess.reward


@pytest.mark.parametrize("name", OWN)
def test_the_same_seed_gives_the_same_history(name: str) -> None:
    first, again = short_search(name), short_search(name)
    assert first.history == again.history and first.policy == again.policy
    if name in ("ddpg", "random", "optuna"):
        assert short_search(name, seed=2).history != first.history


@pytest.mark.parametrize("name", OWN)
def test_a_killed_search_goes_on_to_the_same_history(name: str, tmp_path: Path) -> None:
    whole = run_search(noise_problem(), settings(name, 9)).history
    state = tmp_path / "search.pt"
    for stop in (2, 4, 7, None):  # within a warm-up of three and after it
        problem = noise_problem()
        killed = stop is not None and stop < len(whole)
        problem.reward_of = reward = _FailsAfter(stop if killed else None)
        if killed:
            with pytest.raises(KeyboardInterrupt):
                run_search(problem, settings(name, 9), state)
        else:
            assert run_search(problem, settings(name, 9), state).history == whole
        assert reward.count <= len(whole)
    assert run_search(noise_problem(), settings(name, 9), state).history == whole  # nothing left to do
    assert [path.name for path in tmp_path.iterdir()] == ["search.pt"]


class _FailsAfter(NoiseReward):
    """Stops the run at the n-th policy that this problem sees, as a kill would."""

    def __init__(self, limit: int | None) -> None:
        super().__init__(FACTORS, STEPS)
        self.limit = limit

    def __call__(self, policy: Policy, to_beat: float | None = None) -> float:
        if self.limit is not None and self.count >= max(1, self.limit // 2):
            raise KeyboardInterrupt
        return super().__call__(policy, to_beat)


def test_a_search_that_is_killed_with_signal_9_goes_on(tmp_path: Path) -> None:
    state = tmp_path / "search.pt"
    process = multiprocessing.get_context("fork").Process(target=_slow_search, args=(state,))
    process.start()
    deadline = time.monotonic() + 120
    while not state.exists():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.1)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert 0 < len(torch.load(state, weights_only=True)["trials"]) < 150
    whole = run_search(noise_problem(), settings("random", 150)).history
    assert run_search(noise_problem(), settings("random", 150), state).history == whole


def _slow_search(state: Path) -> None:
    problem = noise_problem()
    problem.reward_of = _Slow(FACTORS, STEPS)
    run_search(problem, settings("random", 150), state)


class _Slow(NoiseReward):
    """Takes a second of sleep for two dozen policies."""

    def __call__(self, policy: Policy, to_beat: float | None = None) -> float:
        time.sleep(0.04)
        return super().__call__(policy, to_beat)


def test_a_resumed_search_knows_the_rewards_already_computed(tmp_path: Path) -> None:
    state = tmp_path / "search.pt"
    short_search("ddpg", state=state)
    problem = rule_problem(BEST)
    run_search(problem, settings("ddpg"), state)
    assert isinstance(problem.reward_of, RuleReward) and not problem.reward_of.policies
    assert len(problem.rewards) == len(torch.load(state, weights_only=True)["rewards"])


def test_a_failed_reward_leaves_the_state_of_the_last_whole_episode(tmp_path: Path) -> None:
    state = tmp_path / "search.pt"
    problem = rule_problem(BEST)
    problem.reward_of = _TurnsNaN(BEST)
    with pytest.raises(UserError, match="reward nan"):
        run_search(problem, settings("random"), state)
    assert len(torch.load(state, weights_only=True)["trials"]) == 4
    assert run_search(rule_problem(BEST), settings("random"), state).history == short_search("random").history


class _TurnsNaN(RuleReward):
    """Sound four times, then NaN."""

    def __call__(self, policy: Policy, to_beat: float | None = None) -> float:
        return super().__call__(policy) if len(self.policies) < 4 else math.nan


def test_the_history_has_the_same_columns_for_every_strategy_and_fits_a_csv() -> None:
    histories = [short_search(name, evaluations=6).history for name in OWN]
    columns = list(histories[0][0])
    assert all(list(row) == columns for history in histories for row in history)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(histories[0])
    assert len(text.getvalue().splitlines()) == 7


def test_the_result_is_the_best_episode() -> None:
    result = short_search("random", evaluations=30)
    problem = rule_problem(BEST)
    assert problem.reward(result.levels) == pytest.approx(result.reward)
    assert problem.latency(result.levels) == pytest.approx(result.latency_seconds)
    assert [exponent_of(layer.target) for layer in result.policy.layers] == exponents_of(result.levels)
    rows = result.history
    assert [row["episode"] for row in rows] == list(range(1, 31))
    assert [row["best_reward"] for row in rows] == list(np.maximum.accumulate([row["reward"] for row in rows]))
    assert result.policy.predicted["exploration_accuracy_percent"] == pytest.approx(100 * (1 + result.reward))
    assert sum(row["fresh"] for row in rows) < 30  # policies that map to the same sets are evaluated once


def test_among_equal_rewards_the_fastest_policy_wins() -> None:
    problem = rule_problem(budget=Budget(way=1.0))
    problem.reward_of = RuleReward(BEST, constant=-0.25)
    result = run_search(problem, settings("random", 12))
    assert result.reward == -0.25
    assert result.latency_seconds == min(row["latency_seconds"] for row in result.history)


def test_finals_decide_among_the_best(tmp_path: Path) -> None:
    """After finetuning the second best is the best; its reward is computed once, also across a kill."""
    before = short_search("random", evaluations=20)
    ranks = sorted({row["reward"] for row in before.history}, reverse=True)
    final = _Final(ranks)
    how = settings("random", 20, finals=Finals(final, 3))
    state = tmp_path / "search.pt"
    final.limit = 2
    with pytest.raises(KeyboardInterrupt):
        run_search(rule_problem(BEST), how, state)
    final.limit = None
    result = run_search(rule_problem(BEST), how, state)
    assert final.count == 3 and len(result.finalists) == 3
    rewards = [row["finetuned_reward"] for row in result.finalists]
    assert rewards == sorted(rewards, reverse=True) and result.reward == rewards[0]
    assert result.finalists[0]["reward"] < before.reward
    assert rule_problem(BEST).reward(result.levels) == result.finalists[0]["reward"]
    with pytest.raises(UserError, match="finalists: got 0"):
        Finals(final, 0)


def test_of_finalists_that_lose_no_more_than_allowed_the_fastest_is_taken() -> None:
    rewards = (-0.30, -0.28, -0.25)  # the fastest first
    finetuned = iter(rewards)

    def final(policy: Policy, to_beat: float | None) -> float:
        return next(finetuned)

    for allowed, place in ((0.02, 2), (0.04, 1), (0.06, 0)):
        finetuned = iter(rewards)
        problem = rule_problem(budget=Budget(way=1.0))
        problem.reward_of = RuleReward(BEST, constant=-0.25)
        run = StrategySettings(12, 1, allowed_loss=allowed)
        result = run_search(problem, SearchSettings("random", run, finals=Finals(final, 3)))  # type: ignore[arg-type]
        assert result.reward == rewards[place]


class _Final:
    """Better the worse the reward before was; may be killed."""

    def __init__(self, ranks: list[float]) -> None:
        self.reward, self.count, self.limit = RuleReward(BEST), 0, None

    def __call__(self, policy: Policy, to_beat: float | None = None) -> float:
        if self.limit is not None and self.count == self.limit:
            raise KeyboardInterrupt
        self.count += 1
        return -1 - self.reward(policy)


def test_every_episode_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        short_search("ddpg", evaluations=3)
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("episode")]
    assert len(lines) == 3
    assert all(word in lines[1] for word in ("episode 2 of 3", "error", "latency", "best", "minutes left"))


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="expected one of ddpg, uniform"):
        make_strategy("annealing", rule_problem(), StrategySettings(1, 1))
    with pytest.raises(UserError, match="expected 1 or more evaluations"):
        StrategySettings(0, 1)
    with pytest.raises(UserError, match="none of 1 policies meets the budget of"):
        run_search(noise_problem(), settings("greedy", 1))


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(UserError, match="requirements-search.txt"):
        make_strategy("stable-baselines3", rule_problem(), StrategySettings(1, 1))


@pytest.mark.filterwarnings("ignore::UserWarning")  # it recommends actions from -1 to 1
def test_the_optional_agent_accepts_the_environment_and_repeats_itself() -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker", reason="requirements-search.txt is optional")
    checker.check_env(LayerwiseEnvironment(rule_problem()))
    first, second = (short_search("stable-baselines3", evaluations=12) for _ in range(2))
    assert first.history == second.history and first.reward > min(row["reward"] for row in first.history)
