"""Activations by lookup: what each party does for all of them offline and for one of them online.

Offline the parties exchange messages, both at once, until every lookup of the image has its shared one-hot vectors
(`prepare`). Online the server asks and the client answers: the server then has y - r, r the client's share drawn
before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoprivacy.lookup.batch import Messages, Questions, answers, prepare
from autoprivacy.lookup.wave import KeptWave, PackedWave, Party, Wave
from autoprivacy.ot.setup import TransferSetup
from autoprivacy.ot.transfers import RandomTransfers
from autoprivacy.protocol.channel import Channel
from autoprivacy.protocol.ledger import EVERY_LAYER, Ledger
from autoprivacy.protocol.lengths import Lengths
from autoprivacy.protocol.messages import Message, parsing
from autoprivacy.protocol.session import Agreement
from autoprivacy.protocol.shares import ModularShares
from autoprivacy.quantization.integer_network import Node

LOOKUP_KEY = b"lookup"  # what the session's key of hashes is derived for


def random_transfers(channel: Channel, ledger: Ledger, lengths: Lengths, setup: TransferSetup) -> RandomTransfers:
    """A party's random transfers, when both have the other's trees: silent ones take a message of each party more."""
    if not lengths.silent_round:
        return setup.transfers()
    with ledger.part(EVERY_LAYER, "ot"), parsing(Message.OT_TREES):
        channel.send(Message.SILENT_ROUND, setup.round())
    with ledger.part(EVERY_LAYER, "waiting"):
        message = channel.receive_payload(Message.SILENT_ROUND, lengths.silent_round)
    with ledger.part(EVERY_LAYER, "ot"), parsing(Message.SILENT_ROUND):
        return setup.transfers(message)


@dataclass
class Lookups:
    """What a party keeps of one activation until the image is known.

    Attributes:
        party: of the session that prepared them.
        packed: what they are made from; None where they are not packed any more before they are used.
        waves: the lookups, ready to be used; None while they are packed, see `lookup.wave.PackedWave`.
    """

    party: Party
    packed: list[PackedWave | KeptWave] | None
    waves: list[Wave] | None = None

    def pack(self) -> None:
        """Keep what they are made from."""
        assert self.packed is not None
        self.waves = None

    def stay_expanded(self) -> None:
        """Keep the lookups alone."""
        if self.waves is not None:
            self.packed = None

    def expand(self) -> list[Wave]:
        """The lookups, made again where they were packed."""
        if self.waves is None:
            assert self.packed is not None
            self.waves = [wave.expand(self.party) for wave in self.packed]
        return self.waves


@dataclass(frozen=True)
class LookupParty:
    """One party's part in a session."""

    channel: Channel
    ledger: Ledger
    agreement: Agreement
    party: Party

    def prepare(self, packable: bool, shares: Mapping[str, ModularShares] | None = None) -> dict[str, Lookups]:
        """The lookups of all activations that are looked up, by node.

        Args:
            packable: whether they may be packed before they are used, which takes what they are made from.
            shares: of the client: its shares of all nodes.
        """
        agreement, inputs = self.agreement, None
        nodes = agreement.looked_up_nodes()
        batches = [agreement.batch(node) for node in nodes]
        if shares is not None:
            inputs = [_flat(shares[node.inputs[0]][agreement.read_modulus(node)]) for node in nodes]
        with self.ledger.part(EVERY_LAYER, "lookup"), parsing(Message.LOOKUP_MAKING):
            messages = Messages(self._send, self._receive)
            waves = prepare(self.party, batches, agreement.transfers, messages, inputs, packable)
        return {
            node.name: Lookups(self.party, [wave.packed() for wave in own] if packable else None, own)
            for node, own in zip(nodes, waves, strict=True)
        }

    def _send(self, message: bytes) -> None:
        self.channel.send(Message.LOOKUP_MAKING, message)

    def _receive(self, length: int) -> memoryview:
        self.ledger.charge(EVERY_LAYER, "lookup")
        received = self.channel.receive_payload(Message.LOOKUP_MAKING, length)
        self.ledger.charge(EVERY_LAYER, "waiting")
        return received

    def answer(self, node: Node, kept: Lookups, masks: ModularShares) -> None:
        """The client's part online: the server gets shares of the output that go with this side's, `masks`."""
        batch, layer = self.agreement.batch(node), self.agreement.layer_of(node)
        with self.ledger.part(layer, "waiting"):
            question = self.channel.receive_payload(Message.LOOKUP_QUESTION, batch.question_bytes)
        with self.ledger.part(layer, "lookup"), parsing(Message.LOOKUP_QUESTION):
            mask = _flat(masks[1 << batch.modulus_bits])
            self.channel.send(Message.LOOKUP_ANSWER, answers(batch, kept.expand(), question, mask))

    def ask(self, node: Node, kept: Lookups, shares: ModularShares) -> ModularShares:
        """The server's part online: its shares of the output, from those of the input."""
        agreement = self.agreement
        batch, layer = agreement.batch(node), agreement.layer_of(node)
        with self.ledger.part(layer, "lookup"):
            questions = Questions(batch, kept.expand(), _flat(shares[agreement.read_modulus(node)]))
            self.channel.send(Message.LOOKUP_QUESTION, questions.message)
        with self.ledger.part(layer, "waiting"):
            reply = self.channel.receive_payload(Message.LOOKUP_ANSWER, batch.answer_bytes)
        with self.ledger.part(layer, "lookup"), parsing(Message.LOOKUP_ANSWER):
            output = questions.finish(reply).astype(np.int64).reshape(node.shape)
            return {p: output % p for p in agreement.moduli(node)}


def _flat(share: np.ndarray) -> np.ndarray:
    return share.reshape(-1).astype(np.uint64)
