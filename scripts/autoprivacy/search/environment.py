"""The search problem as a Gymnasium environment: one step chooses for one linear layer.

The paper's section 3.1: state and action space, the latency constraint on the action space, the reward. An episode's
last step forms the policy, brings it within the latency budget and rewards it; the rewards before are 0, and
`transitions` gives the replay buffer what the paper stores: the final reward in every transition of the episode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from autoprivacy.search.problem import SearchProblem
from autoprivacy.search.space import level_of, levels_of

FEATURES = ("i", "c_in", "c_out", "x_w", "x_h", "k_s", "s_s", "p", "q", "n")  # and the previous action


class Transition(NamedTuple):
    """T_i = (O_i, a_i, R, O_{i+1}), and whether layer i is the last."""

    observation: np.ndarray
    action: tuple[float, ...]
    reward: float
    next_observation: np.ndarray
    last: bool


class LayerwiseEnvironment(gymnasium.Env):
    """Choose the levels of one linear layer after the other.

    Observations are float32 [10 + dimensions] in [0, 1], the paper's O_i = (i, c_in, c_out, x_w, x_h, k_s, s_s, p_i,
    q_i, n_i, a_{i-1}). Each feature but the last is scaled linearly from its range over the network's layers (log2 of
    p, q and n, which are those of the layer's `darl` set: the state before anything is chosen); a feature that is the
    same in all layers is 0. A fully connected layer has k_s = 1 and s_s = 0. a_{i-1} is 0 in the first layer. Actions
    are float32 [dimensions] in [0, 1].
    """

    def __init__(self, problem: SearchProblem) -> None:
        self.problem = problem
        self._features = self._normalised_features()
        size = len(FEATURES) + problem.dimensions
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(0.0, 1.0, (problem.dimensions,), np.float32)
        self._actions: list[tuple[float, ...]] = []

    def _normalised_features(self) -> np.ndarray:
        rows = []
        for index, name in enumerate(self.problem.names):
            shape = self.problem.network.architecture.layer(name)
            channels, height, width = shape.input_shape
            dense = shape.kind == "fully_connected"
            kernel, stride = (1, 0) if dense else (max(shape.kernel), shape.stride)
            parameters = self.problem.darl.layer(name).parameters
            logarithms = [
                math.log2(value) for value in (parameters.plaintext_modulus, parameters.q, parameters.polynomial_degree)
            ]
            rows.append([index, channels, shape.output_channels, width, height, kernel, stride, *logarithms])
        table = np.array(rows, np.float64)
        low, span = table.min(0), np.ptp(table, axis=0)
        return np.divide(table - low, span, out=np.zeros_like(table), where=span > 0)

    @property
    def start(self) -> np.ndarray:
        """O_0."""
        return self.observation(0, (0.0,) * self.problem.dimensions)

    def observation(self, index: int, previous: Sequence[float]) -> np.ndarray:
        """O_index; one past the last layer the last layer's features stand with its own action."""
        features = self._features[min(index, len(self.problem.names) - 1)]
        return np.array([*features, *previous], np.float32)

    def levels(self, actions: Sequence[Sequence[float]]) -> list[int]:
        """The levels that an episode's actions stand for, one action of `dimensions` numbers per layer."""
        flat = [value for action in actions for value in action]
        self.problem.check_count(flat)
        return levels_of(flat, self.problem.sizes)

    def used_actions(self, actions: Sequence[Sequence[float]], used: Sequence[int]) -> list[tuple[float, ...]]:
        """The actions as the levels that were used stand for them: unchanged where the constraint changed nothing."""
        flat = [value for action in actions for value in action]
        proposed, exact = self.levels(actions), self.problem.actions(used)
        own = [a if p == u else e for a, p, u, e in zip(flat, proposed, used, exact, strict=True)]
        size = self.problem.dimensions
        return [tuple(own[start : start + size]) for start in range(0, len(own), size)]

    def transitions(self, actions: Sequence[tuple[float, ...]], reward: float) -> list[Transition]:
        """An episode for the replay buffer: every transition carries the final reward, as in the paper.

        `actions` are those used after the latency constraint, so that the critic learns what was really rewarded;
        the a_{i-1} of the states follow them.
        """
        self.problem.check_count([value for action in actions for value in action])
        states = [self.start, *(self.observation(i + 1, action) for i, action in enumerate(actions))]
        last = len(actions) - 1
        return [Transition(states[i], a, reward, states[i + 1], i == last) for i, a in enumerate(actions)]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode at the first layer. Nothing is random here: seed and options change nothing."""
        super().reset(seed=seed)
        self._actions = []
        return self.start, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Choose the next layer's levels.

        The last step's info holds `levels` and `actions` as used after the latency constraint, and `latency_seconds`.
        Raises UserError when the reward is not a finite number.
        """
        problem = self.problem
        if len(self._actions) == len(problem.names):
            raise RuntimeError("the episode is over; reset first")
        values = tuple(float(value) for value in np.asarray(action).reshape(problem.dimensions))
        for value in values:
            level_of(value, 1)  # refuses what is no action before it is kept
        self._actions.append(values)
        observation = self.observation(len(self._actions), values)
        if len(self._actions) < len(problem.names):
            return observation, 0.0, False, False, {}
        used = problem.constrain(self.levels(self._actions))
        info = {
            "levels": used,
            "actions": self.used_actions(self._actions, used),
            "latency_seconds": problem.latency(used),
        }
        return observation, problem.reward(used), True, False, info
