"""The server: it holds the weights and learns nothing of the image.

    python -m autoprivacy.protocol.server --network integer.npz --policy policy.json --listen host:port

prints the address it listens on and serves its clients, each in a thread with keys and bundles of its own.
"""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.gc.garbling import garble_chunks
from autoprivacy.gc.labels import encode, offset_bits, random_delta, zero_labels
from autoprivacy.he.bfv.cipher import ServerCipher
from autoprivacy.he.bfv.components import LayerServer
from autoprivacy.he.bfv.linear import no_rotation
from autoprivacy.he.bfv.rotation import Rotator
from autoprivacy.he.bfv.triples import TripleServer
from autoprivacy.he.packing.plan import Rotate
from autoprivacy.he.parameters.parameter_set import ParameterSet
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.ot.extension import BaseReceiver, ExtensionSender
from autoprivacy.protocol.bundles import NUMBER_BYTES, Pool, ServerBundle
from autoprivacy.protocol.channel import Channel, Message, ProtocolError, parsing
from autoprivacy.protocol.endpoints import (
    ServiceSettings,
    accept,
    add_link_options,
    link_of,
    listen,
    serve_clients,
)
from autoprivacy.protocol.ledger import EVERY_LAYER, Ledger
from autoprivacy.protocol.session import Agreement, pack_shares, unpack_shares
from autoprivacy.protocol.shares import ModularShares, apply_layer, local_shares, square_share
from autoprivacy.quantization.integer_network import IntegerNetwork, Node
from autoprivacy.randomness.generator import KEY_BYTES, SecureRandom
from autoprivacy.storage import write_json


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
                self.agreement.reply_bits(layer.name),
            )
            for layer in policy.layers
        }
        if triples := policy.triples:
            count, parameters = self.agreement.triple_count, triples.parameters
            self.triples = TripleServer(count, parameters, policy.flooding, triples.target, triples.reply_bits)


