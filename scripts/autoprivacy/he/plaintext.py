"""The plaintext modulus p: what it has to be, and how the fewest bits that hold a network's accumulators are chosen."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from autoprivacy.errors import UserError
from autoprivacy.he.encoding import MAXIMUM_PLAINTEXT_BITS
from autoprivacy.he.packing import packing_named
from autoprivacy.he.primes import ntt_primes
from autoprivacy.quantization.integer_network import Interval, sign_threshold

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
        if maximum < sign_threshold(modulus) and minimum >= sign_threshold(modulus) - modulus:
            return modulus
    kind = "a power of two" if power_of_two else f"a prime == 1 mod {2 * min(degrees)}"
    raise UserError(
        f"plaintext modulus of {bits or f'at most {MAXIMUM_PLAINTEXT_BITS}'} bits, {kind}: does not hold {minimum} to "
        f"{maximum}; allow more bits, or make accumulators smaller"
    )


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
        bits: of p; None takes the fewest.
        kind: `prime`, `power_of_two` (additions of shares need no reduction then; only coefficient packing can), or
            `cheapest`: what `candidates` lists is compared by predicted latency.
    """

    bits: int | None = None
    kind: str = "cheapest"

    def candidates(self, ranges: Mapping[str, Interval], packing: str, degrees: Collection[int]) -> list[int]:
        """The moduli worth comparing for layers whose accumulators have these ranges; first the smallest prime.

        A power of two has the shortest circuit; among primes one of a bit more may be the better.

        Args:
            ranges: by layer, the smallest and largest signed number that p has to hold.
            packing: the packing's name.
            degrees: the polynomial degrees under consideration; in slot packing p batches at all of them.

        Raises:
            UserError: the ranges do not fit, with the layers that need most; or slots were to stand modulo 2^k.
        """
        if self.kind != "cheapest":
            return [self._modulus(ranges, packing, degrees, self.bits, self.kind == "power_of_two")]
        moduli = [self._modulus(ranges, packing, degrees, self.bits, power_of_two=False)]
        if not packing_named(packing).in_slots:
            moduli.append(self._modulus(ranges, packing, degrees, self.bits, power_of_two=True))
        more = moduli[0].bit_length() + 1
        if self.bits is None and more <= MAXIMUM_PLAINTEXT_BITS:
            moduli.append(self._modulus(ranges, packing, degrees, more, power_of_two=False))
        return moduli

    def modulus(self, ranges: Mapping[str, Interval], packing: str, degrees: Collection[int]) -> int:
        """The first of `candidates`."""
        return self.candidates(ranges, packing, degrees)[0]

    @staticmethod
    def _modulus(
        ranges: Mapping[str, Interval], packing: str, degrees: Collection[int], bits: int | None, power_of_two: bool
    ) -> int:
        in_slots = packing_named(packing).in_slots
        if in_slots and power_of_two:
            raise UserError(
                f"plaintext modulus: a power of two in {packing} packing, whose slots need a prime == 1 mod 2n; set "
                "selection.plaintext.kind to prime, or take coefficient packing"
            )
        minimum, maximum = min(low for low, _ in ranges.values()), max(high for _, high in ranges.values())
        batching = (max(degrees),) if in_slots else CIRCUIT_DEGREES
        try:
            return plaintext_modulus(maximum, minimum, bits, batching, power_of_two)
        except UserError as error:
            widest = sorted(ranges, key=lambda name: max(-ranges[name][0], ranges[name][1]), reverse=True)
            named = ", ".join(f"{name} {ranges[name][0]} to {ranges[name][1]}" for name in widest[:NAMED_LAYERS])
            raise UserError(f"{error}; accumulators, margin included: {named} (of {len(ranges)} layers)") from None
