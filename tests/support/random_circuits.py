"""Random circuits with their own evaluation in the clear, for the tests of circuits and of garbling."""

from __future__ import annotations

import numpy as np

from autoprivacy.gc.circuit import Circuit, CircuitBuilder


def random_circuit(
    rng: np.random.Generator, garbler: np.ndarray, evaluator: np.ndarray, gates: int, outputs: int
) -> tuple[Circuit, np.ndarray]:
    """A circuit of random gates and the values of its outputs.

    Args:
        garbler, evaluator: input bits, bool [bits, N].

    Returns:
        The circuit, and its outputs for these inputs, bool [outputs, N], computed beside the builder.
    """
    builder = CircuitBuilder()
    wires = builder.garbler_inputs(len(garbler)) + builder.evaluator_inputs(len(evaluator))
    values = [*garbler, *evaluator]
    for _ in range(gates):
        i, j = rng.integers(0, len(wires), 2)
        kind = rng.integers(0, 4)
        if kind == 0:
            made = builder.xor(wires[i], wires[j]), values[i] ^ values[j]
        elif kind == 1:
            made = builder.and_(wires[i], wires[j]), values[i] & values[j]
        elif kind == 2:
            made = builder.or_(wires[i], wires[j]), values[i] | values[j]
        else:
            made = builder.not_(wires[i]), ~values[i]
        wires.append(made[0])
        values.append(made[1])
    chosen = [i for i in reversed(range(len(wires))) if wires[i] > 1][:outputs]
    return builder.build([wires[i] for i in chosen]), np.stack([values[i] for i in chosen])


def number(bits: np.ndarray) -> np.ndarray:
    """The numbers that bits stand for, int64 [N]."""
    return (bits.astype(np.int64) << np.arange(len(bits))[:, None]).sum(0)
