"""The search: a strategy proposes policies, each is brought within the budget and rewarded, the best is kept."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.search.problem import Reward, SearchProblem, checked_reward
from autoprivacy.search.strategies import make_strategy
from autoprivacy.search.strategies.strategy import Proposal, StrategySettings, Trial
from autoprivacy.workflow.resumption import load_state, save_state


@dataclass(frozen=True)
class Finals:
    """The policies that rank first are rewarded anew, and these rewards decide as those of the search did.

    Attributes:
        reward: the more expensive one, after finetuning.
        count: how many policies come so far.
    """

    reward: Reward
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"search finalists: got {self.count}; expected 1 or more")


@dataclass(frozen=True)
class SearchSettings:
    """How a search is made.

    Attributes:
        strategy: a name of `strategies.STRATEGIES`.
        run: see StrategySettings.
        give_up: whether the evaluation of a policy may end early when it cannot become the best.
        finals: see Finals; None ends with the best of the search.
    """

    strategy: str
    run: StrategySettings
    give_up: bool = False
    finals: Finals | None = None


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        policy: the best policy; its predicted["exploration_accuracy_percent"] holds its reward.
        levels: its levels in the problem.
        reward: its reward, -error as a fraction; the finals' where there were some.
        latency_seconds: its predicted latency.
        history: one row per evaluation (an episode of the agent), for a CSV; the same for the same seed.
        finalists: one row per policy of the finals: targets, reward and finetuned_reward.
        seconds: time spent, over all runs that a kill separated.
    """

    policy: Policy
    levels: list[int]
    reward: float
    latency_seconds: float
    history: list[dict[str, Any]]
    finalists: list[dict[str, Any]]
    seconds: float


