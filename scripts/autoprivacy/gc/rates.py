"""Measured seconds of what garbled activations are made of: both parties' work, and oblivious transfers."""

from __future__ import annotations

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.gc.activation import Activation
from autoprivacy.gc.circuit import Circuit
from autoprivacy.gc.garbling import CHUNK, evaluate, garble_chunks
from autoprivacy.memory import keep_freed_memory
from autoprivacy.ot.extension import choice_bits
from autoprivacy.ot.labels import encode, random_delta, zero_labels
from autoprivacy.ot.setup import TransferSetup
from autoprivacy.ot.transfers import TransferKind
from autoprivacy.randomness.generator import KEY_BYTES, SecureRandom
from autoprivacy.timing import thread_seconds

# What a circuit's cost is made of (selection.garbled_costs counts them); the first two are one party's each.
#   garble, evaluate: an AND gate.
#   project: an output bit made a residue modulo p.
#   label: of an input bit of the garbler's, drawn and encoded.
#   transfer: an oblivious transfer.
OPERATIONS = ("garble", "evaluate", "project", "label", "transfer")
# Two circuits of as many outputs; the difference of their times is AND gates alone.
MODULI, OUTPUT_MAXIMUM = (1 << 12, 1 << 28), 255
INSTANCES = 2 * CHUNK
TRANSFERS = 1 << 18


class _Garbled:
    """A circuit with all that both parties need for INSTANCES of it."""

    def __init__(self, modulus: int, delta: np.ndarray, random: SecureRandom, backend: str | None) -> None:
        self.circuit: Circuit = Activation(modulus, 0, 0, OUTPUT_MAXIMUM).circuit
        self._modulus, self._delta, self._random, self._backend = modulus, delta, random, backend
        bits = self.circuit.garbler_bits
        self._garbler, self._evaluator = (
            zero_labels(random.random_bytes(KEY_BYTES).tobytes(), bits, INSTANCES) for _ in range(2)
        )
        self._tables: list[np.ndarray] = []

    def garble(self) -> None:
        """The server's part; keeps the tables."""
        wires = (self._garbler, self._evaluator)
        chunks = garble_chunks(
            self.circuit, INSTANCES, self._delta, *wires, (self._modulus,), self._random, self._backend
        )
        self._tables = [chunk.table for chunk in chunks]

    def evaluate(self) -> None:
        """The client's part, for inputs of zero."""
        wires = (self._garbler, self._evaluator)
        evaluate(self.circuit, INSTANCES, self._tables, *wires, (self._modulus,), self._backend)


class GarblingTimer:
    """Times every operation once a call.

    Args:
        backend: "numba" or "numpy"; None takes the faster one that this machine has.
    """

    def __init__(self, backend: str | None = None) -> None:
        keep_freed_memory()  # as both parties do
        random = SecureRandom()
        self._delta = random_delta(random)
        self._small, self._large = (_Garbled(modulus, self._delta, random, backend) for modulus in MODULI)
        client, server = (
            TransferSetup(delta, TransferKind(), backend=backend) for delta in (random_delta(random), self._delta)
        )
        answers = client.answer(server.hello()), server.answer(client.hello())
        trees = client.trees(answers[1]), server.trees(answers[0])
        self._receiver, _ = client.finish(trees[1])
        _, self._sender = server.finish(trees[0])
        self._values = random.words(INSTANCES)
        self._choices = random.words(TRANSFERS // MODULI[0].bit_length())

    def _transfer(self) -> None:
        choices = choice_bits(self._choices, MODULI[0].bit_length())
        _, message = self._receiver.extend(choices)
        self._sender.extend(message, len(choices))

    def _label(self) -> None:
        bits = self._small.circuit.garbler_bits
        encode(zero_labels(bytes(KEY_BYTES), bits, INSTANCES), self._delta, self._values)

    def times(self) -> dict[str, float]:
        """CPU seconds of each of `OPERATIONS`."""
        small, large = self._small, self._large
        ands = (large.circuit.and_count - small.circuit.and_count) * INSTANCES
        outputs, project, each = small.circuit.output_bits * INSTANCES, 0.0, {}
        for name in ("garble", "evaluate"):
            first, second = thread_seconds(getattr(small, name)), thread_seconds(getattr(large, name))
            each[name] = max(0.0, second - first) / ands
            project += max(0.0, first - each[name] * small.circuit.and_count * INSTANCES) / outputs
        transfers = len(self._choices) * MODULI[0].bit_length()
        return {
            **each,
            "project": project,
            "label": thread_seconds(self._label) / (small.circuit.garbler_bits * INSTANCES),
            "transfer": thread_seconds(self._transfer) / transfers,
        }


def garbling_times(repeats: int) -> dict[str, list[float]]:
    """CPU seconds of every operation, `repeats` times after once that does not count."""
    if repeats < 1:
        raise UserError(f"garbling profile: {repeats} repeats; expected at least 1")
    timer = GarblingTimer()
    passes = [timer.times() for _ in range(repeats + 1)][1:]
    return {name: [times[name] for times in passes] for name in OPERATIONS}
