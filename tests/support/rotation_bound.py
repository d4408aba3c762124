"""The worst-case bound of one rotation, which key-switching primes are sized by."""

from __future__ import annotations

from collections.abc import Collection

from autoprivacy.he.parameters.noise_bounds import NOISE_BOUND, ROUNDING_BOUND


def rotation_bound(polynomial_degree: int, primes: Collection[int], key_switching_prime: int) -> float:
    """Of what one rotation adds: the sum of d_i e_i / P with |d_i| <= q_i / 2, and two roundings by P, one times s.

    Args:
        polynomial_degree: n.
        primes: q_i, those of q.
        key_switching_prime: P.
    """
    digits = sum(prime / 2 / key_switching_prime for prime in primes)
    return NOISE_BOUND * polynomial_degree * digits + ROUNDING_BOUND * (1 + polynomial_degree)
