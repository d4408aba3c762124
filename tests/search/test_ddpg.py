"""The DDPG agent: its networks, its exploration, its updates; and the optimum that it finds in a toy environment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.search_support import rule_environment, rule_problem

from autoprivacy.errors import UserError
from autoprivacy.search.ddpg import Agent, AgentSettings
from autoprivacy.search.environment import Transition
from autoprivacy.search.problem import Budget
from autoprivacy.search.strategies.agent import AgentStrategy
from autoprivacy.search.strategies.strategy import StrategySettings, Trial

BEST = (5, 13, 9)
SHORT = AgentSettings(warm_up_episodes=3, batch_size=16)
STATE = 11


def test_the_agent_finds_the_known_optimum() -> None:
    """150 episodes without a limit on the latency: the optimum is one of 6^3 assignments of sets."""
    problem = rule_problem(BEST, Budget(way=1.0))
    strategy = AgentStrategy(problem, StrategySettings(150, 1))
    rewards = []
    for _ in range(150):
        proposal = strategy.ask()
        rewards.append(problem.reward(proposal.levels))
        strategy.tell(Trial(proposal.levels, rewards[-1]))
    assert max(rewards) >= -1 / 15  # at most one set off by one, which a random guess is in 1 of 36
    assert np.mean(rewards[-30:]) > np.mean(rewards[:20]) + 0.15
    environment = rule_environment(BEST, Budget(way=1.0))
    observation, finished, reward = environment.reset()[0], False, 0.0
    while not finished:
        action = np.array(strategy.agent.act(observation, explore=False), np.float32)
        observation, reward, finished, _, _ = environment.step(action)
    assert reward >= -3 / 15  # three sets off by one; the mean of random guesses is about -6 / 15


def test_the_replay_buffer_holds_the_actions_used_under_the_budget() -> None:
    problem = rule_problem(BEST, Budget(way=0.0))
    strategy = AgentStrategy(problem, StrategySettings(2, 1))
    for _ in range(2):
        levels = problem.constrain(strategy.ask().levels)
        assert levels == [0, 0, 0]
        strategy.tell(Trial(levels, -0.4))
    replay = strategy.agent.replay
    assert not replay[:, STATE][replay[:, STATE] >= 0.05].numel()
    assert replay[:, STATE + 1].unique().tolist() == pytest.approx([-0.4])
    assert replay[:, -1].tolist() == [0, 0, 1] * 2


def test_networks_have_the_papers_shape() -> None:
    agent = Agent(STATE, AgentSettings(), 1)
    for network, inputs in ((agent.actor, STATE), (agent.critic, STATE + 1)):
        shapes = [tuple(parameter.shape) for parameter in network.parameters() if parameter.ndim == 2]
        assert shapes == [(400, inputs), (300, 400), (1, 300)]
    assert agent.actor_optimizer.param_groups[0]["lr"] == 1e-4
    assert agent.critic_optimizer.param_groups[0]["lr"] == 1e-3
    states = torch.rand(100, STATE)
    assert bool(((agent.actor(states) > 0.4) & (agent.actor(states) < 0.6)).all())


def episode(reward: float, length: int = 3) -> list[Transition]:
    states = np.random.default_rng(1).random((length + 1, STATE), np.float32)
    return [Transition(states[i], (0.5,), reward, states[i + 1], i == length - 1) for i in range(length)]


def test_noise_decays_after_each_episode_that_follows_the_warm_up() -> None:
    agent = Agent(STATE, SHORT, 1)
    noises = []
    for _ in range(6):
        noises.append(agent.noise)
        agent.finish_episode(episode(-0.5))
    assert noises == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.5 * 0.99, 0.5 * 0.99**2])


def test_actions_explore_uniformly_first_and_then_around_the_actor_within_bounds() -> None:
    observation = np.zeros(STATE, np.float32)
    agent = Agent(STATE, SHORT, 1)
    uniform = np.array([agent.act(observation)[0] for _ in range(2000)])
    assert uniform.min() >= 0 and uniform.max() <= 1
    assert uniform.var() == pytest.approx(1 / 12, rel=0.1)
    agent.episodes = SHORT.warm_up_episodes + 160  # noise of 0.1
    noisy = np.array([agent.act(observation)[0] for _ in range(2000)])
    (mean,) = agent.act(observation, explore=False)
    assert noisy.mean() == pytest.approx(mean, abs=0.01)
    assert noisy.std() == pytest.approx(0.5 * 0.99**160, rel=0.1)
    agent.episodes = SHORT.warm_up_episodes
    wide = np.array([agent.act(observation)[0] for _ in range(2000)])
    assert wide.min() > 0 and wide.max() < 1  # truncated, not clipped: nothing piles up at the ends


def test_the_buffer_keeps_the_newest_transitions_and_the_baseline_follows_the_rewards() -> None:
    agent = Agent(STATE, replace(SHORT, replay_size=7, warm_up_episodes=10), 1)
    for reward in (-1.0, -0.5, 0.0):
        agent.finish_episode(episode(reward))
    assert agent.replay[:, STATE + 1].tolist() == [-1.0, -0.5, -0.5, -0.5, 0.0, 0.0, 0.0]
    assert agent.baseline == pytest.approx(0.95 * (0.95 * -1.0 + 0.05 * -0.5))


def test_the_critic_learns_the_discounted_sum_of_rewards_above_the_baseline() -> None:
    """One fixed episode with R - baseline = 0 but for the value: with discount 1 step i is worth (N - i) (R - b)."""
    settings = AgentSettings(warm_up_episodes=0, batch_size=16, baseline_decay=1.0, soft_update=0.5)
    agent = Agent(STATE, settings, 1)
    agent.baseline = -1.0
    transitions = episode(-0.5)
    with torch.no_grad():  # an actor that proposes 0.5 and stays there, so that the episode is on-policy
        for parameter in [*agent.actor.layers[-1].parameters(), *agent.actor_target.layers[-1].parameters()]:
            parameter.zero_()
    agent.actor_optimizer.param_groups[0]["lr"] = 0.0
    for _ in range(40):
        agent.finish_episode(transitions)
    states = torch.tensor(np.stack([t.observation for t in transitions]))
    values = agent.critic(torch.cat([states, torch.full((3, 1), 0.5)], 1)).flatten()
    assert values.tolist() == pytest.approx([1.5, 1.0, 0.5], abs=0.1)


def test_actions_of_two_numbers_are_learned_apart() -> None:
    """The reward is the first number minus the second: the actor's outputs move in opposite directions."""
    agent = Agent(STATE, AgentSettings(warm_up_episodes=20, actor_learning_rate=1e-3), 1, action_size=2)
    states = np.random.default_rng(1).random((2, STATE), np.float32)
    for _ in range(60):
        action = agent.act(states[0])
        agent.finish_episode([Transition(states[0], action, action[0] - action[1], states[1], True)] * 4)
    first, second = agent.act(states[0], explore=False)
    assert first > 0.6 and second < 0.4
    assert len(agent.replay[0]) == 2 * STATE + 4


def test_wrong_settings_are_named() -> None:
    for wrong in ({"noise": 0.0}, {"discount": 1.5}, {"batch_size": 0}, {"warm_up_episodes": -1}):
        with pytest.raises(UserError, match="agent settings"):
            replace(SHORT, **wrong)
