"""The search problem: what may be chosen, what it costs, the latency budget, and what a policy is worth.

A policy is a list of levels, one per coordinate: for each linear layer its target, and where circuits are counted the
share bits that the activation after it ignores. Level 0 has the largest errors and the least latency. The latency is
the sum of the coordinates' own seconds, so that every strategy can reason about it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.parameter_set import Target
from autoprivacy.he.parameters.policy import LayerPolicy, Policy
from autoprivacy.quantization.integer_network import IntegerNetwork, LinearLayer
from autoprivacy.search.space import (
    CircuitSeconds,
    ErrorRates,
    Rounding,
    Space,
    action_of,
    roundings,
)

Select = Callable[[LinearLayer, Target], LayerPolicy]
# Latencies are sums of floats: a budget that equals a policy's latency must admit it in any order of summation.
RELATIVE_TOLERANCE = 1e-9


class Reward(Protocol):
    """Rewards a policy with -error (a fraction), a function of its deployed sets and `to_beat`."""

    def __call__(self, policy: Policy, to_beat: float | None) -> float:
        """The reward; where it will surely stay below `to_beat` an estimate may do."""


@dataclass(frozen=True)
class Budget:
    """The limit on a policy's latency, in one of three ways.

    Attributes:
        seconds: the limit itself.
        share_of_darl: a share of the latency of the `darl` policy.
        way: how far from the cheapest admissible policy's latency (0) to that of the smallest errors in every
            layer (1). With nothing given it is 0.5, which binds whenever targets change the latency at all.
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
            raise UserError(f"latency budget: way {self.way}: expected 0 (cheapest) to 1 (smallest errors)")

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


class Coordinate(NamedTuple):
    """One choice.

    Attributes:
        layer: the index of its layer.
        seconds: float64 [levels], what each level takes, never falling.
        variance: float64 [levels], that of the noise it leaves in a unit of the layer's step squared.
    """

    layer: int
    seconds: np.ndarray
    variance: np.ndarray


