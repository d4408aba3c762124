"""The smallest secure parameter set that meets a target at one polynomial degree."""

from __future__ import annotations

import math
from functools import cache

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.reply_bits import REPLY_SHARE
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
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, Target
from autoprivacy.he.ring.primes import MAXIMUM_PRIME_BITS, ntt_prime_from, primes_for

# The paper's section 2: flooding quadruples n and triples log q.
PAPER_DEGREE_FACTOR, PAPER_BITS_FACTOR = 4, 3
# Key-switching primes are chosen so that rotations add at most this share of what products make of fresh noise: it
# costs 0.01 bits of q, and the prime, which security counts, is as small as that leaves room for.
ROTATION_SHARE = 1 / 64


@cache
def secure_set(
    noise: LayerNoise,
    degree: int,
    target: Target,
    p: int,
    flooding: Flooding,
    maximum_prime_bits: int = MAXIMUM_PRIME_BITS,
    rounding_share: float = REPLY_SHARE,
    factors: tuple[int, ...] = (),
) -> ParameterSet | None:
    """The set with the smallest q that meets a target at n; None where it is insecure, or there are no such primes.

    Under flooding `paper` it is the smallest q without a flood at n / 4, and three times its bits at n. Where the layer
    rotates the set has a key-switching prime.

    Args:
        noise: what the layer's evaluation does to noise (`noise` of its packing plan).
        degree: n as deployed.
        target, p, flooding, maximum_prime_bits: as in `select_layer`.
        rounding_share: of the variance that the target allows, what is kept for the rounding of replies.
        factors: of a composite p in slot packing; q is chosen for the largest.
    """
    paper = flooding.kind == "paper"
    base = degree // PAPER_DEGREE_FACTOR if paper else degree
    z = required_z(target, noise)
    total = reply_noise(base, _weighted_noise(noise), Flooding("none") if paper else flooding).total
    total /= math.sqrt(1 - rounding_share)
    log2_q = required_log2_q(z, max(factors, default=p), total)
    try:
        parameters = _smallest_set(noise, base, log2_q, p, maximum_prime_bits, factors)
        if paper:
            log2_q = PAPER_BITS_FACTOR * math.log2(parameters.q)
            parameters = _smallest_set(noise, degree, log2_q, p, maximum_prime_bits, factors)
    except UserError:
        return None
    return parameters


def _smallest_set(
    noise: LayerNoise, degree: int, log2_q: float, p: int, maximum_prime_bits: int, factors: tuple[int, ...]
) -> ParameterSet:
    """The set with the smallest q of so many bits; UserError where it is insecure, or there are no such primes.

    However much noise is tolerated, q exceeds p (or its largest factor): below it plaintexts could not be told apart.
    """
    largest = max(factors, default=p)
    primes = primes_for(max(log2_q, math.log2(largest + 1)), degree, maximum_prime_bits, p)
    if not noise.rotations:
        return ParameterSet(p, degree, primes, plaintext_factors=factors)
    special = ntt_prime_from(_smallest_special(noise, degree, primes), degree, besides=(*primes, *(factors or (p,))))
    return ParameterSet(p, degree, primes, special, plaintext_factors=factors)


def _smallest_special(layer: LayerNoise, degree: int, primes: tuple[int, ...]) -> int:
    """The least key-switching prime under which rotations add at most ROTATION_SHARE; `rotation_noise` inverted.

    Returns:
        An integer that it must reach, prime or not.

    Raises:
        UserError: no prime is large enough.
    """
    room = ROTATION_SHARE * (fresh_noise() * layer.norm) ** 2 / layer.rotations
    room -= ROUNDING_VARIANCE * (1 + SECRET_VARIANCE * degree)
    if room <= 0:
        raise UserError(f"rotations at n = {degree}: they add more noise than the products; take fewer")
    return math.ceil(math.sqrt(SIGMA_NOISE**2 * degree * sum(float(prime) ** 2 for prime in primes) / 12 / room))


def _weighted_noise(layer: LayerNoise) -> float:
    """sigma_v before the primes are known, with the share that rotations may take."""
    share = ROTATION_SHARE if layer.rotations else 0.0
    return fresh_noise() * layer.norm * math.sqrt(1 + share)
