"""The fastest policy that loses next to no accuracy: bisection along the policies of least noise at a latency.

For every latency the knapsack of `dynamic_programming` gives the policy of least total noise, each layer's variance in
units of its own step. Along these policies accuracy falls as latency does, but for the sampling error of accuracies, so
a few evaluations find where it begins to.
"""

from __future__ import annotations

import math

from autoprivacy.search.strategies.dynamic_programming import solve
from autoprivacy.search.strategies.strategy import Proposal, Script, ScriptedStrategy

# Of the latency, what is left between a policy that loses too much and one that does not. A finer end trusts the luck
# of the images measured: with a thousandth, policies lost 1 to 2 points more on other images (docs/search.md).
RESOLUTION = 1e-2


def halvings(low: float, high: float) -> int:
    """How often what is open between two latencies has to be halved until RESOLUTION is left of it; 0 where it is."""
    share = (high - low) / (RESOLUTION * low)
    return math.ceil(math.log2(share)) if share > 1 else 0


class LeastLatency(ScriptedStrategy):
    """No errors as a measurement, the budget's policy, then halves of what is open; then it ends."""

    def script(self) -> Script:
        """Propose the policy of least noise at one latency after the other."""
        problem, allowed = self.problem, self.settings.allowed_loss or 0.0
        noise = [coordinate.variance for coordinate in problem.coordinates]
        clean = yield Proposal(problem.strictest, probe=True)
        low, high = problem.latency(problem.loosest), problem.budget_seconds
        limit = high
        self.expected = 1 + halvings(low, high)
        for _ in range(self.settings.evaluations - 1):
            trial = yield Proposal(solve(problem, noise, limit))
            if clean.reward - trial.reward <= allowed:
                high = problem.latency(trial.levels)  # the knapsack may have left a rest
            else:
                low = limit
            self.expected = halvings(low, high)
            if not self.expected:
                return
            limit = (low + high) / 2
