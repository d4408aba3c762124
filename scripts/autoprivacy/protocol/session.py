"""What client and server agree on before anything secret moves: architecture, policy, and what follows from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.gc.activation import Activation, modulus_bits
from autoprivacy.gc.garbling import table_bytes
from autoprivacy.gc.outputs import OutputFunction, output_function
from autoprivacy.he.bfv.reply_bits import default_reply_bits
from autoprivacy.he.bfv.triples import TripleLayout
from autoprivacy.he.packing import SLOT, packing_named
from autoprivacy.he.packing.batching import slot_encoding
from autoprivacy.he.packing.plan import Plan
from autoprivacy.he.parameters.parameter_set import ParameterSet, ReplyBits
from autoprivacy.he.parameters.policy import ActivationKind, Policy
from autoprivacy.he.ring.bit_packing import pack_bits, packed_bytes, unpack_bits
from autoprivacy.lookup.batch import Batch
from autoprivacy.ot.transfers import TransferKind
from autoprivacy.protocol.lengths import Lengths
from autoprivacy.protocol.messages import Buffer, ProtocolError, printable
from autoprivacy.protocol.shares import ModularShares
from autoprivacy.quantization.graph_check import check_architecture, read_architecture
from autoprivacy.quantization.integer_network import Architecture, Node
from autoprivacy.quantization.residues import Residues


@dataclass(frozen=True)
class Agreement:
    """The public facts of a session."""

    architecture: Architecture
    policy: Policy

    def __post_init__(self) -> None:
        check_architecture(self.architecture)
        packing = packing_named(self.policy.packing)  # refuses one that is unknown
        try:
            _ = self.transfers
        except ValueError as error:
            raise UserError(f"policy {self.policy.scheme} of {self.policy.network}: {error}") from None
        self.policy.check_layers([layer.name for layer in self.architecture.layers])
        for layer in self.policy.layers:
            packing.check_factors(layer.name, layer.parameters)
        for node in self.activation_nodes():
            try:
                if self.kinds[node.name] == "lookup":
                    self.batch(node)
                else:
                    self.activation(node)
            except UserError as error:
                raise UserError(f"policy {self.policy.scheme} of {self.policy.network}: {node.name}: {error}") from None
        try:
            _ = self.answer
        except UserError as error:
            raise UserError(f"policy {self.policy.scheme} of {self.policy.network}: output: {error}") from None
        try:
            self._check_triples()
        except UserError as error:
            raise UserError(f"policy {self.policy.scheme} of {self.policy.network}: triples: {error}") from None

    def _check_triples(self) -> None:
        """UserError unless there are triples just where circuits are squared, modulo the p of all layers, in slots."""
        squares, triples = [node.name for node in self.garbled_squares], self.policy.triples
        if bool(squares) != (triples is not None):
            why = "all squares are looked up" if self.architecture.squares else "nothing is squared"
            got, wanted = ("none", f"some for {', '.join(squares)}") if squares else ("given", f"none: {why}")
            raise UserError(f"{got}; expected {wanted}; choose the network's parameters again")
        if triples is None:
            return
        p, modulus = triples.parameters.plaintext_modulus, self.policy.plaintext_modulus
        if p != modulus:
            raise UserError(f"plaintext modulus {p}; expected that of the layers, {modulus}")
        packing_named(SLOT).check_factors("of squares", triples.parameters)
        for factor in TripleLayout.of(self.triple_count, triples.parameters).factors:
            slot_encoding(triples.parameters.polynomial_degree, factor)  # refuses a p that does not batch

    @cached_property
    def answer(self) -> OutputFunction | None:
        """What the client learns of the outputs in place of them; None where it is all of them."""
        outputs = int(np.prod(self.architecture.nodes[-1].shape))
        return output_function(self.policy.output, self.output_modulus, outputs)

    @cached_property
    def last_layer(self) -> str:
        """The layer that the work on the outputs belongs to."""
        return self.layer_of(self.architecture.nodes[-1])

    @cached_property
    def _plans(self) -> dict[str, Plan]:
        return {}

    @cached_property
    def lengths(self) -> Lengths:
        """How long every message of a session is."""
        return Lengths(self)

    @cached_property
    def triple_count(self) -> int:
        """Values that an image's garbled activations square: a triple each."""
        return sum(int(np.prod(node.shape)) for node in self.garbled_squares)

    @cached_property
    def residues(self) -> Residues:
        """The plaintext moduli of every node's shares, and the share bits that activations ignore."""
        return self.policy.residues(self.architecture)

    def moduli(self, node: Node) -> tuple[int, ...]:
        """The plaintext moduli in which a node's value is shared, each with shares of its own."""
        return self.residues.moduli[node.name]

    def modulus(self, layer: str) -> int:
        """The plaintext modulus p of a linear layer."""
        return self.policy.layer(layer).parameters.plaintext_modulus

    @cached_property
    def parameter_sets(self) -> tuple[ParameterSet, ...]:
        """`Policy.parameter_sets`."""
        return self.policy.parameter_sets

    def plan(self, layer: str) -> Plan:
        """The packing plan that the policy prescribes for a linear layer."""
        if layer not in self._plans:
            entry = self.policy.layer(layer)
            shape, parameters = self.architecture.layer(layer), entry.parameters
            from_tiling = packing_named(self.policy.packing).from_tiling
            plan = from_tiling(shape, parameters.polynomial_degree, parameters.plaintext_modulus, entry.tiling)
            self._plans[layer] = plan
        return self._plans[layer]

    def reply_bits(self, layer: str) -> ReplyBits:
        """What a linear layer's replies are sent in: the policy's choice, else the default for its target."""
        entry = self.policy.layer(layer)
        return entry.reply_bits or default_reply_bits(self.plan(layer).workload, entry.parameters, entry.target)

    def galois_elements(self, parameters: ParameterSet) -> tuple[int, ...]:
        """The automorphisms that the layers under a parameter set use, ascending: a Galois key each."""
        plans = (self.plan(layer.name) for layer in self.policy.layers if layer.parameters == parameters)
        return tuple(sorted({element for plan in plans for element in plan.galois_elements}))

    def activation(self, node: Node) -> Activation:
        """What is computed under garbling: an activation of shares modulo the p of `read_modulus`."""
        return Activation.garbled(node, self.residues)

    @cached_property
    def transfers(self) -> TransferKind:
        """How oblivious transfers are made."""
        return TransferKind.of(self.policy.tree_bits, self.policy.silent_table_bits)

    @cached_property
    def kinds(self) -> dict[str, ActivationKind]:
        """How each activation is computed."""
        return self.policy.activation_kinds(self.architecture)

    def batch(self, node: Node) -> Batch:
        """The lookups of an activation; UserError where it cannot be looked up."""
        return Batch.of(node, self.residues)

    def read_modulus(self, node: Node) -> int:
        """The modulus of the shares that an activation reads."""
        return self.residues.read[node.inputs[0]]

    @cached_property
    def output_modulus(self) -> int:
        """The modulus of the network's output."""
        return self.residues.read[self.architecture.nodes[-1].name]

    def answer_shape(self, node: Node) -> tuple[int, ...]:
        """The shape of what the client sends for an activation modulo each p; two numbers for every value squared."""
        return (2, *node.shape) if node.squared else node.shape

    def table_lengths(self, node: Node) -> list[int]:
        """Bytes of every chunk of an activation's garbled tables."""
        return table_bytes(self.activation(node).circuit, self.moduli(node), int(np.prod(node.shape)))

    def garbled_nodes(self) -> list[Node]:
        """The activations that are garbled, in order."""
        return [node for node in self.activation_nodes() if self.kinds[node.name] == "garbled"]

    @cached_property
    def garbled_squares(self) -> tuple[Node, ...]:
        """The garbled activations that square, in order, which take triples."""
        return tuple(node for node in self.garbled_nodes() if node.squared)

    def looked_up_nodes(self) -> list[Node]:
        """The activations that are looked up, in order."""
        return [node for node in self.activation_nodes() if self.kinds[node.name] == "lookup"]

    def linear_nodes(self) -> list[Node]:
        """The graph's linear layers in order."""
        return list(self.architecture.linear_nodes)

    def activation_nodes(self) -> list[Node]:
        """The graph's activations in order."""
        return list(self.architecture.activations)

    def layer_of(self, node: Node) -> str:
        """The linear layer whose time and bytes a node belongs to: itself or the last one before it."""
        return self.architecture.preceding_layer[node.name]

    def to_bytes(self) -> bytes:
        """What the server tells the client."""
        return json.dumps({"architecture": self.architecture.as_json(), "policy": self.policy.essence()}).encode()

    @classmethod
    def from_bytes(cls, payload: Buffer) -> Agreement:
        """Parse and check what the server announced; every parameter set is checked for 128 bits on this side too.

        Raises:
            UserError: anything is wrong with it, down to the last length of a message; one printable line.
        """
        try:
            value: dict[str, Any] = json.loads(bytes(payload))
            agreement = cls(read_architecture(value["architecture"]), Policy.from_json(value["policy"], "the server"))
            agreement.lengths.check()
            return agreement
        except UserError as error:
            error.args = (printable(str(error)),)
            raise
        except Exception as error:  # JSON of any form may have come, and it may fail anywhere in the checks
            words = printable(f"{type(error).__name__}: {error}")
            raise ProtocolError(f"the server's announcement is damaged ({words})") from None

    def check_expected(self, policy: Policy | None, architecture: Architecture | None) -> None:
        """ProtocolError, naming the first entry that differs, unless the server told what this side expects."""
        if policy is not None:
            _check_same("policy", policy.essence(), self.policy.essence())
        if architecture is not None:
            _check_same("architecture", architecture.as_json(), self.architecture.as_json())


