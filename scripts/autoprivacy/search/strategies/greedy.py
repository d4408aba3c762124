"""Greedy: from the smallest errors on, loosen the layer that buys most latency per lost accuracy.

A step takes a layer to the next level that saves a quarter of what the layer can save. What it costs is measured with
that layer alone loosened, so each step takes one evaluation.
"""

from __future__ import annotations

from autoprivacy.search.strategies.dynamic_programming import costliest, loosened
from autoprivacy.search.strategies.strategy import Proposal, Script, ScriptedStrategy, Trial

STEPS = 4  # to loosen a coordinate wholly: more measure more finely and need more evaluations
SMALLEST_LOSS = 1e-3  # a fraction; what is lost less than this is taken for this, so that savings decide


class Greedy(ScriptedStrategy):
    """Measures each layer's next step, takes the best one, measures that layer's next; ends where the budget is met.

    Where evaluations run out, steps that were not measured are taken to cost what their noise costs elsewhere.
    """

    def script(self) -> Script:
        """Measure and take steps, then propose what they lead to."""
        problem = self.problem
        current = problem.strictest
        clean = yield Proposal(current, probe=True)
        self._left = self.settings.evaluations - 2  # one is kept for the policy
        self._losses = {(index, level): 0.0 for index, level in enumerate(current)}
        waiting = costliest(problem)
        steps: dict[int, int] = {}
        while not problem.admits(current):
            for index in waiting:
                steps[index] = self.next_step(index, current[index])
                yield from self._measure(clean, index, steps[index])
            waiting = []
            index = max(steps, key=lambda i: self._worth(i, current[i], steps[i]), default=-1)
            if index < 0:
                break  # what is left is a saving without a loss, which the latency constraint makes
            current = self._step(current, index, steps.pop(index))
            if problem.next_cheaper(index, current[index]) < current[index]:
                waiting = [index]
        yield Proposal(current)

    def next_step(self, index: int, level: int) -> int:
        """The level that saves a quarter of a coordinate's span, or as much as is left to save."""
        seconds = self.problem.coordinates[index].seconds
        wanted = seconds[level] - (seconds[-1] - seconds[0]) / STEPS
        return next((lower for lower in range(level - 1, -1, -1) if seconds[lower] <= wanted), 0)

    def _step(self, current: list[int], index: int, level: int) -> list[int]:
        """The step, or as much of it as the budget asks for."""
        between = (loosened(current, index, partial) for partial in range(current[index], level - 1, -1))
        return next((levels for levels in between if self.problem.admits(levels)), loosened(current, index, level))

    def _measure(self, clean: Trial, index: int, level: int) -> Script:
        if self._left > 0:
            self._left -= 1
            trial = yield Proposal(loosened(self.problem.strictest, index, level), probe=True)
            self._losses[index, level] = max(clean.reward - trial.reward, 0.0)

    def _loss(self, index: int, level: int) -> float:
        """Measured, or what so much variance costs by all measured losses together."""
        if (index, level) in self._losses:
            return self._losses[index, level]
        coordinates = self.problem.coordinates
        variance = sum(float(coordinates[i].variance[k]) for i, k in self._losses)
        return sum(self._losses.values()) / variance * float(coordinates[index].variance[level]) if variance else 0.0

    def _worth(self, index: int, level: int, step: int) -> float:
        seconds = self.problem.coordinates[index].seconds
        loss = max(self._loss(index, step) - self._loss(index, level), SMALLEST_LOSS)
        return float(seconds[level] - seconds[step]) / loss
