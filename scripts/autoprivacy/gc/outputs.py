"""The circuits that end a network whose clients learn scores or the class alone, on additive shares modulo p.

They read the shares that the last layer leaves, in the form of `Activation`: the client's input is known offline, the
server's comes online as labels. Their outputs are projected into a small modulus, so the evaluator gets the answer plus
a mask, and the server sends the mask at last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.gc.activation import Activation
from autoprivacy.gc.circuit import FALSE, TRUE, Circuit, CircuitBuilder, Wire
from autoprivacy.gc.modular_addition import ModularAddition
from autoprivacy.quantization.integer_network import MAXIMUM_MODULUS_BITS, to_signed
from autoprivacy.quantization.outputs import Output, check_output, score_range, score_shift, shown

MAXIMUM_CLASSES = 1 << 12  # a circuit of a million AND gates


class OutputFunction(Protocol):
    """What is computed of all outputs of one image.

    Labels and transfers of an input are those of numbers of `share_bits` bits, one for every output of the network:
    arrays [share_bits, outputs, ...], which hold the circuit's wires in order as [bits, `instances`, ...].
    """

    @property
    def circuit(self) -> Circuit:
        """The circuit."""

    @property
    def instances(self) -> int:
        """How many instances of it there are for an image."""

    @property
    def share_bits(self) -> int:
        """Bits of each party's input for one output of the network."""

    @property
    def answer_modulus(self) -> int:
        """The modulus that answers are projected into, a power of two."""

    def garbler_input(self, share: np.ndarray) -> np.ndarray:
        """The server's input for its share of the outputs, uint64 [outputs]."""

    def evaluator_input(self, share: np.ndarray) -> np.ndarray:
        """The client's input for its share of the outputs, uint64 [outputs]."""

    def answer(self, masked: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """What the client learns, int64 [instances], from masked answers and the server's masks."""

    def reference(self, client_share: np.ndarray, server_share: np.ndarray) -> np.ndarray:
        """The answer for two shares, in integer arithmetic; int64 [instances]."""


def output_function(output: Output, modulus: int, outputs: int) -> OutputFunction | None:
    """The function of a policy's `output` for so many outputs modulo p; None for logits, which take no circuit.

    Raises:
        UserError: there is none for the modulus or for so many outputs.
    """
    check_output(output)
    if output == "label":
        return Label(modulus, outputs)
    return Scores(modulus, outputs) if output == "scores" else None


@dataclass(frozen=True)
class Scores:
    """Every output's top bits, rounded (`quantization.outputs.shown`): an `Activation` of each.

    Attributes:
        modulus: p.
        outputs: how many there are.
    """

    modulus: int
    outputs: int

    @cached_property
    def _activation(self) -> Activation:
        return Activation(self.modulus, score_shift(self.modulus), *score_range(self.modulus))

    @property
    def circuit(self) -> Circuit:
        """The circuit of one score, a number in two's complement."""
        return self._activation.circuit

    @property
    def instances(self) -> int:
        """One for every output."""
        return self.outputs

    @property
    def share_bits(self) -> int:
        """Bits of each party's input for one output of the network."""
        return self._activation.share_bits

    @property
    def answer_modulus(self) -> int:
        """2^b for scores of b bits."""
        return 1 << self.circuit.output_bits

    def garbler_input(self, share: np.ndarray) -> np.ndarray:
        """As `Activation.garbler_input`."""
        return self._activation.garbler_input(share)

    def evaluator_input(self, share: np.ndarray) -> np.ndarray:
        """As `Activation.evaluator_input`."""
        return self._activation.evaluator_input(share)

    def answer(self, masked: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """The signed scores."""
        return to_signed(masked.astype(np.int64) - masks.astype(np.int64), self.answer_modulus)

    def reference(self, client_share: np.ndarray, server_share: np.ndarray) -> np.ndarray:
        """As `Activation.reference`."""
        return self._activation.reference(client_share, server_share)


@dataclass(frozen=True)
class Label:
    """The number of the largest output, of equal ones the first: a tournament of comparisons.

    The shares are added exactly, whatever the sum: there is no outcome that a clip would hide.

    Attributes:
        modulus: p, 4 to 2^32.
        outputs: how many classes there are, at least 2.

    Raises:
        UserError: one of these does not hold.
    """

    modulus: int
    outputs: int

    def __post_init__(self) -> None:
        if not 4 <= self.modulus <= 1 << MAXIMUM_MODULUS_BITS:
            raise UserError(f"label: plaintext modulus {self.modulus}; expected 4 to 2^{MAXIMUM_MODULUS_BITS}")
        if not 2 <= self.outputs <= MAXIMUM_CLASSES:
            raise UserError(f"label: {self.outputs} outputs; expected 2 to {MAXIMUM_CLASSES}")

    @cached_property
    def addition(self) -> ModularAddition:
        """How the two shares of an output add up: without special values."""
        return ModularAddition(self.modulus, -(1 << (self.modulus - 1).bit_length() - 1))

    @property
    def circuit(self) -> Circuit:
        """The circuit; wire i * outputs + j of a party is bit i of its share of output j."""
        return _label_circuit(self)

    @property
    def instances(self) -> int:
        """One for all outputs together."""
        return 1

    @property
    def share_bits(self) -> int:
        """Bits of each party's input for one output of the network."""
        return self.addition.bits

    @property
    def answer_modulus(self) -> int:
        """The power of two that holds the classes' numbers."""
        return 1 << (self.outputs - 1).bit_length()

    def garbler_input(self, share: np.ndarray) -> np.ndarray:
        """The server's input for its share of the outputs, uint64 [outputs]."""
        return self.addition.server_input(share)

    def evaluator_input(self, share: np.ndarray) -> np.ndarray:
        """The client's input for its share of the outputs, uint64 [outputs]."""
        return self.addition.client_input(share)

    def answer(self, masked: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """The class, int64 [1]; ValueError for none of these classes, which no circuit of a label gives."""
        classes = (masked.astype(np.int64) - masks.astype(np.int64)) % self.answer_modulus
        if int(classes.max()) >= self.outputs:
            raise ValueError(f"class {int(classes.max())}; expected one of {self.outputs}")
        return classes

    def reference(self, client_share: np.ndarray, server_share: np.ndarray) -> np.ndarray:
        """The class for two shares, in integer arithmetic; int64 [1]."""
        total = np.asarray(client_share, np.uint64).astype(np.int64) + np.asarray(server_share, np.uint64).astype(
            np.int64
        )
        return shown(to_signed(total, self.modulus), "label", self.modulus)


@lru_cache(maxsize=16)
def _label_circuit(label: Label) -> Circuit:
    """The circuit of a label.

    For m outputs of k bits the additions take m of `ModularAddition`, the m - 1 comparisons k AND gates each, what is
    carried on to the next round k for the number and at most one for every bit of the index.
    """
    builder, bits = CircuitBuilder(), label.share_bits
    server, client = (make(bits * label.outputs) for make in (builder.garbler_inputs, builder.evaluator_inputs))
    width = (label.outputs - 1).bit_length()
    entries = []
    for j in range(label.outputs):
        own = slice(j, None, label.outputs)
        *low, sign = label.addition.build(builder, client[own], server[own])
        # with its sign inverted a number in two's complement compares as one without sign
        entries.append(([*low, builder.not_(sign)], [TRUE if j >> i & 1 else FALSE for i in range(width)]))
    while len(entries) > 1:
        pairs = zip(entries[::2], entries[1::2], strict=False)
        last = entries[-1:] if len(entries) % 2 else []
        entries = [_larger(builder, *pair) for pair in pairs] + last
    return builder.build(entries[0][1])


_Entry = tuple[list[Wire], list[Wire]]  # a number's bits, and those of the index of its output


def _larger(builder: CircuitBuilder, first: _Entry, second: _Entry) -> _Entry:
    """Of two entries the second if its number is larger, else the first."""
    # without sign, first < second exactly if first + ~second + 1 does not carry
    _, not_less = builder.add(first[0], [builder.not_(bit) for bit in second[0]], TRUE)
    number, index = (_chosen(builder, builder.not_(not_less), *parts) for parts in zip(first, second, strict=True))
    return number, index


def _chosen(builder: CircuitBuilder, condition: Wire, first: Sequence[Wire], second: Sequence[Wire]) -> list[Wire]:
    """The bits of the second number where the condition holds, else those of the first."""
    return [builder.xor(a, builder.and_(condition, builder.xor(a, b))) for a, b in zip(first, second, strict=True)]
