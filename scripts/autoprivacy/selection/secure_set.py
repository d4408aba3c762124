"""The smallest secure parameter set under which replies decrypt rightly, by average-case or by worst-case noise."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.reply_bits import REPLY_SHARE, smallest_reply_bits
from autoprivacy.he.packing.plan import Plan
from autoprivacy.he.packing.public_noise import layer_noise, layer_noise_bound
from autoprivacy.he.parameters.noise import (
    ROUNDING_VARIANCE,
    SECRET_VARIANCE,
    SIGMA_NOISE,
    LayerNoise,
    fresh_noise,
    reply_noise,
    required_log2_q,
    required_z,
)
from autoprivacy.he.parameters.noise_bounds import (
    NOISE_BOUND,
    ROUNDING_BOUND,
    NoiseBound,
    fresh_bound,
    reply_bound,
)
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, ReplyBits, Target
from autoprivacy.he.ring.primes import MAXIMUM_PRIME_BITS, ntt_prime_from, primes_for
from autoprivacy.quantization.integer_network import LinearLayer

# The paper's section 2: flooding quadruples n and triples log q.
PAPER_DEGREE_FACTOR, PAPER_BITS_FACTOR = 4, 3
# Key-switching primes are chosen so that rotations add at most this share of what products make of fresh noise
# (variances in the average case, bounds in the worst): it costs 0.01 or 0.02 bits of q, and the prime, which security
# counts, is as small as that leaves room for.
ROTATION_SHARE = 1 / 64
# Worst case: of what noise may reach, q / (2 p), the share that is kept for the rounding of replies: one bit of q; and
# of that what c0 takes, whose bits cost less than c1's.
ROUNDING_SHARE, C0_SHARE = 1 / 2, 1 / 16

Growth = TypeVar("Growth", LayerNoise, NoiseBound)  # of noise in a layer; both have a norm and rotations


@dataclass(frozen=True)
class Setting:
    """What a set is sized for, besides the noise.

    Attributes:
        degree: n as deployed.
        plaintext_modulus: p.
        flooding: how replies hide the weights. Under `paper` q is sized without a flood at n / 4, then given three
            times the bits at n.
        maximum_prime_bits: no prime of q is larger.
        factors: of a composite p in slot packing; q is sized for the largest.
    """

    degree: int
    plaintext_modulus: int
    flooding: Flooding
    maximum_prime_bits: int = MAXIMUM_PRIME_BITS
    factors: tuple[int, ...] = ()

    @property
    def largest_factor(self) -> int:
        """The largest modulus that layers are evaluated under."""
        return max(self.factors, default=self.plaintext_modulus)


class NoiseRule(ABC, Generic[Growth]):
    """By what rule on noise sets are sized."""

    @abstractmethod
    def growth(self, layer: LinearLayer, plan: Plan, flooding: Flooding) -> Growth:
        """What a tiling does to the noise of a layer (`he.packing.public_noise`)."""

    @abstractmethod
    def log2_q(self, growth: Growth, degree: int, p: int, flooding: Flooding) -> float:
        """Bits of q that suffice at n for decryption modulo p."""

    @abstractmethod
    def key_switching_prime(self, growth: Growth, degree: int, primes: tuple[int, ...]) -> float:
        """The least key-switching prime under which rotations add at most ROTATION_SHARE; inf: there is none."""

    @abstractmethod
    def reply_bits(self, layer: LinearLayer, plan: Plan, parameters: ParameterSet, flooding: Flooding) -> ReplyBits:
        """The bits that replies are sent in under a set."""


@dataclass(frozen=True)
class AverageCase(NoiseRule[LayerNoise]):
    """Errors no more frequent than a target, by standard deviations of the noise.

    Attributes:
        target: the error rate or the noise that is tolerated.
        rounding_share: of the variance that the target allows, what is kept for the rounding of replies.
    """

    target: Target
    rounding_share: float = REPLY_SHARE

    def growth(self, layer: LinearLayer, plan: Plan, flooding: Flooding) -> LayerNoise:
        """As in `NoiseRule`."""
        return layer_noise(layer, plan, flooding)

    def log2_q(self, growth: LayerNoise, degree: int, p: int, flooding: Flooding) -> float:
        """log2(2 p z sigma), with the share of the variance that rotations may take, as the primes are not known yet.

        However much noise is tolerated, q exceeds p: below it plaintexts could not be told apart.
        """
        weighted = fresh_noise() * growth.norm * math.sqrt(1 + (ROTATION_SHARE if growth.rotations else 0))
        total = reply_noise(degree, weighted, flooding).total / math.sqrt(1 - self.rounding_share)
        return max(required_log2_q(required_z(self.target, growth), p, total), math.log2(p + 1))

    def key_switching_prime(self, growth: LayerNoise, degree: int, primes: tuple[int, ...]) -> float:
        """`rotation_noise` inverted."""
        room = ROTATION_SHARE * (fresh_noise() * growth.norm) ** 2 / growth.rotations
        room -= ROUNDING_VARIANCE * (1 + SECRET_VARIANCE * degree)
        squares = SIGMA_NOISE**2 * degree * sum(float(prime) ** 2 for prime in primes) / 12
        return math.sqrt(squares / room) if room > 0 else math.inf

    def reply_bits(self, layer: LinearLayer, plan: Plan, parameters: ParameterSet, flooding: Flooding) -> ReplyBits:
        """Those of the smallest replies that meet the target."""
        growth = self.growth(layer, plan, flooding)
        return smallest_reply_bits(plan.workload, parameters, self.target, growth, flooding)


@dataclass(frozen=True)
class WorstCase(NoiseRule[NoiseBound]):
    """No errors, whatever is drawn: q > 2 p B, B the bound of a reply's noise as sent."""

    def growth(self, layer: LinearLayer, plan: Plan, flooding: Flooding) -> NoiseBound:
        """As in `NoiseRule`."""
        return layer_noise_bound(layer, plan, flooding)

    def log2_q(self, growth: NoiseBound, degree: int, p: int, flooding: Flooding) -> float:
        """log2(2 p B), with the share of the bound that rotations may take."""
        weighted = fresh_bound() * growth.norm * (1 + (ROTATION_SHARE if growth.rotations else 0))
        return math.log2(2 * p * reply_bound(degree, weighted, flooding) / (1 - ROUNDING_SHARE))

    def key_switching_prime(self, growth: NoiseBound, degree: int, primes: tuple[int, ...]) -> float:
        """By the bound of a rotation, NOISE_BOUND n (q_1 + q_2 + ...) / 2 P + ROUNDING_BOUND (1 + n).

        It adds the sum of d_i e_i / P with |d_i| <= q_i / 2 and two roundings by P, one of them times the secret.
        """
        room = ROTATION_SHARE * fresh_bound() * growth.norm / growth.rotations - ROUNDING_BOUND * (1 + degree)
        return NOISE_BOUND * degree * sum(primes) / 2 / room if room > 0 else math.inf

    def reply_bits(self, layer: LinearLayer, plan: Plan, parameters: ParameterSet, flooding: Flooding) -> ReplyBits:
        """As `worst_case_reply_bits`."""
        return worst_case_reply_bits(plan.degree, parameters.largest_factor)


