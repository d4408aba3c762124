"""Into which moduli a garbled circuit's outputs are projected, and what each output bit adds there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprivacy.gc.circuit import Circuit

MAXIMUM_MODULUS = 1 << 32


@dataclass(frozen=True, eq=False)
class Projection:
    """Into which moduli the outputs of a circuit go.

    Attributes:
        moduli: uint64 [moduli].
        weights: what an output bit adds modulo each, uint64 [moduli, outputs].
    """

    moduli: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, circuit: Circuit, moduli: Sequence[int]) -> Projection:
        """The projection of a circuit; ValueError where a modulus cannot hold the outputs' range, or none is given."""
        outputs = circuit.output_range
        for modulus in moduli:
            if not len(outputs) <= modulus <= MAXIMUM_MODULUS:
                raise ValueError(f"modulus {modulus}: expected {len(outputs)} (the outputs' range) to 2^32")
        if not moduli:
            raise ValueError("moduli: expected at least one")
        weights = [[weight % modulus for weight in circuit.weights] for modulus in moduli]
        return cls(np.array(moduli, np.uint64), np.array(weights, np.uint64))