class SearchProblem:
    """Choose every linear layer's target under a latency budget.

    Args:
        network: the integer network.
        darl: its `darl` policy: the budget's reference, packing and flooding; with circuits its predictions are to
            hold theirs (`selection.garbled_costs.with_garbling`).
        select: parameter selection of one layer for one target; its predicted["latency_seconds"] is what the budget
            limits. Called once per layer and target.
        reward: see Reward; called once per distinct assignment of sets.
        budget: the limit on the latency.
        space: the targets that may be chosen; by default the paper's error rates.
        circuits: seconds of the activations' circuits. With them the latency is that of linear layers and circuits,
            and the share bits that these ignore are chosen too.

    Attributes:
        names: the layers'.
        dimensions: coordinates per layer.
        coordinates: layer by layer, the target before the ignored bits.
        rewards: by `deployed_key`; saved with the search's state.
    """

    def __init__(
        self,
        network: IntegerNetwork,
        darl: Policy,
        select: Select,
        reward: Reward,
        budget: Budget | None = None,
        space: Space | None = None,
        circuits: CircuitSeconds | None = None,
    ) -> None:
        self.names = [layer.name for layer in network.architecture.layers]
        if not self.names:
            raise UserError(f"search on {darl.network}: the network has no linear layer")
        darl.check_layers(self.names)
        self.network, self.darl, self.space = network, darl, space or ErrorRates()
        self._select, self.reward_of, self._circuits = select, reward, circuits
        self._roundings = roundings(network)
        self._options = [self._layer_options(name) for name in self.names]
        self._bits = {name: self._ignored_bits(rounding) for name, rounding in self._roundings.items()}
        self.dimensions = 1 if circuits is None else 2
        self.coordinates = [c for index in range(len(self.names)) for c in self._layer_coordinates(index)]
        decided = {name for rounding in self._roundings.values() for name in rounding.activations}
        self._fixed_seconds = sum(seconds[0] for name, seconds in (circuits or {}).items() if name not in decided)
        self.budget_seconds = self._limit(budget or Budget())
        self.rewards: dict[str, float] = {}

    def _layer_options(self, name: str) -> list[LayerPolicy]:
        """The layer's set for every target; where smaller errors are cheaper their set serves the larger too."""
        options: list[LayerPolicy] = []
        for target in reversed(self.space.targets(self._roundings[name].shift)):
            option = self._select(self.network.layers[name], target)
            latency = option.predicted.get("latency_seconds", math.nan)
            if not 0 <= latency < math.inf:
                raise UserError(f"layer {name} at {target}: predicted latency {latency}; expected seconds")
            # the stricter set comes with its own target: a flood may be sized by it
            options.append(options[-1] if options and latency_of(options[-1]) < latency else option)
        return options[::-1]

    def _layer_coordinates(self, index: int) -> list[Coordinate]:
        options, name = self._options[index], self.names[index]
        seconds = np.array([latency_of(option) for option in options])
        step = 2.0 ** self._roundings[name].shift
        coordinates = [Coordinate(index, seconds, np.array([_variance(option) for option in options]) / step**2)]
        if self._circuits is not None:
            bits, activations = self._bits[name], self._roundings[name].activations
            shift = min((node.shift for node in self.network.architecture.nodes if node.name in activations), default=0)
            # dropping t bits rounds to a multiple of 2^t, up or down at random: a variance of 4^t / 6 on average
            variance = np.array([4.0 ** (t - shift) / 6 if t else 0.0 for t in bits])
            coordinates.append(Coordinate(index, np.array([self._circuit_seconds(name, t) for t in bits]), variance))
        return coordinates

    def _circuit_seconds(self, name: str, ignored: int) -> float:
        """Of all activations whose ignored bits a layer decides."""
        return sum((self._circuits or {})[activation][ignored] for activation in self._roundings[name].activations)

    def _ignored_bits(self, rounding: Rounding) -> list[int]:
        """The numbers of share bits that a layer may choose from, the most first; 0 alone where it decides nothing.

        More bits that save no seconds are left out.
        """
        if self._circuits is None or not rounding.activations:
            return [0]
        tables = [self._circuits[name] for name in rounding.activations]
        seconds = [sum(own) for own in zip(*tables, strict=False)]  # as many bits as all of them may ignore
        return [t for t in range(len(seconds)) if t == 0 or seconds[t] < min(seconds[:t])][::-1]

    def _limit(self, budget: Budget) -> float:
        cheapest, strictest = self.latency(self.loosest), self.latency(self.strictest)
        darl = sum(latency_of(layer) for layer in self.darl.layers)
        spent = ("garbled_seconds", "lookup_seconds") if self._circuits else ()
        darl += sum(self.darl.predicted.get(name, 0.0) for name in spent)
        limit = budget.limit(cheapest, strictest, darl)
        logging.info(
            "latency budget %.4g s; largest errors %.4g s, smallest %.4g s, darl %.4g s",
            limit,
            cheapest,
            strictest,
            darl,
        )
        if limit >= strictest:
            logging.warning("the latency budget of %.4g s admits every policy: it limits nothing", limit)
        return limit

    @property
    def sizes(self) -> list[int]:
        """How many levels each coordinate has."""
        return [len(coordinate.seconds) for coordinate in self.coordinates]

    @property
    def loosest(self) -> list[int]:
        """The levels of the largest errors everywhere."""
        return [0] * len(self.coordinates)

    @property
    def strictest(self) -> list[int]:
        """The levels of the smallest errors everywhere."""
        return [size - 1 for size in self.sizes]

    def actions(self, levels: Sequence[int]) -> list[float]:
        """The actions in [0, 1] that stand for levels, one per coordinate."""
        return [action_of(level, size) for level, size in zip(levels, self.sizes, strict=True)]

    def latency(self, levels: Sequence[int]) -> float:
        """The predicted latency in seconds."""
        self.check_count(levels)
        seconds = (float(c.seconds[level]) for c, level in zip(self.coordinates, levels, strict=True))
        return sum(seconds, self._fixed_seconds)

    def admits(self, levels: Sequence[int]) -> bool:
        """Whether levels meet the budget."""
        return self.latency(levels) <= self.budget_seconds * (1 + RELATIVE_TOLERANCE)

    def check_count(self, values: Sequence[Any]) -> None:
        """UserError unless there is one value per coordinate."""
        if len(values) != len(self.coordinates):
            raise UserError(
                f"search on {self.darl.network}: {len(values)} choices for {len(self.names)} linear layers with "
                f"{self.dimensions} each"
            )

    def targets(self, levels: Sequence[int]) -> list[Target]:
        """The layers' targets."""
        return [layer.target for layer in self._layers(levels)]

    def label(self, levels: Sequence[int]) -> str:
        """The layers' targets in a line; ignored share bits stand behind a colon, 0 for an exact rounding."""
        bits = (f":{target.ignored_share_bits}" if self._circuits else "" for target in self.targets(levels))
        return " ".join(self.space.label(t) + b for t, b in zip(self.targets(levels), bits, strict=True))

    def _layers(self, levels: Sequence[int]) -> list[LayerPolicy]:
        self.check_count(levels)
        layers = []
        for index, name in enumerate(self.names):
            option = self._options[index][levels[index * self.dimensions]]
            if self._circuits is not None:
                deciding = self._roundings[name].decided_by
                bits = self._bits[deciding][levels[self.names.index(deciding) * self.dimensions + 1]]
                option = replace(option, target=replace(option.target, ignored_share_bits=bits))
            layers.append(option)
        return layers

    def policy(self, levels: Sequence[int]) -> Policy:
        """The policy of the levels, with those totals of the `darl` policy's that all layers have.

        Its predictions are the linear layers'; `selection.garbled_costs.with_garbling` adds the circuits'.
        """
        layers = tuple(self._layers(levels))
        keys = [key for key in self.darl.predicted if all(key in layer.predicted for layer in layers)]
        entries = replace(self.darl, layers=layers).evaluations
        totals = {key: sum(entry.predicted[key] for entry in entries) for key in keys}
        predicted = {**totals, "latency_seconds": sum(latency_of(layer) for layer in layers)}
        return replace(self.darl, scheme=self.space.scheme, layers=layers, predicted=predicted, provenance={})

    def constrain(self, levels: Sequence[int]) -> list[int]:
        """The latency constraint: bring a policy within the budget.

        Round after round through the coordinates in order, each is loosened to the next level that is strictly cheaper,
        until the policy meets the budget; a set always changes as selection gives it, never n or q alone.
        """
        chosen = list(levels)
        index = 0
        while not self.admits(chosen):
            chosen[index] = self.next_cheaper(index, chosen[index])
            index = (index + 1) % len(chosen)
        return chosen

    def next_cheaper(self, index: int, level: int) -> int:
        """The next level of a coordinate that is strictly cheaper; the same where there is none."""
        seconds = self.coordinates[index].seconds
        return next((lower for lower in range(level - 1, -1, -1) if seconds[lower] < seconds[level]), level)

    def key(self, levels: Sequence[int]) -> str:
        """What the policy's errors depend on; see `deployed_key`."""
        return deployed_key(self.policy(levels))

    def reward(self, levels: Sequence[int], to_beat: float | None = None) -> float:
        """The reward of levels, computed once per distinct assignment of deployed sets; UserError unless finite."""
        policy = self.policy(levels)
        key = deployed_key(policy)
        if key not in self.rewards:
            self.rewards[key] = checked_reward(self.reward_of(policy, to_beat), policy, self.label(levels))
        return self.rewards[key]


