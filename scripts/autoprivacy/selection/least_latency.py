"""Of a layer's tilings and secure sets the ones of least predicted latency, the bits of replies chosen along with q."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from autoprivacy.he.bfv.reply_bits import fewest_reply_bits, rounding_shares, smallest_reply_bits
from autoprivacy.he.packing.plan import Workload
from autoprivacy.he.parameters.noise import LayerNoise
from autoprivacy.he.parameters.parameter_set import ParameterSet, ReplyBits, Target
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.secure_set import secure_set

AnyWorkload = TypeVar("AnyWorkload", bound=Workload)


@dataclass(frozen=True)
class Choice(Generic[AnyWorkload]):
    """A layer's tiling, or anything else that is evaluated, under a set.

    Attributes:
        plan: the tiling.
        noise: what it does to fresh noise.
        parameters: the set.
        maximum_prime_bits: what the set's primes were limited to.
    """

    plan: AnyWorkload
    noise: LayerNoise
    parameters: ParameterSet
    maximum_prime_bits: int


def cheapest(
    choices: Sequence[Choice[AnyWorkload]], target: Target, selection: Selection
) -> tuple[Choice[AnyWorkload], ReplyBits]:
    """The choice of least latency, also among larger q than those of `choices`, the smallest that meet the target.

    A larger q leaves room for replies of fewer bits. It is tried only where the fewest bits there could be would
    make the choice better than the best one known.

    Returns:
        The choice and the bits of its replies.
    """

    def bits(choice: Choice[AnyWorkload]) -> ReplyBits:
        return smallest_reply_bits(choice.plan, choice.parameters, target, choice.noise, selection.flooding)

    def latency(choice: Choice[AnyWorkload]) -> float:
        return selection.latency(choice.plan, choice.parameters, bits(choice))

    best = min(choices, key=latency)
    bound = latency(best)
    promising = (choice for choice in choices if _least(choice, target, selection) <= bound)
    best = min((best, *(larger for choice in promising for larger in _larger(choice, target, selection))), key=latency)
    return best, bits(best)


def _least(choice: Choice[AnyWorkload], target: Target, selection: Selection) -> float:
    """A lower bound on the latency with any larger q of the same size of primes."""
    bits = fewest_reply_bits(choice.plan, choice.parameters.largest_factor, target)
    return selection.latency(choice.plan, choice.parameters, bits)


def _larger(choice: Choice[AnyWorkload], target: Target, selection: Selection) -> Iterator[Choice[AnyWorkload]]:
    """The same tiling with the smallest q for each smaller reply."""
    if selection.flooding.kind == "paper":  # its q follows from the unflooded one, its replies from the target alone
        return
    plan, noise, size, known = choice.plan, choice.noise, choice.maximum_prime_bits, choice.parameters
    p, factors = known.plaintext_modulus, known.plaintext_factors
    for share in rounding_shares(plan, known.largest_factor, target):
        parameters = secure_set(noise, plan.degree, target, p, selection.flooding, size, share, factors)
        if parameters and selection.covers(plan, parameters):
            yield Choice(plan, noise, parameters, size)
