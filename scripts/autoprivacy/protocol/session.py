"""What client and server agree on before anything secret moves: architecture, policy, and what follows from them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.gc.activation import activation_circuit
from autoprivacy.gc.circuit import Circuit
from autoprivacy.gc.garbling import table_bytes
from autoprivacy.he.bits import pack_bits, packed_bytes, unpack_bits
from autoprivacy.he.packing import packing_named
from autoprivacy.he.packing.plan import Plan
from autoprivacy.he.parameters import ParameterSet
from autoprivacy.policy import Policy
from autoprivacy.protocol.channel import ProtocolError
from autoprivacy.quantization.integer_network import Architecture, Node, Shape


@dataclass(frozen=True)
class Agreement:
    """The public facts of a session."""

    architecture: Architecture
    policy: Policy

    def __post_init__(self) -> None:
        self.policy.check_layers([layer.name for layer in self.architecture.layers])
        packing = packing_named(self.policy.packing)  # refuses one that is unknown
        for layer in self.policy.layers:
            packing.check_factors(layer.name, layer.parameters)
        for node in self.activation_nodes():
            try:
                self.circuit(node)
            except UserError as error:
                raise UserError(f"policy {self.policy.scheme} of {self.policy.network}: {node.name}: {error}") from None

    @cached_property
    def modulus(self) -> int:
        """The plaintext modulus p of the network's shares."""
        return self.policy.plaintext_modulus

    @cached_property
    def share_bits(self) -> int:
        """Bits of a share."""
        return (self.modulus - 1).bit_length()

    @cached_property
    def parameter_sets(self) -> tuple[ParameterSet, ...]:
        """The distinct parameter sets in the order of their first layer: one key pair each."""
        return tuple(dict.fromkeys(layer.parameters for layer in self.policy.layers))

    def plan(self, layer: str) -> Plan:
        """The packing plan that the policy prescribes for a linear layer."""
        entry = self.policy.layer(layer)
        shape, parameters = self.architecture.layer(layer), entry.parameters
        from_tiling = packing_named(self.policy.packing).from_tiling
        return from_tiling(shape, parameters.polynomial_degree, parameters.plaintext_modulus, entry.tiling)

    def galois_elements(self, parameters: ParameterSet) -> tuple[int, ...]:
        """The automorphisms that the layers under a parameter set use, ascending: a Galois key each."""
        plans = (self.plan(layer.name) for layer in self.policy.layers if layer.parameters == parameters)
        return tuple(sorted({element for plan in plans for element in plan.galois_elements}))

    def circuit(self, node: Node) -> Circuit:
        """The circuit of an activation."""
        return activation_circuit(self.modulus, node.shift, node.minimum, node.maximum)

    def table_lengths(self, node: Node) -> list[int]:
        """Bytes of every chunk of an activation's garbled tables."""
        return table_bytes(self.circuit(node), self.modulus, int(np.prod(node.shape)))

    def linear_nodes(self) -> list[Node]:
        """The graph's linear layers in order."""
        return [node for node in self.architecture.nodes if node.operation == "linear"]

    def activation_nodes(self) -> list[Node]:
        """The graph's activations in order."""
        return [node for node in self.architecture.nodes if node.operation == "activation"]

    def layer_of(self, node: Node) -> str:
        """The linear layer whose time and bytes a node belongs to: itself or the last one before it."""
        name = "input"
        for other in self.architecture.nodes:
            if other.operation == "linear":
                name = other.name
            if other == node:
                break
        return name

    def pack_share(self, share: np.ndarray) -> bytes:
        """A share's residues at their bit length."""
        return pack_bits(share.reshape(-1).astype(np.uint64), self.share_bits)

    def unpack_share(self, payload: bytes | bytearray | memoryview, shape: Shape) -> np.ndarray:
        """The inverse of `pack_share`, int64; ProtocolError for a wrong length or a residue >= p."""
        count = int(np.prod(shape))
        expected = packed_bytes(count, self.share_bits)
        if len(payload) != expected:
            raise ProtocolError(f"a share of {count} residues has {expected} bytes, got {len(payload)}")
        values = unpack_bits(bytes(payload), self.share_bits, count).astype(np.int64)
        if values.size and int(values.max()) >= self.modulus:
            raise ProtocolError(f"a share holds {int(values.max())}, allowed below {self.modulus}")
        return values.reshape(shape)

    def to_bytes(self) -> bytes:
        """What the server tells the client."""
        return json.dumps({"architecture": self.architecture.as_json(), "policy": self.policy.as_json()}).encode()

    @classmethod
    def from_bytes(cls, payload: bytes | bytearray) -> Agreement:
        """Parse and check what the server told; every parameter set is checked for 128 bits on this side too."""
        try:
            value: dict[str, Any] = json.loads(payload)
            return cls(Architecture.from_json(value["architecture"]), Policy.from_json(value["policy"], "the server"))
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise ProtocolError(f"the server's announcement is damaged ({type(error).__name__}: {error})") from None
