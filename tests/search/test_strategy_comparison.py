"""The comparison of strategies: its rows, their summary, its figure, and going on after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.search_support import NoiseReward, darl_policy, noisy_select, small_network

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.report.figures import save
from autoprivacy.report.results import read_comparison
from autoprivacy.report.strategy_comparison import comparison_figure, curves, summary_rows
from autoprivacy.search.problem import Budget, SearchProblem
from autoprivacy.search.space import NoiseLevels, roundings
from autoprivacy.search.strategy_comparison import Comparison
from autoprivacy.storage import write_rows

STRATEGIES = ("random", "greedy", "uniform")
ALLOWED = 0.02


class SeededReward(NoiseReward):
    """Sensitivities that differ a little from seed to seed."""

    def __init__(self, seed: int) -> None:
        steps = tuple(rounding.shift for rounding in roundings(small_network()).values())
        super().__init__(tuple(np.random.default_rng(seed).uniform(1e-3, 1e-2, 3).tolist()), steps)
        self.seen: list[Policy] = []

    def __call__(self, policy: Policy, to_beat: float | None = None) -> float:
        self.seen.append(policy)
        return super().__call__(policy)


def comparison(rewards: list[SeededReward], strategies: tuple[str, ...] = STRATEGIES) -> Comparison:
    network = small_network()

    def problem(seed: int) -> SearchProblem:
        rewards.append(SeededReward(seed))
        return SearchProblem(network, darl_policy(network), noisy_select, rewards[-1], Budget(way=0.3), NoiseLevels())

    return Comparison("small", problem, lambda seed: SeededReward(seed + 100), strategies, 12, 3, ALLOWED, (1, 2, 3))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return comparison([]).run(tmp_path_factory.mktemp("state") / "a.pt")


def test_rows_follow_each_strategy_and_seed(rows: list[dict[str, Any]]) -> None:
    runs = dict.fromkeys((row["strategy"], row["seed"]) for row in rows)
    assert list(runs) == [(strategy, seed) for seed in (1, 2, 3) for strategy in STRATEGIES]
    for strategy, seed in runs:
        own = [row for row in rows if (row["strategy"], row["seed"]) == (strategy, seed)]
        accuracies = [row["accuracy_percent"] for row in own]
        assert accuracies == sorted(accuracies) and own[-1]["evaluations"] <= 12
        assert [row["evaluations"] for row in own] == list(range(own[0]["evaluations"], own[-1]["evaluations"] + 1))
        assert len({row["held_out_accuracy_percent"] for row in own}) == 1
        # the fastest among policies that are as good as no errors at all may be a little less accurate than the best
        assert all(-100 * ALLOWED <= row["chosen_accuracy_percent"] - row["accuracy_percent"] <= 0 for row in own)
    assert all(0 < row["accuracy_percent"] <= 100 and row["latency_seconds"] > 0 for row in rows)


def test_a_policy_that_two_strategies_try_is_evaluated_once(tmp_path: Path) -> None:
    rewards: list[SeededReward] = []
    comparison(rewards, ("uniform", "greedy")).run(tmp_path / "a.pt")
    for reward in rewards:
        taus = [tuple(layer.predicted["tau"] for layer in policy.layers) for policy in reward.seen]
        assert len(taus) == len(set(taus))


def test_a_killed_comparison_goes_on(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    first = comparison([], STRATEGIES)
    broken = Comparison(**{**vars(first), "held_out": lambda seed: _Killed(seed)})
    with pytest.raises(KeyboardInterrupt):
        broken.run(tmp_path / "a.pt")
    # beside the name that it was given, for whoever removes what begins so
    assert [path.name for path in tmp_path.glob("a*.pt")] == [path.name for path in tmp_path.iterdir()] != []
    assert comparison([]).run(tmp_path / "a.pt") == rows


class _Killed(SeededReward):
    def __call__(self, policy: Policy, to_beat: float | None = None) -> float:
        raise KeyboardInterrupt


def test_the_summary_has_mean_and_spread(rows: list[dict[str, Any]]) -> None:
    summary = summary_rows(rows)
    assert {row["strategy"] for row in summary} == set(STRATEGIES) and all(row["seeds"] == 3 for row in summary)
    held_out = [row["held_out_accuracy_percent"] for row in summary]
    assert held_out == sorted(held_out, reverse=True)
    for row in summary:
        last = {r["seed"]: r["accuracy_percent"] for r in rows if r["strategy"] == row["strategy"]}
        assert row["accuracy_percent"] == pytest.approx(np.mean(list(last.values())), abs=1e-5)
        deviation = np.std(list(last.values()), ddof=1)
        assert row["accuracy_percent_deviation"] == pytest.approx(deviation, abs=1e-5)


def test_curves_begin_where_every_seed_has_a_policy_and_stay_at_their_last() -> None:
    def row(seed: int, evaluations: int, accuracy: float, strategy: str = "a") -> dict[str, Any]:
        values = {"seed": float(seed), "evaluations": float(evaluations), "accuracy_percent": accuracy}
        return {"network": "n", "strategy": strategy, **values}

    drawn = curves([row(1, 1, 50.0), row(1, 2, 60.0), row(2, 2, 55.0), row(1, 4, 10.0, "b")])["n"]
    numbers, best = drawn["a"]
    assert numbers.tolist() == [2, 3, 4]
    assert best.tolist() == [[60.0, 60.0, 60.0], [55.0, 55.0, 55.0]]
    assert drawn["b"][0].tolist() == [4]


def test_the_figure_is_drawn_from_the_file(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    write_rows(tmp_path / "small.csv", rows)
    read = read_comparison(tmp_path / "small.csv")
    figure = comparison_figure(read)
    assert len(figure.axes) == 2
    for axis, column in zip(figure.axes, ("accuracy_percent", "latency_seconds"), strict=True):
        assert [line.get_label() for line in axis.lines] == list(STRATEGIES)
        numbers, values = curves(read, column)["small"]["random"]
        assert np.asarray(axis.lines[0].get_ydata()).tolist() == values.mean(0).tolist()
    save(figure, tmp_path / "comparison")
    with Image.open(tmp_path / "comparison.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] == 1000 and 0.01 < (pixels != 255).any(axis=2).mean() < 0.9
    (tmp_path / "bad.csv").write_text("network,strategy\nn,a\n")
    with pytest.raises(UserError, match="no columns seed, evaluations"):
        read_comparison(tmp_path / "bad.csv")
