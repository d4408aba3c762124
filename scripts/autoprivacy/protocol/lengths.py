"""How long every message of a session is, and what its bundles take: both follow from the agreement.

A party checks each length before it takes memory for the message, so a peer can send what the protocol needs and no
more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.gc.activation import modulus_bits
from autoprivacy.gc.circuit import Circuit
from autoprivacy.gc.garbling import table_bytes
from autoprivacy.he.bfv.cipher import message_bytes, public_key_bytes
from autoprivacy.he.bfv.reply_bits import reply_bytes
from autoprivacy.he.bfv.rotation import galois_key_bytes
from autoprivacy.he.bfv.triples import TripleLayout
from autoprivacy.he.parameters.parameter_set import ParameterSet
from autoprivacy.he.ring.bit_packing import packed_bytes
from autoprivacy.lookup.batch import exchange_bytes
from autoprivacy.ot.extension import extension_bytes
from autoprivacy.ot.labels import LABEL_BYTES
from autoprivacy.ot.setup import ANSWER_BYTES, HELLO_BYTES, trees_bytes
from autoprivacy.protocol.bundles import MAXIMUM_KEPT, NUMBER_BYTES
from autoprivacy.protocol.channel import FRAME_COST, Bounds
from autoprivacy.protocol.messages import MAXIMUM_PAYLOAD, Message
from autoprivacy.quantization.integer_network import Node

if TYPE_CHECKING:
    from autoprivacy.protocol.session import Agreement

# What a server takes from a client and keeps for it beside the message that it reads: enough for the link to stay busy.
SERVER_UNREAD, SERVER_QUEUED = 1 << 22, 1 << 23
# A client keeps of a parameter set: roots of both transforms with their quotients, its secret in four forms, the key.
CIPHER_POLYNOMIALS = 9
ENTRY_COST = 512  # bytes of memory of an entry of a bundle, beside its arrays
Traffic = Iterable[tuple[Message, int]]
KEPT = Message.BUNDLES, NUMBER_BYTES * MAXIMUM_KEPT


class Lengths:
    """The messages of a session under an agreement.

    The methods without arguments yield messages with their lengths as one side sends them: `to_server`, `to_client`.
    """

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement

    def check(self) -> None:
        """Work out every length, so that an agreement that does not hold together fails here and not in a phase.

        Raises:
            UserError: a message is longer than any may be.
        """
        bounds = {**self.set_up_bounds.lengths, **self.server_bounds.lengths, **self.client_bounds.lengths}
        for kind, length in bounds.items():
            if length > MAXIMUM_PAYLOAD:
                raise UserError(f"{kind.name} would take {length} bytes; allowed {MAXIMUM_PAYLOAD}")

    def public_key(self, parameters: ParameterSet) -> int:
        """Of PUBLIC_KEY."""
        return public_key_bytes(parameters)

    def galois_keys(self, parameters: ParameterSet) -> int:
        """Of GALOIS_KEYS; 0 where no layer rotates under the set: the message is not sent then."""
        elements = self._agreement.galois_elements(parameters)
        return galois_key_bytes(parameters, len(elements)) if elements else 0

    def encrypted_masks(self, layer: str) -> int:
        """Of ENCRYPTED_MASKS."""
        parameters = self._agreement.policy.layer(layer).parameters
        return message_bytes(parameters, self._agreement.plan(layer).workload.input_ciphertexts)

    def encrypted_shares(self, layer: str) -> int:
        """Of ENCRYPTED_SHARES."""
        bits = self._agreement.reply_bits(layer)
        parts = [part.workload for part in self._agreement.plan(layer).components]
        return sum(reply_bytes(part.degree, part.output_ciphertexts, part.reply_coefficients, bits) for part in parts)

    @property
    def trees(self) -> int:
        """Of a party's trees in OT_TREES."""
        return trees_bytes(self._agreement.transfers)

    @property
    def silent_round(self) -> int:
        """Of SILENT_ROUND; 0 where transfers are not silent: the message is not sent then."""
        return self._agreement.transfers.round_bytes

    def ot_extension(self, node: Node) -> int:
        """Of OT_EXTENSION."""
        return extension_bytes(
            self._agreement.activation(node).circuit.evaluator_bits * _values(node), self._agreement.transfers.tree_bits
        )

    def garbler_labels(self, node: Node) -> int:
        """Of GARBLER_LABELS."""
        return self._agreement.activation(node).circuit.garbler_bits * _values(node) * LABEL_BYTES

    def masked_activation(self, node: Node) -> int:
        """Of MASKED_ACTIVATION."""
        return shares_bytes(self._agreement.moduli(node), self._agreement.answer_shape(node))

    def lookup_making(self, client: bool) -> list[int]:
        """Of one party's LOOKUP_MAKING messages, one after the other."""
        batches = [self._agreement.batch(node) for node in self._agreement.looked_up_nodes()]
        return exchange_bytes(batches, self._agreement.transfers, client)

    @property
    def ready_bytes(self) -> int:
        """Memory that the bundle at hand takes beyond a packed one, the same for both: its lookups."""
        nodes = self._agreement.looked_up_nodes()
        return sum(batch.count * batch.shape.kept_bytes for batch in map(self._agreement.batch, nodes))

    def packed_lookups(self, client: bool) -> int:
        """Memory of one party's lookups of a packed bundle: the other party's messages, or all of them under silent
        transfers."""
        return self.ready_bytes if self.silent_round else sum(self.lookup_making(not client))

    @cached_property
    def triple_factors(self) -> int:
        """Of TRIPLE_FACTORS."""
        triples = self._agreement.policy.triples
        assert triples is not None
        layout = TripleLayout.of(self._agreement.triple_count, triples.parameters)
        return message_bytes(triples.parameters, layout.workload.input_ciphertexts)

    @cached_property
    def triple_products(self) -> int:
        """Of TRIPLE_PRODUCTS."""
        triples = self._agreement.policy.triples
        assert triples is not None
        layout = TripleLayout.of(self._agreement.triple_count, triples.parameters)
        return layout.form(triples.reply_bits).size * len(layout.factors)

    @cached_property
    def infer(self) -> int:
        """Of INFER."""
        node = self._agreement.architecture.nodes[0]
        return NUMBER_BYTES + shares_bytes(self._agreement.moduli(node), node.shape)

    @cached_property
    def answer_transfers(self) -> int:
        """Of the OT_EXTENSION for the answer."""
        circuit, instances = self._answer
        return extension_bytes(circuit.evaluator_bits * instances, self._agreement.transfers.tree_bits)

    @cached_property
    def answer_tables(self) -> list[int]:
        """Of every GARBLED_TABLES for the answer."""
        assert self._agreement.answer is not None
        circuit, instances = self._answer
        return table_bytes(circuit, (self._agreement.answer.answer_modulus,), instances)

    @cached_property
    def answer_labels(self) -> int:
        """Of the GARBLER_LABELS for the answer."""
        circuit, instances = self._answer
        return circuit.garbler_bits * instances * LABEL_BYTES

    @property
    def _answer(self) -> tuple[Circuit, int]:
        """The circuit of the answer and its instances."""
        assert self._agreement.answer is not None
        return self._agreement.answer.circuit, self._agreement.answer.instances

    @cached_property
    def output_share(self) -> int:
        """Of OUTPUT_SHARE: the server's share of the outputs, or the masks of the answer."""
        if answer := self._agreement.answer:
            return shares_bytes((answer.answer_modulus,), (answer.instances,))
        return shares_bytes((self._agreement.output_modulus,), self._agreement.architecture.nodes[-1].shape)

    def set_up_to_server(self) -> Iterator[tuple[Message, int]]:
        """What the client sends for the set-up."""
        for parameters in self._agreement.parameter_sets:
            yield Message.PUBLIC_KEY, self.public_key(parameters)
            if length := self.galois_keys(parameters):
                yield Message.GALOIS_KEYS, length
        yield Message.BASE_OT, HELLO_BYTES
        yield Message.OT_TREES, ANSWER_BYTES + self.trees
        if self.silent_round:
            yield Message.SILENT_ROUND, self.silent_round

    def offline_to_server(self) -> Iterator[tuple[Message, int]]:
        """What the client sends for a bundle."""
        yield Message.PREPARE, NUMBER_BYTES
        for node in self._agreement.linear_nodes():
            yield Message.ENCRYPTED_MASKS, self.encrypted_masks(node.name)
        for node in self._agreement.garbled_nodes():
            yield Message.OT_EXTENSION, self.ot_extension(node)
        if self._agreement.answer:
            yield Message.OT_EXTENSION, self.answer_transfers
        if self._agreement.policy.triples:
            yield Message.TRIPLE_FACTORS, self.triple_factors
        for length in self.lookup_making(client=True):
            yield Message.LOOKUP_MAKING, length

    def offline_to_client(self) -> Iterator[tuple[Message, int]]:
        """What the server sends for a bundle."""
        for node in self._agreement.linear_nodes():
            yield Message.ENCRYPTED_SHARES, self.encrypted_shares(node.name)
        for node in self._agreement.garbled_nodes():
            for length in self._agreement.table_lengths(node):
                yield Message.GARBLED_TABLES, length
        if self._agreement.answer:
            for length in self.answer_tables:
                yield Message.GARBLED_TABLES, length
        if self._agreement.policy.triples:
            yield Message.TRIPLE_PRODUCTS, self.triple_products
        for length in self.lookup_making(client=False):
            yield Message.LOOKUP_MAKING, length

    def online_to_server(self) -> Iterator[tuple[Message, int]]:
        """What the client sends for an image."""
        yield Message.INFER, self.infer
        for node in self._agreement.garbled_nodes():
            yield Message.MASKED_ACTIVATION, self.masked_activation(node)
        for node in self._agreement.looked_up_nodes():
            yield Message.LOOKUP_ANSWER, self._agreement.batch(node).answer_bytes

    def online_to_client(self) -> Iterator[tuple[Message, int]]:
        """What the server sends for an image."""
        for node in self._agreement.garbled_nodes():
            yield Message.GARBLER_LABELS, self.garbler_labels(node)
        if self._agreement.answer:
            yield Message.GARBLER_LABELS, self.answer_labels
        for node in self._agreement.looked_up_nodes():
            yield Message.LOOKUP_QUESTION, self._agreement.batch(node).question_bytes
        yield Message.OUTPUT_SHARE, self.output_share

    @cached_property
    def set_up_bounds(self) -> Bounds:
        """What a server takes from a client that has not shown its keys yet."""
        return Bounds(_longest(self.set_up_to_server()), SERVER_UNREAD, SERVER_QUEUED)

    @cached_property
    def server_bounds(self) -> Bounds:
        """What a server takes from a client afterwards."""
        messages = [*self.offline_to_server(), *self.online_to_server(), (Message.GOODBYE, 0), KEPT]
        if self.silent_round:  # the client's last message of the set-up
            messages.append((Message.SILENT_ROUND, self.silent_round))
        return Bounds(_longest(messages), SERVER_UNREAD, SERVER_QUEUED)

    @cached_property
    def client_bounds(self) -> Bounds:
        """What a client takes from its server: at a time all that the server sends for one request, see `Bounds`."""
        phases = [*self.offline_to_client()], [*self.online_to_client()]
        set_up = [(Message.BASE_OT_REPLY, HELLO_BYTES + ANSWER_BYTES), (Message.OT_TREES, self.trees)]
        if self.silent_round:
            set_up.append((Message.SILENT_ROUND, self.silent_round))
        lengths = _longest([*set_up, *phases[0], *phases[1], KEPT])
        return Bounds(lengths, max(sum(length + FRAME_COST for _, length in phase) for phase in phases))

    @cached_property
    def set_up_bytes(self) -> int:
        """What the client sends for the set-up, in all."""
        return sum(length for _, length in self.set_up_to_server())

    @cached_property
    def set_up_memory(self) -> int:
        """Memory of a client from the set-up on: its messages, keys and tables of every parameter set, and where the
        values of every layer's replies stand."""
        agreement = self._agreement
        sets = agreement.parameter_sets
        words = sum(CIPHER_POLYNOMIALS * len(own.deployed_primes) * own.polynomial_degree for own in sets)
        places = sum(map(_values, agreement.architecture.linear_nodes))
        return self.set_up_bytes + 8 * (words + places)

    @cached_property
    def client_bundle_bytes(self) -> int:
        """Memory of a client's bundle: seeds, garbled tables with the labels of its shares, what lookups are made from,
        products of squares, and the share of the output; `ready_bytes` is what the one at hand takes in addition."""
        agreement = self._agreement
        values = _values(agreement.architecture.nodes[-1]) + sum(map(_values, agreement.garbled_squares))
        tables = sum(length for kind, length in self.offline_to_client() if kind == Message.GARBLED_TABLES)
        nodes = agreement.garbled_nodes()
        labels = sum(LABEL_BYTES * agreement.activation(n).circuit.evaluator_bits * _values(n) for n in nodes)
        kept = tables + labels + self.packed_lookups(client=True)
        return kept + 8 * values + ENTRY_COST * len(agreement.architecture.nodes)

    @cached_property
    def client_working_bytes(self) -> int:
        """Memory of a client for the image that is worked on: all that the server sends for one request, less the
        tables, which a bundle keeps, the longest message of its own, shares of all values, lookups at hand."""
        tables = sum(length for kind, length in self.offline_to_client() if kind == Message.GARBLED_TABLES)
        phases = self.offline_to_client(), self.online_to_client()
        offline, online = (sum(length + FRAME_COST for _, length in phase) for phase in phases)
        own = max(length for _, length in [*self.offline_to_server(), *self.online_to_server()])
        shares = sum(
            8 * _values(node) * len(self._agreement.moduli(node)) for node in self._agreement.architecture.nodes
        )
        return max(offline - tables, online) + own + shares + self.ready_bytes

    @cached_property
    def server_bundle_bytes(self) -> int:
        """Memory of a server's bundle: seeds, the masks of garbled activations, 4 bytes for every modulus, and what
        lookups are made from; `ready_bytes` is what the one at hand takes in addition."""
        agreement = self._agreement
        nodes = agreement.garbled_nodes()
        masks = sum(4 * _values(node) * len(agreement.moduli(node)) for node in nodes)
        return masks + self.packed_lookups(client=False) + ENTRY_COST * len(agreement.architecture.nodes)


def shares_bytes(moduli: Iterable[int], shape: tuple[int, ...]) -> int:
    """Bytes of the residues of `session.pack_shares`, modulus after modulus."""
    return sum(packed_bytes(int(np.prod(shape)), modulus_bits(modulus)) for modulus in moduli)


def _values(node: Node) -> int:
    return int(np.prod(node.shape))


def _longest(messages: Traffic) -> Mapping[Message, int]:
    longest: dict[Message, int] = {}
    for kind, length in messages:
        longest[kind] = max(length, longest.get(kind, 0))
    return longest
