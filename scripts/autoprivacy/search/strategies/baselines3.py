"""DDPG as Stable-Baselines3 implements it, an agent of other hands beside our own.

Raffin et al., Stable-Baselines3: Reliable Reinforcement Learning Implementations, JMLR 22, 2021. The library is no
requirement of the project: requirements-search.txt pins the release that this was written for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.search.ddpg import AgentSettings
from autoprivacy.search.environment import LayerwiseEnvironment
from autoprivacy.search.problem import SearchProblem
from autoprivacy.search.strategies.strategy import Proposal, StrategySettings, Trial


def _library() -> Any:
    try:
        import stable_baselines3
    except ModuleNotFoundError:
        raise UserError(
            "search strategy stable-baselines3: the library is not installed; "
            "run `.venv/bin/pip install -r requirements-search.txt` or choose another strategy"
        ) from None
    return stable_baselines3


class BaselinesStrategy:
    """The environment's episodes with Stable-Baselines3's DDPG: its networks, replay buffer and updates.

    Action noise, its decay and the moving average that is subtracted from rewards are those of our own agent.
    """

    def __init__(self, problem: SearchProblem, settings: StrategySettings) -> None:
        library = _library()
        self.environment = LayerwiseEnvironment(problem)
        self._settings, self._how = settings, AgentSettings(warm_up_episodes=settings.warm_up)
        self._seed_everything = library.common.utils.set_random_seed
        self._model = library.DDPG(
            "MlpPolicy",
            self.environment,
            learning_rate=self._how.critic_learning_rate,
            buffer_size=self._how.replay_size,
            batch_size=self._how.batch_size,
            gamma=self._how.discount,
            seed=settings.seed,
            device="cpu",
        )
        self._model.set_logger(library.common.logger.Logger(None, []))
        self._actions: list[tuple[float, ...]] = []
        self._episodes = 0
        self._baseline: float | None = None

    def ask(self) -> Proposal:
        """Play an episode up to its reward."""
        generator = np.random.default_rng([self._settings.seed, self._episodes])
        observation = self.environment.start
        self._actions = []
        for index in range(len(self.environment.problem.names)):
            self._actions.append(self._act(observation, generator))
            observation = self.environment.observation(index + 1, self._actions[-1])
        return Proposal(self.environment.levels(self._actions))

    def _act(self, observation: np.ndarray, generator: np.random.Generator) -> tuple[float, ...]:
        size = self.environment.problem.dimensions
        learned = self._episodes - self._settings.warm_up
        if learned < 0:
            return tuple(generator.random(size).tolist())
        mean, _ = self._model.predict(observation, deterministic=True)
        noise = self._how.noise * self._how.noise_decay**learned
        return tuple(np.clip(mean + generator.normal(0, noise, size), 0, 1).tolist())

    def tell(self, trial: Trial) -> None:
        """End the episode: as many updates as it has steps."""
        used = self.environment.used_actions(self._actions, trial.levels)
        decay = self._how.baseline_decay
        old = trial.reward if self._baseline is None else self._baseline
        self._baseline = decay * old + (1 - decay) * trial.reward
        transitions = self.environment.transitions(used, trial.reward - self._baseline)
        for step in transitions:
            scaled = self._model.policy.scale_action(np.array([step.action], np.float32))
            self._model.replay_buffer.add(
                step.observation, step.next_observation, scaled, np.array([step.reward]), np.array([step.last]), [{}]
            )
        self._episodes += 1
        if self._episodes > self._settings.warm_up:
            # its buffer samples with the global generators
            self._seed_everything(self._settings.seed + self._episodes)
            self._model.train(len(transitions), self._how.batch_size)