def checked_reward(reward: float, policy: Policy, label: str) -> float:
    """The reward as a float; UserError when it is no finite number."""
    if not math.isfinite(reward):
        raise UserError(
            f"search on {policy.network}: reward {reward} for targets {label}; expected -error, a number from -1 to 0"
        )
    return float(reward)


def latency_of(layer: LayerPolicy) -> float:
    """A layer's predicted latency in seconds; UserError when its policy has none."""
    if "latency_seconds" not in layer.predicted:
        raise UserError(f"layer {layer.name}: no predicted latency_seconds; make the policy with parameter selection")
    return float(layer.predicted["latency_seconds"])


def deployed_key(policy: Policy) -> str:
    """A digest of what causes errors as deployed: parameter sets, noise, ignored share bits.

    Where a wrong coefficient is one wrong output tau tells all about it; else the tiling determines what it spoils.
    """
    sets = [
        (
            layer.name,
            layer.parameters.as_json(),
            layer.predicted.get("tau", [layer.tiling, layer.predicted.get("z")]),
            layer.target.ignored_share_bits,
        )
        for layer in policy.layers
    ]
    return hashlib.sha256(json.dumps(sets).encode()).hexdigest()


def _variance(option: LayerPolicy) -> float:
    """The noise variance in accumulator LSBs squared; a wrong ciphertext in slot packing is uniform modulo p."""
    if "tau" in option.predicted:
        return float(option.predicted["tau"]) ** 2
    return option.predicted.get("decryption_error_rate", 0.0) * option.parameters.plaintext_modulus**2 / 12