def worst_case_reply_bits(degree: int, p: int) -> ReplyBits:
    """Bits under which the rounding of no reply takes more than ROUNDING_SHARE of q / (2 p).

    Rounding is off by q / 2^(bits + 1) at most, and c1's is multiplied by the secret, a sum of n coefficients.

    Args:
        degree: n.
        p: the plaintext modulus, of a composite one the largest factor.
    """
    c0, c1 = ROUNDING_SHARE * C0_SHARE, ROUNDING_SHARE * (1 - C0_SHARE)
    return ReplyBits(math.ceil(math.log2(p / c0)), math.ceil(math.log2(degree * p / c1)))


@cache
def secure_set(growth: Any, rule: NoiseRule[Any], setting: Setting) -> ParameterSet | None:
    """The set with the smallest q that suffices; None where it is insecure, or there are no such primes.

    Where the layer rotates the set has a key-switching prime.

    Args:
        growth: what the evaluation does to noise (`noise` or `noise_bound` of its packing plan).
        rule: how much noise is too much.
        setting: n, p, flooding and primes.
    """
    flooding, degree, p = setting.flooding, setting.degree, setting.largest_factor
    try:
        if flooding.kind == "paper":
            base = degree // PAPER_DEGREE_FACTOR
            unflooded = _set_of_bits(growth, rule, setting, base, rule.log2_q(growth, base, p, Flooding("none")))
            log2_q = PAPER_BITS_FACTOR * math.log2(unflooded.q)
        else:
            log2_q = rule.log2_q(growth, degree, p, flooding)
        return _set_of_bits(growth, rule, setting, degree, log2_q)
    except UserError:
        return None


def _set_of_bits(growth: Any, rule: NoiseRule[Any], setting: Setting, degree: int, log2_q: float) -> ParameterSet:
    """The set with the smallest q of so many bits; UserError where it is insecure, or there are no such primes."""
    p, factors = setting.plaintext_modulus, setting.factors
    primes, special = primes_for(log2_q, degree, setting.maximum_prime_bits, p), None
    if growth.rotations:
        least = rule.key_switching_prime(growth, degree, primes)
        if least == math.inf:
            raise UserError(f"rotations at n = {degree}: they add more noise than the products; take fewer")
        special = ntt_prime_from(math.ceil(least), degree, besides=(*primes, *(factors or (p,))))
    return ParameterSet(p, degree, primes, special, plaintext_factors=factors)
