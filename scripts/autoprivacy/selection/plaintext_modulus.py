"""The plaintext modulus p: what it has to be, and how the fewest bits that hold a network's accumulators are chosen."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from autoprivacy.errors import UserError
from autoprivacy.he.packing import packing_named
from autoprivacy.he.ring.primes import is_prime, ntt_primes
from autoprivacy.quantization.architecture import MAXIMUM_PLAINTEXT_BITS
from autoprivacy.quantization.integer_network import MAXIMUM_MODULUS_BITS, Interval, sign_threshold

# Coefficient packing asks nothing of p, but the circuit that adds shares modulo a prime is the shorter, the more
# factors of two p - 1 has (gc.activation): of one size those == 1 mod 2^13 are tried first, then 2^12 and so on.
CIRCUIT_DEGREES = tuple(1 << j for j in range(12, -1, -1))
NAMED_LAYERS = 3  # in the message about accumulators that do not fit


def plaintext_modulus(
    maximum: int,
    minimum: int,
    bits: int | None = None,
    degree_for_batching: int | Collection[int] = 1,
    power_of_two: bool = False,
) -> int:
    """The plaintext modulus p of the fewest bits (or of `bits`) that holds a signed range.

    Residues with the top bit set are negative (`to_signed`), so p of k bits holds p - 2^(k-1) negative numbers and
    2^(k-1) others. p is the largest prime of its k bits that is == 1 mod 2n, or 2^k.

    Args:
        maximum, minimum: the largest and the smallest number to be held.
        bits: k; None takes the fewest.
        degree_for_batching: n, a power of two; of several the first at which k bits will do.
        power_of_two: take 2^k.

    Raises:
        UserError: `bits` are too few, or more than the encoding takes are needed.
    """
    sizes = range(2, MAXIMUM_PLAINTEXT_BITS + 1) if bits is None else (bits,)
    degrees = (degree_for_batching,) if isinstance(degree_for_batching, int) else tuple(degree_for_batching)
    for size, degree in itertools.product(sizes, degrees):
        modulus = 1 << size if power_of_two else _batching_prime(size, degree)
        if modulus is None or modulus >> MAXIMUM_PLAINTEXT_BITS:
            continue
        if _holds(modulus, maximum, minimum):
            return modulus
    kind = "a power of two" if power_of_two else f"a prime == 1 mod {2 * min(degrees)}"
    raise UserError(
        f"plaintext modulus of {bits or f'at most {MAXIMUM_PLAINTEXT_BITS}'} bits, {kind}: does not hold {minimum} to "
        f"{maximum}; allow more bits, or make accumulators smaller"
    )


def composite_modulus(maximum: int, minimum: int, degree: int, bits: int = MAXIMUM_MODULUS_BITS) -> int | None:
    """The product of two primes == 1 mod 2n, as small as may be, that holds a signed range; None where it is too large.

    The paper's section 2 (BFV Batching) takes p as a product of primes, so that it holds a network's largest
    intermediate result. Smaller primes need a smaller q, but a layer is evaluated once per prime: more than two would
    only make evaluations more. Of all pairs one with the smallest larger prime, which q is chosen for, and of those the
    smallest product.

    Args:
        maximum, minimum: as in `plaintext_modulus`.
        degree: n.
        bits: that the product may have.
    """
    below = list[int]()
    for larger in _batching_primes(degree):
        products = [smaller * larger for smaller in below]
        if products and products[0] >> bits:
            return None
        holding = [p for p in products if not p >> bits and _holds(p, maximum, minimum)]
        if holding:
            return holding[0]
        below.append(larger)
    return None


def _holds(modulus: int, maximum: int, minimum: int) -> bool:
    return maximum < sign_threshold(modulus) and minimum >= sign_threshold(modulus) - modulus


def _batching_primes(degree: int) -> Iterator[int]:
    return (value for value in itertools.count(2 * degree + 1, 2 * degree) if is_prime(value))


def _batching_prime(bits: int, degree: int) -> int | None:
    """The largest prime of exactly that many bits that is == 1 mod 2n."""
    try:
        prime = ntt_primes(1 << bits, degree, 1)[0]
    except UserError:
        return None
    return prime if prime.bit_length() == bits else None


@dataclass(frozen=True)
class PlaintextRule:
    """How p follows from what accumulators need (`selection.plaintext` of the config).

    Attributes:
        bits: of p, of a composite p at most; None takes the fewest.
        kind: `prime`, `power_of_two` (additions of shares need no reduction then; only coefficient packing can),
            `composite` (a product of two primes that batch; only slot packing can), or `cheapest`: what `candidates`
            lists is compared by predicted latency.
    """

    bits: int | None = None
    kind: str = "cheapest"

    def candidates(
        self, ranges: Mapping[str, Interval], packing: str, degrees: Collection[int], squares: bool = False
    ) -> list[int]:
        """The moduli worth comparing for layers whose accumulators have these ranges; first the smallest prime.

        A power of two has the shortest circuit; among primes one of a bit more may be the better. A composite p needs a
        smaller q; there is one for every degree with small enough primes, first that which batches at most degrees.

        Args:
            ranges: by layer, the smallest and largest signed number that p has to hold.
            packing: the packing's name.
            degrees: the polynomial degrees under consideration; in slot packing p batches at all of them.
            squares: whether the network squares activations: primes are then for triples, which stand in slots in every
                packing, a power of two for squares that are looked up.

        Raises:
            UserError: the ranges do not fit, with the layers that need most; or the packing cannot use p of that kind.
        """
        if self.kind == "composite":
            return self._composites(ranges, packing, degrees)
        in_slots = packing_named(packing).in_slots
        batches = squares or in_slots
        if self.kind == "power_of_two" and in_slots:
            raise UserError(
                f"plaintext modulus: a power of two in {packing} packing, where slots need a prime == 1 mod 2n; set "
                "selection.plaintext.kind to prime, or take coefficient packing"
            )
        modulus = partial(_modulus, ranges, batches, degrees)
        if self.kind != "cheapest":
            return [modulus(self.bits, self.kind == "power_of_two")]
        moduli = [modulus(self.bits)]
        if not in_slots:
            moduli.append(modulus(self.bits, power_of_two=True))
        more = moduli[0].bit_length() + 1
        if self.bits is None and more <= MAXIMUM_PLAINTEXT_BITS:
            with contextlib.suppress(UserError):  # there need be no prime of just so many bits
                moduli.append(modulus(more))
        if self.bits is None and packing_named(packing).in_slots:
            moduli += _composite_moduli(ranges, degrees, MAXIMUM_MODULUS_BITS)
        return moduli

    def modulus(
        self, ranges: Mapping[str, Interval], packing: str, degrees: Collection[int], squares: bool = False
    ) -> int:
        """The first of `candidates`."""
        return self.candidates(ranges, packing, degrees, squares)[0]

    def _composites(self, ranges: Mapping[str, Interval], packing: str, degrees: Collection[int]) -> list[int]:
        if not packing_named(packing).in_slots:
            raise UserError(
                f"plaintext modulus: composite in {packing} packing, which takes any p as it is; set "
                "selection.plaintext.kind to prime, or take slot packing"
            )
        bits = self.bits or MAXIMUM_MODULUS_BITS
        moduli = _composite_moduli(ranges, degrees, bits)
        if not moduli:
            raise UserError(
                f"plaintext modulus of at most {bits} bits, a product of two primes == 1 mod 2n: none holds the "
                f"accumulators at any n of {sorted(degrees)}; set selection.plaintext.kind to prime, or profile "
                f"smaller n; {_widest(ranges)}"
            )
        return moduli


def _modulus(
    ranges: Mapping[str, Interval],
    batches: bool,
    degrees: Collection[int],
    bits: int | None,
    power_of_two: bool = False,
) -> int:
    minimum, maximum = union(ranges)
    try:
        return plaintext_modulus(maximum, minimum, bits, (max(degrees),) if batches else CIRCUIT_DEGREES, power_of_two)
    except UserError as error:
        raise UserError(f"{error}; {_widest(ranges)}") from None


def _composite_moduli(ranges: Mapping[str, Interval], degrees: Collection[int], bits: int) -> list[int]:
    """The distinct composite moduli of the degrees that have one, from the largest degree downwards."""
    minimum, maximum = union(ranges)
    found = (composite_modulus(maximum, minimum, degree, bits) for degree in sorted(degrees, reverse=True))
    return list(dict.fromkeys(modulus for modulus in found if modulus is not None))


def union(ranges: Mapping[str, Interval]) -> Interval:
    """The smallest interval that holds all."""
    return min(low for low, _ in ranges.values()), max(high for _, high in ranges.values())


def _widest(ranges: Mapping[str, Interval]) -> str:
    """The layers that need most, for messages."""
    widest = sorted(ranges, key=lambda name: max(-ranges[name][0], ranges[name][1]), reverse=True)
    named = ", ".join(f"{name} {ranges[name][0]} to {ranges[name][1]}" for name in widest[:NAMED_LAYERS])
    return f"accumulators, margin included: {named} (of {len(ranges)} layers)"
