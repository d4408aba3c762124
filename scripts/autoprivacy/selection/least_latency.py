"""Of a layer's tilings and secure sets the ones of least predicted latency, the bits of replies chosen along with q."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from autoprivacy.he.bfv.reply_bits import fewest_reply_bits, rounding_shares, smallest_reply_bits
from autoprivacy.he.packing.plan import Workload
from autoprivacy.he.parameters.noise import LayerNoise
from autoprivacy.he.parameters.parameter_set import ParameterSet, ReplyBits, Target
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.secure_set import AverageCase, Setting, secure_set

AnyWorkload = TypeVar("AnyWorkload", bound=Workload)


@dataclass(frozen=True)
class Choice(Generic[AnyWorkload]):
    """A layer's tiling, or anything else that is evaluated, under a set.

    Attributes:
        plan: the tiling.
        noise: what it does to fresh noise.
        setting: what the set was sized for.
        parameters: the set.
    """

    plan: AnyWorkload
    noise: LayerNoise
    setting: Setting
    parameters: ParameterSet


def least_latency(
    plans: Iterable[tuple[AnyWorkload, LayerNoise]], p: int, target: Target, selection: Selection
) -> tuple[Choice[AnyWorkload], ReplyBits] | None:
    """The plan and secure set of least predicted latency that meet a target by average-case noise.

    For every size of primes the smallest q is considered, and larger ones, which leave room for replies of fewer bits.
    Those are tried only where the fewest bits there could be would make the choice better than the best one known.

    Args:
        plans: the plans worth considering, each with what it does to fresh noise.
        p: the plaintext modulus.
        target: the error rate or noise that is tolerated.
        selection: the conditions.

    Returns:
        The choice and the bits of its replies; None where no secure set that the profile covers meets the target.
    """

    def bits(choice: Choice[AnyWorkload]) -> ReplyBits:
        return smallest_reply_bits(choice.plan, choice.parameters, target, choice.noise, selection.flooding)

    def latency(choice: Choice[AnyWorkload]) -> float:
        return selection.latency(choice.plan, choice.parameters, bits(choice))

    choices = [
        choice
        for plan, noise in plans
        for setting in selection.settings(p, plan.degree)
        for choice in _sized(plan, noise, setting, AverageCase(target), selection)
    ]
    if not choices:
        return None
    best = min(choices, key=latency)
    bound = latency(best)
    promising = (choice for choice in choices if _least(choice, target, selection) <= bound)
    best = min((best, *(larger for choice in promising for larger in _larger(choice, target, selection))), key=latency)
    return best, bits(best)


def _sized(
    plan: AnyWorkload, noise: LayerNoise, setting: Setting, rule: AverageCase, selection: Selection
) -> Iterator[Choice[AnyWorkload]]:
    """The plan under the smallest set, if there is one that the profile covers."""
    parameters = secure_set(noise, rule, setting)
    if parameters and selection.covers(plan, parameters):
        yield Choice(plan, noise, setting, parameters)


def _least(choice: Choice[AnyWorkload], target: Target, selection: Selection) -> float:
    """A lower bound on the latency with any larger q of the same size of primes."""
    bits = fewest_reply_bits(choice.plan, choice.parameters.largest_factor, target)
    return selection.latency(choice.plan, choice.parameters, bits)


def _larger(choice: Choice[AnyWorkload], target: Target, selection: Selection) -> Iterator[Choice[AnyWorkload]]:
    """The same tiling with the smallest q for each smaller reply."""
    if selection.flooding.kind == "paper":  # its q follows from the unflooded one, its replies from the target alone
        return
    for share in rounding_shares(choice.plan, choice.parameters.largest_factor, target):
        yield from _sized(choice.plan, choice.noise, choice.setting, AverageCase(target, share), selection)
