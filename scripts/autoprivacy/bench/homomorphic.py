"""Benchmarks of the homomorphic layer, from one transform to the linear part of a private inference."""

from __future__ import annotations

import numpy as np

from autoprivacy.bench.seal_yardstick import seconds
from autoprivacy.bench.timing import Result, cpu_seconds
from autoprivacy.he.bfv.cipher import ClientCipher, ServerCipher
from autoprivacy.he.bfv.reply import ReplyForm
from autoprivacy.he.parameters.parameter_set import ParameterSet, ReplyBits
from autoprivacy.he.ring.primes import PRIME_SIZES, WORD32_PRIME_BITS, ntt_primes
from autoprivacy.he.ring.ring import Ring
from autoprivacy.he.ring.weight_products import WeightProducts

TRANSFORM_DEGREES = (1024, 2048, 4096, 8192)
TRANSFORM_TARGETS = {(4096, WORD32_PRIME_BITS): 10.0}  # us
TRANSFORMS = 16  # at a time
# The layer of the design's table of kernels: 64 outputs, 22 inputs, n = 4096, one prime.
OUTPUTS, INPUTS, PRODUCT_DEGREE = 64, 22, 4096
PRODUCT_TARGETS = {WORD32_PRIME_BITS: 0.2}  # ns
PLAINTEXT_MODULUS = 1 << 17
# Sets whose ciphertexts are timed: n, primes, their bits.
SETS = ((4096, 3, 26), (4096, 2, 38), (8192, 3, 60))
CIPHERTEXTS = 16  # at a time
CIPHERTEXT_TARGETS = {(4096, 3, 26): {"encrypt": 200.0, "decrypt": 200.0}}  # us
FLOOD = 2.0**51  # what a flood of 2^40 is in a middle layer of 7CNET
REPLY_BITS = ReplyBits(21, 28)  # what 2^-40 takes at that p and n = 4096


def _residues(ring: Ring, shape: tuple[int, ...]) -> np.ndarray:
    generator = np.random.default_rng(0)
    rows = [generator.integers(0, prime, (*shape, ring.degree), dtype=np.uint64) for prime in ring.primes]
    return np.stack(rows, axis=-2).astype(ring.dtype)


def transforms() -> dict[str, Result]:
    """Number-theoretic transforms, microseconds per polynomial and prime."""
    results = {}
    for degree in TRANSFORM_DEGREES:
        for bits in PRIME_SIZES:
            ring = Ring(degree, ntt_primes(1 << bits, degree, 1))
            x = _residues(ring, (TRANSFORMS,))
            seal = seconds(degree, (bits,))
            for name, operation in {"transform": ring.forward, "inverse": ring.inverse}.items():
                microseconds = cpu_seconds(lambda: operation(x)) / TRANSFORMS * 1e6  # noqa: B023  # called at once
                yardstick = seal[name] * 1e6 if seal else None
                target = TRANSFORM_TARGETS.get((degree, bits))
                results[f"{name}-n{degree}-{bits}bit"] = Result(microseconds, "us", target, yardstick)
    return results


def products() -> dict[str, Result]:
    """Multiply-accumulate of ciphertexts by weights in NTT form, nanoseconds per modular product."""
    results = {}
    for bits in PRIME_SIZES:
        ring = Ring(PRODUCT_DEGREE, ntt_primes(1 << bits, PRODUCT_DEGREE, 1))
        inputs, outputs = np.tile(np.arange(INPUTS), OUTPUTS), np.repeat(np.arange(OUTPUTS), INPUTS)
        weights = WeightProducts(ring, inputs, outputs, OUTPUTS)
        for output in range(OUTPUTS):
            weights.put(output * INPUTS, _residues(ring, (INPUTS,)))
        x = _residues(ring, (INPUTS, 2))
        count = 2 * OUTPUTS * INPUTS * PRODUCT_DEGREE
        nanoseconds = cpu_seconds(lambda: weights.sums(x)) / count * 1e9  # noqa: B023  # called at once
        seal = seconds(PRODUCT_DEGREE, (bits,))
        yardstick = seal["product"] / (2 * PRODUCT_DEGREE) * 1e9 if seal else None
        results[f"multiply-accumulate-{bits}bit"] = Result(nanoseconds, "ns", PRODUCT_TARGETS.get(bits), yardstick)
    return results


def ciphertexts() -> dict[str, Result]:
    """What a ciphertext costs client and server besides products, microseconds each."""
    results = {}
    for degree, count, bits in SETS:
        parameters = ParameterSet(PLAINTEXT_MODULUS, degree, ntt_primes(1 << bits, degree, count))
        client = ClientCipher(parameters)
        server = ServerCipher(parameters, client.public_key())
        plain = np.random.default_rng(0).integers(0, PLAINTEXT_MODULUS, (CIPHERTEXTS, degree), dtype=np.uint64)
        message = client.encrypt(plain)
        sums = server.load(message, CIPHERTEXTS)
        form = ReplyForm(degree, CIPHERTEXTS, REPLY_BITS)
        reply = server.reply(sums, plain, FLOOD, form)
        seal = seconds(degree, (bits,) * count)
        for name, operation in {
            "encrypt": lambda: client.encrypt(plain),  # noqa: B023  # called at once
            "load": lambda: server.load(message, CIPHERTEXTS),  # noqa: B023
            "reply": lambda: server.reply(sums, plain, FLOOD, form),  # noqa: B023
            "decrypt": lambda: client.decrypt(reply, form),  # noqa: B023
        }.items():
            microseconds = cpu_seconds(operation) / CIPHERTEXTS * 1e6
            target = CIPHERTEXT_TARGETS.get((degree, count, bits), {}).get(name)
            yardstick = seal[name] * 1e6 if name in seal else None
            results[f"{name}-n{degree}-{count}x{bits}bit"] = Result(microseconds, "us", target, yardstick)
    return results
