"""The client: it holds the image and learns the network's output, nothing of the weights but their public shapes.

    python -m autoprivacy.protocol.client --connect host:port --dataset prepared.npz

reads the numbers of test images on standard input, one a line, and answers each with one line of JSON. With `--pool N`
it prepares N bundles ahead and fills them up again while no image waits; an image then takes the online phase alone.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from autoprivacy.data.dataset import load
from autoprivacy.errors import UserError
from autoprivacy.gc.garbling import evaluate
from autoprivacy.gc.labels import LABEL_BYTES
from autoprivacy.he.bfv.cipher import ClientCipher
from autoprivacy.he.bfv.components import LayerClient
from autoprivacy.he.bfv.rotation import GaloisKeyMaker
from autoprivacy.he.bfv.triples import TripleClient
from autoprivacy.he.parameters.parameter_set import ParameterSet
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.ot.extension import BaseSender, ExtensionReceiver, choice_bits
from autoprivacy.protocol.bundles import NUMBER_BYTES, ClientBundle, Pool
from autoprivacy.protocol.channel import Channel, Message, ProtocolError, parsing
from autoprivacy.protocol.endpoints import ServiceSettings, add_link_options, connect, link_of
from autoprivacy.protocol.ledger import EVERY_LAYER, Ledger
from autoprivacy.protocol.session import Agreement, pack_shares, unpack_shares
from autoprivacy.protocol.shares import local_shares, masked_square
from autoprivacy.quantization.integer_network import Architecture, Node, to_signed
from autoprivacy.randomness.generator import SecureRandom

STOPPED = "the client stopped"  # what the server is told of all that is no fault of the protocol
INTERRUPTED = 130  # exit status of a program that Ctrl-C ended: 128 and the signal's number


class Client:
    """One session with a server.

    Args:
        channel: the connection.
        policy, architecture: what this side expects; None accepts the server's (the security of its parameters is
            checked in any case).
    """

    def __init__(
        self, channel: Channel, policy: Policy | None = None, architecture: Architecture | None = None
    ) -> None:
        self.channel = channel
        self.ledger = Ledger(channel)
        self._random = SecureRandom()
        self._unused: Pool[ClientBundle] = Pool(sys.maxsize)  # the server has the limit
        with self.ledger.phase("set-up"):
            with self.ledger.part(EVERY_LAYER, "waiting"):
                welcome = channel.receive_payload(Message.WELCOME)
            with self.ledger.part(EVERY_LAYER, "session"):
                self.agreement = Agreement.from_bytes(welcome)
                self.agreement.check_expected(policy, architecture)
            self._set_up()

    def _set_up(self) -> None:
        agreement, ledger = self.agreement, self.ledger
        ciphers: dict[ParameterSet, ClientCipher] = {}
        for parameters in agreement.parameter_sets:
            with ledger.part(EVERY_LAYER, "session"):
                elements = agreement.galois_elements(parameters)
            with ledger.part(EVERY_LAYER, "he"):
                cipher = ciphers[parameters] = ClientCipher(parameters)
                self.channel.send(Message.PUBLIC_KEY, cipher.public_key())
                if elements:
                    self.channel.send(Message.GALOIS_KEYS, GaloisKeyMaker(cipher).keys(elements))
        with ledger.part(EVERY_LAYER, "session"):
            self._linear = {
                layer.name: LayerClient(
                    agreement.architecture.layer(layer.name),
                    agreement.plan(layer.name),
                    layer.parameters,
                    ciphers[layer.parameters],
                    agreement.reply_bits(layer.name),
                )
                for layer in agreement.policy.layers
            }
            if triples := agreement.policy.triples:
                cipher = ciphers[triples.parameters]
                self._triples = TripleClient(agreement.triple_count, triples.parameters, cipher, triples.reply_bits)
        with ledger.part(EVERY_LAYER, "ot"):
            base = BaseSender()
            self.channel.send(Message.BASE_OT, base.message())
        with ledger.part(EVERY_LAYER, "waiting"):
            reply = self.channel.receive_payload(Message.BASE_OT_REPLY)
        with ledger.part(EVERY_LAYER, "ot"), parsing(Message.BASE_OT_REPLY):
            self._extension = ExtensionReceiver(base.finish(bytes(reply)))

    def prepare(self) -> ClientBundle:
        """The offline phase for one image: shares of every layer, labels and garbled tables."""
        number = int.from_bytes(self._random.random_bytes(NUMBER_BYTES).tobytes(), "little")
        bundle = ClientBundle(number, self._unused.open(number))
        with self.ledger.phase("offline", bundle.index):
            with self.ledger.part(EVERY_LAYER, "session"):
                self.channel.send(Message.PREPARE, number.to_bytes(NUMBER_BYTES, "little"))
            unsent = self._draw_masks(bundle)
            for node in self.agreement.architecture.nodes:
                if node.operation == "linear":
                    if node in unsent:  # its input hangs on an earlier reply
                        self._send_encrypted(node, bundle)
                    self._receive_encrypted(node, bundle)
                elif node.operation == "activation":
                    self._extend(node, bundle)
                elif node.name not in bundle.shares:
                    self._share(node, bundle)
            squares = self.agreement.architecture.squares
            if squares:
                self._send_factors(squares, bundle)
            for node in self.agreement.activation_nodes():
                with self.ledger.part(self.agreement.layer_of(node), "waiting"):
                    bundle.tables[node.name] = self._receive_tables(node)
            if squares:
                self._receive_products(squares, bundle)
        self._unused.put(bundle)
        return bundle

    def _draw_masks(self, bundle: ClientBundle) -> list[Node]:
        """Draw the shares that do not hang on the server and send what is encrypted of them; the rest is returned."""
        agreement, shares, unsent = self.agreement, bundle.shares, []
        for node in agreement.architecture.nodes:
            if node.operation in ("input", "activation"):
                with self.ledger.part(agreement.layer_of(node), "shares"):
                    draw = self._random.below
                    shares[node.name] = {p: draw(p, node.shape).astype(np.int64) for p in agreement.moduli(node)}
            elif any(name not in shares for name in node.inputs):
                if node.operation == "linear":
                    unsent.append(node)
            elif node.operation == "linear":
                self._send_encrypted(node, bundle)
            else:
                self._share(node, bundle)
        return unsent

    def _share(self, node: Node, bundle: ClientBundle) -> None:
        """This side's share of what each party computes on its own."""
        with self.ledger.part(self.agreement.layer_of(node), "shares"):
            bundle.shares[node.name] = local_shares(node, bundle.shares, self.agreement.moduli(node))

    def _send_encrypted(self, node: Node, bundle: ClientBundle) -> None:
        with self.ledger.part(node.name, "he"):
            mask = bundle.shares[node.inputs[0]][self.agreement.modulus(node.name)].astype(np.uint64)
            self.channel.send(Message.ENCRYPTED_MASKS, self._linear[node.name].encrypt(mask))

    def _receive_encrypted(self, node: Node, bundle: ClientBundle) -> None:
        with self.ledger.part(node.name, "waiting"):
            reply = self.channel.receive_payload(Message.ENCRYPTED_SHARES)
        with self.ledger.part(node.name, "he"), parsing(Message.ENCRYPTED_SHARES):
            share = self._linear[node.name].decrypt(bytes(reply)).astype(np.int64)
            bundle.shares[node.name] = {self.agreement.modulus(node.name): share}

    def _send_factors(self, squares: Sequence[Node], bundle: ClientBundle) -> None:
        """Draw a factor for every value that is squared and send all of them encrypted."""
        with self.ledger.part(EVERY_LAYER, "shares"):
            drawn = {node: self._random.below(self.agreement.output_modulus, node.shape) for node in squares}
            bundle.factors = {node.name: factor.astype(np.int64) for node, factor in drawn.items()}
        with self.ledger.part(EVERY_LAYER, "he"):
            factors = np.concatenate([factor.reshape(-1) for factor in drawn.values()])
            self.channel.send(Message.TRIPLE_FACTORS, self._triples.encrypt(factors))

    def _receive_products(self, squares: Sequence[Node], bundle: ClientBundle) -> None:
        """This side's shares of the factors' products with the masks of the activations' outputs."""
        with self.ledger.part(EVERY_LAYER, "waiting"):
            reply = self.channel.receive_payload(Message.TRIPLE_PRODUCTS)
        with self.ledger.part(EVERY_LAYER, "he"), parsing(Message.TRIPLE_PRODUCTS):
            products = self._triples.decrypt(bytes(reply)).astype(np.int64)
            ends = np.cumsum([int(np.prod(node.shape)) for node in squares])
            parts = np.split(products, ends[:-1])
            bundle.products = {node.name: part.reshape(node.shape) for node, part in zip(squares, parts, strict=True)}

    def _extend(self, node: Node, bundle: ClientBundle) -> None:
        """Oblivious transfers of the labels of this side's share of an activation's input."""
        agreement = self.agreement
        with self.ledger.part(agreement.layer_of(node), "ot"):
            share = bundle.shares[node.inputs[0]][agreement.read_modulus(node)].reshape(-1).astype(np.uint64)
            activation = agreement.activation(node)
            bits = activation.share_bits
            choices = choice_bits(activation.evaluator_input(share), bits)
            labels, message = self._extension.extend(choices)
            self.channel.send(Message.OT_EXTENSION, message)
            bundle.labels[node.name] = labels.reshape(bits, share.size, 2)

    def _receive_tables(self, node: Node) -> list[bytearray]:
        agreement = self.agreement
        lengths = agreement.table_lengths(node)
        return [self.channel.receive_payload(Message.GARBLED_TABLES, length) for length in lengths]

    def infer(self, bundle: ClientBundle, image: np.ndarray) -> np.ndarray:
        """The online phase: the network's integer outputs, signed, for a quantized image int64 [C, H, W].

        Raises:
            ProtocolError: the bundle was used before or is another session's; nothing has been sent then.
        """
        agreement, channel = self.agreement, self.channel
        nodes = agreement.architecture.nodes
        self._unused.take(bundle.number)
        with self.ledger.phase("online", bundle.index):
            with self.ledger.part(agreement.layer_of(nodes[0]), "shares"):
                masked = {p: (image - mask) % p for p, mask in bundle.shares.pop(nodes[0].name).items()}
                number = bundle.number.to_bytes(NUMBER_BYTES, "little")
                channel.send(Message.INFER, number, pack_shares(masked))
            for node in agreement.activation_nodes():
                self._evaluate(node, bundle)
            layer = agreement.layer_of(nodes[-1])
            with self.ledger.part(layer, "waiting"):
                payload = channel.receive_payload(Message.OUTPUT_SHARE)
            with self.ledger.part(layer, "shares"):
                modulus = agreement.output_modulus
                server_share = unpack_shares(payload, (modulus,), nodes[-1].shape)[modulus]
                outputs = to_signed(server_share + bundle.shares.pop(nodes[-1].name)[modulus], modulus)
        return outputs.reshape(-1)

    def _evaluate(self, node: Node, bundle: ClientBundle) -> None:
        agreement, layer = self.agreement, self.agreement.layer_of(node)
        circuit, count, moduli = agreement.activation(node).circuit, int(np.prod(node.shape)), agreement.moduli(node)
        with self.ledger.part(layer, "waiting"):
            length = circuit.garbler_bits * count * LABEL_BYTES
            payload = self.channel.receive_payload(Message.GARBLER_LABELS, length)
        with self.ledger.part(layer, "garbling"), parsing(Message.GARBLED_TABLES):
            garbler_labels = np.frombuffer(payload, np.uint64).reshape(circuit.garbler_bits, count, 2)
            tables, labels = bundle.tables.pop(node.name), bundle.labels.pop(node.name)
            outputs = evaluate(circuit, count, tables, garbler_labels, labels, moduli).astype(np.int64)
        with self.ledger.part(layer, "shares"):
            masks, own = bundle.shares.pop(node.name), outputs.reshape(-1, *node.shape)
            if node.squared:
                (p,), factor, product = moduli, bundle.factors.pop(node.name), bundle.products.pop(node.name)
                reply = {p: masked_square(own[0], factor, product, masks[p], p)}
            else:
                reply = {p: (row - masks[p]) % p for p, row in zip(moduli, own, strict=True)}
            self.channel.send(Message.MASKED_ACTIVATION, pack_shares(reply))

    def close(self) -> None:
        """End the session."""
        with self.ledger.phase("closing"), self.ledger.part(EVERY_LAYER, "session"):
            self.channel.send(Message.GOODBYE)
        self.channel.close()


