"""The last step of an image whose client learns scores or the class alone: a garbled circuit over the shares of the
outputs, which the server garbles. The client gets the answer plus a mask, and the mask last, in place of the server's
share; the server learns nothing, and the client nothing of the outputs beside the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from autoprivacy.gc.garbling import evaluate, garble_chunks
from autoprivacy.gc.outputs import OutputFunction
from autoprivacy.ot.extension import ExtensionReceiver, ExtensionSender, choice_bits
from autoprivacy.ot.labels import encode_seeded, zero_labels
from autoprivacy.protocol.channel import Channel
from autoprivacy.protocol.ledger import Ledger
from autoprivacy.protocol.messages import Message, parsing
from autoprivacy.protocol.session import Agreement, pack_shares, unpack_shares
from autoprivacy.randomness.generator import KEY_BYTES, SecureRandom


@dataclass
class ClientAnswer:
    """What a client keeps until the image is known: labels of its share, uint64 [wires, instances, 2], and tables."""

    labels: np.ndarray
    tables: list[memoryview] = field(default_factory=list)


@dataclass
class ServerAnswer:
    """What a server keeps: the seed of its labels, the masks of the answers, uint64 [1, instances], its offset."""

    label_seed: bytes
    masks: np.ndarray
    delta: np.ndarray


@dataclass(frozen=True)
class AnswerClient:
    """The client's part in a session."""

    channel: Channel
    ledger: Ledger
    agreement: Agreement
    function: OutputFunction
    extension: ExtensionReceiver

    def request(self, share: np.ndarray) -> ClientAnswer:
        """Oblivious transfers of the labels of this side's share of the outputs, residues [C, H, W]."""
        function = self.function
        with self.ledger.part(self.agreement.last_layer, "ot"):
            inputs = function.evaluator_input(share.reshape(-1).astype(np.uint64))
            labels, message = self.extension.extend(choice_bits(inputs, function.share_bits))
            self.channel.send(Message.OT_EXTENSION, message)
            return ClientAnswer(labels.reshape(function.circuit.evaluator_bits, function.instances, 2))

    def receive(self, kept: ClientAnswer) -> None:
        """The garbled tables."""
        with self.ledger.part(self.agreement.last_layer, "waiting"):
            lengths = self.agreement.lengths.answer_tables
            kept.tables = [self.channel.receive_payload(Message.GARBLED_TABLES, length) for length in lengths]

    def finish(self, kept: ClientAnswer) -> np.ndarray:
        """The answer, int64 [instances]."""
        agreement, function, layer = self.agreement, self.function, self.agreement.last_layer
        circuit, count, modulus = function.circuit, function.instances, function.answer_modulus
        with self.ledger.part(layer, "waiting"):
            payload = self.channel.receive_payload(Message.GARBLER_LABELS, agreement.lengths.answer_labels)
            masks = self.channel.receive_payload(Message.OUTPUT_SHARE, agreement.lengths.output_share)
        with self.ledger.part(layer, "garbling"), parsing(Message.GARBLED_TABLES):
            garbler_labels = np.frombuffer(payload, np.uint64).reshape(circuit.garbler_bits, count, 2)
            masked = evaluate(circuit, count, kept.tables, garbler_labels, kept.labels, (modulus,))[0]
        with self.ledger.part(layer, "shares"), parsing(Message.OUTPUT_SHARE):
            return function.answer(masked, unpack_shares(masks, (modulus,), (count,))[modulus])


@dataclass(frozen=True)
class AnswerServer:
    """The server's part in a session; `delta` is the offset of all its labels."""

    channel: Channel
    ledger: Ledger
    agreement: Agreement
    function: OutputFunction
    extension: ExtensionSender
    delta: np.ndarray
    random: SecureRandom

    def prepare(self) -> ServerAnswer:
        """Labels for the client's input bits by oblivious transfer, then the garbled tables."""
        function, layer = self.function, self.agreement.last_layer
        circuit, count, modulus = function.circuit, function.instances, function.answer_modulus
        with self.ledger.part(layer, "waiting"):
            message = self.channel.receive_payload(Message.OT_EXTENSION, self.agreement.lengths.answer_transfers)
        with self.ledger.part(layer, "ot"), parsing(Message.OT_EXTENSION):
            zero = self.extension.extend(message, circuit.evaluator_bits * count)
            zero = zero.reshape(circuit.evaluator_bits, count, 2)
        with self.ledger.part(layer, "garbling"):
            seed = self.random.random_bytes(KEY_BYTES).tobytes()
            own, masks = zero_labels(seed, circuit.garbler_bits, count), np.empty((1, count), np.uint64)
            for chunk in garble_chunks(circuit, count, self.delta, own, zero, (modulus,), self.random):
                masks[:, chunk.instances] = chunk.output_masks
                self.channel.send(Message.GARBLED_TABLES, chunk.table.data)
            return ServerAnswer(seed, masks, self.delta)

    def finish(self, kept: ServerAnswer, share: np.ndarray) -> None:
        """Send the labels of this side's share of the outputs, residues [C, H, W], and the masks of the answers."""
        function = self.function
        with self.ledger.part(self.agreement.last_layer, "garbling"):
            values = function.garbler_input(share.reshape(-1).astype(np.uint64))
            labels = encode_seeded(kept.label_seed, kept.delta, values, function.share_bits)
            self.channel.send(Message.GARBLER_LABELS, labels.data)
            self.channel.send(Message.OUTPUT_SHARE, pack_shares({function.answer_modulus: kept.masks[0]}))
