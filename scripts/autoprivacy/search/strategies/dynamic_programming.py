"""Least loss under the budget by dynamic programming, where the loss is a sum over the layers.

The proxy: a layer's noise costs accuracy in proportion to its variance, and layers' losses add up. Each layer's factor
is measured with that layer alone at its largest errors, or at smaller ones where these lose too much. The solution is
evaluated like any other policy; its loss beside the predicted one is the check of additivity, and is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from autoprivacy.search.problem import SearchProblem
from autoprivacy.search.strategies.strategy import Proposal, Script, ScriptedStrategy, Trial

BUCKETS = 10_000  # of the latency above the cheapest policy; rounding up wastes at most one per coordinate
# A measured factor carries the sampling error of an accuracy, so each is drawn towards the factor that all layers
# share. How far is tried: the weights of the measured factors, each giving one policy.
WEIGHTS = (0.9, 0.6, 0.3)
# Near chance the accuracy hardly falls any more, so a layer that loses more than this, a fraction, is measured again
# with a sixteenth of the noise variance, which takes from it a sixteenth of the loss.
LARGEST_LOSS, SMALLER_PROBE = 0.05, 16
PROBED_SHARE = 0.75  # of the evaluations at most are measurements; the costliest coordinates come first


class DynamicProgramming(ScriptedStrategy):
    """One policy by noise alone, the measurements, one policy per weight; then it ends.

    Attributes:
        additivity: pairs of the loss that the sum predicts and the one measured, as fractions; the first is of the
            policy that trusts the measurements most.
    """

    additivity: list[tuple[float, float]]

    def script(self) -> Script:
        """Propose, measure, propose."""
        problem, self.additivity = self.problem, []
        trial = yield Proposal(solve(problem, [c.variance for c in problem.coordinates]))
        tried = {tuple(trial.levels): trial.reward}
        clean = yield Proposal(problem.strictest, probe=True)
        self._left = int(PROBED_SHARE * self.settings.evaluations) - 2
        factors: dict[int, float] = {}
        for index in costliest(problem):
            yield from self._measure(clean, index, factors)
        shared = shared_factor(problem, factors)
        own = [factors.get(index, shared) for index in range(len(problem.sizes))]
        for weight in WEIGHTS if shared > 0 else ():
            mixed = [weight * factor + (1 - weight) * shared for factor in own]
            levels = tuple(solve(problem, [f * c.variance for f, c in zip(mixed, problem.coordinates, strict=True)]))
            if levels not in tried:
                trial = yield Proposal(list(levels))
                tried[levels] = trial.reward
            self._check(predicted_loss(problem, own, levels), clean.reward - tried[levels])

    def _measure(self, clean: Trial, index: int, factors: dict[int, float]) -> Script:
        """A layer's factor; again with less noise where the loss is too large to be in proportion."""
        variance = self.problem.coordinates[index].variance
        level: int | None = 0
        while level is not None and self._left > 0:
            self._left -= 1
            trial = yield Proposal(loosened(self.problem.strictest, index, level), probe=True)
            loss = max(clean.reward - trial.reward, 0.0)
            factors[index] = loss / float(variance[level] - variance[-1])
            less = np.flatnonzero((variance <= variance[level] / SMALLER_PROBE) & (variance > variance[-1]))
            level = int(less[0]) if len(less) and loss > LARGEST_LOSS else None

    def _check(self, predicted: float, measured: float) -> None:
        self.additivity.append((predicted, measured))
        logging.info("loss of the layers together: %.2f%% predicted, %.2f%% measured", 100 * predicted, 100 * measured)


def costliest(problem: SearchProblem) -> list[int]:
    """The coordinates whose latency and noise depend on the level, those that can save most seconds first."""
    spans = {
        index: float(c.seconds[-1] - c.seconds[0])
        for index, c in enumerate(problem.coordinates)
        if c.seconds[-1] > c.seconds[0] and c.variance[0] > c.variance[-1]
    }
    return sorted(spans, key=lambda index: -spans[index])


def loosened(levels: Sequence[int], index: int, level: int) -> list[int]:
    """`levels` with another level at one coordinate."""
    return [level if position == index else own for position, own in enumerate(levels)]


def largest_variance(problem: SearchProblem, index: int) -> float:
    """What a probe of a coordinate adds to the noise variance."""
    variance = problem.coordinates[index].variance
    return float(variance[0] - variance[-1])


def shared_factor(problem: SearchProblem, factors: dict[int, float]) -> float:
    """The factor that, put in every probed coordinate's place, gives the same sum of losses; 0 without a probe."""
    variances = {index: largest_variance(problem, index) for index in factors}
    total = sum(variances.values())
    return sum(factors[index] * variances[index] for index in factors) / total if total else 0.0


def predicted_loss(problem: SearchProblem, factors: Sequence[float], levels: Sequence[int]) -> float:
    """The sum of the coordinates' losses, as a fraction."""
    return sum(
        factor * float(c.variance[level] - c.variance[-1])
        for factor, c, level in zip(factors, problem.coordinates, levels, strict=True)
    )


def solve(problem: SearchProblem, losses: Sequence[np.ndarray], limit: float | None = None) -> list[int]:
    """The levels of least total loss that meet the budget (a multiple-choice knapsack).

    Args:
        losses: float64 [levels] per coordinate.
        limit: seconds, at least those of the loosest levels, in place of the budget's.
    """
    slack = (problem.budget_seconds if limit is None else limit) - problem.latency(problem.loosest)
    spans = [c.seconds - c.seconds[0] for c in problem.coordinates]
    if sum(float(span[-1]) for span in spans) <= slack:
        return problem.strictest
    best, choices = np.zeros(BUCKETS + 1), []
    for span, loss in zip(spans, losses, strict=True):
        units = np.where(span > 0, np.ceil(span / max(slack, 1e-300) * BUCKETS), 0.0)
        table = np.full((len(span), BUCKETS + 1), np.inf)
        for level, unit in enumerate(units):
            if unit <= BUCKETS:
                table[level, int(unit) :] = best[: BUCKETS + 1 - int(unit)] + loss[level]
        # of equal losses the smaller errors, where they cost nothing more; argmin takes the first
        choices.append((len(span) - 1 - table[::-1].argmin(0), units))
        best = table.min(0)
    levels, left = [], BUCKETS
    for chosen, units in reversed(choices):
        levels.append(int(chosen[left]))
        left -= int(units[levels[-1]])
    return levels[::-1]
