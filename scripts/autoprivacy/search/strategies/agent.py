"""The paper's strategy: the DDPG agent, one episode of the environment per proposal."""

from __future__ import annotations

from autoprivacy.search.ddpg import Agent, AgentSettings
from autoprivacy.search.environment import LayerwiseEnvironment
from autoprivacy.search.problem import SearchProblem
from autoprivacy.search.strategies.strategy import Proposal, StrategySettings, Trial


class AgentStrategy:
    """Layer by layer the agent's action; it learns from the actions as the latency constraint left them."""

    def __init__(self, problem: SearchProblem, settings: StrategySettings) -> None:
        self.environment = LayerwiseEnvironment(problem)
        size = len(self.environment.start)
        how = AgentSettings(warm_up_episodes=settings.warm_up)
        self.agent = Agent(size, how, settings.seed, problem.dimensions)
        self._actions: list[tuple[float, ...]] = []

    def ask(self) -> Proposal:
        """Play an episode up to its reward."""
        observation = self.environment.start
        self._actions = []
        for index in range(len(self.environment.problem.names)):
            self._actions.append(self.agent.act(observation))
            observation = self.environment.observation(index + 1, self._actions[-1])
        return Proposal(self.environment.levels(self._actions))

    def tell(self, trial: Trial) -> None:
        """End the episode."""
        used = self.environment.used_actions(self._actions, trial.levels)
        self.agent.finish_episode(self.environment.transitions(used, trial.reward))