class _Search:
    """A search's progress, in memory and on disk: the trials, from which all else follows."""

    def __init__(self, problem: SearchProblem, settings: SearchSettings, state_file: Path | None) -> None:
        self.problem, self.settings, self.state_file = problem, settings, state_file
        self.strategy = make_strategy(settings.strategy, problem, settings.run)
        self.history: list[dict[str, Any]] = []
        self.trials: list[Trial] = []
        self.best: Trial | None = None
        self.best_episode: int | None = None
        self.final_rewards: dict[str, float] = {}
        self.seconds = 0.0
        if (state := load_state(state_file)) is not None:
            self._resume(state)

    def _resume(self, state: dict[str, Any]) -> None:
        self.problem.rewards.update(state["rewards"])
        for levels, reward, fresh in state["trials"]:
            self.strategy.ask()
            self._note(Trial(levels, reward), fresh)
        self.final_rewards, self.seconds = state["final_rewards"], state["seconds"]
        logging.info("search goes on after episode %d", len(self.history))

    def save(self) -> None:
        """Write the state where one was asked for."""
        state = {
            "trials": [(*trial, row["fresh"]) for trial, row in zip(self.trials, self.history, strict=True)],
            "rewards": self.problem.rewards,
            "final_rewards": self.final_rewards,
            "seconds": self.seconds,
        }
        save_state(self.state_file, state)

    def evaluate(self, proposal: Proposal) -> None:
        """Reward a proposal, tell the strategy and note it."""
        levels = list(proposal.levels) if proposal.probe else self.problem.constrain(proposal.levels)
        known = len(self.problem.rewards)
        give_up = self.settings.give_up and not proposal.probe and self.best is not None
        reward = self.problem.reward(levels, min(self.best.reward, self._enough) if give_up and self.best else None)
        self._note(Trial(levels, reward), len(self.problem.rewards) > known)

    def _note(self, trial: Trial, fresh: bool) -> None:
        self.strategy.tell(trial)
        self.trials.append(trial)
        latency, admitted = self.problem.latency(trial.levels), self.problem.admits(trial.levels)
        if admitted and (self.best is None or self._rank(trial) > self._rank(self.best)):
            self.best, self.best_episode = trial, len(self.trials)
        self.history.append(
            {
                "episode": len(self.trials),
                "strategy": self.settings.strategy,
                "reward": trial.reward,
                "latency_seconds": latency,
                "within_budget": admitted,
                "fresh": fresh,
                # empty as long as no policy met the budget
                "best_episode": self.best_episode,
                "best_reward": self.best and self.best.reward,
                "best_latency_seconds": self.best and self.problem.latency(self.best.levels),
                "targets": self.problem.label(trial.levels),
            }
        )

    @property
    def _enough(self) -> float:
        """The reward above which more is no better: that of no errors at all, less what may be lost."""
        allowed = self.settings.run.allowed_loss
        return math.inf if allowed is None else self.problem.reward(self.problem.strictest) - allowed

    def _rank(self, trial: Trial) -> tuple[float, float]:
        return min(trial.reward, self._enough), -self.problem.latency(trial.levels)

    def finalists(self) -> list[dict[str, Any]]:
        """The finals' rows, the best policy first; each reward is computed once, also across a kill."""
        finals = self.settings.finals
        if finals is None:
            return []
        admitted = [trial for trial in self.trials if self.problem.admits(trial.levels)]
        distinct = {self.problem.key(trial.levels): trial for trial in sorted(admitted, key=self._rank)}
        rows: list[dict[str, Any]] = []
        ranked = sorted(distinct.items(), key=lambda item: self._rank(item[1]), reverse=True)[: finals.count]
        for key, trial in ranked:
            started, label = time.monotonic(), self.problem.label(trial.levels)
            if key not in self.final_rewards:
                policy = self.problem.policy(trial.levels)
                self.final_rewards[key] = checked_reward(finals.reward(policy, None), policy, label)
            self.seconds += time.monotonic() - started
            self.save()
            own = self.final_rewards[key]
            minutes = (len(ranked) - len(rows) - 1) * (time.monotonic() - started) / 60
            found = (len(rows) + 1, len(ranked), -100 * trial.reward, -100 * own, minutes)
            logging.info("finalist %d of %d: error %.2f%%, finetuned %.2f%%; %.1f minutes left", *found)
            rows.append({"trial": trial, "targets": label, "reward": trial.reward, "finetuned_reward": own})
        enough = max((row["finetuned_reward"] for row in rows), default=0.0) - (self.settings.run.allowed_loss or 0.0)
        return sorted(
            rows, key=lambda row: (min(row["finetuned_reward"], enough), *self._rank(row["trial"])), reverse=True
        )

    def result(self) -> SearchResult:
        """The best of all evaluations so far."""
        finalists = self.finalists()
        best = finalists[0]["trial"] if finalists else self.best
        if best is None:
            raise UserError(
                f"search strategy {self.settings.strategy}: none of {len(self.trials)} policies meets the budget of "
                f"{self.problem.budget_seconds:.6g} s; allow more evaluations"
            )
        reward = finalists[0]["finetuned_reward"] if finalists else best.reward
        policy = self.problem.policy(best.levels)
        policy.predicted["exploration_accuracy_percent"] = 100 * (1 + reward)
        rows = [{key: value for key, value in row.items() if key != "trial"} for row in finalists]
        latency = self.problem.latency(best.levels)
        return SearchResult(policy, best.levels, reward, latency, self.history, rows, self.seconds)


def run_search(problem: SearchProblem, settings: SearchSettings, state_file: Path | None = None) -> SearchResult:
    """Evaluate what the strategy proposes and return the policy of the highest reward, among equals the fastest.

    Rewards that lose no more than `allowed_loss` against no errors at all are equals.

    After each evaluation the state is written to `state_file`; a search that was killed goes on from it and has the
    same history as one that was not. The file is this search's alone.
    """
    search, evaluations = _Search(problem, settings, state_file), settings.run.evaluations
    while len(search.trials) < evaluations and (proposal := search.strategy.ask()) is not None:
        started = time.monotonic()
        search.evaluate(proposal)
        search.seconds += time.monotonic() - started
        search.save()
        _log(search, evaluations)
    return search.result()


def _log(search: _Search, evaluations: int) -> None:
    row, done = search.history[-1], len(search.trials)
    best = "none within the budget"
    if row["best_episode"]:
        best = f"{-100 * row['best_reward']:.2f}%, {row['best_latency_seconds']:.4g} s"
    logging.info(
        "episode %d of %d: error %.2f%%, latency %.4g s; best %s; %.1f minutes left%s",
        done,
        evaluations,
        -100 * row["reward"],
        row["latency_seconds"],
        best,
        search.seconds / done * _expected(search, evaluations) / 60,
        f", then {finals.count} finalists" if (finals := search.settings.finals) else "",
    )


def _expected(search: _Search, evaluations: int) -> int:
    """How many evaluations are still to come: fewer than allowed where the strategy ends early."""
    left = evaluations - len(search.trials)
    expected = getattr(search.strategy, "expected", None)
    return left if expected is None else min(left, expected)
