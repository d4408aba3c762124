"""Activations under garbled circuits, the server garbling: what each party does for one of them, offline and online.

Offline the client asks for the labels of its share by oblivious transfer (`request`), the server garbles (`prepare`),
and the client keeps the tables (`receive`). Online the server sends the labels of its share (`answer`), and the client
evaluates (`evaluate`): it has y + rho, whose rho the server knows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from autoprivacy.gc.garbling import evaluate, garble_chunks
from autoprivacy.ot.extension import ExtensionReceiver, ExtensionSender, choice_bits
from autoprivacy.ot.labels import encode_seeded, zero_labels
from autoprivacy.protocol.channel import Channel
from autoprivacy.protocol.ledger import Ledger
from autoprivacy.protocol.messages import Message, parsing
from autoprivacy.protocol.session import Agreement
from autoprivacy.protocol.shares import ModularShares
from autoprivacy.quantization.integer_network import Node
from autoprivacy.randomness.generator import KEY_BYTES, SecureRandom


@dataclass
class ClientGarbling:
    """What a client keeps of one activation until the image is known.

    Attributes:
        labels: wire labels of its input share, uint64 [bits, values, 2].
        tables: the garbled tables, chunk by chunk.
    """

    labels: np.ndarray
    tables: list[memoryview] = field(default_factory=list)


@dataclass
class ServerGarbling:
    """What a server keeps of one activation until the image is known.

    Attributes:
        label_seed: 32 bytes that the zero labels of its input share are drawn from.
        output_masks: the mask rho of the output by modulus, uint32 [moduli, values].
        delta: the offset of all its labels, uint64 [2].
    """

    label_seed: bytes
    output_masks: np.ndarray
    delta: np.ndarray

    def masks(self, node: Node) -> np.ndarray:
        """rho, int64 [moduli, C, H, W]."""
        return self.output_masks.astype(np.int64).reshape(-1, *node.shape)


@dataclass(frozen=True)
class GarbledClient:
    """The client's part in a session."""

    channel: Channel
    ledger: Ledger
    agreement: Agreement
    extension: ExtensionReceiver

    def request(self, node: Node, shares: ModularShares) -> ClientGarbling:
        """Oblivious transfers of the labels of this side's share of the input."""
        agreement = self.agreement
        with self.ledger.part(agreement.layer_of(node), "ot"):
            share = shares[agreement.read_modulus(node)].reshape(-1).astype(np.uint64)
            activation = agreement.activation(node)
            bits = activation.share_bits
            labels, message = self.extension.extend(choice_bits(activation.evaluator_input(share), bits))
            self.channel.send(Message.OT_EXTENSION, message)
            return ClientGarbling(labels.reshape(bits, share.size, 2))

    def receive(self, node: Node, kept: ClientGarbling) -> None:
        """The garbled tables."""
        lengths = self.agreement.table_lengths(node)
        with self.ledger.part(self.agreement.layer_of(node), "waiting"):
            kept.tables = [self.channel.receive_payload(Message.GARBLED_TABLES, length) for length in lengths]

    def evaluate(self, node: Node, kept: ClientGarbling) -> np.ndarray:
        """y + rho modulo each p, int64 [moduli, C, H, W]."""
        agreement, layer = self.agreement, self.agreement.layer_of(node)
        circuit, count, moduli = agreement.activation(node).circuit, int(np.prod(node.shape)), agreement.moduli(node)
        with self.ledger.part(layer, "waiting"):
            payload = self.channel.receive_payload(Message.GARBLER_LABELS, agreement.lengths.garbler_labels(node))
        with self.ledger.part(layer, "garbling"), parsing(Message.GARBLED_TABLES):
            garbler_labels = np.frombuffer(payload, np.uint64).reshape(circuit.garbler_bits, count, 2)
            outputs = evaluate(circuit, count, kept.tables, garbler_labels, kept.labels, moduli)
            return outputs.astype(np.int64).reshape(-1, *node.shape)


@dataclass(frozen=True)
class GarbledServer:
    """The server's part in a session; `delta` is the offset of all its labels."""

    channel: Channel
    ledger: Ledger
    agreement: Agreement
    extension: ExtensionSender
    delta: np.ndarray
    random: SecureRandom

    def prepare(self, node: Node) -> ServerGarbling:
        """Labels for the client's input bits by oblivious transfer, then the garbled tables chunk by chunk."""
        layer, moduli, count = self.agreement.layer_of(node), self.agreement.moduli(node), int(np.prod(node.shape))
        circuit = self.agreement.activation(node).circuit
        with self.ledger.part(layer, "waiting"):
            length = self.agreement.lengths.ot_extension(node)
            message = self.channel.receive_payload(Message.OT_EXTENSION, length)
        with self.ledger.part(layer, "ot"), parsing(Message.OT_EXTENSION):
            zero = self.extension.extend(message, circuit.evaluator_bits * count)
            zero = zero.reshape(circuit.evaluator_bits, count, 2)
        with self.ledger.part(layer, "garbling"):
            seed = self.random.random_bytes(KEY_BYTES).tobytes()
            garbler_zero = zero_labels(seed, circuit.garbler_bits, count)
            output_masks = np.empty((len(moduli), count), np.uint32)  # moduli are at most 2^32
            for chunk in garble_chunks(circuit, count, self.delta, garbler_zero, zero, moduli, self.random):
                output_masks[:, chunk.instances] = chunk.output_masks
                self.channel.send(Message.GARBLED_TABLES, chunk.table.data)
            return ServerGarbling(seed, output_masks, self.delta)

    def answer(self, node: Node, kept: ServerGarbling, shares: ModularShares) -> None:
        """Send the labels of this side's share of the input."""
        with self.ledger.part(self.agreement.layer_of(node), "garbling"):
            share = shares[self.agreement.read_modulus(node)].reshape(-1).astype(np.uint64)
            activation = self.agreement.activation(node)
            values = activation.garbler_input(share)
            labels = encode_seeded(kept.label_seed, kept.delta, values, activation.circuit.garbler_bits)
            self.channel.send(Message.GARBLER_LABELS, labels.data)
