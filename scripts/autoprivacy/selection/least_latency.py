"""Of a layer's tilings and secure sets the ones of least predicted latency, the bits of replies chosen along with q."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from autoprivacy.he.bfv.reply_bits import fewest_reply_bits, rounding_shares, smallest_reply_bits
from autoprivacy.he.packing.plan import Workload
from autoprivacy.he.parameters.noise import LayerNoise
from autoprivacy.he.parameters.parameter_set import ParameterSet, ReplyBits, Target
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.secure_set import AverageCase, Setting, secure_set


class Evaluated(Protocol):
    """What can be evaluated under encryption: a layer's plan, or a layout of triples."""

    @property
    def workload(self) -> Workload:
        """What an evaluation sends and does."""


AnyPlan = TypeVar("AnyPlan", bound=Evaluated)


@dataclass(frozen=True)
class Choice(Generic[AnyPlan]):
    """A layer's tiling, or anything else that is evaluated, under a set.

    Attributes:
        plan: the tiling.
        noise: what it does to fresh noise.
        setting: what the set was sized for.
        parameters: the set.
    """

    plan: AnyPlan
    noise: LayerNoise
    setting: Setting
    parameters: ParameterSet

    @property
    def workload(self) -> Workload:
        """What an evaluation sends and does."""
        return self.plan.workload


def least_latency(
    plans: Iterable[tuple[AnyPlan, LayerNoise]], p: int, target: Target, selection: Selection
) -> tuple[Choice[AnyPlan], ReplyBits] | None:
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

    def bits(choice: Choice[AnyPlan]) -> ReplyBits:
        return smallest_reply_bits(choice.workload, choice.parameters, target, choice.noise, selection.flooding)

    def latency(choice: Choice[AnyPlan]) -> float:
        return selection.latency(choice.workload, choice.parameters, bits(choice))

    choices = [
        choice
        for plan, noise in plans
        for setting in selection.settings(p, plan.workload.degree)
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
    plan: AnyPlan, noise: LayerNoise, setting: Setting, rule: AverageCase, selection: Selection
) -> Iterator[Choice[AnyPlan]]:
    """The plan under the smallest set, if there is one that the profile covers."""
    parameters = secure_set(noise, rule, setting)
    if parameters and selection.covers(plan.workload, parameters):
        yield Choice(plan, noise, setting, parameters)


def _least(choice: Choice[AnyPlan], target: Target, selection: Selection) -> float:
    """A lower bound on the latency with any larger q of the same size of primes."""
    bits = fewest_reply_bits(choice.workload, choice.parameters.largest_factor, target)
    return selection.latency(choice.workload, choice.parameters, bits)


def _larger(choice: Choice[AnyPlan], target: Target, selection: Selection) -> Iterator[Choice[AnyPlan]]:
    """The same tiling with the smallest q for each smaller reply."""
    if selection.flooding.kind == "paper":  # its q follows from the unflooded one, its replies from the target alone
        return
    for share in rounding_shares(choice.workload, choice.parameters.largest_factor, target):
        yield from _sized(choice.plan, choice.noise, choice.setting, AverageCase(target, share), selection)
