"""Which plaintext modulus slot packing gets: one batching prime, or a product of several (the paper's section 2).

The paper takes p as a product of primes so that it can hold a network's largest intermediate result. Smaller primes
need a smaller q; but every layer is evaluated once per prime, and the garbled circuits are over the whole product.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable
from typing import Literal

from autoprivacy.errors import UserError
from autoprivacy.he.primes import is_prime
from autoprivacy.policy import Policy
from autoprivacy.quantization.integer_network import sign_threshold

Kind = Literal["single", "composite", "cheapest"]


def composite_modulus(maximum: int, minimum: int, degree: int, maximum_bits: int) -> int | None:
    """The product of the fewest, smallest primes == 1 mod 2n that holds a signed range; None where that is too large.

    Among products of equally many primes the one with the smallest largest prime, which q is chosen for.

    Args:
        maximum, minimum: the largest and the smallest number to be held, as in `selection.plaintext_modulus`.
        degree: n.
        maximum_bits: bits that the product may have.
    """
    limit, smallest = 1 << maximum_bits, 2 * degree + 1
    primes = [value for value in range(smallest, limit // smallest + 1, 2 * degree) if is_prime(value)]
    for count in range(2, len(primes) + 1):
        if math.prod(primes[:count]) >= limit:
            break
        holding = [
            factors
            for factors in itertools.combinations(primes, count)
            if math.prod(factors) < limit and _holds(math.prod(factors), maximum, minimum)
        ]
        if holding:
            return min((factors[-1], math.prod(factors)) for factors in holding)[1]
    return None


def _holds(modulus: int, maximum: int, minimum: int) -> bool:
    return maximum < sign_threshold(modulus) and minimum >= sign_threshold(modulus) - modulus


def plaintext_moduli(
    kind: Kind, single: int, required: tuple[int, int], degrees: Collection[int], maximum_bits: int
) -> list[int]:
    """The plaintext moduli to choose from.

    Args:
        kind: the config's `selection.plaintext_factors`.
        single: the prime that holds the range alone.
        required: the network's smallest and largest accumulator.
        degrees: the polynomial degrees considered; there is a composite modulus for each, where one is small enough.
        maximum_bits: bits that shares may have.

    Raises:
        UserError: composite moduli are asked for and there is none.
    """
    if kind == "single":
        return [single]
    minimum, maximum = required
    found = {composite_modulus(maximum, minimum, degree, maximum_bits) for degree in degrees}
    composites = sorted(modulus for modulus in found if modulus is not None)
    if kind == "composite" and not composites:
        raise UserError(
            f"selection.plaintext_factors composite: no product of two or more primes == 1 mod 2n of at most "
            f"{maximum_bits} bits holds {minimum} to {maximum} at any n of {sorted(degrees)}; take single, or smaller n"
        )
    return composites if kind == "composite" else [single, *composites]


def cheapest_policy(moduli: Iterable[int], select: Callable[[int], Policy]) -> Policy:
    """The policy of least predicted latency among those that `select` makes; UserError where it makes none."""
    policies, refusals = list[Policy](), list[UserError]()
    for modulus in moduli:
        try:
            policies.append(select(modulus))
        except UserError as refusal:
            refusals.append(refusal)
    if not policies:
        raise refusals[0]
    return min(policies, key=lambda policy: policy.predicted["latency_seconds"])
