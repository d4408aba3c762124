"""Times the multiplication of a ciphertext by a plaintext over n and q: our kernels beside SEAL's (the paper's Fig. 3).

In coefficient form, as SEAL multiplies ciphertexts by encoded plaintexts: both polynomials and the plaintext are
transformed, multiplied and transformed back. Points are not checked for security, which the caller reports: the paper's
own base point has none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from Pyfhel import Pyfhel

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.security import max_log2_q, security_bits
from autoprivacy.he.profiling.operation_timing import warm_seconds
from autoprivacy.he.ring.primes import ntt_primes
from autoprivacy.he.ring.ring import Ring
from autoprivacy.timing import quartiles

PRIME_BITS = 60  # q is made of primes of this size, as log q = 120 and 180 of the paper are
# What SEAL batches with at every n up to 2^15.
PLAINTEXT_MODULUS = 65537
CALLS = 8  # of one timing, so that the clock's resolution does not show
OURS, SEAL = "this project", "SEAL"
CIPHERTEXT_PRODUCT = "SEAL, two ciphertexts"  # what other papers call a homomorphic multiplication


def ring_multiplication(degree: int, primes: tuple[int, ...]) -> Callable[[], object]:
    """Our kernels: a ciphertext times a plaintext of random residues."""
    ring, generator = Ring(degree, primes), np.random.default_rng(0)
    rows = [generator.integers(0, prime, (3, degree), dtype=np.uint64) for prime in primes]
    residues = np.stack(rows, axis=-2).astype(ring.dtype)
    ciphertext, plaintext = residues[:2], residues[2]

    def multiply() -> object:
        factor = ring.forward(plaintext)
        product = ring.multiply(ring.forward(ciphertext), factor)
        return ring.inverse(product)

    return multiply


def seal_multiplications(degree: int, primes: tuple[int, ...]) -> dict[str, Callable[[], object]]:
    """SEAL's through Pyfhel: a ciphertext by a plaintext, and by another ciphertext without relinearisation.

    Raises:
        UserError: SEAL refuses n and q.
    """
    context = Pyfhel()
    # SEAL keeps the last prime for key switching, which no multiplication uses
    last = next(prime for prime in ntt_primes(1 << PRIME_BITS, degree, len(primes) + 1) if prime not in primes)
    status = context.contextGen("bfv", n=degree, t=PLAINTEXT_MODULUS, sec=0, qi=[*primes, last])
    if "success" not in status:
        raise UserError(f"SEAL refuses n = {degree} with {len(primes)} primes: {status}")
    context.keyGen()
    values = np.random.default_rng(0).integers(0, PLAINTEXT_MODULUS, degree)
    ciphertext, plaintext = context.encryptInt(values), context.encodeInt(values)
    return {
        SEAL: lambda: context.multiply_plain(ciphertext, plaintext, in_new_ctxt=True),
        CIPHERTEXT_PRODUCT: lambda: context.multiply(ciphertext, ciphertext, in_new_ctxt=True),
    }


def multiplication_rows(degrees: Iterable[int], prime_counts: Iterable[int], repeats: int) -> list[dict[str, Any]]:
    """One row per implementation, n and number of primes: CPU seconds of a multiplication, median and quartiles.

    Points take turns in every repeat, so that a slow moment of the machine meets all of them.

    Returns:
        Rows with implementation, polynomial_degree, primes, log2_q (bits of the ciphertext's modulus, without the
        key-switching prime), security_bits, secure (at least 128 bits), and seconds_median, _lower_quartile,
        _upper_quartile.
    """
    operations: dict[tuple[str, int, int], Callable[[], object]] = {}
    for degree in degrees:
        for count in prime_counts:
            primes = ntt_primes(1 << PRIME_BITS, degree, count)
            operations[OURS, degree, count] = ring_multiplication(degree, primes)
            for name, operation in seal_multiplications(degree, primes).items():
                operations[name, degree, count] = operation
    times: dict[tuple[str, int, int], list[float]] = {key: [] for key in operations}
    for repeat in range(repeats):
        for key, operation in operations.items():
            times[key].append(warm_seconds(lambda: [operation() for _ in range(CALLS)]) / CALLS)  # noqa: B023
        logging.info("multiplications: pass %d of %d", repeat + 1, repeats)
    return [_row(*key, seconds) for key, seconds in times.items()]


def _row(implementation: str, degree: int, count: int, seconds: list[float]) -> dict[str, Any]:
    log2_q = count * PRIME_BITS
    return {
        "implementation": implementation,
        "polynomial_degree": degree,
        "primes": count,
        "log2_q": log2_q,
        "security_bits": round(security_bits(degree, log2_q), 1),
        "secure": log2_q <= max_log2_q(degree),
        **{f"seconds_{name}": value for name, value in quartiles(seconds).items()},
    }