class _Answering:
    """Answers image numbers, from bundles prepared ahead as far as there are any."""

    def __init__(self, client: Client, images: np.ndarray, pool: int) -> None:
        self._client, self._images, self._capacity = client, images, pool
        self._ready: list[ClientBundle] = []
        self._told = 0  # phases

    def fill(self) -> bool:
        """Prepare one bundle more; False where the pool is full."""
        if len(self._ready) >= self._capacity:
            return False
        self._ready.append(self._client.prepare())
        return True

    def tell(self, **more: Any) -> None:
        """Print a line of JSON: `more`, and what the ledger has had since the last line."""
        report = self._client.ledger.report(self._told)
        self._told += len(report["phases"])
        print(json.dumps({**more, **report}), flush=True)

    def answer(self, line: str) -> None:
        """One private inference; UserError for a line that is no image's number."""
        text = line.strip()
        if not (text.isascii() and text.isdecimal()) or int(text) >= len(self._images):
            raise UserError(f"image {text!r}: expected a number from 0 to {len(self._images) - 1}")
        start = time.perf_counter()
        prepared_ahead = bool(self._ready)
        bundle = self._ready.pop(0) if prepared_ahead else self._client.prepare()
        image = self._client.agreement.architecture.quantize_images(self._images[int(line)][None])[0]
        outputs = self._client.infer(bundle, image).tolist()
        seconds = time.perf_counter() - start
        self.tell(image=int(line), outputs=outputs, prepared_ahead=prepared_ahead, seconds=seconds)


