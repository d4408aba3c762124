"""Security of BFV parameters: the classical cost of the primal lattice attacks on ring-LWE with a ternary secret.

The two attacks, their success conditions and the cost of lattice reduction are those of the lattice estimator
(Albrecht, Player, Scott, ePrint 2015/046; github.com/malb/lattice-estimator), with as many samples as the attack likes
and the geometric series assumption for the shape of a reduced basis. The cost model is MATZOV's: 'Report on the
Security of LWE: Improved Dual Lattice Attack', 2022, doi 10.5281/zenodo.6412487.

Far above 128 bits the dual hybrid attack, which is not here, can be a few bits cheaper; at the limits of
`max_log2_q` it is not, so the answer 'at least 128 bits or not' is that of all three.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from autoprivacy.errors import UserError

REQUIRED_BITS = 128
# The standard deviation of the error as the security guidelines take it (homomorphicencryption.org standard, 2018).
SIGMA_SECURITY = 3.2
# Table 1 of the 2018 standard: ternary secret, classical, 128 bits; what SEAL enforces. 125 to 127 bits under MATZOV.
STANDARD_2018_MAX_LOG2_Q = {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}

# The variance of a uniform ternary secret is 2/3. Scaling its coordinates by SECRET_SCALE makes error and secret
# equally wide (Bai, Galbraith, ACISP 2014).
SECRET_SCALE = SIGMA_SECURITY / math.sqrt(2 / 3)
# Sieving by list decoding, classical gates: 2^(slope * dimension + offset) (MATZOV, fitted by the lattice estimator).
SIEVE_SLOPE, SIEVE_OFFSET = 0.29613500308205365, 20.387885985467914
# Progressive sieving and progressive BKZ each cost this many times their last step (Kyber's specification, round 3).
PROGRESSIVE_OVERHEAD = 5.46
# Block sizes below this follow other formulas; no set near 128 bits is attacked with one.
MINIMUM_BLOCK = 50


class InsecureParameters(UserError):
    """A polynomial degree and ciphertext modulus that do not reach 128 bits of security."""


def _log_root_hermite(block: int) -> float:
    """ln of the root Hermite factor of BKZ with that block size (Chen, PhD thesis 2013)."""
    return math.log(block / (2 * math.pi * math.e) * (math.pi * block) ** (1 / block)) / (2 * (block - 1))


def _log2_reduction_cost(block: int, dimension: int) -> float:
    """log2 of the operations of BKZ, or of one SVP call for block = dimension; dimensions for free as Ducas has them.

    Ducas, Eurocrypt 2018, section 4.
    """
    sieve = block - block * math.log(4 / 3) / math.log(block / (2 * math.pi * math.e))
    calls = PROGRESSIVE_OVERHEAD * max(dimension - block, 1)
    return math.log2(calls * PROGRESSIVE_OVERHEAD) + SIEVE_SLOPE * sieve + SIEVE_OFFSET


def _usvp_succeeds(block: int, dimension: int, n: int, log_q: float) -> bool:
    """Whether BKZ finds the secret as the unique shortest vector (Alkim et al., USENIX Security 2016)."""
    log_volume = math.log(SIGMA_SECURITY) + n * math.log(SECRET_SCALE) + (dimension - n - 1) * log_q
    log_projected_secret = math.log(SIGMA_SECURITY) + math.log(block) / 2
    return log_projected_secret <= _log_root_hermite(block) * (2 * block - dimension - 1) + log_volume / dimension


def _usvp(n: int, log_q: float) -> tuple[float, int]:
    """log2 of the cost of the primal uSVP attack, and its block size."""
    log_covolume = (n + 1) * log_q - n * math.log(SECRET_SCALE) - math.log(SIGMA_SECURITY)

    def best_dimension(block: int) -> int:
        return max(n + 1, round(math.sqrt(max(log_covolume, 0.0) / _log_root_hermite(block))))

    block = _first(lambda b: _usvp_succeeds(b, best_dimension(b), n, log_q), MINIMUM_BLOCK, 2 * n)
    best = best_dimension(block)
    dimension = _first(lambda d: _usvp_succeeds(block, d, n, log_q), n + 1, best)
    return _log2_reduction_cost(block, max(dimension, block + 1)), block


def _decoding_dimension(block: int, dimension: int, n: int, log_q: float) -> int:
    """The dimension of the SVP call that finds the error once the basis is BKZ-reduced (Liu, Nguyen, CT-RSA 2013).

    It is the smallest in which the projected error, embedded, is shorter than the Gaussian heuristic's shortest vector.
    """
    log_delta = _log_root_hermite(block)
    log_volume = (dimension - n) * log_q + n * math.log(SECRET_SCALE)

    def unique(tail: int) -> bool:
        log_projected_volume = tail / dimension * log_volume - (dimension - tail) * tail * log_delta
        log_ball = (tail + 1) / 2 * math.log(math.pi) - math.lgamma((tail + 1) / 2 + 1)
        log_shortest = (log_projected_volume + math.log(SIGMA_SECURITY) - log_ball) / (tail + 1)
        return log_shortest >= math.log(SIGMA_SECURITY) + math.log(tail + 1) / 2

    return _first(unique, MINIMUM_BLOCK, dimension) + 1


def _bdd(n: int, log_q: float, largest_block: int) -> float:
    """log2 of the cost of the primal bounded distance decoding attack; its block size is below uSVP's."""

    def cost(block: int, dimension: int) -> float:
        final = _decoding_dimension(block, dimension, n, log_q)
        reduction, decoding = _log2_reduction_cost(block, dimension), _log2_reduction_cost(final, final)
        return max(reduction, decoding) + math.log2(1 + 2 ** -abs(reduction - decoding))

    def best_dimension(block: int) -> int:
        return max(block + 1, round(math.sqrt(n * (log_q - math.log(SECRET_SCALE)) / _log_root_hermite(block))))

    def cheapest(block: int) -> float:
        best = best_dimension(block)
        return cost(block, _argmin(lambda d: cost(block, d), max(n + 1, block + 1, best * 7 // 8), best))

    near = _argmin(lambda b: cost(b, best_dimension(b)), max(MINIMUM_BLOCK, largest_block * 3 // 4), largest_block)
    return min(cheapest(block) for block in range(max(MINIMUM_BLOCK, near - 2), near + 3))


def _first(condition: Callable[[int], bool], low: int, high: int) -> int:
    """The first integer of [low, high] from which a monotone condition holds; `high` where it never does."""
    while low < high:
        middle = (low + high) // 2
        if condition(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _argmin(function: Callable[[int], float], low: int, high: int) -> int:
    """Where a function with one valley is smallest on [low, high]; `high` for an empty interval."""
    while low + 2 < high:
        third = (high - low) // 3
        if function(low + third) <= function(high - third):
            high -= third
        else:
            low += third
    return min(range(low, high + 1), key=function, default=high)


@cache
def attack_costs(polynomial_degree: int, log2_q: float) -> dict[str, float]:
    """log2 of the operations of each attack, by the lattice estimator's name of it.

    Raises ValueError where the formulas do not reach (a modulus of hardly more bits than the error).
    """
    if polynomial_degree < 256 or not 6 <= log2_q <= polynomial_degree / 8:
        raise ValueError(f"n = {polynomial_degree}, log2 q = {log2_q}: expected n >= 256 and log2 q from 6 to n/8")
    log_q = log2_q * math.log(2)
    usvp, block = _usvp(polynomial_degree, log_q)
    return {"usvp": usvp, "bdd": _bdd(polynomial_degree, log_q, block)}


def security_bits(polynomial_degree: int, log2_q: float) -> float:
    """Bits of security of ring-LWE with that degree and modulus: the cheaper of the two attacks (about 2 ms, cached).

    Args:
        polynomial_degree: n, the dimension of the secret.
        log2_q: bits of the whole modulus as deployed, a key-switching prime included; need not be an integer.
    """
    return min(attack_costs(polynomial_degree, log2_q).values())


@cache
def max_log2_q(polynomial_degree: int, bits: int = REQUIRED_BITS) -> int:
    """The largest whole number of bits of q that leaves at least `bits` of security."""
    smallest, largest = 8, polynomial_degree // 16
    return _first(lambda width: security_bits(polynomial_degree, width) < bits, smallest, largest) - 1


def check_security(polynomial_degree: int, log2_q: float) -> None:
    """InsecureParameters unless the parameters reach 128 bits.

    A modulus between two whole numbers of bits counts as the next one: `max_log2_q` is the limit, as in the tables of
    the security guidelines, and dual attacks are known not to undercut it there.
    """
    limit = max_log2_q(polynomial_degree)
    if log2_q <= limit:
        return
    width = math.ceil(log2_q)
    # Moduli beyond the formulas' range are far below any security, whatever the exact figure.
    reached = f"{security_bits(polynomial_degree, min(width, polynomial_degree // 16)):.1f}"
    raise InsecureParameters(
        f"n = {polynomial_degree}, log2 q = {log2_q:.2f}: about {reached} bits of security, needed {REQUIRED_BITS}; "
        f"take log2 q of at most {limit} at this n, or a larger n"
    )