class Session:
    """One client's session: set-up at once, then whatever phases the client asks for.

    Args:
        model: shared with all other sessions, which change nothing in it.
        channel: the connection.
        pool: bundles that the client may hold at a time.
    """

    def __init__(self, model: Model, channel: Channel, pool: int = ServiceSettings.pool) -> None:
        self.model = model
        self.agreement = model.agreement
        self.channel = channel
        self.ledger = Ledger(channel)
        self._random = SecureRandom()
        self._pool: Pool[ServerBundle] = Pool(pool)
        with self.ledger.phase("set-up"):
            self._set_up()

    def _set_up(self) -> None:
        with self.ledger.part(EVERY_LAYER, "session"):
            self.channel.send(Message.WELCOME, self.agreement.to_bytes())
        self._ciphers: dict[ParameterSet, ServerCipher] = {}
        self._rotations: dict[ParameterSet, Rotate] = {}
        for parameters in self.agreement.parameter_sets:
            self._receive_keys(parameters)
        with self.ledger.part(EVERY_LAYER, "waiting"):
            message = self.channel.receive_payload(Message.BASE_OT)
        with self.ledger.part(EVERY_LAYER, "ot"):
            self._delta = random_delta(self._random)
            base = BaseReceiver(offset_bits(self._delta))
            with parsing(Message.BASE_OT):
                self.channel.send(Message.BASE_OT_REPLY, base.reply(bytes(message)))
            self._extension = ExtensionSender(self._delta, base.seeds)

    def _receive_keys(self, parameters: ParameterSet) -> None:
        with self.ledger.part(EVERY_LAYER, "waiting"):
            key = self.channel.receive_payload(Message.PUBLIC_KEY)
        with self.ledger.part(EVERY_LAYER, "he"), parsing(Message.PUBLIC_KEY):
            self._ciphers[parameters] = ServerCipher(parameters, bytes(key))
        with self.ledger.part(EVERY_LAYER, "session"):
            elements = self.agreement.galois_elements(parameters)
        if not elements:
            self._rotations[parameters] = no_rotation
            return
        with self.ledger.part(EVERY_LAYER, "waiting"):
            keys = self.channel.receive_payload(Message.GALOIS_KEYS)
        with self.ledger.part(EVERY_LAYER, "he"), parsing(Message.GALOIS_KEYS):
            self._rotations[parameters] = Rotator(parameters, elements, bytes(keys)).rotate

    def run(self) -> None:
        """Answer the client's requests until it says goodbye."""
        while True:
            kind, payload = self.channel.receive(Message.PREPARE, Message.INFER, Message.GOODBYE)
            _check_request(kind, len(payload))
            if kind == Message.GOODBYE:
                with self.ledger.phase("closing"):
                    return
            number = int.from_bytes(payload[:NUMBER_BYTES], "little")
            if kind == Message.PREPARE:
                self._prepare(number)
            else:
                self._infer(self._pool.take(number), memoryview(payload)[NUMBER_BYTES:])

    def _prepare(self, number: int) -> None:
        """The offline phase for one image."""
        bundle = ServerBundle(number, self._pool.open(number))
        with self.ledger.phase("offline", bundle.index):
            for node in self.agreement.linear_nodes():
                self._evaluate(node, bundle)
            for node in self.agreement.activation_nodes():
                self._garble(node, bundle)
            if squares := self.agreement.architecture.squares:
                self._multiply(squares, bundle)
        self._pool.put(bundle)

    def _evaluate(self, node: Node, bundle: ServerBundle) -> None:
        """Enc(M r - s) for the client's Enc(r)."""
        with self.ledger.part(node.name, "waiting"):
            message = self.channel.receive_payload(Message.ENCRYPTED_MASKS)
        with self.ledger.part(node.name, "he"), parsing(Message.ENCRYPTED_MASKS):
            mask = self._random.below(self.agreement.modulus(node.name), node.shape)
            linear = self.model.linear[node.name]
            cipher, rotate = self._ciphers[linear.parameters], self._rotations[linear.parameters]
            reply = linear.evaluate(cipher, bytes(message), mask, rotate)
            self.channel.send(Message.ENCRYPTED_SHARES, reply)
            bundle.masks[node.name] = mask.astype(np.int64)

    def _garble(self, node: Node, bundle: ServerBundle) -> None:
        """Labels for the client's input bits by oblivious transfer, then the garbled tables chunk by chunk."""
        layer, moduli, count = self.agreement.layer_of(node), self.agreement.moduli(node), int(np.prod(node.shape))
        circuit = self.agreement.activation(node).circuit
        with self.ledger.part(layer, "waiting"):
            message = self.channel.receive_payload(Message.OT_EXTENSION)
        with self.ledger.part(layer, "ot"), parsing(Message.OT_EXTENSION):
            zero = self._extension.extend(message, circuit.evaluator_bits * count)
            zero = zero.reshape(circuit.evaluator_bits, count, 2)
        with self.ledger.part(layer, "garbling"):
            garbler_zero = zero_labels(self._random.random_bytes(KEY_BYTES).tobytes(), circuit.garbler_bits, count)
            output_masks = np.empty((len(moduli), count), np.uint64)
            for chunk in garble_chunks(circuit, count, self._delta, garbler_zero, zero, moduli, self._random):
                output_masks[:, chunk.instances] = chunk.output_masks
                self.channel.send(Message.GARBLED_TABLES, chunk.table.data)
            bundle.garbler_zero[node.name], bundle.output_masks[node.name] = garbler_zero, output_masks

    def _multiply(self, squares: Sequence[Node], bundle: ServerBundle) -> None:
        """Enc(a rho - m) for the client's Enc(a), rho the masks of all squared activations' inputs."""
        with self.ledger.part(EVERY_LAYER, "waiting"):
            message = self.channel.receive_payload(Message.TRIPLE_FACTORS)
        with self.ledger.part(EVERY_LAYER, "he"), parsing(Message.TRIPLE_FACTORS):
            triples = self.model.triples
            factors = np.concatenate([bundle.output_masks[node.name][0] for node in squares])
            masks = {node: self._random.below(self.agreement.output_modulus, node.shape) for node in squares}
            own = np.concatenate([mask.reshape(-1) for mask in masks.values()])
            reply = triples.multiply(self._ciphers[triples.parameters], bytes(message), factors, own)
            self.channel.send(Message.TRIPLE_PRODUCTS, reply)
            bundle.products = {node.name: mask.astype(np.int64) for node, mask in masks.items()}

    def _infer(self, bundle: ServerBundle, masked_image: memoryview) -> None:
        """The online phase. The pool has forgotten the bundle, so that nothing can use it again."""
        agreement = self.agreement
        with self.ledger.phase("online", bundle.index):
            shares: dict[str, ModularShares] = {}
            for node in agreement.architecture.nodes:
                if node.operation == "linear":
                    with self.ledger.part(node.name, "linear"):
                        p = agreement.modulus(node.name)
                        applied = apply_layer(self.model.network.layers[node.name], shares[node.inputs[0]][p], p)
                        shares[node.name] = {p: (applied + bundle.masks.pop(node.name)) % p}
                elif node.operation == "activation":
                    shares[node.name] = self._activate(node, shares[node.inputs[0]], bundle)
                else:
                    with self.ledger.part(agreement.layer_of(node), "shares"):
                        moduli = agreement.moduli(node)
                        shares[node.name] = (
                            unpack_shares(masked_image, moduli, node.shape)
                            if node.operation == "input"
                            else local_shares(node, shares, moduli)
                        )
            with self.ledger.part(agreement.layer_of(node), "shares"):
                output = agreement.output_modulus
                self.channel.send(Message.OUTPUT_SHARE, pack_shares({output: shares[node.name][output]}))

    def _activate(self, node: Node, shares: ModularShares, bundle: ServerBundle) -> ModularShares:
        """Send the labels of this side's share; the client's answer gives this side's shares of the output."""
        agreement, layer = self.agreement, self.agreement.layer_of(node)
        with self.ledger.part(layer, "garbling"):
            share = shares[agreement.read_modulus(node)].reshape(-1).astype(np.uint64)
            bits = agreement.activation(node).garbler_input(share)
            labels = encode(bundle.garbler_zero.pop(node.name), self._delta, bits)
            self.channel.send(Message.GARBLER_LABELS, labels.data)
        with self.ledger.part(layer, "waiting"):
            payload = self.channel.receive_payload(Message.MASKED_ACTIVATION)
        with self.ledger.part(layer, "shares"):
            masked = unpack_shares(payload, agreement.moduli(node), agreement.answer_shape(node))
            rhos = bundle.output_masks.pop(node.name).astype(np.int64).reshape(-1, *node.shape)
            if node.squared:
                (p,), product = masked, bundle.products.pop(node.name)
                return {p: square_share(masked[p], rhos[0], product, p)}
            return {p: (share - rho) % p for (p, share), rho in zip(masked.items(), rhos, strict=True)}


