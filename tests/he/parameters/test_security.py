"""The security estimate against the lattice estimator's numbers, and the check against the guidelines' limits."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.parameter_set import ParameterSet
from autoprivacy.he.parameters.security import (
    REQUIRED_BITS,
    STANDARD_2018_MAX_LOG2_Q,
    InsecureParameters,
    attack_costs,
    check_security,
    max_log2_q,
    security_bits,
)
from autoprivacy.he.ring.ring import ntt_primes

GRID = Path(__file__).parent / "reference" / "security_grid.csv"
# The MATZOV column of the security guidelines for homomorphic encryption, 2024 (ternary secret, 128 bits).
GUIDELINES_2024 = {1024: 26, 2048: 53, 4096: 106, 8192: 214, 16384: 430, 32768: 868}


def grid() -> list[tuple[int, float, str, float]]:
    lines = [line for line in GRID.read_text().splitlines() if not line.startswith("#")]
    return [
        (int(row["n"]), float(row["log2_q"]), row["attack"].removesuffix("-MATZOV"), float(row["bits"]))
        for row in csv.DictReader(lines)
    ]


def test_estimate_matches_the_lattice_estimator() -> None:
    rows = grid()
    assert {attack for _, _, attack, _ in rows} == {"usvp", "bdd"} and len(rows) > 90
    differences = {row: attack_costs(row[0], row[1])[row[2]] - row[3] for row in rows}
    # the estimator searches on a coarser grid of lattice dimensions, so a little either way is its own
    assert max(abs(difference) for difference in differences.values()) < 0.15
    near = [abs(difference) for (_, _, _, bits), difference in differences.items() if 110 < bits < 150]
    assert max(near) < 0.1


@pytest.mark.parametrize("degree", GUIDELINES_2024)
def test_limits_are_those_of_the_guidelines(degree: int) -> None:
    limit = GUIDELINES_2024[degree]
    assert max_log2_q(degree) == limit
    assert security_bits(degree, limit) >= REQUIRED_BITS > security_bits(degree, limit + 1)


@pytest.mark.parametrize("degree", STANDARD_2018_MAX_LOG2_Q)
def test_the_2018_standard_is_a_few_bits_short(degree: int) -> None:
    assert 124.5 < security_bits(degree, STANDARD_2018_MAX_LOG2_Q[degree]) < 128


def test_security_falls_with_q_and_rises_with_n() -> None:
    bits = [security_bits(4096, width) for width in (60, 80.5, 100, 106, 120, 150)]
    assert bits == sorted(bits, reverse=True)
    assert security_bits(2048, 60) < 128 < security_bits(4096, 60)


def test_larger_security_levels_have_smaller_limits() -> None:
    assert max_log2_q(8192, 192) < max_log2_q(8192, 128) < max_log2_q(8192, 100)


@pytest.mark.parametrize(("degree", "log2_q"), [(8192, 240), (2048, 60), (2048, 53.2), (1024, 26.01), (32768, 3000)])
def test_insecure_parameters_are_refused_with_the_facts(degree: int, log2_q: float) -> None:
    with pytest.raises(InsecureParameters) as caught:
        check_security(degree, log2_q)
    message = str(caught.value)
    assert isinstance(caught.value, UserError) and "\n" not in message
    for part in (f"n = {degree}", f"log2 q = {log2_q:.2f}", "needed 128", f"at most {max_log2_q(degree)}"):
        assert part in message


def test_named_sets() -> None:
    """180 bits at n = 8192 are secure with room; with a 60-bit key-switching prime besides they are not."""
    check_security(8192, 180)
    assert round(security_bits(8192, 180)) == 154
    assert security_bits(8192, 240) == pytest.approx(113.6, abs=0.1)


def test_a_modulus_just_below_the_limit_is_accepted() -> None:
    """Primes below 2^53 have a logarithm just below 53, which may round to it."""
    prime = ntt_primes(1 << 53, 2048, 1)
    assert ParameterSet(1 << 17, 2048, prime).log2_q <= 53
    with pytest.raises(InsecureParameters, match="n = 2048"):
        ParameterSet(1 << 17, 2048, ntt_primes(1 << 54, 2048, 1))


def test_the_key_switching_prime_counts() -> None:
    primes = ntt_primes(1 << 60, 8192, 4)
    ParameterSet(65537, 8192, primes[:3])
    with pytest.raises(InsecureParameters, match=r"log2 q = 240\.00"):
        ParameterSet(65537, 8192, primes[:3], key_switching_prime=primes[3])


@pytest.mark.parametrize(("degree", "log2_q"), [(128, 10), (1024, 3), (1024, 500)])
def test_the_estimate_knows_its_range(degree: int, log2_q: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        security_bits(degree, log2_q)
