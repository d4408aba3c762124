"""The DDPG agent and the search: they find a known optimum, repeat for a seed and go on after a kill."""

from __future__ import annotations

import csv
import io
import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from search_support import RuleReward, exponent_of, rule_environment, step_of

from autoprivacy.errors import UserError
from autoprivacy.search.ddpg import Agent, AgentSettings
from autoprivacy.search.environment import Budget, Transition
from autoprivacy.search.search import SearchResult, run_search

BEST = (5, 13, 9)
SHORT = AgentSettings(warm_up_episodes=3, batch_size=16)
STATE = 11


def short_search(seed: int, episodes: int = 8, state: Path | None = None) -> SearchResult:
    return run_search(rule_environment(BEST), Agent(STATE, SHORT, seed), episodes, state)


@pytest.fixture(scope="module")
def long_search() -> tuple[SearchResult, Agent]:
    """150 episodes without a limit on the latency: the optimum is one of 6^3 assignments of sets."""
    agent = Agent(STATE, AgentSettings(), seed=1)
    result = run_search(rule_environment(BEST, Budget(way=1.0)), agent, 150)
    return result, agent


def test_the_agent_finds_the_known_optimum(long_search: tuple[SearchResult, Agent]) -> None:
    result, agent = long_search
    rewards = [row["reward"] for row in result.history]
    assert result.reward == max(rewards) >= -1 / 15  # at most one set off by one, which a random guess is in 1 of 36
    assert np.mean(rewards[-30:]) > np.mean(rewards[:20]) + 0.15
    environment = rule_environment(BEST, Budget(way=1.0))
    observation, finished, reward = environment.reset()[0], False, 0.0
    while not finished:
        action = np.array([agent.act(observation, explore=False)], np.float32)
        observation, reward, finished, _, _ = environment.step(action)
    assert reward >= -3 / 15  # three sets off by one; the mean of random guesses is about -6 / 15


def test_the_result_is_the_best_episode(long_search: tuple[SearchResult, Agent]) -> None:
    result, _ = long_search
    environment = rule_environment(BEST, Budget(way=1.0))
    assert environment.reward(result.exponents) == pytest.approx(result.reward)
    assert environment.latency(result.exponents) == pytest.approx(result.latency_seconds)
    assert [exponent_of(layer.target) for layer in result.policy.layers] == result.exponents
    rows = result.history
    assert [row["episode"] for row in rows] == list(range(1, 151))
    assert [row["best_reward"] for row in rows] == list(np.maximum.accumulate([row["reward"] for row in rows]))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    assert len(text.getvalue().splitlines()) == 151


def test_among_equal_rewards_the_fastest_policy_wins() -> None:
    environment = rule_environment(budget=Budget(way=1.0))
    environment.reward_of = RuleReward(BEST, constant=-0.25)
    result = run_search(environment, Agent(STATE, SHORT, 1), 12)
    assert result.reward == -0.25
    assert result.latency_seconds == min(row["latency_seconds"] for row in result.history)


def test_the_replay_buffer_holds_the_actions_used_under_the_budget() -> None:
    agent = Agent(STATE, SHORT, 1)
    environment = rule_environment(BEST, Budget(way=0.0))
    result = run_search(environment, agent, 2)
    assert {row["exponents"] for row in result.history} == {"5 5 5"}
    assert not agent.replay[:, STATE][agent.replay[:, STATE] >= 0.05].numel()
    assert agent.replay[:, STATE + 1].unique().tolist() == pytest.approx([result.reward])
    assert agent.replay[:, -1].tolist() == [0, 0, 1] * 2


def test_the_same_seed_gives_the_same_history_and_another_does_not() -> None:
    first, again, other = short_search(1), short_search(1), short_search(2)
    assert first.history == again.history and first.history != other.history


def test_a_killed_search_goes_on_to_the_same_history(tmp_path: Path) -> None:
    expected = short_search(1).history
    state = tmp_path / "search.pt"
    for episodes in (2, 5, 8):  # within the warm-up and after it
        result = short_search(1, episodes, state)
    assert result.history == expected
    assert short_search(1, 8, state).history == expected  # nothing left to do
    assert [path.name for path in tmp_path.iterdir()] == ["search.pt"]


