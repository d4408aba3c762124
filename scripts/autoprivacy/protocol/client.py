"""The client: it holds the image and learns the network's output, nothing of the weights but their public shapes.

    python -m autoprivacy.protocol.client --connect host:port --dataset prepared.npz

reads the numbers of test images on standard input, one a line, and answers each with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autoprivacy.data import load
from autoprivacy.errors import UserError
from autoprivacy.gc.activation import evaluator_input
from autoprivacy.gc.garbling import evaluate
from autoprivacy.gc.labels import LABEL_BYTES
from autoprivacy.gc.oblivious_transfer import BaseSender, ExtensionReceiver, choice_bits
from autoprivacy.he.cipher import ClientCipher
from autoprivacy.he.composite import LayerClient
from autoprivacy.he.rotation import GaloisKeyMaker
from autoprivacy.policy import Policy
from autoprivacy.protocol.channel import Channel, Message, ProtocolError, connect, parsing
from autoprivacy.protocol.ledger import Ledger
from autoprivacy.protocol.session import Agreement
from autoprivacy.protocol.shares import local_operation
from autoprivacy.quantization.integer_network import Node, to_signed
from autoprivacy.secure_random import SecureRandom


@dataclass
class ClientBundle:
    """What the offline phase leaves with the client for one image; used once.

    Attributes:
        shares: its share of every node's value, int64 [C, H, W] modulo p.
        labels: per activation the wire labels of its input share, uint64 [bits, ReLUs, 2].
        tables: per activation the garbled tables, chunk by chunk.
    """

    number: int
    shares: dict[str, np.ndarray]
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    tables: dict[str, list[bytearray]] = field(default_factory=dict)


class Client:
    """One session with a server.

    Args:
        channel: the connection.
        policy: what this side expects; None accepts the server's policy (its security is checked in any case).
    """

    def __init__(self, channel: Channel, policy: Policy | None = None) -> None:
        self.channel = channel
        self.ledger = Ledger(channel)
        self._random = SecureRandom()
        self._bundles = 0
        with self.ledger.phase("set-up"):
            self.agreement = Agreement.from_bytes(channel.receive_payload(Message.WELCOME))
            if policy is not None and policy.essence() != self.agreement.policy.essence():
                raise ProtocolError(
                    f"the server's policy {self.agreement.policy.scheme} is not the expected {policy.scheme} "
                    f"(or its parameters differ); give both sides the same policy file"
                )
            self._set_up()

    def _set_up(self) -> None:
        agreement, ledger = self.agreement, self.ledger
        with ledger.part("all", "he"):
            ciphers = {parameters: ClientCipher(parameters) for parameters in agreement.parameter_sets}
            for parameters, cipher in ciphers.items():
                self.channel.send(Message.PUBLIC_KEY, cipher.public_key())
                if elements := agreement.galois_elements(parameters):
                    self.channel.send(Message.GALOIS_KEYS, GaloisKeyMaker(cipher).keys(elements))
            self._linear = {
                layer.name: LayerClient(
                    agreement.architecture.layer(layer.name),
                    agreement.plan(layer.name),
                    layer.parameters,
                    ciphers[layer.parameters],
                )
                for layer in agreement.policy.layers
            }
        with ledger.part("all", "ot"):
            base = BaseSender()
            self.channel.send(Message.BASE_OT, base.message())
        with ledger.part("all", "waiting"):
            reply = self.channel.receive_payload(Message.BASE_OT_REPLY)
        with ledger.part("all", "ot"), parsing(Message.BASE_OT_REPLY):
            self._extension = ExtensionReceiver(base.finish(bytes(reply)))

    def prepare(self) -> ClientBundle:
        """The offline phase for one image: shares of every layer, labels and garbled tables."""
        number, self._bundles = self._bundles, self._bundles + 1
        with self.ledger.phase("offline", number):
            self.channel.send(Message.PREPARE)
            bundle = ClientBundle(number, {})
            unsent = self._draw_masks(bundle)
            for node in self.agreement.architecture.nodes:
                if node.operation == "linear":
                    if node in unsent:  # its input hangs on an earlier reply
                        self._send_encrypted(node, bundle)
                    self._receive_encrypted(node, bundle)
                elif node.operation == "activation":
                    self._extend(node, bundle)
                elif node.name not in bundle.shares:
                    inputs = [bundle.shares[name] for name in node.inputs]
                    bundle.shares[node.name] = local_operation(node, inputs, self.agreement.modulus)
            for node in self.agreement.activation_nodes():
                with self.ledger.part(self.agreement.layer_of(node), "waiting"):
                    bundle.tables[node.name] = self._receive_tables(node)
        return bundle

    def _draw_masks(self, bundle: ClientBundle) -> list[Node]:
        """Draw the shares that do not hang on the server and send what is encrypted of them; the rest is returned."""
        agreement, shares, unsent = self.agreement, bundle.shares, []
        for node in agreement.architecture.nodes:
            if node.operation in ("input", "activation"):
                shares[node.name] = self._random.below(agreement.modulus, node.shape).astype(np.int64)
            elif any(name not in shares for name in node.inputs):
                if node.operation == "linear":
                    unsent.append(node)
            elif node.operation == "linear":
                self._send_encrypted(node, bundle)
            else:
                shares[node.name] = local_operation(node, [shares[i] for i in node.inputs], agreement.modulus)
        return unsent

    def _send_encrypted(self, node: Node, bundle: ClientBundle) -> None:
        with self.ledger.part(node.name, "he"):
            mask = bundle.shares[node.inputs[0]].astype(np.uint64)
            self.channel.send(Message.ENCRYPTED_MASKS, self._linear[node.name].encrypt(mask))

    def _receive_encrypted(self, node: Node, bundle: ClientBundle) -> None:
        with self.ledger.part(node.name, "waiting"):
            reply = self.channel.receive_payload(Message.ENCRYPTED_SHARES)
        with self.ledger.part(node.name, "he"), parsing(Message.ENCRYPTED_SHARES):
            bundle.shares[node.name] = self._linear[node.name].decrypt(bytes(reply)).astype(np.int64)

    def _extend(self, node: Node, bundle: ClientBundle) -> None:
        """Oblivious transfers of the labels of this side's share of an activation's input."""
        agreement = self.agreement
        with self.ledger.part(agreement.layer_of(node), "ot"):
            share = bundle.shares[node.inputs[0]].reshape(-1).astype(np.uint64)
            bits = agreement.circuit(node).evaluator_bits
            choices = choice_bits(evaluator_input(share, agreement.modulus), bits)
            labels, message = self._extension.extend(choices)
            self.channel.send(Message.OT_EXTENSION, message)
            bundle.labels[node.name] = labels.reshape(bits, share.size, 2)

    def _receive_tables(self, node: Node) -> list[bytearray]:
        agreement = self.agreement
        lengths = agreement.table_lengths(node)
        return [self.channel.receive_payload(Message.GARBLED_TABLES, length) for length in lengths]

    def infer(self, bundle: ClientBundle, image: np.ndarray) -> np.ndarray:
        """The online phase: the network's integer outputs, signed, for a quantized image int64 [C, H, W]."""
        agreement, channel = self.agreement, self.channel
        nodes = agreement.architecture.nodes
        with self.ledger.phase("online", bundle.number):
            masked = (image - bundle.shares[nodes[0].name]) % agreement.modulus
            number = bundle.number.to_bytes(8, "little")
            channel.send(Message.INFER, number, agreement.pack_share(masked))
            for node in agreement.activation_nodes():
                self._evaluate(node, bundle)
            with self.ledger.part(agreement.layer_of(nodes[-1]), "waiting"):
                payload = channel.receive_payload(Message.OUTPUT_SHARE)
            server_share = agreement.unpack_share(payload, nodes[-1].shape)
            return to_signed(server_share + bundle.shares.pop(nodes[-1].name), agreement.modulus).reshape(-1)

    def _evaluate(self, node: Node, bundle: ClientBundle) -> None:
        agreement, layer = self.agreement, self.agreement.layer_of(node)
        circuit, count = agreement.circuit(node), int(np.prod(node.shape))
        with self.ledger.part(layer, "waiting"):
            length = circuit.garbler_bits * count * LABEL_BYTES
            payload = self.channel.receive_payload(Message.GARBLER_LABELS, length)
        with self.ledger.part(layer, "garbling"):
            garbler_labels = np.frombuffer(payload, np.uint64).reshape(circuit.garbler_bits, count, 2)
            tables, labels = bundle.tables.pop(node.name), bundle.labels.pop(node.name)
            outputs = evaluate(circuit, count, tables, garbler_labels, labels, agreement.modulus)
            mask = bundle.shares.pop(node.name).reshape(-1)
            reply = (outputs.astype(np.int64) - mask) % agreement.modulus
            self.channel.send(Message.MASKED_ACTIVATION, agreement.pack_share(reply))

    def close(self) -> None:
        """End the session."""
        self.channel.send(Message.GOODBYE)
        self.channel.close()


