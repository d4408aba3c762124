"""Which plaintext modulus slot packing gets: one batching prime, or a product of several (the paper's section 2).

The paper takes p as a product of primes so that it can hold a network's largest intermediate result. Smaller primes
need a smaller q; but every layer is evaluated once per prime, and the garbled circuits are over the whole product.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Literal

from autoprivacy.errors import UserError
from autoprivacy.he.primes import is_prime
from autoprivacy.policy import Policy
from autoprivacy.quantization.integer_network import sign_threshold

Kind = Literal["single", "composite", "cheapest"]


def composite_modulus(maximum: int, minimum: int, degree: int, maximum_bits: int) -> int | None:
    """The product of two primes == 1 mod 2n, as small as may be, that holds a signed range; None where it is too large.

    More than two would only make evaluations more. Of all pairs one with the smallest larger prime, which q is chosen
    for, and of those the smallest product.

    Args:
        maximum, minimum: the largest and the smallest number to be held, as in `selection.plaintext_modulus`.
        degree: n.
        maximum_bits: bits that the product may have.
    """
    below = list[int]()
    for larger in _batching_primes(degree):
        products = [smaller * larger for smaller in below]
        if products and products[0] >> maximum_bits:
            return None
        holding = [p for p in products if not p >> maximum_bits and _holds(p, maximum, minimum)]
        if holding:
            return holding[0]
        below.append(larger)
    return None


def _batching_primes(degree: int) -> Iterator[int]:
    return (value for value in itertools.count(2 * degree + 1, 2 * degree) if is_prime(value))


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
            f"selection.plaintext_factors composite: no product of two primes == 1 mod 2n of at most "
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
