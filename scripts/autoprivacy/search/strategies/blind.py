"""The two simplest rivals: the same action for every layer, and actions at random."""

from __future__ import annotations

import itertools

import numpy as np

from autoprivacy.search.space import levels_of
from autoprivacy.search.strategies.strategy import Proposal, Script, ScriptedStrategy


class Uniform(ScriptedStrategy):
    """One action for all layers: every distinct one that meets the budget, the smallest errors first, then ends."""

    def script(self) -> Script:
        """With two choices per layer one action is a pair; those with small errors in both come first."""
        problem = self.problem
        counts = [max(problem.sizes[dimension :: problem.dimensions]) for dimension in range(problem.dimensions)]
        pairs = itertools.product(*(np.linspace(1.0, 0.0, count).tolist() for count in counts))
        seen = set()
        for action in sorted(pairs, key=sum, reverse=True):
            levels = levels_of(action * len(problem.names), problem.sizes)
            if problem.admits(levels) and tuple(levels) not in seen:
                seen.add(tuple(levels))
                yield Proposal(levels)


class RandomSearch(ScriptedStrategy):
    """Every layer's action independent and uniform."""

    def script(self) -> Script:
        """Without end."""
        generator = np.random.default_rng(self.settings.seed)
        while True:
            yield Proposal(levels_of(generator.random(len(self.problem.sizes)).tolist(), self.problem.sizes))
