"""Primes that a number-theoretic transform can use: tests, lists, and moduli of a wanted size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator
from functools import cache

from autoprivacy.errors import UserError

# The sizes of primes that there are kernels for, each for primes below 2^bits. Up to 27 bits the products of eight
# lanes of 32 bits do (see he.ring.words32_numba); 60 is SEAL's limit (SEAL_USER_MOD_BIT_COUNT_MAX).
PRIME_SIZES = (27, 60)
WORD32_PRIME_BITS, MAXIMUM_PRIME_BITS = PRIME_SIZES
# The first 12 primes as bases decide every integer below 3.18e23 (Sorenson, Webster, arXiv:1509.00864).
MILLER_RABIN_BASES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
# How many primes on either side of a run of k are tried for a product nearer to the wanted one.
WINDOW_MARGIN = 2


@cache
def is_prime(value: int) -> bool:
    """Whether an integer below 2^64 is prime; deterministic Miller-Rabin."""
    if value < 2:
        return False
    for base in MILLER_RABIN_BASES:
        if value % base == 0:
            return value == base
    twos = ((value - 1) & (1 - value)).bit_length() - 1
    return all(_passes(value, base, twos) for base in MILLER_RABIN_BASES)


def _passes(value: int, base: int, twos: int) -> bool:
    power = pow(base, (value - 1) >> twos, value)
    if power in (1, value - 1):
        return True
    for _ in range(twos - 1):
        power = power * power % value
        if power == value - 1:
            return True
    return False


def _primes_downward(below: int, degree: int) -> Iterator[int]:
    step = 2 * degree
    first = (below - 2) // step * step + 1
    return (value for value in range(first, 1, -step) if is_prime(value))


def _primes_upward(start: int, degree: int) -> Iterator[int]:
    step = 2 * degree
    first = max(1, -(-(start - 1) // step)) * step + 1
    return (value for value in itertools.count(first, step) if is_prime(value))


def ntt_primes(below: int, degree: int, count: int) -> tuple[int, ...]:
    """The `count` largest primes below a bound that are == 1 mod 2 degree, largest first.

    Raises:
        UserError: there are fewer of them.
    """
    found = tuple(itertools.islice(_primes_downward(below, degree), count))
    if len(found) < count:
        raise UserError(f"NTT primes below {below} for n = {degree}: there are {len(found)}, wanted {count}")
    return found


def ntt_prime_from(start: int, degree: int, besides: Collection[int]) -> int:
    """The smallest NTT prime that is at least `start` and none of `besides`; UserError beyond the largest size."""
    prime = next(prime for prime in _primes_upward(start, degree) if prime not in besides)
    if prime >> MAXIMUM_PRIME_BITS:
        raise UserError(f"NTT prime from {start} for n = {degree}: at most {MAXIMUM_PRIME_BITS} bits; take a smaller q")
    return prime


def prime_size(primes: tuple[int, ...]) -> int:
    """The smallest of `PRIME_SIZES` that holds all the primes: a modulus goes by its largest prime.

    Raises:
        ValueError: a prime is larger than all sizes.
    """
    bits = max(prime.bit_length() for prime in primes)
    for size in PRIME_SIZES:
        if bits <= size:
            return size
    raise ValueError(f"a prime of {bits} bits; expected at most {MAXIMUM_PRIME_BITS}")


@cache
def primes_for(
    log2_q: float, degree: int, maximum_bits: int = MAXIMUM_PRIME_BITS, coprime_to: int = 1
) -> tuple[int, ...]:
    """The fewest distinct NTT primes whose product reaches 2^log2_q, and exceeds it as little as may be.

    The primes are of about equal size, largest first. The excess is below 0.05 bits wherever the primes have 25 bits
    or more and n is at most 8192; a small modulus exceeds by up to the gap between NTT primes.

    Args:
        log2_q: wanted bits of the modulus, may be a fraction.
        degree: n; every prime is == 1 mod 2n.
        maximum_bits: no prime reaches 2^maximum_bits.
        coprime_to: no prime divides this number; a plaintext modulus can be as large as the primes are.

    Raises:
        UserError: the wanted size is not positive, or there are too few NTT primes of that size.
    """
    if not log2_q > 0 or not 2 <= maximum_bits <= MAXIMUM_PRIME_BITS:
        raise UserError(
            f"modulus of {log2_q} bits from primes of at most {maximum_bits} bits: "
            f"expected above 0 and 2 to {MAXIMUM_PRIME_BITS}"
        )
    target = _power_of_two(log2_q)
    largest = _largest_until(target, degree, maximum_bits, coprime_to)
    count = len(largest)
    below = 1 << maximum_bits
    middle = _power_of_two(log2_q / count)
    upper, lower = (
        tuple(itertools.islice(_coprime(primes, coprime_to), count + WINDOW_MARGIN))
        for primes in (_primes_upward(middle, degree), _primes_downward(min(middle, below), degree))
    )
    candidates = sorted({*upper, *lower, *largest} - {prime for prime in upper if prime >= below})
    start = next(j for j in range(len(candidates)) if math.prod(candidates[j : j + count]) >= target)
    window = candidates[max(0, start - WINDOW_MARGIN) : start + count + WINDOW_MARGIN]
    choices = (choice for choice in itertools.combinations(window, count) if math.prod(choice) >= target)
    return tuple(sorted(min(choices, key=math.prod), reverse=True))


def _power_of_two(exponent: float) -> int:
    """2^exponent rounded up to an integer, exact where the exponent is one."""
    whole = math.floor(exponent)
    return math.ceil(math.ldexp(2.0 ** (exponent - whole), min(whole, 52))) << max(0, whole - 52)


def _coprime(primes: Iterator[int], number: int) -> Iterator[int]:
    return (prime for prime in primes if number % prime)


def _largest_until(target: int, degree: int, maximum_bits: int, coprime_to: int) -> tuple[int, ...]:
    """The largest NTT primes, as many as a product of `target` takes."""
    taken: list[int] = []
    for prime in _coprime(_primes_downward(1 << maximum_bits, degree), coprime_to):
        taken.append(prime)
        if math.prod(taken) >= target:
            return tuple(taken)
    raise UserError(
        f"modulus of {target.bit_length()} bits at n = {degree}: NTT primes of at most {maximum_bits} bits "
        f"give {math.prod(taken).bit_length()} bits; allow larger primes"
    )
