"""Boolean circuits of XOR, NOT and AND gates, built so that only AND gates cost anything when garbled.

A `CircuitBuilder` folds constants and drops gates that no output needs. The `Circuit` it builds is a flat gate list
over a few reused wire slots; garbling walks it gate by gate over thousands of instances at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Wire = int  # 2 * node + 1 where the node's value is inverted: NOT costs nothing
FALSE: Wire = 0
TRUE: Wire = 1

# Operations in the gate list. An AND gate may invert its inputs: AND | LEFT_INVERTED | RIGHT_INVERTED.
XOR = 0
AND = 1
LEFT_INVERTED = 2
RIGHT_INVERTED = 4

_Gate = tuple[int, Wire, Wire]  # operation (XOR or AND), the smaller input wire, the larger one


@dataclass(frozen=True, eq=False)
class Circuit:
    """A circuit over wire slots. Slots 0.. hold the garbler's inputs, then the evaluator's, and are reused later.

    Attributes:
        garbler_bits, evaluator_bits: number of input wires of each party.
        gates: int32 [gates, 4] in topological order: operation, left slot, right slot, output slot. The output slot is
            never one of the two input slots.
        outputs: int32 [outputs, 2]: slot, and 1 where the output is the slot's inverse.
        weights: what every output bit is worth; together the outputs stand for the sum of weights of the bits set.
        slot_count: number of wire slots.
    """

    garbler_bits: int
    evaluator_bits: int
    gates: np.ndarray
    outputs: np.ndarray
    weights: tuple[int, ...]
    slot_count: int

    @property
    def and_count(self) -> int:
        """Number of AND gates, 32 bytes each when garbled."""
        return int(np.count_nonzero(self.gates[:, 0] & AND))

    @property
    def output_bits(self) -> int:
        """Number of output wires."""
        return len(self.outputs)

    @property
    def output_range(self) -> range:
        """All numbers that the outputs can stand for, and perhaps others between them."""
        return range(sum(min(w, 0) for w in self.weights), sum(max(w, 0) for w in self.weights) + 1)


class CircuitBuilder:
    """Makes wires from wires; equal gates are made once, and gates with constant or equal inputs not at all.

    Every node is a sum modulo 2 of inputs and outputs of AND gates. Nodes of equal sums are one node, so the two inputs
    of an AND gate are never equal, each other's inverse or constant, however they were put together: the labels of such
    inputs would be tied by the garbler's offset.
    """

    def __init__(self) -> None:
        self._nodes: list[_Gate | None] = [None]  # None: the constant (node 0) or an input
        self._known: dict[_Gate, Wire] = {}
        self._sums = {0: 0}  # by node its sum: the XOR of what `_term` gives for each of its terms
        self._by_sum = {0: FALSE}
        self._garbler: list[Wire] = []
        self._evaluator: list[Wire] = []

    def garbler_inputs(self, count: int) -> list[Wire]:
        """`count` new input wires of the garbler."""
        return self._inputs(self._garbler, count)

    def evaluator_inputs(self, count: int) -> list[Wire]:
        """`count` new input wires of the evaluator."""
        return self._inputs(self._evaluator, count)

    def not_(self, x: Wire) -> Wire:
        """NOT x, free."""
        return x ^ 1

    def xor(self, x: Wire, y: Wire) -> Wire:
        """x XOR y, free when garbled."""
        inverted = (x ^ y) & 1
        x, y = sorted((x & ~1, y & ~1))
        if x == y:
            return inverted
        total = self._sums[x >> 1] ^ self._sums[y >> 1]
        if total not in self._by_sum:
            self._note(self._gate(XOR, x, y), total)
        return self._by_sum[total] ^ inverted

    def and_(self, x: Wire, y: Wire) -> Wire:
        """x AND y: the gate that costs."""
        x, y = sorted((x, y))
        if x == FALSE or x ^ y == 1:
            return FALSE
        if x in (TRUE, y):
            return y
        wire = self._gate(AND, x, y)
        if wire >> 1 not in self._sums:
            self._note(wire, _term(wire >> 1))
        return wire

    def or_(self, x: Wire, y: Wire) -> Wire:
        """x OR y, one AND gate."""
        return self.not_(self.and_(self.not_(x), self.not_(y)))

    def add(self, x: Sequence[Wire], y: Sequence[Wire], carry: Wire = FALSE) -> tuple[list[Wire], Wire]:
        """The sum of two numbers of as many bits, least significant first, and of a carry; also the carry out.

        One AND gate a bit: carry' = c ^ (x ^ c)(y ^ c) (Kolesnikov, Sadeghi, Schneider, CANS 2009).
        """
        total = []
        for left, right in zip(x, y, strict=True):
            right_carry = self.xor(right, carry)
            total.append(self.xor(left, right_carry))
            carry = self.xor(carry, self.and_(self.xor(left, carry), right_carry))
        return total, carry

    def build(self, outputs: Sequence[Wire], signed: bool = False) -> Circuit:
        """The circuit with these output wires, the bits of a number from the least significant on.

        Args:
            outputs: at least one, and none constant; else ValueError.
            signed: the last bit is the sign of a number in two's complement.
        """
        if not outputs or min(outputs) <= TRUE:
            raise ValueError(f"outputs {list(outputs)}: expected at least one, and none constant")
        last_use = self._last_uses(outputs)
        inputs = [wire >> 1 for wire in self._garbler + self._evaluator]
        slots = {node: slot for slot, node in enumerate(inputs)}
        free = [slots[node] for node in inputs if node not in last_use]
        slot_count = len(inputs)
        rows = []
        for node, gate in enumerate(self._nodes):
            if gate is None or node not in last_use:
                continue
            if not free:
                free.append(slot_count)
                slot_count += 1
            slots[node] = free.pop()
            operation, x, y = gate
            flags = operation and operation | (LEFT_INVERTED * (x & 1)) | (RIGHT_INVERTED * (y & 1))
            rows.append((flags, slots[x >> 1], slots[y >> 1], slots[node]))
            free += [slots[source >> 1] for source in (x, y) if last_use[source >> 1] == node]
        weights = [1 << i for i in range(len(outputs))]
        if signed:
            weights[-1] = -weights[-1]
        return Circuit(
            len(self._garbler),
            len(self._evaluator),
            np.array(rows, np.int32).reshape(-1, 4),
            np.array([(slots[wire >> 1], wire & 1) for wire in outputs], np.int32),
            tuple(weights),
            slot_count,
        )

    def _last_uses(self, outputs: Sequence[Wire]) -> dict[int, int]:
        """For every node that an output needs, the last node that reads it; outputs are read at the very end."""
        last_use = {wire >> 1: len(self._nodes) for wire in outputs}
        for node in range(len(self._nodes) - 1, 0, -1):
            gate = self._nodes[node]
            if gate is not None and node in last_use:
                for source in gate[1:]:
                    last_use.setdefault(source >> 1, node)
        return last_use

    def _inputs(self, of_party: list[Wire], count: int) -> list[Wire]:
        wires = [2 * (len(self._nodes) + i) for i in range(count)]
        self._nodes += [None] * count
        for wire in wires:
            self._note(wire, _term(wire >> 1))
        of_party += wires
        return wires

    def _gate(self, operation: int, x: Wire, y: Wire) -> Wire:
        gate = (operation, x, y)
        if gate not in self._known:
            self._known[gate] = 2 * len(self._nodes)
            self._nodes.append(gate)
        return self._known[gate]

    def _note(self, wire: Wire, total: int) -> None:
        self._sums[wire >> 1] = total
        self._by_sum[total] = wire


def _term(node: int) -> int:
    """A number of 128 bits that stands for a node in sums; two different sums agree by chance alone, 2^-128."""
    return int.from_bytes(hashlib.sha256(node.to_bytes(8, "little")).digest()[:16], "little")


def evaluate_plain(circuit: Circuit, garbler: np.ndarray, evaluator: np.ndarray) -> np.ndarray:
    """The circuit's outputs in the clear.

    Args:
        garbler, evaluator: input bits, 0 or 1, [garbler_bits, N] and [evaluator_bits, N].

    Returns:
        uint8 [output_bits, N].
    """
    slots = [np.asarray(bits, np.uint8) for party in (garbler, evaluator) for bits in party]
    slots += [np.empty(0, np.uint8)] * (circuit.slot_count - len(slots))
    for operation, left, right, out in circuit.gates.tolist():
        if operation == XOR:
            slots[out] = slots[left] ^ slots[right]
        else:
            slots[out] = (slots[left] ^ bool(operation & LEFT_INVERTED)) & (
                slots[right] ^ bool(operation & RIGHT_INVERTED)
            )
    return np.stack([slots[slot] ^ np.uint8(inverted) for slot, inverted in circuit.outputs.tolist()])
