"""The yardstick: Microsoft SEAL itself through seal-python (requirements-bench.txt), where that is installed."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import Any

import numpy as np

from autoprivacy.bench.timing import cpu_seconds

MODULE = "seal"
MISSING = "seal-python is not installed (pip install -r requirements-bench.txt)"
# Twenty bits that SEAL can batch with at every n here; no operation's time depends on them.
PLAINTEXT_BITS = 20
# Products are timed over so many plaintexts, which exceed the second-level cache as weights do.
PLAINTEXTS = 64


def is_installed() -> bool:
    """Whether there is a yardstick."""
    return importlib.util.find_spec(MODULE) is not None


@cache
def seconds(degree: int, bits: tuple[int, ...]) -> dict[str, float]:
    """CPU seconds of SEAL's operations under ciphertext primes of these sizes and a key-switching prime.

    Returns:
        encrypt (symmetric), encrypt_public and decrypt of a ciphertext; transform and inverse of one polynomial under
        one prime; product: a ciphertext times a plaintext in NTT form, added up. Empty without seal-python.
    """
    if not is_installed():
        return {}
    seal = importlib.import_module(MODULE)
    context = _context(seal, degree, bits)
    keys = seal.KeyGenerator(context)
    secret = keys.secret_key()
    encryptor = seal.Encryptor(context, keys.create_public_key(), secret)
    decryptor, evaluator = seal.Decryptor(context, secret), seal.Evaluator(context)
    values = np.random.default_rng(0).integers(0, 1 << (PLAINTEXT_BITS - 1), degree, np.uint64)
    plain = seal.BatchEncoder(context).encode(values)
    ciphertext = encryptor.encrypt_symmetric(plain)
    transformed = evaluator.transform_to_ntt(ciphertext)
    total = evaluator.transform_to_ntt(ciphertext)
    weights = [evaluator.transform_to_ntt(plain, context.first_parms_id()) for _ in range(PLAINTEXTS)]

    def products() -> None:
        for weight in weights:
            evaluator.add_inplace(total, evaluator.multiply_plain(transformed, weight))

    polynomials = 2 * len(bits)
    return {
        "encrypt": cpu_seconds(lambda: encryptor.encrypt_symmetric(plain)),
        "encrypt_public": cpu_seconds(lambda: encryptor.encrypt(plain)),
        "decrypt": cpu_seconds(lambda: decryptor.decrypt(ciphertext)),
        "transform": cpu_seconds(lambda: evaluator.transform_to_ntt(ciphertext)) / polynomials,
        "inverse": cpu_seconds(lambda: evaluator.transform_from_ntt(transformed)) / polynomials,
        "product": cpu_seconds(products) / PLAINTEXTS,
    }


def _context(seal: Any, degree: int, bits: tuple[int, ...]) -> Any:
    """A context without SEAL's security check, which would count the key-switching prime that nothing here uses."""
    parameters = seal.EncryptionParameters(seal.scheme_type.bfv)
    parameters.set_poly_modulus_degree(degree)
    parameters.set_coeff_modulus(seal.CoeffModulus.Create(degree, [*bits, max(bits)]))
    parameters.set_plain_modulus(seal.PlainModulus.Batching(degree, PLAINTEXT_BITS))
    return seal.SEALContext(parameters, False, seal.sec_level_type.none)
