"""The search problem as a Gymnasium environment: one step chooses one linear layer's decryption error rate.

The paper's section 3.1: state and action space, the latency constraint on the action space, the reward. An episode's
last step forms the policy, brings it within the latency budget and rewards it; the rewards before are 0, and
`transitions` gives the replay buffer what the paper stores: the final reward in every transition of the episode.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.he.parameters import Target
from autoprivacy.policy import LayerPolicy, Policy
from autoprivacy.quantization.integer_network import IntegerNetwork, LinearLayer

FEATURES = ("i", "c_in", "c_out", "x_w", "x_h", "k_s", "s_s", "p", "q", "n", "previous action")
Select = Callable[[LinearLayer, Target], LayerPolicy]


class Reward(Protocol):
    """Rewards a policy with -error (a fraction), a function of its deployed sets alone."""

    @property
    def fingerprint(self) -> str:
        """What the rewards depend on beside the policy, for state files that must not be mixed up."""

    def __call__(self, policy: Policy) -> float: ...


# Latencies are sums of floats: a budget that equals a policy's latency must admit it in any order of summation.
RELATIVE_TOLERANCE = 1e-9


@dataclass(frozen=True)
class ErrorRates:
    """The action space: DER = 2^-round(D_l + a (D_r - D_l)) for an action a in [0, 1] (section 3.1, Action Space).

    Attributes:
        largest: D_l; 2^-D_l is the largest decryption error rate.
        smallest: D_r; 2^-D_r is the smallest.
    """

    largest: int = 5
    smallest: int = 15

    def __post_init__(self) -> None:
        if not 0 < self.largest < self.smallest:
            raise UserError(f"decryption error rates 2^-{self.largest} to 2^-{self.smallest}: expected 0 < D_l < D_r")

    def exponent(self, action: float) -> int:
        """The exponent that an action stands for; halves round up, to the smaller error rate."""
        if not 0.0 <= action <= 1.0:
            raise ValueError(f"action {action}: expected 0 to 1")
        return math.floor(self.largest + action * (self.smallest - self.largest) + 0.5)

    def action(self, exponent: int) -> float:
        """The action that stands for an exponent."""
        return (exponent - self.largest) / (self.smallest - self.largest)

    @property
    def exponents(self) -> range:
        """All exponents, the largest error rate first."""
        return range(self.largest, self.smallest + 1)


@dataclass(frozen=True)
class Budget:
    """The limit on a policy's latency, in one of three ways.

    Attributes:
        seconds: the limit itself.
        share_of_darl: a share of the latency of the `darl` policy.
        way: how far from the cheapest admissible policy's latency (0) to that of the smallest error rate in every
            layer (1). With nothing given it is 0.5, which binds whenever error rates change the latency at all.
    """

    seconds: float | None = None
    share_of_darl: float | None = None
    way: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.seconds, self.share_of_darl, self.way) if value is not None]
        if len(given) > 1:
            raise UserError(f"latency budget {self}: give seconds, share_of_darl or way, not several")
        if any(not value > 0 for value in (self.seconds, self.share_of_darl) if value is not None):
            raise UserError(f"latency budget {self}: expected a positive number")
        if self.way is not None and not 0 <= self.way <= 1:
            raise UserError(f"latency budget: way {self.way}: expected 0 (cheapest) to 1 (smallest error rates)")

    def limit(self, cheapest: float, strictest: float, darl: float) -> float:
        """The limit in seconds; UserError naming the smallest latency possible when no policy can meet it."""
        if self.seconds is not None:
            limit = self.seconds
        elif self.share_of_darl is not None:
            limit = self.share_of_darl * darl
        else:
            limit = cheapest + (0.5 if self.way is None else self.way) * (strictest - cheapest)
        if limit < cheapest * (1 - RELATIVE_TOLERANCE):
            raise UserError(
                f"latency budget: {limit:.6g} s cannot be met; the cheapest admissible policy takes {cheapest:.6g} s "
                f"(darl {darl:.6g} s); allow at least that"
            )
        return max(limit, cheapest)


class Transition(NamedTuple):
    """T_i = (O_i, a_i, R, O_{i+1}), and whether layer i is the last."""

    observation: np.ndarray
    action: float
    reward: float
    next_observation: np.ndarray
    last: bool


class LayerwiseEnvironment(gymnasium.Env):
    """Choose a decryption error rate for every linear layer of a network.

    Observations are float32 [11] in [0, 1], the paper's O_i = (i, c_in, c_out, x_w, x_h, k_s, s_s, p_i, q_i, n_i,
    a_{i-1}). Each feature but the last is scaled linearly from its range over the network's layers (log2 of p, q and
    n, which are those of the layer's `darl` set: the state before anything is chosen); a feature that is the same in
    all layers is 0. A fully connected layer has k_s = 1 and s_s = 0. a_{i-1} is 0 in the first layer. Actions are
    float32 [1] in [0, 1].

    Args:
        network: the integer network.
        darl: its `darl` policy; it gives the state's parameters, the budget's reference, packing and flooding.
        select: parameter selection of one layer for one target; its predicted["latency_seconds"] is what the budget
            limits. Called once per layer and target.
        reward: see Reward; called once per distinct assignment of sets.
        budget: the limit on the sum of the layers' latencies.
        rates: the action space.
    """

    def __init__(
        self,
        network: IntegerNetwork,
        darl: Policy,
        select: Select,
        reward: Reward,
        budget: Budget | None = None,
        rates: ErrorRates | None = None,
    ) -> None:
        self.names = [layer.name for layer in network.architecture.layers]
        if not self.names:
            raise UserError(f"search on {darl.network}: the network has no linear layer")
        darl.check_layers(self.names)
        self.network, self.darl, self.rates = network, darl, rates or ErrorRates()
        self._select, self.reward_of = select, reward
        self._options: list[dict[int, LayerPolicy]] = [self._layer_options(name) for name in self.names]
        self._features = self._normalised_features()
        self.budget_seconds = self._limit(budget or Budget())
        self.rewards: dict[str, float] = {}  # by `deployed_key`; saved with the search's state
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (len(FEATURES),), np.float32)
        self.action_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
        self._actions: list[float] = []

    def _layer_options(self, name: str) -> dict[int, LayerPolicy]:
        """The layer's set for every error rate; where a smaller error rate is cheaper its set serves the larger too."""
        options: dict[int, LayerPolicy] = {}
        for exponent in reversed(self.rates.exponents):
            target = Target(decryption_error_rate=2.0**-exponent)
            option = self._select(self.network.layers[name], target)
            latency = option.predicted.get("latency_seconds", math.nan)
            if not 0 <= latency < math.inf:
                raise UserError(
                    f"layer {name} at error rate 2^-{exponent}: predicted latency {latency}; expected seconds"
                )
            stricter = options.get(exponent + 1)
            if stricter is not None and latency_of(stricter) < latency:
                option = stricter  # with its own target: a flood may be sized by it
            options[exponent] = option
        return options

    def _normalised_features(self) -> np.ndarray:
        rows = []
        for index, name in enumerate(self.names):
            shape = self.network.architecture.layer(name)
            channels, height, width = shape.input_shape
            dense = shape.kind == "fully_connected"
            kernel, stride = (1, 0) if dense else (max(shape.kernel), shape.stride)
            parameters = self.darl.layer(name).parameters
            logarithms = [
                math.log2(value) for value in (parameters.plaintext_modulus, parameters.q, parameters.polynomial_degree)
            ]
            rows.append([index, channels, shape.output_channels, width, height, kernel, stride, *logarithms])
        table = np.array(rows, np.float64)
        low, span = table.min(0), np.ptp(table, axis=0)
        return np.divide(table - low, span, out=np.zeros_like(table), where=span > 0)

    def _limit(self, budget: Budget) -> float:
        cheapest = self.latency([self.rates.largest] * len(self.names))
        strictest = self.latency([self.rates.smallest] * len(self.names))
        darl = sum(latency_of(layer) for layer in self.darl.layers)
        limit = budget.limit(cheapest, strictest, darl)
        logging.info(
            "latency budget %.4g s; largest error rates %.4g s, smallest %.4g s, darl %.4g s",
            limit,
            cheapest,
            strictest,
            darl,
        )
        if limit >= strictest:
            logging.warning("the latency budget of %.4g s admits every policy: it limits nothing", limit)
        return limit

    def latency(self, exponents: list[int]) -> float:
        """The sum of the layers' predicted latencies in seconds, for one exponent per layer."""
        self._check_count(exponents)
        return sum(latency_of(options[e]) for options, e in zip(self._options, exponents, strict=True))

    def _check_count(self, values: list[Any]) -> None:
        if len(values) != len(self.names):
            raise UserError(f"search on {self.darl.network}: {len(values)} choices for {len(self.names)} linear layers")

    def policy(self, exponents: list[int]) -> Policy:
        """The policy `autoprivacy` of one exponent per layer, with those totals of `darl`'s that all layers have."""
        latency = self.latency(exponents)
        layers = tuple(options[e] for options, e in zip(self._options, exponents, strict=True))
        keys = [key for key in self.darl.predicted if all(key in layer.predicted for layer in layers)]
        totals = {key: sum(layer.predicted[key] for layer in layers) for key in keys}
        predicted = {**totals, "latency_seconds": latency}
        return replace(self.darl, scheme="autoprivacy", layers=layers, predicted=predicted, provenance={})

    def constrain(self, exponents: list[int]) -> list[int]:
        """The latency constraint: bring a policy within the budget.

        Round after round through the layers in order, each layer's error rate is raised to the next admissible one
        whose set is strictly cheaper, until the policy meets the budget; a set always changes as selection gives it,
        never n or q alone.
        """
        chosen = list(exponents)
        index = 0
        while self.latency(chosen) > self.budget_seconds * (1 + RELATIVE_TOLERANCE):
            chosen[index] = self._next_cheaper(index, chosen[index])
            index = (index + 1) % len(chosen)
        return chosen

    def _next_cheaper(self, index: int, exponent: int) -> int:
        options = self._options[index]
        latency = latency_of(options[exponent])
        admissible = range(exponent - 1, self.rates.largest - 1, -1)
        return next((e for e in admissible if latency_of(options[e]) < latency), exponent)

    def observation(self, index: int, previous_action: float) -> np.ndarray:
        """O_index; one past the last layer the last layer's features stand with its own action."""
        features = self._features[min(index, len(self.names) - 1)]
        return np.array([*features, previous_action], np.float32)

    def transitions(self, actions: list[float], reward: float) -> list[Transition]:
        """An episode for the replay buffer: every transition carries the final reward, as in the paper.

        `actions` are those used after the latency constraint, so that the critic learns what was really rewarded;
        the a_{i-1} of the states follow them.
        """
        self._check_count(actions)
        states = [self.observation(i, a) for i, a in enumerate([0.0, *actions])]
        last = len(actions) - 1
        return [Transition(states[i], a, reward, states[i + 1], i == last) for i, a in enumerate(actions)]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode at the first layer. Nothing is random here: seed and options change nothing."""
        super().reset(seed=seed)
        self._actions = []
        return self.observation(0, 0.0), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Choose the next layer's error rate.

        The last step's info holds `exponents` and `actions` as used after the latency constraint, and
        `latency_seconds`. Raises UserError when the reward is not a finite number.
        """
        if len(self._actions) == len(self.names):
            raise RuntimeError("the episode is over; reset first")
        value = float(np.asarray(action).item())
        self.rates.exponent(value)  # refuses what is no action before it is kept
        self._actions.append(value)
        observation = self.observation(len(self._actions), value)
        if len(self._actions) < len(self.names):
            return observation, 0.0, False, False, {}
        proposed = [self.rates.exponent(a) for a in self._actions]
        used = self.constrain(proposed)
        actions = [
            a if before == after else self.rates.action(after)
            for a, before, after in zip(self._actions, proposed, used, strict=True)
        ]
        info = {"exponents": used, "actions": actions, "latency_seconds": self.latency(used)}
        return observation, self.reward(used), True, False, info

    def reward(self, exponents: list[int]) -> float:
        """The reward of one exponent per layer, computed once per distinct assignment of deployed sets."""
        policy = self.policy(exponents)
        key = deployed_key(policy)
        if key not in self.rewards:
            reward = float(self.reward_of(policy))
            if not math.isfinite(reward):
                raise UserError(
                    f"search on {policy.network}: reward {reward} for error rates "
                    f"{[f'2^-{e}' for e in exponents]}; expected -error, a number from -1 to 0"
                )
            self.rewards[key] = reward
        return self.rewards[key]


def latency_of(layer: LayerPolicy) -> float:
    """A layer's predicted latency in seconds; UserError when its policy has none."""
    if "latency_seconds" not in layer.predicted:
        raise UserError(f"layer {layer.name}: no predicted latency_seconds; make the policy with parameter selection")
    return float(layer.predicted["latency_seconds"])


def deployed_key(policy: Policy) -> str:
    """A digest of the deployed sets, tilings and noise: policies that share it cause the same errors."""
    sets = [
        (layer.name, layer.parameters.as_json(), layer.tiling, layer.predicted.get("tau"), layer.predicted.get("z"))
        for layer in policy.layers
    ]
    return hashlib.sha256(json.dumps(sets).encode()).hexdigest()