def _answer(client: Client, images: np.ndarray, line: str) -> dict[str, Any]:
    if not line.strip().isdigit() or int(line) >= len(images):
        raise UserError(f'image "{line.strip()}": expected a number from 0 to {len(images) - 1}')
    image = client.agreement.architecture.quantize_images(images[int(line)][None])[0]
    outputs = client.infer(client.prepare(), image)
    return {"image": int(line), "outputs": outputs.tolist(), "phases": client.ledger.phases[-2:]}


def main(arguments: list[str] | None = None) -> int:
    """Run the client program; 0 when every image was answered."""
    parser = argparse.ArgumentParser(description="Private inference: the client.")
    parser.add_argument("--connect", required=True, metavar="HOST:PORT", help="the server's address")
    parser.add_argument("--dataset", required=True, help="prepared data set; images are numbered in its test split")
    parser.add_argument("--policy", help="policy file that the server's must equal")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds of silence that end the session")
    options = parser.parse_args(arguments)
    try:
        images = load(options.dataset).test.images
        policy = Policy.load(options.policy) if options.policy else None
        client = Client(connect(options.connect, options.timeout), policy)
        print(json.dumps({"phases": client.ledger.phases}), flush=True)
        for line in sys.stdin:
            print(json.dumps(_answer(client, images, line)), flush=True)
        client.close()
    except UserError as error:
        print(f"client: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