def _lines(stream: IO[str]) -> queue.SimpleQueue[str | None]:
    """The lines of a stream as they come, then None."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def _answer_all(client: Client, images: np.ndarray, pool: int) -> None:
    """Fill the pool, then answer every line of standard input; while none waits, fill it up again.

    Raises:
        UserError: the images are not of the network's shape, or a line is no image's number.
    """
    channels, height, width = client.agreement.architecture.nodes[0].shape
    if images.shape[1:] != (height, width, channels):
        raise UserError(
            f"the data set's images have height, width, channels {images.shape[1:]}; the server's network takes "
            f"{(height, width, channels)}: give --dataset the one that it was made for"
        )
    answering = _Answering(client, images, pool)
    while answering.fill():
        pass
    answering.tell()
    lines = _lines(sys.stdin)
    while True:
        if lines.empty() and answering.fill():
            continue
        line = lines.get()
        if line is None:
            break
        answering.answer(line)
    client.close()
    answering.tell()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Private inference: the client.")
    parser.add_argument("--connect", required=True, metavar="HOST:PORT", help="the server's address")
    parser.add_argument("--dataset", required=True, help="prepared data set; images are numbered in its test split")
    parser.add_argument("--policy", help="policy file that the server's must equal")
    parser.add_argument("--announcement", help="file of `server --announce`: policy and architecture that must be told")
    parser.add_argument("--pool", type=int, default=0, help="bundles to prepare ahead and to keep ready")
    parser.add_argument(
        "--timeout", type=float, default=ServiceSettings.timeout, help="seconds of silence that end the session"
    )
    add_link_options(parser)
    return parser


def _expected(options: argparse.Namespace) -> tuple[Policy | None, Architecture | None]:
    if options.announcement is None:
        return (Policy.load(options.policy) if options.policy else None), None
    try:
        announced = Agreement.from_bytes(Path(options.announcement).read_bytes())
    except OSError as error:
        raise UserError(f"{options.announcement}: cannot be read ({error.strerror})") from None
    except ProtocolError:
        raise UserError(
            f"{options.announcement}: not an announcement; make it with the server's --announce option"
        ) from None
    return (Policy.load(options.policy) if options.policy else announced.policy), announced.architecture


def main(arguments: list[str] | None = None) -> int:
    """Run the client program; 0 when every image was answered."""
    options = _parser().parse_args(arguments)
    channel = None
    try:
        if options.pool < 0:
            raise UserError(f"--pool {options.pool}: expected 0 or more bundles")
        images = load(options.dataset).test.images
        expected = _expected(options)
        channel = connect(options.connect, options.timeout, link_of(options))
        _answer_all(Client(channel, *expected), images, options.pool)
    except UserError as error:
        print(f"client: {error}", file=sys.stderr)
        if channel is not None:
            # Words about this side's input are none of the server's business.
            channel.fail(str(error) if isinstance(error, ProtocolError) else STOPPED)
        return 1
    except KeyboardInterrupt:
        if channel is not None:
            channel.fail(STOPPED)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
