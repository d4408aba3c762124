"""Strategies beside each other: the best accuracy under one latency budget against the policies tried."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprivacy.search.problem import Reward, SearchProblem
from autoprivacy.search.search import SearchResult, SearchSettings, run_search
from autoprivacy.search.strategies.strategy import StrategySettings


@dataclass(frozen=True)
class Comparison:
    """What is compared, and how.

    Attributes:
        network: its name.
        problem: the problem of a seed; the seed is that of the simulated errors.
        held_out: a reward of a seed on other images and errors: the best of many measured accuracies flatters itself.
        strategies: by name.
        evaluations, warm_up, allowed_loss: see StrategySettings.
        seeds: of errors and strategies.
    """

    network: str
    problem: Callable[[int], SearchProblem]
    held_out: Callable[[int], Reward]
    strategies: Sequence[str]
    evaluations: int
    warm_up: int
    allowed_loss: float
    seeds: Sequence[int]

    def run(self, state: Path) -> list[dict[str, Any]]:
        """One row per strategy, seed and policy tried from the first that meets the budget on: the highest accuracy so
        far, the latency and accuracy of the policy that would be chosen (the fastest that loses no more than allowed),
        and the accuracy of the one chosen at the end on other images.

        A policy that several strategies try is evaluated once per seed. Each search keeps its state beside `state`.
        """
        rows: list[dict[str, Any]] = []
        for seed in self.seeds:
            problem, held_out = self.problem(seed), self.held_out(seed)
            for strategy in self.strategies:
                run = StrategySettings(self.evaluations, seed, self.warm_up, self.allowed_loss)
                settings = SearchSettings(strategy, run)
                result = run_search(problem, settings, state.with_name(f"{state.stem}-{seed}-{strategy}.pt"))
                other = 100 * (1 + held_out(result.policy, None))
                rows += self._rows(strategy, seed, result, other)
                logging.info(
                    "%s, %s, seed %d: %.2f%%, on other images %.2f%%, latency %.4g s of %.4g s, %d policies tried",
                    self.network,
                    strategy,
                    seed,
                    100 * (1 + result.reward),
                    other,
                    result.latency_seconds,
                    problem.budget_seconds,
                    len(result.history),
                )
        return rows

    def _rows(self, strategy: str, seed: int, result: SearchResult, held_out: float) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        highest = -1.0
        for row in result.history:
            if row["within_budget"]:
                highest = max(highest, row["reward"])
            elif not rows:
                continue
            rows.append(
                {
                    "network": self.network,
                    "strategy": strategy,
                    "seed": seed,
                    "evaluations": row["episode"],
                    "accuracy_percent": round(100 * (1 + highest), 4),
                    "latency_seconds": row["best_latency_seconds"],
                    "chosen_accuracy_percent": round(100 * (1 + row["best_reward"]), 4),
                    "held_out_accuracy_percent": round(held_out, 4),
                }
            )
        return rows
