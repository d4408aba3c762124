"""The paper's agent: deep deterministic policy gradient over one episode per policy (section 3.1, Agent).

Lillicrap et al., Continuous control with deep reinforcement learning, ICLR 2016, with the paper's settings; what the
paper leaves open follows Wang et al., HAQ: Hardware-Aware Automated Quantization, CVPR 2019, whose search has the same
shape (one step per layer, one reward per episode). Everything random comes from one generator of the agent's own, so
the same seed and rewards give the same agent.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprivacy.errors import UserError
from autoprivacy.search.environment import Transition

HIDDEN_UNITS = (400, 300)  # of actor and critic; section 3.1, Implementation
OUTPUT_BOUND = 3e-3  # initial output weights: actions start near 1/2, values near 0 (Lillicrap et al., section 7)


@dataclass(frozen=True)
class AgentSettings:
    """The agent's settings; those without a note are the paper's (section 3.1, Implementation)."""

    actor_learning_rate: float = 1e-4
    critic_learning_rate: float = 1e-3
    replay_size: int = 2000  # transitions; the oldest fall out
    noise: float = 0.5  # standard deviation of the action noise in the first episode after the warm-up
    noise_decay: float = 0.99  # per episode
    # The following the paper leaves open.
    # gamma: every transition already carries the whole episode's reward, so no discount is needed to pass it back; 1
    # weighs all layers alike, as HAQ does, and is finite because an episode ends with the last layer.
    discount: float = 1.0
    batch_size: int = 64  # Lillicrap et al., section 7; HAQ
    soft_update: float = 0.01  # share of the network that enters its target per update; HAQ
    warm_up_episodes: int = 20  # uniform actions, no updates: fills more than a batch even for networks of 4 layers
    # Share of the old value in the moving average of rewards that is subtracted from them (HAQ's baseline). Rewards of
    # one network differ by a few percent: without it the critic spends its time on the constant part.
    baseline_decay: float = 0.95

    def __post_init__(self) -> None:
        fractions = (self.noise_decay, self.discount, self.soft_update, self.baseline_decay)
        counts = (self.replay_size, self.batch_size)
        positive = (self.actor_learning_rate, self.critic_learning_rate, self.noise)
        if (
            not all(0 <= f <= 1 for f in fractions)
            or min(counts) < 1
            or min(positive) <= 0
            or self.warm_up_episodes < 0
        ):
            raise UserError(
                f"agent settings {self}: expected decays, discount and soft_update from 0 to 1, sizes of 1 or more, "
                f"positive learning rates and noise"
            )


class _Network(nn.Module):
    """inputs -> 400 -> 300 -> outputs with ReLUs between; `sigmoid` bounds the output to [0, 1] (the actor)."""

    def __init__(self, inputs: int, outputs: int, sigmoid: bool, generator: torch.Generator) -> None:
        super().__init__()
        first, second = HIDDEN_UNITS
        layers = [nn.Linear(inputs, first), nn.Linear(first, second), nn.Linear(second, outputs)]
        self.layers = nn.ModuleList(layers)
        self.sigmoid = sigmoid
        for layer in layers:
            bound = OUTPUT_BOUND if layer is layers[-1] else layer.in_features**-0.5
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, values: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            values = F.relu(layer(values))
        output: Tensor = self.layers[-1](values)
        return torch.sigmoid(output) if self.sigmoid else output


class Agent:
    """A DDPG agent for actions of numbers in [0, 1]; the paper's are one number.

    Two readings of the paper's formulas: the loss is taken at the actions that were rewarded, Q(O_i, a_i), where the
    paper writes Q(O_i, mu(O_i)) (a reward carries no information on an action that was not taken); and over a batch of
    the replay buffer, as many updates per episode as it has steps N_s, where the paper sums over the N_s steps of one
    episode.

    Args:
        observation_size: length of an observation.
        settings: see AgentSettings.
        seed: of weights, exploration and batches.
        action_size: numbers in an action.
    """

    def __init__(self, observation_size: int, settings: AgentSettings, seed: int, action_size: int = 1) -> None:
        self.settings = settings
        self.generator = torch.Generator().manual_seed(seed)
        self.actor = _Network(observation_size, action_size, sigmoid=True, generator=self.generator)
        self.critic = _Network(observation_size + action_size, 1, sigmoid=False, generator=self.generator)
        self.actor_target, self.critic_target = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), settings.actor_learning_rate)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), settings.critic_learning_rate)
        # A row per transition: observation, action, reward, next observation, 1 for an episode's last.
        self.sizes = [observation_size, action_size, 1, observation_size, 1]
        self.replay = torch.zeros(0, sum(self.sizes))
        self.episodes = 0
        self.baseline: float | None = None

    @property
    def noise(self) -> float:
        """The present standard deviation of the action noise."""
        after = max(0, self.episodes - self.settings.warm_up_episodes)
        return self.settings.noise * self.settings.noise_decay**after

    @torch.no_grad()
    def act(self, observation: np.ndarray, explore: bool = True) -> tuple[float, ...]:
        """The action for an observation; exploring, uniform during the warm-up and noisy after it.

        The noise is a Gaussian around the actor's output truncated to [0, 1]; clipping it instead would choose the two
        extreme error rates in a third of all steps.
        """
        if explore and self.episodes < self.settings.warm_up_episodes:
            return _numbers(torch.rand(self.sizes[1], generator=self.generator))
        mean = self.actor(torch.from_numpy(observation)).double()
        if not explore:
            return _numbers(mean)
        low, high = (torch.special.ndtr((edge - mean) / self.noise) for edge in (0.0, 1.0))
        uniform = torch.rand(len(mean), generator=self.generator, dtype=torch.float64)
        return _numbers((mean + self.noise * torch.special.ndtri(low + uniform * (high - low))).clamp(0, 1))

    def finish_episode(self, transitions: Sequence[Transition]) -> None:
        """Remember an episode and, after the warm-up, update the networks once per step of it."""
        rows = [[*t.observation, *t.action, t.reward, *t.next_observation, float(t.last)] for t in transitions]
        self.replay = torch.cat([self.replay, torch.tensor(rows)])[-self.settings.replay_size :]
        reward, decay = transitions[-1].reward, self.settings.baseline_decay
        self.baseline = reward if self.baseline is None else decay * self.baseline + (1 - decay) * reward
        self.episodes += 1
        if self.episodes > self.settings.warm_up_episodes:
            for _ in transitions:
                self._update()

    def _update(self) -> None:
        chosen = torch.randint(len(self.replay), (self.settings.batch_size,), generator=self.generator)
        states, actions, rewards, next_states, last = self.replay[chosen].split(self.sizes, dim=1)
        with torch.no_grad():
            following = self.critic_target(torch.cat([next_states, self.actor_target(next_states)], 1))
            values = rewards - self.baseline + self.settings.discount * (1 - last) * following
        critic_loss = F.mse_loss(self.critic(torch.cat([states, actions], 1)), values)
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        self.critic_optimizer.step()
        actor_loss = -self.critic(torch.cat([states, self.actor(states)], 1)).mean()
        self.actor_optimizer.zero_grad()
        actor_loss.backward()
        self.actor_optimizer.step()
        self._follow(self.actor, self.actor_target)
        self._follow(self.critic, self.critic_target)

    @torch.no_grad()
    def _follow(self, network: nn.Module, target: nn.Module) -> None:
        for new, old in zip(network.parameters(), target.parameters(), strict=True):
            old.lerp_(new, self.settings.soft_update)


def _numbers(values: Tensor) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
