"""Optuna's tree-structured Parzen estimator over the levels.

Bergstra, Bardenet, Bengio, Kegl, Algorithms for Hyper-Parameter Optimization, NeurIPS 2011; T. Akiba et al., Optuna,
KDD 2019.
"""

from __future__ import annotations

import optuna

from autoprivacy.search.problem import SearchProblem
from autoprivacy.search.strategies.strategy import Proposal, StrategySettings, Trial


class TreeParzen:
    """Each proposal is sampled afresh from all trials so far, seeded by how many there are."""

    def __init__(self, problem: SearchProblem, settings: StrategySettings) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._settings = settings
        self._levels = {
            f"{index}": optuna.distributions.IntDistribution(0, size - 1) for index, size in enumerate(problem.sizes)
        }
        self._trials: list[optuna.trial.FrozenTrial] = []

    def ask(self) -> Proposal:
        """The sampler's levels."""
        seed = (self._settings.seed * self._settings.evaluations + len(self._trials)) % 2**32
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=self._settings.warm_up)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials(self._trials)
        return Proposal(list(study.ask(dict(self._levels)).params.values()))

    def tell(self, trial: Trial) -> None:
        """Keep the levels as the latency constraint left them."""
        params = dict(zip(self._levels, trial.levels, strict=True))
        self._trials.append(
            optuna.trial.create_trial(params=params, distributions=dict(self._levels), value=trial.reward)
        )