def test_a_resumed_search_knows_the_rewards_already_computed(tmp_path: Path) -> None:
    state = tmp_path / "search.pt"
    short_search(1, 5, state)
    environment = rule_environment(BEST)
    run_search(environment, Agent(STATE, SHORT, 1), 8, state)
    before = torch.load(state, weights_only=True)["rewards"]
    assert isinstance(environment.reward_of, RuleReward)
    assert len(environment.reward_of.policies) < len(before) == len(environment.rewards)


def test_the_state_of_another_search_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "search.pt"
    short_search(1, 2, state)
    cases = [
        ("seed", rule_environment(BEST), Agent(STATE, SHORT, 2)),
        ("agent", rule_environment(BEST), Agent(STATE, replace(SHORT, discount=0.5), 1)),
        ("reward", rule_environment((5, 5, 5)), Agent(STATE, SHORT, 1)),
        ("budget_seconds", rule_environment(BEST, Budget(way=0.2)), Agent(STATE, SHORT, 1)),
    ]
    for key, environment, agent in cases:
        with pytest.raises(UserError, match=rf"belongs to a search with other \['{key}'\]"):
            run_search(environment, agent, 4, state)


def test_every_episode_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        short_search(1, 3)
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("episode")]
    assert len(lines) == 3
    assert all(word in lines[1] for word in ("episode 2 of 3", "error", "latency", "best", "minutes left"))


def test_a_failed_reward_leaves_the_state_of_the_last_whole_episode(tmp_path: Path) -> None:
    state = tmp_path / "search.pt"
    short_search(1, 4, state)
    environment = rule_environment(BEST)
    reward = environment.reward_of
    assert isinstance(reward, RuleReward)
    broken = rule_environment(BEST)
    broken.reward_of = _FailsLike(reward)
    with pytest.raises(UserError, match="reward nan"):
        run_search(broken, Agent(STATE, SHORT, 1), 8, state)
    assert run_search(environment, Agent(STATE, SHORT, 1), 8, state).history == short_search(1).history


class _FailsLike(RuleReward):
    """Has the fingerprint of a sound reward and gives NaN."""

    def __init__(self, sound: RuleReward) -> None:
        super().__init__(sound.best, sound.constant)

    def __call__(self, policy: object) -> float:
        return math.nan


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
    return [Transition(states[i], 0.5, reward, states[i + 1], i == length - 1) for i in range(length)]


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
    uniform = np.array([agent.act(observation) for _ in range(2000)])
    assert uniform.min() >= 0 and uniform.max() <= 1
    assert uniform.var() == pytest.approx(1 / 12, rel=0.1)
    agent.episodes = SHORT.warm_up_episodes + 160  # noise of 0.1
    noisy = np.array([agent.act(observation) for _ in range(2000)])
    mean = agent.act(observation, explore=False)
    assert noisy.mean() == pytest.approx(mean, abs=0.01)
    assert noisy.std() == pytest.approx(0.5 * 0.99**160, rel=0.1)
    agent.episodes = SHORT.warm_up_episodes
    wide = np.array([agent.act(observation) for _ in range(2000)])
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


def test_the_state_covers_everything() -> None:
    agent, twin = Agent(STATE, SHORT, 1), Agent(STATE, SHORT, 99)
    for _ in range(5):
        agent.finish_episode(episode(-0.3))
    buffer = io.BytesIO()
    torch.save(agent.state_dict(), buffer)
    buffer.seek(0)
    twin.load_state_dict(torch.load(buffer, weights_only=True))
    observation = np.full(STATE, 0.5, np.float32)
    for _ in range(3):
        assert agent.act(observation) == twin.act(observation)
        agent.finish_episode(episode(-0.2))
        twin.finish_episode(episode(-0.2))
    for one, other in zip(agent.critic.parameters(), twin.critic.parameters(), strict=True):
        assert torch.equal(one, other)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="episodes: got 0"):
        short_search(1, 0)
    for wrong in ({"noise": 0.0}, {"discount": 1.5}, {"batch_size": 0}, {"warm_up_episodes": -1}):
        with pytest.raises(UserError, match="agent settings"):
            replace(SHORT, **wrong)
    assert step_of(5) == 0 and step_of(15) == 5
