"""The server's side of a session: it holds the weights and learns nothing of the image."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.cipher import ServerCipher
from autoprivacy.he.bfv.linear import ServerLinear, no_rotation
from autoprivacy.he.bfv.rotation import Rotator
from autoprivacy.he.bfv.triples import TripleServer
from autoprivacy.he.packing.plan import Rotate
from autoprivacy.he.parameters.parameter_set import ParameterSet
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.lookup.hash_keys import HashKeys
from autoprivacy.lookup.wave import Party
from autoprivacy.ot.labels import random_delta
from autoprivacy.ot.setup import ANSWER_BYTES, HELLO_BYTES, TransferSetup
from autoprivacy.protocol.answers import AnswerServer
from autoprivacy.protocol.bundles import NUMBER_BYTES, Pool, Seed, ServerBundle
from autoprivacy.protocol.channel import Channel
from autoprivacy.protocol.endpoints import HANDSHAKE_SECONDS, Quota
from autoprivacy.protocol.garbled import GarbledServer, ServerGarbling
from autoprivacy.protocol.kept_bundles import BundleFolder, KeptServerBundles, kept_numbers
from autoprivacy.protocol.ledger import EVERY_LAYER, Ledger
from autoprivacy.protocol.looked_up import LOOKUP_KEY, LookupParty, Lookups, random_transfers
from autoprivacy.protocol.messages import Message, ProtocolError, parsing
from autoprivacy.protocol.session import Agreement, pack_shares, unpack_shares
from autoprivacy.protocol.shares import ModularShares, apply_layer, local_shares, square_share
from autoprivacy.quantization.integer_network import IntegerNetwork, Node
from autoprivacy.randomness.generator import SecureRandom

DEFAULT_POOL = 16  # bundles of a session that nothing else limits
UNLIMITED = Quota()
# What a client may take for the set-up, which includes compiling its kernels the first time, and for its keys.
SET_UP_SECONDS, SLOWEST_BYTES_PER_SECOND = 120.0, 1 << 16


class Model:
    """What a server prepares once and every session uses: the weights in transformed form.

    Raises:
        UserError: the policy was made for another network, or its flood does not cover the weights.
    """

    def __init__(self, network: IntegerNetwork, policy: Policy) -> None:
        policy.check_network(network)
        self.network = network
        self.agreement = Agreement(network.architecture, policy)
        self.linear = {
            layer.name: ServerLinear(
                network.layers[layer.name],
                self.agreement.plan(layer.name),
                layer.parameters,
                policy.flooding,
                layer.target,
                self.agreement.reply_bits(layer.name),
                layer.norm_bound,
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
        quota: counts the images of every client.
        folder: bundles on disk, of clients that keep theirs; None keeps none.
    """

    def __init__(
        self,
        model: Model,
        channel: Channel,
        pool: int = DEFAULT_POOL,
        quota: Quota = UNLIMITED,
        folder: BundleFolder | None = None,
    ) -> None:
        self.model = model
        self.agreement = model.agreement
        self.lengths = model.agreement.lengths
        self.channel = channel
        self.ledger = Ledger(channel)
        self._random = SecureRandom()
        self._pool: Pool[ServerBundle] = Pool(pool)
        self._quota, self._folder, self._resumed = quota, folder, False
        with self.ledger.phase("set-up"):
            self._set_up()

    def _set_up(self) -> None:
        with self.ledger.part(EVERY_LAYER, "session"):
            self.channel.limit(HANDSHAKE_SECONDS)
            self.channel.receive_payload(Message.HELLO, 0)
            self.channel.admit(self.lengths.set_up_bounds)
            self.channel.limit(SET_UP_SECONDS + self.lengths.set_up_bytes / SLOWEST_BYTES_PER_SECOND)
            self.channel.send(Message.WELCOME, self.agreement.to_bytes())
        self._ciphers: dict[ParameterSet, ServerCipher] = {}
        self._rotations: dict[ParameterSet, Rotate] = {}
        for parameters in self.agreement.parameter_sets:
            self._receive_keys(parameters)
        self._set_up_transfers()

    def _set_up_transfers(self) -> None:
        """Correlated transfers in both directions."""
        ledger, channel = self.ledger, self.channel
        with ledger.part(EVERY_LAYER, "waiting"):
            hello = channel.receive_payload(Message.BASE_OT, HELLO_BYTES)
        with ledger.part(EVERY_LAYER, "ot"), parsing(Message.BASE_OT):
            delta = random_delta(self._random)
            setup = TransferSetup(delta, self.agreement.transfers)
            channel.send(Message.BASE_OT_REPLY, setup.hello(), setup.answer(hello))
        with ledger.part(EVERY_LAYER, "waiting"):
            message = channel.receive_payload(Message.OT_TREES, ANSWER_BYTES + self.lengths.trees)
        with ledger.part(EVERY_LAYER, "ot"), parsing(Message.OT_TREES):
            trees = setup.trees(message[:ANSWER_BYTES])
            ends = setup.finish(message[ANSWER_BYTES:])
            channel.admit(self.lengths.server_bounds)
            channel.send(Message.OT_TREES, trees)
        transfers = random_transfers(channel, ledger, self.lengths, setup)
        channel.limit(None)
        party = Party(False, delta, transfers, HashKeys(setup.session_key(LOOKUP_KEY)))
        parts = ends[1], delta, self._random
        self._garbled = GarbledServer(channel, ledger, self.agreement, *parts)
        self._lookups = LookupParty(channel, ledger, self.agreement, party)
        answer = self.agreement.answer
        self._answer = AnswerServer(channel, ledger, self.agreement, answer, *parts) if answer else None

    def _receive_keys(self, parameters: ParameterSet) -> None:
        with self.ledger.part(EVERY_LAYER, "waiting"):
            key = self.channel.receive_payload(Message.PUBLIC_KEY, self.lengths.public_key(parameters))
        with self.ledger.part(EVERY_LAYER, "he"), parsing(Message.PUBLIC_KEY):
            self._ciphers[parameters] = ServerCipher(parameters, bytes(key))
        with self.ledger.part(EVERY_LAYER, "session"):
            elements = self.agreement.galois_elements(parameters)
        if not elements:
            self._rotations[parameters] = no_rotation
            return
        with self.ledger.part(EVERY_LAYER, "waiting"):
            keys = self.channel.receive_payload(Message.GALOIS_KEYS, self.lengths.galois_keys(parameters))
        with self.ledger.part(EVERY_LAYER, "he"), parsing(Message.GALOIS_KEYS):
            self._rotations[parameters] = Rotator(parameters, elements, bytes(keys)).rotate

    def run(self) -> None:
        """Answer the client's requests until it says goodbye."""
        while True:
            kind, payload = self.channel.receive(Message.PREPARE, Message.INFER, Message.GOODBYE, Message.BUNDLES)
            if kind == Message.BUNDLES:
                self._resume(kept_numbers(payload))
                continue
            self._check_request(kind, len(payload))
            if kind == Message.GOODBYE:
                with self.ledger.phase("closing"):
                    return
            number = int.from_bytes(payload[:NUMBER_BYTES], "little")
            if kind == Message.PREPARE:
                self._prepare(number)
            else:
                self._quota.take(self.channel.peer)
                self._infer(self._pool.take(number), memoryview(payload)[NUMBER_BYTES:])
                self._pool.warm()

    def _resume(self, numbers: Sequence[int]) -> None:
        """Keep this client's bundles on disk from now on, and say which of those that it has are here as well."""
        if self._folder is None:
            raise ProtocolError("this server keeps no bundles; start it with --bundles DIR, or the client without")
        if self._resumed:  # each reads the whole folder, and logs what is wrong there
            raise ProtocolError("BUNDLES came twice in a session")
        self._resumed = True
        with self.ledger.phase("set-up"), self.ledger.part(EVERY_LAYER, "session"):
            own = set(self._folder.numbers())
            held = [number for number in numbers if number in own]
            self._pool.keep(KeptServerBundles(self._folder, self.agreement), held)
            self.channel.send(Message.BUNDLES, np.array(held, "<u8").tobytes())
            self._pool.warm()

    def _prepare(self, number: int) -> None:
        """The offline phase for one image."""
        bundle = ServerBundle(number, self._pool.open(number))
        with self.ledger.phase("offline", bundle.index):
            for node in self.agreement.linear_nodes():
                self._evaluate(node, bundle)
            garbled = {node: self._garbled.prepare(node) for node in self.agreement.garbled_nodes()}
            bundle.activations = {node.name: kept for node, kept in garbled.items()}
            if self._answer:
                bundle.answer = self._answer.prepare()
            if self.agreement.garbled_squares:
                self._multiply({node: kept for node, kept in garbled.items() if node.squared}, bundle)
            bundle.activations |= self._lookups.prepare(self._pool.packs_next)
        self._pool.put(bundle)

    def _evaluate(self, node: Node, bundle: ServerBundle) -> None:
        """Enc(M r - s) for the client's Enc(r)."""
        with self.ledger.part(node.name, "waiting"):
            length = self.lengths.encrypted_masks(node.name)
            message = self.channel.receive_payload(Message.ENCRYPTED_MASKS, length)
        with self.ledger.part(node.name, "he"), parsing(Message.ENCRYPTED_MASKS):
            seed = bundle.masks[node.name] = Seed()
            mask = seed.residues(self.agreement.modulus(node.name), node.shape).astype(np.uint64)
            linear = self.model.linear[node.name]
            cipher, rotate = self._ciphers[linear.parameters], self._rotations[linear.parameters]
            reply = linear.evaluate(cipher, bytes(message), mask, rotate)
            self.channel.send(Message.ENCRYPTED_SHARES, reply)

    def _multiply(self, squares: Mapping[Node, ServerGarbling], bundle: ServerBundle) -> None:
        """Enc(a rho - m) for the client's Enc(a), rho the masks of all squared activations' inputs."""
        with self.ledger.part(EVERY_LAYER, "waiting"):
            message = self.channel.receive_payload(Message.TRIPLE_FACTORS, self.lengths.triple_factors)
        with self.ledger.part(EVERY_LAYER, "he"), parsing(Message.TRIPLE_FACTORS):
            triples, p = self.model.triples, self.agreement.output_modulus
            rhos = [kept.masks(node)[0] for node, kept in squares.items()]
            factors = np.concatenate([rho.reshape(-1).astype(np.uint64) for rho in rhos])
            bundle.products = {node.name: Seed() for node in squares}
            drawn = [bundle.products[node.name].residues(p, node.shape) for node in squares]
            own = np.concatenate([mask.reshape(-1).astype(np.uint64) for mask in drawn])
            reply = triples.multiply(self._ciphers[triples.parameters], bytes(message), factors, own)
            self.channel.send(Message.TRIPLE_PRODUCTS, reply)

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
                        mask = bundle.masks.pop(node.name).residues(p, node.shape)
                        shares[node.name] = {p: (applied + mask) % p}
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
            output = agreement.output_modulus
            share = shares[node.name][output]
            if self._answer is not None:
                if bundle.answer is None:  # never the logits in place of what the policy lets a client learn
                    raise ProtocolError(f"bundle {bundle.number} was prepared for no answer; prepare a new one")
                self._answer.finish(bundle.answer, share)
                return
            with self.ledger.part(agreement.last_layer, "shares"):
                self.channel.send(Message.OUTPUT_SHARE, pack_shares({output: share}))

    def _activate(self, node: Node, shares: ModularShares, bundle: ServerBundle) -> ModularShares:
        """Send the labels of this side's share; the client's answer gives this side's shares of the output."""
        agreement, layer, kept = self.agreement, self.agreement.layer_of(node), bundle.activations.pop(node.name)
        if isinstance(kept, Lookups):
            return self._lookups.ask(node, kept, shares)
        self._garbled.answer(node, kept, shares)
        with self.ledger.part(layer, "waiting"):
            length = self.lengths.masked_activation(node)
            payload = self.channel.receive_payload(Message.MASKED_ACTIVATION, length)
        with self.ledger.part(layer, "shares"):
            masked = unpack_shares(payload, agreement.moduli(node), agreement.answer_shape(node))
            rhos = kept.masks(node)
            if node.squared:
                (p,) = masked
                product = bundle.products.pop(node.name).residues(p, node.shape)
                return {p: square_share(masked[p], rhos[0], product, p)}
            return {p: (share - rho) % p for (p, share), rho in zip(masked.items(), rhos, strict=True)}

    def _check_request(self, kind: Message, length: int) -> None:
        """ProtocolError for a request of the wrong length."""
        lengths = {Message.GOODBYE: 0, Message.PREPARE: NUMBER_BYTES, Message.INFER: self.lengths.infer}
        if length != lengths[kind]:
            raise ProtocolError(f"{kind.name}: {length} bytes, expected {lengths[kind]}")


def serve(
    model: Model,
    channel: Channel,
    pool: int = DEFAULT_POOL,
    quota: Quota = UNLIMITED,
    folder: BundleFolder | None = None,
) -> Session | None:
    """One client from hello to goodbye; the session, or None where it failed.

    A failure is told to the client and logged, and ends no other session.
    """
    try:
        session = Session(model, channel, pool, quota, folder)
        session.run()
        channel.close()
        return session
    except UserError as error:
        logging.warning("session ended: %s", error)
        # where this side's files are is none of the client's business
        channel.fail(str(error).replace(f"{folder.folder.path}/", "") if folder else str(error))
    except Exception:  # a fault of this program, which is to cost one client its session and no more
        logging.exception("session ended by a fault of the server")
        channel.fail("a fault of the server, whose log has more")
    return None
