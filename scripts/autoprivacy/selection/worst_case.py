"""The smallest secure parameter set that no noise can make decrypt wrongly, by worst-case bounds."""

from __future__ import annotations

import math

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.noise_bounds import (
    NOISE_BOUND,
    ROUNDING_BOUND,
    NoiseBound,
    fresh_bound,
    reply_bound,
)
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, ReplyBits
from autoprivacy.he.ring.primes import ntt_prime_from, primes_for
from autoprivacy.selection.secure_set import PAPER_BITS_FACTOR, PAPER_DEGREE_FACTOR

# Rotations may add this share to the bound of the products: it costs 0.02 bits of q, and the key-switching prime is as
# small as that leaves room for.
ROTATION_SHARE = 1 / 64
# Of what noise may reach, q / (2 p), the share that is kept for the rounding of replies: one bit of q.
ROUNDING_SHARE = 1 / 2
C0_SHARE = 1 / 16  # and of that what c0 takes, whose bits cost less than c1's


def worst_case_set(
    bound: NoiseBound,
    degree: int,
    p: int,
    flooding: Flooding,
    maximum_prime_bits: int,
    factors: tuple[int, ...] = (),
) -> ParameterSet | None:
    """The smallest q > 2 p B, B the bound of a reply's noise as sent; None where it is insecure or there are no primes.

    Under flooding `paper` it is the smallest q without a flood at n / 4, and three times its bits at n.

    Args:
        bound: what the layer's evaluation does to bounds (`noise_bound` of its packing plan).
        degree: n as deployed.
        p, flooding, maximum_prime_bits: as in `select_layer`.
        factors: of a composite p in slot packing; the largest then stands for p.
    """
    paper = flooding.kind == "paper"
    base = degree // PAPER_DEGREE_FACTOR if paper else degree
    weighted = fresh_bound() * bound.norm * (1 + (ROTATION_SHARE if bound.rotations else 0))
    log2_q = math.log2(2 * max(factors, default=p) * reply_bound(base, weighted, flooding) / (1 - ROUNDING_SHARE))
    try:
        parameters = _set_of_bits(bound, base, log2_q, p, maximum_prime_bits, factors)
        if paper:
            log2_q = PAPER_BITS_FACTOR * math.log2(parameters.q)
            parameters = _set_of_bits(bound, degree, log2_q, p, maximum_prime_bits, factors)
    except UserError:
        return None
    return parameters


def worst_case_reply_bits(degree: int, p: int) -> ReplyBits:
    """Bits under which the rounding of no reply takes more than ROUNDING_SHARE of q / (2 p).

    Rounding is off by q / 2^(bits + 1) at most, and c1's is multiplied by the secret, a sum of n coefficients.

    Args:
        degree: n.
        p: the plaintext modulus, of a composite one the largest factor.
    """
    c0, c1 = ROUNDING_SHARE * C0_SHARE, ROUNDING_SHARE * (1 - C0_SHARE)
    return ReplyBits(math.ceil(math.log2(p / c0)), math.ceil(math.log2(degree * p / c1)))


def _set_of_bits(
    bound: NoiseBound, degree: int, log2_q: float, p: int, maximum_prime_bits: int, factors: tuple[int, ...]
) -> ParameterSet:
    primes = primes_for(log2_q, degree, maximum_prime_bits, p)
    if not bound.rotations:
        return ParameterSet(p, degree, primes, plaintext_factors=factors)
    special = ntt_prime_from(_smallest_special(bound, degree, primes), degree, besides=(*primes, *(factors or (p,))))
    return ParameterSet(p, degree, primes, special, plaintext_factors=factors)


def _smallest_special(bound: NoiseBound, degree: int, primes: tuple[int, ...]) -> int:
    """The least key-switching prime under which rotations add at most ROTATION_SHARE; `rotation_bound` inverted."""
    room = ROTATION_SHARE * fresh_bound() * bound.norm / bound.rotations - ROUNDING_BOUND * (1 + degree)
    if room <= 0:
        raise UserError(f"rotations at n = {degree}: they add more noise than the products; take fewer")
    return math.ceil(NOISE_BOUND * degree * sum(primes) / 2 / room)
