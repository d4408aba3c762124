"""Of a layer's tilings and secure sets the ones of least predicted latency, the bits of replies chosen along with q."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from autoprivacy.he.latency import Link, layer_cost, operation_counts
from autoprivacy.he.noise import LayerNoise
from autoprivacy.he.packing.plan import Plan
from autoprivacy.he.parameters import Flooding, ParameterSet, ReplyBits, Target
from autoprivacy.he.profiling import OperationProfile
from autoprivacy.he.reply_bits import fewest_reply_bits, rounding_shares, smallest_reply_bits
from autoprivacy.he.smallest_set import secure_set


def covered(plan: Plan, parameters: ParameterSet, profile: OperationProfile) -> bool:
    """Whether the profile has the operations of an evaluation."""
    needed = [operation for operation, count in operation_counts(plan).items() if count]
    return profile.covers(parameters, needed)


@dataclass(frozen=True)
class Choice:
    """A layer's tiling under a set.

    Attributes:
        plan: the tiling.
        noise: what it does to fresh noise.
        parameters: the set.
        maximum_prime_bits: what the set's primes were limited to.
    """

    plan: Plan
    noise: LayerNoise
    parameters: ParameterSet
    maximum_prime_bits: int


@dataclass(frozen=True)
class Setting:
    """What a layer's latency hangs on besides set and tiling.

    Attributes:
        target: what its reply is to meet.
        flooding: how the reply hides the weights.
        profile, link: what latency is predicted with.
    """

    target: Target
    flooding: Flooding
    profile: OperationProfile
    link: Link

    def latency(self, plan: Plan, noise: LayerNoise, parameters: ParameterSet) -> float:
        """Predicted seconds of one evaluation."""
        return self._seconds(plan, parameters, smallest_reply_bits(plan, parameters, self.target, noise, self.flooding))

    def _seconds(self, plan: Plan, parameters: ParameterSet, bits: ReplyBits) -> float:
        return layer_cost(plan, parameters, bits, self.profile, self.link)["latency_seconds"]

    def cheapest_plan(self, plans: Mapping[Plan, LayerNoise], parameters: ParameterSet) -> Plan:
        """Of tilings and what they do to noise the one of least latency under a set."""
        return min(plans, key=lambda plan: self.latency(plan, plans[plan], parameters))

    def cheapest(self, choices: Sequence[Choice]) -> Choice:
        """The choice of least latency, also among larger q than those of `choices`, the smallest that meet the target.

        A larger q leaves room for replies of fewer bits. It is tried only where the fewest bits there could be would
        make the choice better than the best one known.
        """

        def latency(choice: Choice) -> float:
            return self.latency(choice.plan, choice.noise, choice.parameters)

        best = min(choices, key=latency)
        bound = latency(best)
        promising = (choice for choice in choices if self._least(choice) <= bound)
        return min((best, *(larger for choice in promising for larger in self._larger(choice))), key=latency)

    def _least(self, choice: Choice) -> float:
        """A lower bound on the latency with any larger q of the same size of primes."""
        bits = fewest_reply_bits(choice.plan, choice.parameters.plaintext_modulus, self.target)
        return self._seconds(choice.plan, choice.parameters, bits)

    def _larger(self, choice: Choice) -> Iterator[Choice]:
        """The same tiling with the smallest q for each smaller reply."""
        if self.flooding.kind == "paper":  # its q follows from the unflooded one, its replies from the target alone
            return
        plan, noise, p = choice.plan, choice.noise, choice.parameters.plaintext_modulus
        for share in rounding_shares(plan, p, self.target):
            parameters = secure_set(noise, plan.degree, self.target, p, self.flooding, choice.maximum_prime_bits, share)
            if parameters and covered(plan, parameters, self.profile):
                yield Choice(plan, noise, parameters, choice.maximum_prime_bits)
