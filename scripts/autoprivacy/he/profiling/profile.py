"""Measured seconds of every homomorphic operation on this machine, over n, number and size of primes."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.parameter_set import ParameterSet
from autoprivacy.he.parameters.security import max_log2_q
from autoprivacy.he.profiling.operation_timing import PLAINTEXT_MODULUS, LayerTimer, RotationTimer, Words
from autoprivacy.he.ring.primes import PRIME_SIZES, ntt_primes, prime_size
from autoprivacy.storage import read_json, write_json
from autoprivacy.timing import QUARTILES, quartiles
from autoprivacy.workflow.provenance import provenance

logger = logging.getLogger(__name__)

PROGRESS = 5  # passes between two lines of the log
FORMAT_VERSION = 3
# What `latency.operation_counts` counts.
#   calls: what the calls of a layer cost both parties however small it is.
#   encrypt, decrypt: a ciphertext at the client. load, reply: a ciphertext at the server. All of them full of values.
#   wide_flood: what a reply takes more where its flood exceeds 64-bit integers.
#   arrange: an input ciphertext made ready for products. product: of a ciphertext and a weight polynomial, added up.
#   sum: the end of such a sum.
#   encoding: one plaintext between slots and coefficients.
#   rotation: one ciphertext, measured only where a key-switching prime beside the primes leaves the set secure.
ROTATION = "rotation"
OPERATIONS = (
    "calls",
    "encrypt",
    "load",
    "arrange",
    "product",
    "sum",
    "reply",
    "wide_flood",
    "decrypt",
    "encoding",
    ROTATION,
)
# No prime below this: with a plaintext modulus of 17 bits and the noise of any layer nothing smaller serves.
MINIMUM_PRIME_BITS = 24


@dataclass(frozen=True)
class OperationProfile:
    """Seconds per operation.

    Attributes:
        table: (n, number of primes, size of primes) -> operation -> median, lower_quartile, upper_quartile in seconds;
            the size is the one of `primes.PRIME_SIZES` that the kernels go by.
        provenance: machine and versions.
        garbling: the same for the operations of garbled activations, which `gc.rates` measures; nothing here reads it.
    """

    table: dict[tuple[int, int, int], dict[str, dict[str, float]]]
    provenance: dict[str, Any]
    garbling: dict[str, dict[str, float]] = field(default_factory=dict)

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
        value = {"format": FORMAT_VERSION, "operations": rows, "garbling": self.garbling}
        write_json(path, {**value, "provenance": self.provenance})

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
            garbling = {
                operation: {name: float(times[name]) for name in QUARTILES}
                for operation, times in value["garbling"].items()
            }
            return cls(table, value["provenance"], garbling)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
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

    Nothing else should run on the machine meanwhile. Sets take turns, so that what disturbs the machine for a while
    touches a few timings of each and not all of one.

    Args:
        degrees: polynomial degrees.
        prime_counts: numbers of primes of q; what is insecure or pointless is left out.
        repeats: timings of each operation, after one that does not count.
    """
    if repeats < 1:
        raise UserError(f"profile: {repeats} repeats; expected at least 1")
    degrees, prime_counts, words = list(degrees), list(prime_counts), Words()
    layers, rotations = {}, {}
    for combination in itertools.product(degrees, prime_counts, PRIME_SIZES):
        if (parameters := admissible_parameters(*combination)) is not None:
            layers[_key(parameters)] = LayerTimer(parameters, words)
        if (parameters := admissible_parameters(*combination, key_switching=True)) is not None:
            rotations[_key(parameters)] = RotationTimer(parameters)
    logger.info("%d parameter sets, %d timings of each operation", len(layers), repeats)
    passes = []
    for number in range(repeats + 1):
        times = {key: timer.times() for key, timer in layers.items()}
        for key, rotation in rotations.items():
            times[key][ROTATION] = rotation.seconds()
        passes.append(times)
        if number and number % PROGRESS == 0:
            logger.info("timing %d of %d", number, repeats)
    table = {
        key: {name: quartiles([times[key][name] for times in passes[1:]]) for name in operations}
        for key, operations in passes[0].items()
    }
    return OperationProfile(table, provenance({"degrees": degrees, "prime_counts": prime_counts, "repeats": repeats}))