def _check_same(what: str, expected: dict[str, Any], told: dict[str, Any]) -> None:
    difference = first_difference(json.loads(json.dumps(expected)), json.loads(json.dumps(told)))
    if difference is not None:
        raise ProtocolError(
            f"the server's {what} is not the expected one: {difference}; give both sides the same {what}"
        )


def first_difference(expected: Any, told: Any, where: str = "") -> str | None:
    """Where two JSON values differ first, with both values; None where they are equal."""
    if isinstance(expected, dict) and isinstance(told, dict):
        pairs = [(key, expected.get(key), told.get(key)) for key in {**expected, **told}]
    elif isinstance(expected, list) and isinstance(told, list) and len(expected) == len(told):
        pairs = [(str(index), *pair) for index, pair in enumerate(zip(expected, told, strict=True))]
    else:
        return None if expected == told else f"{where}: {json.dumps(expected)} expected, {json.dumps(told)} told"
    differences = (first_difference(a, b, f"{where}.{key}" if where else key) for key, a, b in pairs)
    return next((difference for difference in differences if difference is not None), None)


def pack_shares(shares: ModularShares) -> bytes:
    """Shares' residues at their bit length, modulus after modulus."""
    return b"".join(
        pack_bits(share.reshape(-1).astype(np.uint64), modulus_bits(modulus)) for modulus, share in shares.items()
    )


def unpack_shares(
    payload: bytes | bytearray | memoryview, moduli: Sequence[int], shape: tuple[int, ...]
) -> ModularShares:
    """The inverse of `pack_shares`, int64; ProtocolError for a wrong length or a residue >= p."""
    count = int(np.prod(shape))
    lengths = [packed_bytes(count, modulus_bits(modulus)) for modulus in moduli]
    if len(payload) != sum(lengths):
        raise ProtocolError(f"shares of {count} residues have {sum(lengths)} bytes, got {len(payload)}")
    shares, view = {}, memoryview(payload)
    for modulus, length in zip(moduli, lengths, strict=True):
        try:
            values = unpack_bits(bytes(view[:length]), modulus_bits(modulus), count).astype(np.int64)
        except ValueError as error:  # bits behind the last residue
            raise ProtocolError(f"a share of {error}") from None
        if values.size and int(values.max()) >= modulus:
            raise ProtocolError(f"a share holds {int(values.max())}, allowed below {modulus}")
        shares[modulus], view = values.reshape(shape), view[length:]
    return shares
