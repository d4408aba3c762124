"""Measured seconds of every homomorphic operation on this machine, over n, number and size of primes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.he.automorphisms import rotation_element
from autoprivacy.he.cipher import ClientCipher, ServerCipher
from autoprivacy.he.linear import ClientLinear, ServerLinear
from autoprivacy.he.packing.batching import slot_encoding
from autoprivacy.he.packing.coefficient import CoefficientPlan
from autoprivacy.he.parameters import Flooding, ParameterSet
from autoprivacy.he.primes import PRIME_SIZES, ntt_primes, prime_size
from autoprivacy.he.reply_bits import default_reply_bits
from autoprivacy.he.rotation import GaloisKeyMaker, Rotator
from autoprivacy.he.security import max_log2_q
from autoprivacy.policy import EXACT_TARGET
from autoprivacy.provenance import provenance
from autoprivacy.quantization.integer_network import LayerShape, LinearLayer
from autoprivacy.storage import read_json, write_json

FORMAT_VERSION = 2
# encrypt, decrypt: the client, one ciphertext. load, reply: the server, one ciphertext. product: one ciphertext times
# one weight polynomial, added up. encoding: one plaintext between slots and coefficients. rotation: one ciphertext,
# measured only where a key-switching prime beside the primes leaves the set secure.
ROTATION = "rotation"
OPERATIONS = ("encrypt", "load", "product", "reply", "decrypt", "encoding", ROTATION)
QUARTILES = ("median", "lower_quartile", "upper_quartile")
# No prime below this: with a plaintext modulus of 17 bits and the noise of any layer nothing smaller serves.
MINIMUM_PRIME_BITS = 24
# A plaintext modulus and weights of the usual size; no operation's time hangs on them.
PLAINTEXT_MODULUS = 1 << 17
LARGEST_WEIGHT = 127
# The layer that is timed: input ciphertexts, bounds on output ciphertexts, and bytes of transformed weights. These
# are to exceed the caches, as a network's weights do.
INPUTS = 32
ROTATIONS = 4  # ciphertexts that are rotated and plaintexts that are encoded
OUTPUTS = (2, 64)
WEIGHT_BYTES = 48 << 20


@dataclass(frozen=True)
class OperationProfile:
    """Seconds per operation.

    Attributes:
        table: (n, number of primes, size of primes) -> operation -> median, lower_quartile, upper_quartile in seconds;
            the size is the one of `primes.PRIME_SIZES` that the kernels go by.
        provenance: machine and versions.
    """

    table: dict[tuple[int, int, int], dict[str, dict[str, float]]]
    provenance: dict[str, Any]

    @property
    def degrees(self) -> tuple[int, ...]:
        """The polynomial degrees measured, ascending."""
        return tuple(sorted({degree for degree, _, _ in self.table}))

    def covers(self, parameters: ParameterSet, operations: Iterable[str]) -> bool:
        """Whether these operations were measured at the set's n, number and size of primes."""
        return set(operations) <= set(self.table.get(_key(parameters), ()))

    def seconds(self, parameters: ParameterSet, operations: Iterable[str]) -> dict[str, float]:
        """Median seconds by operation; UserError where one was not measured."""
        operations = list(operations)
        if not self.covers(parameters, operations):
            degree, count, size = _key(parameters)
            raise UserError(
                f"profile: no measurement at n = {degree} with {count} primes of at most {size} bits of "
                f"{', '.join(operations)}; it has {sorted(self.table)}; add them to the config's hardware part and "
                "profile again"
            )
        times = self.table[_key(parameters)]
        return {operation: times[operation]["median"] for operation in operations}

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        rows = [
            {"polynomial_degree": degree, "primes": count, "prime_bits": size, "seconds": times}
            for (degree, count, size), times in sorted(self.table.items())
        ]
        write_json(path, {"format": FORMAT_VERSION, "operations": rows, "provenance": self.provenance})

    @classmethod
    def load(cls, path: str | Path) -> OperationProfile:
        """Read what `save` wrote; UserError when it is damaged."""
        value = read_json(path)
        try:
            if value["format"] != FORMAT_VERSION:
                raise UserError(f"{path}: profile format {value['format']}; expected {FORMAT_VERSION}; profile again")
            table = {
                (int(row["polynomial_degree"]), int(row["primes"]), int(row["prime_bits"])): {
                    operation: {name: float(row["seconds"][operation][name]) for name in QUARTILES}
                    for operation in OPERATIONS
                    if operation != ROTATION or operation in row["seconds"]
                }
                for row in value["operations"]
            }
            return cls(table, value["provenance"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not a profile: {type(error).__name__} {error}; profile again") from None


def _key(parameters: ParameterSet) -> tuple[int, int, int]:
    """What a set's times go by."""
    return parameters.polynomial_degree, len(parameters.primes), prime_size(parameters.primes)


def admissible_parameters(degree: int, prime_count: int, size: int, key_switching: bool = False) -> ParameterSet | None:
    """The widest secure set with that many equal primes of a size; None where they would be too small for it.

    Args:
        degree: n.
        prime_count: primes of q.
        size: one of PRIME_SIZES.
        key_switching: whether the set has a key-switching prime of the same size besides.
    """
    bits = min(size, max_log2_q(degree) // (prime_count + key_switching))
    if bits < MINIMUM_PRIME_BITS:
        return None
    primes = ntt_primes(1 << bits, degree, prime_count + key_switching)
    special = primes[prime_count] if key_switching else None
    parameters = ParameterSet(PLAINTEXT_MODULUS, degree, primes[:prime_count], special)
    return parameters if prime_size(parameters.primes) == size else None


def profile(degrees: Iterable[int], prime_counts: Iterable[int], repeats: int) -> OperationProfile:
    """Time every operation at every admissible n, number of primes and size of primes.

    Nothing else should run on the machine meanwhile.

    Args:
        degrees: polynomial degrees.
        prime_counts: numbers of primes of q; what is insecure or pointless is left out.
        repeats: timings of each operation, after one that does not count.
    """
    if repeats < 1:
        raise UserError(f"profile: {repeats} repeats; expected at least 1")
    degrees, prime_counts = list(degrees), list(prime_counts)
    table = {}
    for degree, count, size in itertools.product(degrees, prime_counts, PRIME_SIZES):
        parameters = admissible_parameters(degree, count, size)
        if parameters is not None:
            table[_key(parameters)] = _measure(parameters, repeats)
        rotating = admissible_parameters(degree, count, size, key_switching=True)
        if rotating is not None:
            table[_key(rotating)][ROTATION] = _measure_rotation(rotating, repeats)
    settings = {"degrees": degrees, "prime_counts": prime_counts, "repeats": repeats}
    return OperationProfile(table, provenance(settings))


def _measure(parameters: ParameterSet, repeats: int) -> dict[str, dict[str, float]]:
    """The times at one set, by evaluating a layer of 1x1 filters whose every channel fills a ciphertext."""
    degree, key_holder = parameters.polynomial_degree, ClientCipher(parameters)
    word_bytes = key_holder.ring.dtype.itemsize
    outputs = WEIGHT_BYTES // (word_bytes * degree * len(parameters.primes) * INPUTS)
    outputs = min(max(outputs, OUTPUTS[0]), OUTPUTS[1])
    shape = LayerShape("profile", "convolution", (INPUTS, degree // 32, 32), outputs, (1, 1))
    generator = np.random.default_rng(0)  # weights of a layer that exists for its timing alone
    weight = generator.integers(-LARGEST_WEIGHT, LARGEST_WEIGHT + 1, (outputs, INPUTS, 1, 1))
    plan = CoefficientPlan(shape, degree, 1, 1, degree // 32)
    bits = default_reply_bits(plan, parameters, EXACT_TARGET)
    client = ClientLinear(shape, plan, key_holder, bits)
    layer = LinearLayer(shape, weight, np.zeros(outputs, np.int64))
    server = ServerLinear(layer, plan, parameters, Flooding("statistical"), EXACT_TARGET, bits)
    cipher = ServerCipher(parameters, client.cipher.public_key())
    image = generator.integers(0, PLAINTEXT_MODULUS, shape.input_shape).astype(np.uint64)
    mask = generator.integers(0, PLAINTEXT_MODULUS, shape.output_shape).astype(np.uint64)
    message = client.encrypt(image)
    ciphertexts = cipher.load(message, INPUTS)
    sums = server.multiply(ciphertexts)
    reply = server.finish(cipher, sums, mask)
    client.decrypt(reply)
    return {
        "encrypt": _quartiles(lambda: client.encrypt(image), INPUTS, repeats),
        "load": _quartiles(lambda: cipher.load(message, INPUTS), INPUTS, repeats),
        "product": _quartiles(lambda: server.multiply(ciphertexts), plan.product_count, repeats),
        "reply": _quartiles(lambda: server.finish(cipher, sums, mask), outputs, repeats),
        "decrypt": _quartiles(lambda: client.decrypt(reply), outputs, repeats),
        "encoding": _measure_encoding(degree, repeats),
    }


def _measure_rotation(parameters: ParameterSet, repeats: int) -> dict[str, float]:
    element = rotation_element(1, parameters.polynomial_degree)
    client = ClientCipher(parameters)
    rotator = Rotator(parameters, [element], GaloisKeyMaker(client).keys([element]))
    plain = np.ones((ROTATIONS, parameters.polynomial_degree), np.uint64)
    ciphertexts = ServerCipher(parameters, client.public_key()).load(client.encrypt(plain), ROTATIONS)
    rotator.rotate(ciphertexts, element)
    return _quartiles(lambda: rotator.rotate(ciphertexts, element), ROTATIONS, repeats)


def _measure_encoding(degree: int, repeats: int) -> dict[str, float]:
    (modulus,) = ntt_primes(PLAINTEXT_MODULUS << 3, degree, 1)
    encoding, slots = slot_encoding(degree, modulus), np.ones((ROTATIONS, degree), np.uint64)
    encoding.encode(slots)
    return _quartiles(lambda: encoding.encode(slots), ROTATIONS, repeats)


def _quartiles(operation: Callable[[], object], count: int, repeats: int) -> dict[str, float]:
    """CPU seconds of one of the `count` operations that a call makes.

    Every operation runs in one thread, so on an idle machine this is wall time; on a busy one it is disturbed less.
    """
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        operation()
        times.append((time.thread_time() - start) / count)
    lower, median, upper = np.percentile(times, (25, 50, 75))
    return dict(zip(QUARTILES, (float(median), float(lower), float(upper)), strict=True))
