"""The server: it holds the weights and learns nothing of the image.

    python -m autoprivacy.protocol.server --network integer.npz --policy policy.json --listen host:port

prints the address it listens on and serves one client after another.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass, field

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.gc.activation import garbler_input
from autoprivacy.gc.garbling import garble_chunks
from autoprivacy.gc.labels import encode, offset_bits, random_delta, zero_labels
from autoprivacy.gc.oblivious_transfer import BaseReceiver, ExtensionSender
from autoprivacy.he.cipher import ServerCipher
from autoprivacy.he.composite import LayerServer
from autoprivacy.he.linear import no_rotation
from autoprivacy.he.packing.plan import Rotate
from autoprivacy.he.parameters import ParameterSet
from autoprivacy.he.rotation import Rotator
from autoprivacy.policy import Policy
from autoprivacy.protocol.channel import Channel, Message, ProtocolError, listen, parsing, serve_forever
from autoprivacy.protocol.ledger import Ledger
from autoprivacy.protocol.session import Agreement
from autoprivacy.protocol.shares import apply_layer, local_operation
from autoprivacy.quantization.integer_network import IntegerNetwork, Node
from autoprivacy.secure_random import KEY_BYTES, SecureRandom
from autoprivacy.storage import write_json


@dataclass
class ServerBundle:
    """What the offline phase leaves with the server for one image; used once.

    Attributes:
        masks: per linear layer the mask s, int64 [C, H, W] modulo p.
        garbler_zero: per activation the zero labels of its input share, uint64 [bits, ReLUs, 2].
        output_masks: per activation the mask rho of its output, uint64 [ReLUs] modulo p.
    """

    masks: dict[str, np.ndarray] = field(default_factory=dict)
    garbler_zero: dict[str, np.ndarray] = field(default_factory=dict)
    output_masks: dict[str, np.ndarray] = field(default_factory=dict)


class Model:
    """What a server prepares once and every session uses: the weights in transformed form."""

    def __init__(self, network: IntegerNetwork, policy: Policy) -> None:
        self.network = network
        self.agreement = Agreement(network.architecture, policy)
        self.linear = {
            layer.name: LayerServer(
                network.layers[layer.name],
                self.agreement.plan(layer.name),
                layer.parameters,
                policy.flooding,
                layer.target,
            )
            for layer in policy.layers
        }


class Session:
    """One client's session: set-up at once, then whatever phases the client asks for."""

    def __init__(self, model: Model, channel: Channel) -> None:
        self.model = model
        self.agreement = model.agreement
        self.channel = channel
        self.ledger = Ledger(channel)
        self._random = SecureRandom()
        self._bundles: dict[int, ServerBundle] = {}
        self._prepared = 0
        with self.ledger.phase("set-up"):
            self._set_up()

    def _set_up(self) -> None:
        self.channel.send(Message.WELCOME, self.agreement.to_bytes())
        self._ciphers: dict[ParameterSet, ServerCipher] = {}
        self._rotations: dict[ParameterSet, Rotate] = {}
        for parameters in self.agreement.parameter_sets:
            self._receive_keys(parameters)
        with self.ledger.part("all", "waiting"):
            message = self.channel.receive_payload(Message.BASE_OT)
        with self.ledger.part("all", "ot"):
            self._delta = random_delta(self._random)
            base = BaseReceiver(offset_bits(self._delta))
            with parsing(Message.BASE_OT):
                self.channel.send(Message.BASE_OT_REPLY, base.reply(bytes(message)))
            self._extension = ExtensionSender(self._delta, base.seeds)

    def _receive_keys(self, parameters: ParameterSet) -> None:
        with self.ledger.part("all", "waiting"):
            key = self.channel.receive_payload(Message.PUBLIC_KEY)
        with self.ledger.part("all", "he"), parsing(Message.PUBLIC_KEY):
            self._ciphers[parameters] = ServerCipher(parameters, bytes(key))
        elements = self.agreement.galois_elements(parameters)
        if not elements:
            self._rotations[parameters] = no_rotation
            return
        with self.ledger.part("all", "waiting"):
            keys = self.channel.receive_payload(Message.GALOIS_KEYS)
        with self.ledger.part("all", "he"), parsing(Message.GALOIS_KEYS):
            self._rotations[parameters] = Rotator(parameters, elements, bytes(keys)).rotate

    def run(self) -> None:
        """Answer the client's requests until it says goodbye."""
        while True:
            kind, payload = self.channel.receive(Message.PREPARE, Message.INFER, Message.GOODBYE)
            if kind == Message.GOODBYE:
                return
            if kind == Message.PREPARE:
                self._bundles[self._prepared] = self._prepare(self._prepared)
                self._prepared += 1
            else:
                self._infer(payload)

    def _prepare(self, number: int) -> ServerBundle:
        """The offline phase of one bundle."""
        bundle = ServerBundle()
        with self.ledger.phase("offline", number):
            for node in self.agreement.linear_nodes():
                with self.ledger.part(node.name, "waiting"):
                    message = self.channel.receive_payload(Message.ENCRYPTED_MASKS)
                with self.ledger.part(node.name, "he"), parsing(Message.ENCRYPTED_MASKS):
                    mask = self._random.below(self.agreement.modulus, node.shape)
                    linear = self.model.linear[node.name]
                    cipher, rotate = self._ciphers[linear.parameters], self._rotations[linear.parameters]
                    reply = linear.evaluate(cipher, bytes(message), mask, rotate)
                    self.channel.send(Message.ENCRYPTED_SHARES, reply)
                    bundle.masks[node.name] = mask.astype(np.int64)
            for node in self.agreement.activation_nodes():
                self._garble(node, bundle)
        return bundle

    def _garble(self, node: Node, bundle: ServerBundle) -> None:
        """Labels for the client's input bits by oblivious transfer, then the garbled tables chunk by chunk."""
        layer, circuit, count = self.agreement.layer_of(node), self.agreement.circuit(node), int(np.prod(node.shape))
        with self.ledger.part(layer, "waiting"):
            message = self.channel.receive_payload(Message.OT_EXTENSION)
        with self.ledger.part(layer, "ot"), parsing(Message.OT_EXTENSION):
            zero = self._extension.extend(bytes(message), circuit.evaluator_bits * count)
            zero = zero.reshape(circuit.evaluator_bits, count, 2)
        with self.ledger.part(layer, "garbling"):
            garbler_zero = zero_labels(self._random.random_bytes(KEY_BYTES).tobytes(), circuit.garbler_bits, count)
            output_mask = np.empty(count, np.uint64)
            modulus = self.agreement.modulus
            for chunk in garble_chunks(circuit, count, self._delta, garbler_zero, zero, modulus, self._random):
                output_mask[chunk.instances] = chunk.output_mask
                self.channel.send(Message.GARBLED_TABLES, chunk.table.data)
            bundle.garbler_zero[node.name], bundle.output_masks[node.name] = garbler_zero, output_mask

    def _infer(self, payload: bytearray) -> None:
        """The online phase. The bundle is gone before the first message that uses it is sent."""
        agreement = self.agreement
        number = int.from_bytes(payload[:8], "little")
        bundle = self._bundles.pop(number, None)
        if bundle is None:
            raise ProtocolError(f"bundle {number} was used before or never prepared; prepare a new one")
        with self.ledger.phase("online", number):
            shares: dict[str, np.ndarray] = {}
            for node in agreement.architecture.nodes:
                if node.operation == "input":
                    shares[node.name] = agreement.unpack_share(memoryview(payload)[8:], node.shape)
                elif node.operation == "linear":
                    with self.ledger.part(node.name, "linear"):
                        applied = apply_layer(
                            self.model.network.layers[node.name], shares[node.inputs[0]], agreement.modulus
                        )
                        shares[node.name] = (applied + bundle.masks.pop(node.name)) % agreement.modulus
                elif node.operation == "activation":
                    shares[node.name] = self._activate(node, shares[node.inputs[0]], bundle)
                else:
                    inputs = [shares[name] for name in node.inputs]
                    shares[node.name] = local_operation(node, inputs, agreement.modulus)
            self.channel.send(Message.OUTPUT_SHARE, agreement.pack_share(shares[node.name]))

    def _activate(self, node: Node, share: np.ndarray, bundle: ServerBundle) -> np.ndarray:
        """Send the labels of this side's share; the client's answer gives this side's share of the output."""
        agreement, layer = self.agreement, self.agreement.layer_of(node)
        with self.ledger.part(layer, "garbling"):
            bits = garbler_input(share.reshape(-1).astype(np.uint64), agreement.modulus, node.shift)
            labels = encode(bundle.garbler_zero.pop(node.name), self._delta, bits)
            self.channel.send(Message.GARBLER_LABELS, labels.data)
        with self.ledger.part(layer, "waiting"):
            payload = self.channel.receive_payload(Message.MASKED_ACTIVATION)
        masked = agreement.unpack_share(payload, node.shape)
        rho = bundle.output_masks.pop(node.name).astype(np.int64).reshape(node.shape)
        return (masked - rho) % agreement.modulus


def serve(model: Model, channel: Channel) -> Session | None:
    """One client from hello to goodbye. A failure is told to the client and logged, and ends no other session."""
    session = None
    try:
        session = Session(model, channel)
        session.run()
        channel.close()
    except UserError as error:
        logging.warning("session ended: %s", error)
        channel.fail(str(error))
    return session


def main(arguments: list[str] | None = None) -> int:
    """Run the server program."""
    parser = argparse.ArgumentParser(description="Private inference: the server.")
    parser.add_argument("--network", required=True, help="the integer network, npz")
    parser.add_argument("--policy", required=True, help="the policy file")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0: any free one")
    parser.add_argument("--report", help="write where the first session's time went to this file, then stop")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds of silence that end a session")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="server: %(message)s")

    def answer(channel: Channel) -> None:
        session = serve(model, channel)
        if options.report:
            write_json(options.report, {"phases": session.ledger.phases if session else []})
            raise SystemExit(0)

    try:
        model = Model(IntegerNetwork.load(options.network), Policy.load(options.policy))
        with listen(options.listen) as listener:
            host, port = listener.getsockname()[:2]
            print(f"{host}:{port}", flush=True)
            serve_forever(listener, options.timeout, answer)
    except UserError as error:
        print(f"server: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
