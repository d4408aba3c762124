"""The plaintext modulus: the fewest bits that hold the accumulators, and what is said where they do not fit."""

from __future__ import annotations

import pytest

from autoprivacy.errors import UserError
from autoprivacy.gc.activation import Activation
from autoprivacy.he.packing.batching import batching_factors, slot_encoding
from autoprivacy.he.ring.primes import is_prime
from autoprivacy.quantization.integer_network import sign_threshold
from autoprivacy.selection.plaintext_modulus import PlaintextRule, composite_modulus

RANGES = {"conv1": (-60_000, 50_000), "conv2": (-1_000, 70_000), "fc": (-300, 200)}
DEGREES = (2048, 4096, 8192)


def test_coefficient_packing_takes_the_fewest_bits_and_then_the_most_factors_of_two() -> None:
    p = PlaintextRule().modulus(RANGES, "coefficient", DEGREES)
    assert is_prime(p) and p.bit_length() == 18  # 70,000 is beyond 2^16, so 17 bits do not hold it
    # of 18 bits, the negative numbers are p - 2^17
    others = [q for q in range((1 << 17) + 60_000, 1 << 18) if is_prime(q) and (q - 1) & -(q - 1) > (p - 1) & -(p - 1)]
    assert others == []
    assert PlaintextRule().modulus({"fc": (-5, 9)}, "coefficient", DEGREES).bit_length() == 5


def test_slots_take_a_prime_that_batches_at_every_degree() -> None:
    p = PlaintextRule().modulus(RANGES, "slot", DEGREES)
    assert is_prime(p) and p % (2 * 8192) == 1 and p - (1 << (p.bit_length() - 1)) >= 60_000
    for degree in DEGREES:
        slot_encoding(degree, p)


def test_a_power_of_two_has_the_shorter_circuit_and_no_slots() -> None:
    p = PlaintextRule(kind="power_of_two").modulus(RANGES, "coefficient", DEGREES)
    assert p == 1 << 18
    prime = PlaintextRule().modulus(RANGES, "coefficient", DEGREES)
    power, other = (Activation(modulus, 8, 0, 255).circuit.and_count for modulus in (p, prime))
    assert power < other
    with pytest.raises(UserError, match=r"power of two in slot packing.*set selection\.plaintext\.kind to prime"):
        PlaintextRule(kind="power_of_two").modulus(RANGES, "slot", DEGREES)


def test_a_power_of_two_and_a_prime_of_a_bit_more_are_compared() -> None:
    prime, power, more = PlaintextRule().candidates(RANGES, "coefficient", DEGREES)
    assert power == 1 << 18 and [(p - 1).bit_length() for p in (prime, more)] == [18, 19]
    *in_slots, large, small = PlaintextRule().candidates(RANGES, "slot", DEGREES)
    assert [(p - 1).bit_length() for p in in_slots] == [20, 21] and all(is_prime(p) for p in in_slots)
    assert [large, small] == PlaintextRule(kind="composite").candidates(RANGES, "slot", DEGREES)
    assert PlaintextRule(22).candidates(RANGES, "slot", DEGREES) == [
        PlaintextRule(22, "prime").modulus(RANGES, "slot", DEGREES)
    ]


@pytest.mark.parametrize("kind", ["prime", "power_of_two"])
def test_bits_of_ones_own_are_taken_where_they_suffice(kind: str) -> None:
    p = PlaintextRule(22, kind).modulus(RANGES, "coefficient", DEGREES)
    assert (p - 1).bit_length() == 22
    with pytest.raises(UserError, match=r"of 14 bits.*does not hold -60000 to 70000; allow more bits") as caught:
        PlaintextRule(14, kind).modulus(RANGES, "coefficient", DEGREES)
    named = "conv2 -1000 to 70000, conv1 -60000 to 50000, fc -300 to 200 (of 3 layers)"
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_a_modulus_that_is_not_prime_does_not_batch() -> None:
    assert 16385 % (2 * 8192) == 1 and not is_prime(16385)
    with pytest.raises(UserError, match="16385 does not batch at n = 8192: slot packing needs a prime"):
        slot_encoding(8192, 16385)


@pytest.mark.parametrize("degree", [1024, 2048, 4096])
@pytest.mark.parametrize("limit", [60_000, 1 << 26, 1 << 28])
def test_a_composite_modulus_is_the_one_with_the_smallest_largest_factor(degree: int, limit: int) -> None:
    got = composite_modulus(limit, -limit, degree)
    pairs = [
        (larger, smaller * larger)
        for larger in range(2 * degree + 1, 1 << 19, 2 * degree)
        if is_prime(larger)
        for smaller in range(2 * degree + 1, larger, 2 * degree)
        if is_prime(smaller) and smaller * larger < 1 << 32
    ]
    holding = [pair for pair in pairs if limit < sign_threshold(pair[1]) and pair[1] - sign_threshold(pair[1]) >= limit]
    assert got == min(holding)[1]
    assert len(batching_factors(got, degree)) == 2


def test_composite_moduli_are_those_of_degrees_with_small_enough_primes() -> None:
    small, large = 12289 * 40961, 40961 * 65537
    assert composite_modulus(70_000, -60_000, 4096) == large and composite_modulus(70_000, -60_000, 4096, 31) is None
    assert composite_modulus(70_000, -60_000, 8192) is None  # 65537 * 114689 has 33 bits
    rule = PlaintextRule(kind="composite")
    assert rule.candidates(RANGES, "slot", DEGREES) == [large, small] and rule.modulus(RANGES, "slot", DEGREES) == large
    assert PlaintextRule(31, "composite").candidates(RANGES, "slot", DEGREES) == [small]
    assert all(is_prime(p) for p in PlaintextRule().candidates(RANGES, "slot", (8192,)))
    with pytest.raises(UserError, match=r"at most 32 bits, a product .* at any n of \[8192\]; .*conv2 -1000 to 70000"):
        rule.candidates(RANGES, "slot", (8192,))
    with pytest.raises(UserError, match=r"composite in coefficient packing.*set selection\.plaintext\.kind to prime"):
        rule.candidates(RANGES, "coefficient", DEGREES)
