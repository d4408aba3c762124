"""Estimated security of learning parity with noise as silent transfers use it: regular noise and a local code.

An instance has n = blocks 2^depth samples of k secret bits, one error in every block, and d secret bits to a sample.
Costs are bits of work, log2 of bit operations; `security_bits` is the least of them. Sources:

- Pooled Gauss, statistical decoding and statistical decoding 2.0: Liu, Wang, Yang, Yu, "The hardness of LPN over any
  integer ring and field for PCG applications", EUROCRYPT 2024 (IACR ePrint 2022/712, section 4 and the estimator that
  goes with it).
- Regular information set decoding, by permutation and by enumeration: Esser, Santini, "Not just regular decoding:
  asymptotics and improvements of regular syndrome decoding attacks", CRYPTO 2024 (ePrint 2023/1568, appendix A.1).
- The algebraic attack on regular noise: Briaud, Oygarden, "A new algebraic approach to the regular syndrome decoding
  problem and implications for PCG constructions", EUROCRYPT 2023, over F2, degrees 2 to 4; with the guesses divided
  into two steps, as "AGB 2.0" (ePrint 2025/1476) has it.
- Samples of a local code that stay within few secret bits: Chen, Shu, Zhou, "Algorithms for sparse LPN and LSPN
  against low-noise" (arXiv 2407.19215), whose first step is such a domain reduction. `restricted` bounds for how few
  bits there can be such samples at all, whoever looks for them and for how long, and counts sparse linear algebra
  (Wiedemann) in place of Strassen's; a few errors among the samples are enumerated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

ALGEBRAIC_DEGREES = (2, 3, 4)
# Exponent of matrix multiplication in the estimators above, and the constant that AGB 2.0 has with it.
STRASSEN, STRASSEN_CONSTANT = 2.8, 5.64
ENUMERATED_ERRORS = (0, 2, 4, 6, 8, 10)


@dataclass(frozen=True)
class LpnInstance:
    """Samples of one round.

    Attributes:
        secret: k, secret bits.
        blocks: of the noise, each with one error.
        depth: log2 of a block's samples.
        locality: d, secret bits that a sample adds up.
    """

    secret: int
    blocks: int
    depth: int
    locality: int

    @property
    def block(self) -> int:
        """Samples of a block."""
        return 1 << self.depth

    @property
    def samples(self) -> int:
        """n."""
        return self.blocks << self.depth


def costs(instance: LpnInstance) -> dict[str, float]:
    """Bits of work by attack."""
    return {
        "pooled Gauss": pooled_gauss(instance),
        "statistical decoding": statistical_decoding(instance, instance.secret),
        "statistical decoding 2.0": statistical_decoding(
            instance, instance.secret - math.floor(pooled_gauss(instance))
        ),
        "regular decoding": regular_decoding(instance),
        "algebraic": algebraic(instance),
        "restricted": restricted(instance),
    }


def security_bits(instance: LpnInstance) -> float:
    """Bits of work of the best of the attacks."""
    return min(costs(instance).values())


def _log2_binomial(n: float, k: float) -> float:
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def pooled_gauss(instance: LpnInstance) -> float:
    """Guess k samples without an error and solve for the secret."""
    n, k, t = instance.samples, instance.secret, instance.blocks
    return STRASSEN * math.log2(k) + _log2_binomial(n, t) - _log2_binomial(n - k, t)


def statistical_decoding(instance: LpnInstance, secret: int) -> float:
    """Add up parity checks of k + 1 samples until their bias shows."""
    n, t = instance.samples, instance.blocks
    return math.log2(secret + 1) + 2 * t * math.log2((n - t + 1) / (n - secret - t))


def regular_decoding(instance: LpnInstance) -> float:
    """The blocks' sums are known, so k less the blocks are guessed, equally many of each block; some errors among them
    are enumerated.
    """
    n, b, t = instance.samples, instance.block, instance.blocks
    unknown = instance.secret - t
    best = math.inf
    for errors in ENUMERATED_ERRORS:
        lists = _log2_binomial(t / 2, errors / 2) + errors / 2 * math.log2(unknown / t)
        window = max(0.0, lists)
        share = (unknown + window) / t / b
        chance = 2 * _log2_binomial(t / 2, errors / 2) + errors * math.log2(share) + (t - errors) * math.log2(1 - share)
        work = math.log2(n) + max(2 * math.log2(n - unknown), 1 + lists, 2 * lists - window)
        best = min(best, work - chance)
    return best


def _series(factors: list[tuple[int, int]], degree: int) -> list[int]:
    """Coefficients up to a degree of a product of powers (1 + a z)^m, m negative as well."""
    product = [1] + [0] * degree
    for a, m in factors:
        power = [1]
        for i in range(degree):
            power.append(power[-1] * a * (m - i) // (i + 1) if a else 0)
        product = [sum(product[j] * power[i - j] for j in range(i + 1)) for i in range(degree + 1)]
    return product


def algebraic(instance: LpnInstance) -> float:
    """Products of two errors of a block are 0: guess some samples of every block without an error, solve the rest as
    linear equations of its monomials.
    """
    best = math.inf
    for degree in ALGEBRAIC_DEGREES:
        best = min([best, *_algebraic(instance, degree)])
    return best


def _algebraic(instance: LpnInstance, degree: int) -> Iterator[float]:
    t, k = instance.blocks, instance.secret
    least = _least_guesses(instance, degree)
    chance = t * math.log2(1 - least / instance.block)
    monomials, _ = _sizes(instance, degree, least)
    yield 2 * math.log2(monomials) + math.log2(3 * max(1, k + 1 - t * least)) - chance
    if degree == 2:  # in the monomials of the unknowns that the linear equations leave, dense
        unknown = max(2, k + 1 - t * (least + 1))
        yield STRASSEN * (2 * math.log2(unknown) - 1) - chance
    for guesses in range(least):  # the first step eliminates under some of the guesses, the second under all of them
        monomials, left = _sizes(instance, degree, guesses)
        first = 2 * math.log2(monomials) + math.log2(3 * max(1, k + 1 - t * guesses))
        first -= t * math.log2(1 - guesses / instance.block)
        second = math.log2(STRASSEN_CONSTANT) + STRASSEN * math.log2(left) - chance
        yield max(first, second)


def _sizes(instance: LpnInstance, degree: int, guesses: int) -> tuple[int, int]:
    """Monomials, and those that remain when all equations of the degree are used, 1 at least."""
    inner, m = instance.block - guesses - 1, instance.samples - instance.secret - 1
    monomials = sum(_series([(inner, instance.blocks)], degree)[1:])
    left = sum(_series([(inner, instance.blocks), (1, -m)], degree)[1 if degree == 1 else 2 :])
    return max(1, monomials), max(1, left)


def _least_guesses(instance: LpnInstance, degree: int) -> int:
    """Of each block, so that the equations suffice."""
    low, high = 0, -(-(instance.secret + 1) // instance.blocks)  # as many as leave nothing to solve
    while low < high:
        middle = (low + high) // 2
        if _sizes(instance, degree, middle)[1] <= 1:
            high = middle
        else:
            low = middle + 1
    return low


def restricted(instance: LpnInstance) -> float:
    """Solve for a part of the secret, from samples of that part alone."""
    fewest = fewest_bits(instance)
    best = math.inf
    for bits in (fewest, (fewest + instance.secret) // 2, instance.secret):
        best = min(best, *(_enumerate(instance, bits, errors) for errors in ENUMERATED_ERRORS))
    return best


def _enumerate(instance: LpnInstance, bits: int, errors: int) -> float:
    """Of as many samples as secret bits, so many with an error."""
    lists = _log2_binomial(bits / 2, errors / 2)
    rows = max(1.0, lists)  # parity checks on which the lists meet, each by a solution of a sparse system
    solve = math.log2(2 * instance.locality) + 2 * math.log2(bits) + math.log2(rows)
    rate = 1 / instance.block
    chance = 2 * lists + errors * math.log2(rate) + (bits - errors) * math.log2(1 - rate)
    return max(solve, lists + 1 + math.log2(bits) / 2) - chance


def fewest_bits(instance: LpnInstance) -> int:
    """No fewer secret bits contain as many samples as they are, but with a probability of about 2^-40.

    By a union bound over all sets: with a share a of the secret bits a sample lies within them with probability a^d, so
    that more than y of n lie there with at most exp(-n D(y / n || a^d)), D the relative entropy.
    """
    k, n = instance.secret, instance.samples
    low, high = 1, k
    while low < high:
        bits = (low + high) // 2
        share, wanted = bits / k, bits / n
        within = share**instance.locality
        if wanted <= within:
            high = bits
            continue
        entropy = wanted * math.log(wanted / within) + (1 - wanted) * math.log((1 - wanted) / (1 - within))
        sets = _log2_binomial(k, bits) * math.log(2)
        if n * entropy > sets + 40 * math.log(2):
            low = bits + 1
        else:
            high = bits
    return low