def _check_request(kind: Message, length: int) -> None:
    """ProtocolError for a request of the wrong length; INFER's share is checked where it is unpacked."""
    expected = 0 if kind == Message.GOODBYE else NUMBER_BYTES
    if length < expected or (length > expected and kind != Message.INFER):
        raise ProtocolError(f"{kind.name}: {length} bytes, expected {expected}")


def serve(model: Model, channel: Channel, pool: int = ServiceSettings.pool) -> Session | None:
    """One client from hello to goodbye; the session, or None where it failed.

    A failure is told to the client and logged, and ends no other session.
    """
    try:
        session = Session(model, channel, pool)
        session.run()
        channel.close()
        return session
    except UserError as error:
        logging.warning("session ended: %s", error)
        channel.fail(str(error))
    except Exception:  # a fault of this program, which is to cost one client its session and no more
        logging.exception("session ended by a fault of the server")
        channel.fail("a fault of the server, whose log has more")
    return None


def _parser() -> argparse.ArgumentParser:
    default = ServiceSettings()
    parser = argparse.ArgumentParser(description="Private inference: the server.")
    parser.add_argument("--network", required=True, help="the integer network, npz")
    parser.add_argument("--policy", required=True, help="the policy file")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0: any free one")
    parser.add_argument("--announce", metavar="FILE", help="write what clients are told (JSON) to this file, then stop")
    parser.add_argument("--report", help="write where the first session's time went to this file, then stop")
    parser.add_argument("--timeout", type=float, default=default.timeout, help="seconds of silence that end a session")
    parser.add_argument("--clients", type=int, default=default.clients, help="served at a time; others are refused")
    parser.add_argument("--pool", type=int, default=default.pool, help="bundles that a client may hold ready")
    add_link_options(parser)
    return parser


def _serve_one(model: Model, listener: socket.socket, settings: ServiceSettings, report: str) -> int:
    """The exit status: 1, and no report, where the session failed."""
    session = serve(model, accept(listener, settings), settings.pool)
    if session is None:
        return 1
    write_json(report, session.ledger.report())
    return 0


def _announce(agreement: Agreement, path: str) -> None:
    try:
        Path(path).write_bytes(agreement.to_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def _run(options: argparse.Namespace) -> int:
    settings = ServiceSettings(options.clients, options.pool, options.timeout, link_of(options))
    network, policy = IntegerNetwork.load(options.network), Policy.load(options.policy)
    if options.announce:
        _announce(Agreement(network.architecture, policy), options.announce)
        return 0
    model = Model(network, policy)
    with listen(options.listen) as listener:
        host, port = listener.getsockname()[:2]
        print(f"{host}:{port}", flush=True)
        if options.report:
            return _serve_one(model, listener, settings, options.report)
        serve_clients(listener, settings, partial(serve, model, pool=settings.pool))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the server program."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="server: %(message)s")
    try:
        return _run(options)
    except UserError as error:
        print(f"server: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
