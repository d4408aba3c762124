"""The client's side of a session: it holds the image and learns the network's output, nothing of the weights but their
public shapes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprivacy.he.bfv.cipher import ClientCipher
from autoprivacy.he.bfv.linear import ClientLinear
from autoprivacy.he.bfv.rotation import GaloisKeyMaker
from autoprivacy.he.bfv.triples import TripleClient
from autoprivacy.he.parameters.parameter_set import ParameterSet
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.lookup.hash_keys import HashKeys
from autoprivacy.lookup.wave import Party
from autoprivacy.ot.labels import random_delta
from autoprivacy.ot.setup import ANSWER_BYTES, HELLO_BYTES, TransferSetup
from autoprivacy.protocol.answers import AnswerClient
from autoprivacy.protocol.bundles import MAXIMUM_KEPT, NUMBER_BYTES, ClientBundle, Pool, Seed, seeded_shares
from autoprivacy.protocol.channel import Channel
from autoprivacy.protocol.client_memory import ClientMemory
from autoprivacy.protocol.garbled import ClientGarbling, GarbledClient
from autoprivacy.protocol.kept_bundles import BundleFolder, KeptClientBundles, kept_numbers
from autoprivacy.protocol.ledger import EVERY_LAYER, Ledger
from autoprivacy.protocol.looked_up import LOOKUP_KEY, LookupParty, Lookups, random_transfers
from autoprivacy.protocol.messages import Message, ProtocolError, parsing
from autoprivacy.protocol.session import Agreement, pack_shares, unpack_shares
from autoprivacy.protocol.shares import ModularShares, local_shares, masked_square
from autoprivacy.quantization.integer_network import Architecture, Node, to_signed
from autoprivacy.randomness.generator import SecureRandom

DEFAULT_MEMORY = ClientMemory()


class Client:
    """One session with a server.

    Args:
        channel: the connection.
        policy, architecture: what this side expects; None accepts the server's (the security of its parameters is
            checked in any case).
        memory: what the session may take of it.

    Raises:
        ProtocolError: the server is another than expected, or its network takes more memory than allowed.
    """

    def __init__(
        self,
        channel: Channel,
        policy: Policy | None = None,
        architecture: Architecture | None = None,
        memory: ClientMemory = DEFAULT_MEMORY,
    ) -> None:
        self.channel = channel
        self.ledger = Ledger(channel)
        self._random = SecureRandom()
        with self.ledger.phase("set-up"):
            with self.ledger.part(EVERY_LAYER, "session"):
                channel.send(Message.HELLO)
            with self.ledger.part(EVERY_LAYER, "waiting"):
                welcome = channel.receive_payload(Message.WELCOME)
            with self.ledger.part(EVERY_LAYER, "session"):
                self.agreement = Agreement.from_bytes(welcome)
                self.agreement.check_expected(policy, architecture)
                self.lengths = self.agreement.lengths
                self._unused: Pool[ClientBundle] = Pool(memory.bundles(self.lengths))
                channel.admit(self.lengths.client_bounds)
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
                layer.name: ClientLinear(
                    agreement.plan(layer.name),
                    ciphers[layer.parameters],
                    agreement.reply_bits(layer.name),
                )
                for layer in agreement.policy.layers
            }
            if triples := agreement.policy.triples:
                cipher = ciphers[triples.parameters]
                self._triples = TripleClient(agreement.triple_count, triples.parameters, cipher, triples.reply_bits)
        self._set_up_transfers()

    def _set_up_transfers(self) -> None:
        """Correlated transfers in both directions."""
        ledger, channel = self.ledger, self.channel
        with ledger.part(EVERY_LAYER, "ot"):
            delta = random_delta(self._random)
            setup = TransferSetup(delta, self.agreement.transfers)
            channel.send(Message.BASE_OT, setup.hello())
        with ledger.part(EVERY_LAYER, "waiting"):
            reply = channel.receive_payload(Message.BASE_OT_REPLY, HELLO_BYTES + ANSWER_BYTES)
        with ledger.part(EVERY_LAYER, "ot"), parsing(Message.BASE_OT_REPLY):
            answer = setup.answer(reply[:HELLO_BYTES])
            channel.send(Message.OT_TREES, answer, setup.trees(reply[HELLO_BYTES:]))
        with ledger.part(EVERY_LAYER, "waiting"):
            trees = channel.receive_payload(Message.OT_TREES, self.lengths.trees)
        with ledger.part(EVERY_LAYER, "ot"), parsing(Message.OT_TREES):
            ends = setup.finish(trees)
        transfers = random_transfers(channel, ledger, self.lengths, setup)
        party = Party(True, delta, transfers, HashKeys(setup.session_key(LOOKUP_KEY)))
        self._garbled = GarbledClient(channel, ledger, self.agreement, ends[0])
        self._lookups = LookupParty(channel, ledger, self.agreement, party)
        function = self.agreement.answer
        self._answer = AnswerClient(channel, ledger, self.agreement, function, ends[0]) if function else None

    def prepare(self) -> ClientBundle:
        """The offline phase for one image: shares of every layer, labels and garbled tables."""
        number = int.from_bytes(self._random.random_bytes(NUMBER_BYTES).tobytes(), "little")
        bundle = ClientBundle(number, self._unused.open(number))
        with self.ledger.phase("offline", bundle.index):
            with self.ledger.part(EVERY_LAYER, "session"):
                self.channel.send(Message.PREPARE, number.to_bytes(NUMBER_BYTES, "little"))
            unsent = self._draw_masks(bundle)
            kinds, garbled = self.agreement.kinds, dict[Node, ClientGarbling]()
            for node in self.agreement.architecture.nodes:
                if node.operation == "linear":
                    if node in unsent:  # its input depends on an earlier reply
                        self._send_encrypted(node, bundle)
                    self._receive_encrypted(node, bundle)
                elif node.operation == "activation":
                    if kinds[node.name] == "garbled":
                        garbled[node] = self._garbled.request(node, bundle.shares[node.inputs[0]])
                elif node.name not in bundle.shares:
                    self._share(node, bundle)
            if self._answer:
                bundle.answer = self._answer.request(self._output_share(bundle))
            squares = self.agreement.garbled_squares
            if squares:
                self._send_factors(squares, bundle)
            for node, kept in garbled.items():
                self._garbled.receive(node, kept)
                bundle.activations[node.name] = kept
            if self._answer and bundle.answer:
                self._answer.receive(bundle.answer)
            if squares:
                self._receive_products(squares, bundle)
            bundle.activations |= self._lookups.prepare(self._unused.packs_next, bundle.shares)
            self._settle(bundle)
        self._unused.put(bundle)
        return bundle

    def _settle(self, bundle: ClientBundle) -> None:
        bundle.settle(self.agreement.architecture.nodes[-1].name)

    def _draw_masks(self, bundle: ClientBundle) -> list[Node]:
        """Draw the shares that do not depend on the server and send what is encrypted of them; the rest is returned."""
        agreement, shares, unsent = self.agreement, bundle.shares, []
        for node in agreement.architecture.nodes:
            if node.operation in ("input", "activation"):
                with self.ledger.part(agreement.layer_of(node), "shares"):
                    bundle.masks[node.name] = self._fresh_seeds(node)
                    shares[node.name] = self._masks(node, bundle)
            elif any(name not in shares for name in node.inputs):
                if node.operation == "linear":
                    unsent.append(node)
            elif node.operation == "linear":
                self._send_encrypted(node, bundle)
            else:
                self._share(node, bundle)
        return unsent

    def _fresh_seeds(self, node: Node) -> dict[int, Seed]:
        """Of uniform residues. What is looked up comes out modulo the largest modulus, and so modulo those that divide
        it.
        """
        moduli = self.agreement.moduli(node)
        looked_up = self.agreement.kinds.get(node.name) == "lookup"
        return {p: Seed() for p in ([max(moduli)] if looked_up else moduli)}

    def _masks(self, node: Node, bundle: ClientBundle) -> ModularShares:
        """This side's shares of the image or of an activation."""
        return seeded_shares(bundle.masks[node.name], self.agreement.moduli(node), node.shape)

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
            length = self.lengths.encrypted_shares(node.name)
            reply = self.channel.receive_payload(Message.ENCRYPTED_SHARES, length)
        with self.ledger.part(node.name, "he"), parsing(Message.ENCRYPTED_SHARES):
            share = self._linear[node.name].decrypt(bytes(reply)).astype(np.int64)
            bundle.shares[node.name] = {self.agreement.modulus(node.name): share}

    def _send_factors(self, squares: Sequence[Node], bundle: ClientBundle) -> None:
        """Draw a factor for every value that is squared and send all of them encrypted."""
        with self.ledger.part(EVERY_LAYER, "shares"):
            bundle.factors = {node.name: Seed() for node in squares}
            drawn = [self._factor(node, bundle).astype(np.uint64) for node in squares]
        with self.ledger.part(EVERY_LAYER, "he"):
            factors = np.concatenate([factor.reshape(-1) for factor in drawn])
            self.channel.send(Message.TRIPLE_FACTORS, self._triples.encrypt(factors))

    def _factor(self, node: Node, bundle: ClientBundle) -> np.ndarray:
        """The factor of every value that is squared, int64 [C, H, W]."""
        return bundle.factors[node.name].residues(self.agreement.output_modulus, node.shape)

    def _receive_products(self, squares: Sequence[Node], bundle: ClientBundle) -> None:
        """This side's shares of the factors' products with the masks of the activations' outputs."""
        with self.ledger.part(EVERY_LAYER, "waiting"):
            reply = self.channel.receive_payload(Message.TRIPLE_PRODUCTS, self.lengths.triple_products)
        with self.ledger.part(EVERY_LAYER, "he"), parsing(Message.TRIPLE_PRODUCTS):
            products = self._triples.decrypt(bytes(reply)).astype(np.int64)
            ends = np.cumsum([int(np.prod(node.shape)) for node in squares])
            parts = np.split(products, ends[:-1])
            bundle.products = {node.name: part.reshape(node.shape) for node, part in zip(squares, parts, strict=True)}

    def resume(self, place: BundleFolder) -> int:
        """Keep bundles on disk from now on, and take over those there that the server has as well; how many.

        Those that the server has not are destroyed: nothing can be done with them.

        Raises:
            ProtocolError: the server keeps no bundles.
        """
        own, kept = place.numbers()[:MAXIMUM_KEPT], KeptClientBundles(place, self.agreement)
        with self.ledger.phase("set-up"):
            with self.ledger.part(EVERY_LAYER, "session"):
                self.channel.send(Message.BUNDLES, np.array(own, "<u8").tobytes())
            with self.ledger.part(EVERY_LAYER, "waiting"):
                reply = self.channel.receive_payload(Message.BUNDLES)
            with self.ledger.part(EVERY_LAYER, "session"):
                held = kept_numbers(reply)
                if not set(held) <= set(own):
                    raise ProtocolError("the server has bundles that this side did not name")
                for number in set(own) - set(held):
                    kept.destroy(number)
                self._unused.keep(kept, held)
        return len(held)

    @property
    def prepared(self) -> int:
        """How many bundles are ready and unused."""
        return len(self._unused)

    def ready(self) -> ClientBundle | None:
        """The oldest unused bundle, at hand for `infer`; None where there is none."""
        return self._unused.warm()

    def infer(self, bundle: ClientBundle, image: np.ndarray) -> np.ndarray:
        """The online phase: what the policy's `output` says of the network's integer outputs, for an image.

        Args:
            bundle: what `prepare` gave.
            image: quantized, int64 [C, H, W].

        Returns:
            int64: the outputs or scores, signed, or one number, the class (`quantization.outputs.shown`).

        Raises:
            ProtocolError: the bundle was used before or is another session's; nothing has been sent then.
        """
        agreement, channel = self.agreement, self.channel
        nodes = agreement.architecture.nodes
        bundle = self._unused.take(bundle.number)
        with self.ledger.phase("online", bundle.index):
            with self.ledger.part(agreement.layer_of(nodes[0]), "shares"):
                masked = {p: (image - mask) % p for p, mask in self._masks(nodes[0], bundle).items()}
                number = bundle.number.to_bytes(NUMBER_BYTES, "little")
                channel.send(Message.INFER, number, pack_shares(masked))
            for node in agreement.activation_nodes():
                self._evaluate(node, bundle)
            if self._answer and bundle.answer:
                return self._answer.finish(bundle.answer)
            layer = agreement.last_layer
            with self.ledger.part(layer, "waiting"):
                payload = channel.receive_payload(Message.OUTPUT_SHARE, self.lengths.output_share)
            with self.ledger.part(layer, "shares"):
                modulus = agreement.output_modulus
                server_share = unpack_shares(payload, (modulus,), nodes[-1].shape)[modulus]
                return to_signed(server_share + self._output_share(bundle), modulus).reshape(-1)

    def _output_share(self, bundle: ClientBundle) -> np.ndarray:
        """This side's share of the network's output."""
        last = self.agreement.architecture.nodes[-1]
        shares = self._masks(last, bundle) if last.name in bundle.masks else bundle.shares[last.name]
        return shares[self.agreement.output_modulus]

    def _evaluate(self, node: Node, bundle: ClientBundle) -> None:
        """One activation: what this side learns of it is y + rho, and y - r is what the server gets for it."""
        moduli, layer = self.agreement.moduli(node), self.agreement.layer_of(node)
        kept = bundle.activations.pop(node.name)
        if isinstance(kept, Lookups):
            self._lookups.answer(node, kept, self._masks(node, bundle))
            return
        own = self._garbled.evaluate(node, kept)
        with self.ledger.part(layer, "shares"):
            masks = self._masks(node, bundle)
            if node.squared:
                (p,), factor, product = moduli, self._factor(node, bundle), bundle.products.pop(node.name)
                reply = {p: masked_square(own[0], factor, product, masks[p], p)}
                del bundle.factors[node.name]
            else:
                reply = {p: (row - masks[p]) % p for p, row in zip(moduli, own, strict=True)}
            self.channel.send(Message.MASKED_ACTIVATION, pack_shares(reply))

    def close(self) -> None:
        """End the session."""
        with self.ledger.phase("closing"), self.ledger.part(EVERY_LAYER, "session"):
            self.channel.send(Message.GOODBYE)
        self.channel.close()
