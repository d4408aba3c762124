"""What the search may choose for a layer: the paper's decryption error rates, or noise and ignored share bits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.parameter_set import Target
from autoprivacy.he.parameters.policy import EXACT_TARGET
from autoprivacy.quantization.integer_network import IntegerNetwork, LinearLayer

# By activation the seconds of its circuits for 0, 1, ... ignored share bits, as many as there are circuits for: both
# parties and the link, all values of an image.
CircuitSeconds = Mapping[str, Sequence[float]]

# How far coarser than its own step a layer's noise may be, in bits: one layer alone bears noise of 2^(f+4) for little
# accuracy.
NOISE_BITS_ABOVE_STEP = 4
# The step of a layer whose output no activation rounds: as if 2^8 steps held the standard deviation that its outputs
# have for inputs that are uniform over their range. The other layers' steps are of that size or a little larger.
OUTPUT_BITS = 8


class Space(Protocol):
    """The targets that a scheme lets a layer have."""

    scheme: ClassVar[str]

    def targets(self, shift: int) -> list[Target]:
        """The targets of a layer whose step is 2^shift accumulator LSBs, the largest errors first."""

    def label(self, target: Target) -> str:
        """A target in a history, without blanks."""


@dataclass(frozen=True)
class ErrorRates:
    """The paper's: DER = 2^-round(D_l + a (D_r - D_l)) for an action a in [0, 1] (section 3.1, Action Space).

    Attributes:
        largest: D_l; 2^-D_l is the largest decryption error rate.
        smallest: D_r; 2^-D_r is the smallest.
    """

    scheme: ClassVar[str] = "autoprivacy"
    largest: int = 5
    smallest: int = 15

    def __post_init__(self) -> None:
        if not 0 < self.largest < self.smallest:
            raise UserError(f"decryption error rates 2^-{self.largest} to 2^-{self.smallest}: expected 0 < D_l < D_r")

    def targets(self, shift: int) -> list[Target]:
        """The same rates for every layer, whatever its step."""
        return [Target(decryption_error_rate=2.0**-exponent) for exponent in range(self.largest, self.smallest + 1)]

    def label(self, target: Target) -> str:
        """The exponent of the rate."""
        return f"{-math.log2(target.decryption_error_rate or 1):g}"


@dataclass(frozen=True)
class NoiseLevels:
    """Noise by its standard deviation tau, relative to the layer's own step: on from where error rates end.

    From 2^bits_above_step steps down to the noise of an error rate of 2^-40, halved from level to level.
    """

    scheme: ClassVar[str] = "tolerant"
    bits_above_step: int = NOISE_BITS_ABOVE_STEP

    def targets(self, shift: int) -> list[Target]:
        """tau = 2^(shift + bits_above_step), its halves, and an error rate of 2^-40 at last."""
        lowest = 1 / (2 * EXACT_TARGET.z)
        halvings = math.ceil(shift + self.bits_above_step - math.log2(lowest))
        taus = [2.0 ** (shift + self.bits_above_step - k) for k in range(max(halvings, 0))]
        return [*(Target(tau=tau) for tau in taus), EXACT_TARGET]

    def label(self, target: Target) -> str:
        """log2 tau in accumulator LSBs, or `exact`."""
        return "exact" if target.tau is None else f"{math.log2(target.tau):g}"


def level_of(action: float, count: int) -> int:
    """The level, of `count` from the largest errors on, that an action in [0, 1] stands for; halves round up."""
    if not 0.0 <= action <= 1.0:
        raise ValueError(f"action {action}: expected 0 to 1")
    return math.floor(action * (count - 1) + 0.5)


def levels_of(actions: Sequence[float], counts: Sequence[int]) -> list[int]:
    """`level_of` for one action per coordinate."""
    return [level_of(action, count) for action, count in zip(actions, counts, strict=True)]


def action_of(level: int, count: int) -> float:
    """The action that stands for a level; 1 for the only level of a choice that is none."""
    return level / (count - 1) if count > 1 else 1.0


@dataclass(frozen=True)
class Rounding:
    """What becomes of a layer's output.

    Attributes:
        shift: 2^shift accumulator LSBs are one step of the finest activation that reads it.
        decided_by: the layer that decides how many share bits are ignored by all activations that read this one's
            output: itself, or a later one whose output reaches the same activations.
        activations: those whose ignored share bits this layer decides; none where another layer does.
    """

    shift: int
    decided_by: str
    activations: tuple[str, ...]


def roundings(network: IntegerNetwork) -> dict[str, Rounding]:
    """Every linear layer's `Rounding`, by its name, in network order."""
    architecture = network.architecture
    names = [layer.name for layer in architecture.layers]
    steps, reached = architecture.layer_steps(), architecture.activations_of
    meeting = [set(architecture.feeders[node.inputs[0]]) for node in architecture.activations]
    deciding = _deciding(names, meeting)
    found = {}
    for name in names:
        decided = [
            node.name
            for node, layers in zip(architecture.activations, meeting, strict=True)
            if name in {deciding[layer] for layer in layers}
        ]
        shift = max(math.floor(math.log2(steps[name])), 0) if reached[name] else _unrounded_shift(network.layers[name])
        found[name] = Rounding(shift, deciding[name], tuple(decided))
    return found


def _unrounded_shift(layer: LinearLayer) -> int:
    deviation = layer.weight_norm * layer.shape.input_maximum / math.sqrt(12)
    return max(math.floor(math.log2(max(deviation, 1.0))) - OUTPUT_BITS, 0)


def _deciding(names: Sequence[str], meeting: Sequence[set[str]]) -> dict[str, str]:
    """For every layer the last of those that meet it in an activation, or meet one that does, and so on."""
    together = {name: {name} for name in names}
    for layers in meeting:
        joined = set[str]().union(*(together[name] for name in layers))
        together |= dict.fromkeys(joined, joined)
    return {name: max(group, key=names.index) for name, group in together.items()}
