"""Bundles on disk between runs (`--bundles DIR`): what a bundle consists of as bytes, and the rule that it is used once
across crashes too.

A bundle is written when it is ready, and destroyed, written through to the disk, before the first message that depends
on it is sent. It is bound to the agreement, on the server to the weights too. What its lookups are made again from,
the seeds of the session that prepared them, stands in it; no later session draws from those.
"""

from __future__ import annotations

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.lookup.hash_keys import HashKeys
from autoprivacy.lookup.shape import LookupShape
from autoprivacy.lookup.wave import KeptWave, PackedWave, Party
from autoprivacy.ot.extension import ExtensionReceiver, ExtensionSender, StreamSeeds
from autoprivacy.ot.transfers import ExtendedTransfers, Finish, RandomTransfers
from autoprivacy.protocol.answers import ClientAnswer, ServerAnswer
from autoprivacy.protocol.bundles import NUMBER_BYTES, Bundle, ClientBundle, OnceWritten, Seed, ServerBundle
from autoprivacy.protocol.garbled import ClientGarbling, ServerGarbling
from autoprivacy.protocol.looked_up import Lookups
from autoprivacy.protocol.messages import PROTOCOL_VERSION, Buffer, ProtocolError
from autoprivacy.protocol.sealed_files import Seal, SealedFolder
from autoprivacy.protocol.session import Agreement
from autoprivacy.quantization.integer_network import IntegerNetwork

CLIENT, SERVER = b"c", b"s"
FORMAT = 1
HEADER_LENGTH = 8  # bytes of the length of the JSON part
Fields = dict[str, Any]


class Content:
    """Bytes of a bundle, written and read entry by entry: JSON, in which arrays stand as their place in what follows.

    Args:
        content: what `to_bytes` gave; none begins an empty one.
    """

    def __init__(self, content: bytes | bytearray = b"") -> None:
        self.fields: Fields = {}
        self._parts: list[bytes | memoryview] = []
        self._left = memoryview(content)
        self._size = 0
        if content:
            length = int.from_bytes(self._left[:HEADER_LENGTH], "little")
            self.fields = json.loads(bytes(self._left[HEADER_LENGTH : HEADER_LENGTH + length]))
            self._left = self._left[HEADER_LENGTH + length :]

    def put(self, array: np.ndarray | Buffer) -> list[Any]:
        """The JSON that stands for an array, or for bytes."""
        array = np.ascontiguousarray(array if isinstance(array, np.ndarray) else np.frombuffer(array, np.uint8))
        place, self._size = self._size, self._size + array.nbytes
        self._parts.append(array.reshape(-1).view(np.uint8).data)
        return [array.dtype.str, list(array.shape), place]

    def get(self, value: list[Any]) -> np.ndarray:
        """The array that `put` was given; it may be written to."""
        (_, shape, place), dtype = value, np.dtype(value[0])
        size = int(np.prod(shape)) * dtype.itemsize
        return np.frombuffer(bytes(self._left[place : place + size]), dtype).reshape(shape).copy()

    def to_bytes(self) -> bytes:
        """Everything."""
        header = json.dumps(self.fields).encode()
        return b"".join([len(header).to_bytes(HEADER_LENGTH, "little"), header, *self._parts])


def binding(agreement: Agreement, network: IntegerNetwork | None = None) -> bytes:
    """What a bundle is bound to, 32 bytes: the agreement and, where this party has it, the network."""
    digest = hashlib.sha256(f"autoprivacy bundle {FORMAT} {PROTOCOL_VERSION} ".encode() + agreement.to_bytes())
    for layer in network.layers.values() if network else ():
        for array in (layer.weight, layer.bias):
            digest.update(np.ascontiguousarray(array, "<i8").tobytes())
    return digest.digest()


def kept_numbers(payload: Buffer) -> list[int]:
    """The numbers in a BUNDLES message; ProtocolError where it holds no whole ones, or one twice."""
    if len(payload) % NUMBER_BYTES:
        raise ProtocolError(f"BUNDLES: {len(payload)} bytes, expected a multiple of {NUMBER_BYTES}")
    numbers: list[int] = np.frombuffer(payload, "<u8").tolist()
    if len(set(numbers)) < len(numbers):
        raise ProtocolError("BUNDLES: a number stands there twice")
    return numbers


@dataclass(frozen=True)
class BundleFolder:
    """A party's folder of bundles under one agreement, for all of its sessions.

    Attributes:
        folder: the files.
        seal: role, and what the bundles are bound to.
        limit: bytes that all files may take.
    """

    folder: SealedFolder
    seal: Seal
    limit: int

    def numbers(self) -> list[int]:
        """Of the bundles that can be used, the oldest first; what is wrong with others is logged, a line each."""
        found = []
        for path in self.folder.files():
            try:
                found.append(self.folder.check(path, self.seal))
            except UserError as error:
                logging.warning("%s", error)
        return found


@dataclass(frozen=True)
class KeptBundles(ABC, Generic[Bundle]):
    """One session's bundles in a folder.

    Attributes:
        place: the folder.
        agreement: of the session.
        marks: by number those of the files that this session has written or read. What it has in memory is theirs, so
            that a file that came later under the same number does not let it be used once more.
    """

    place: BundleFolder
    agreement: Agreement
    marks: dict[int, bytes] = field(default_factory=dict)

    def save(self, bundle: Bundle) -> None:
        """Keep a bundle that is ready; UserError where the disk is full, or the folder's limit reached."""
        content = Content()
        content.fields = self._fields(bundle, content)
        data, folder = content.to_bytes(), self.place.folder
        if folder.size() + len(data) > self.place.limit:
            raise ProtocolError(f"bundles on disk would take more than the {self.place.limit} bytes allowed")
        self.marks[bundle.number] = folder.write(bundle.number, self.place.seal, data)

    def load(self, number: int) -> Bundle:
        """The bundle of a number; UserError where it is damaged."""
        content, self.marks[number] = self.place.folder.read(number, self.place.seal)
        return self._bundle(number, Content(content))

    def destroy(self, number: int) -> None:
        """Make sure that it never comes back; ProtocolError where it is gone, so another session has used it."""
        if not self.place.folder.destroy(number, self.marks.pop(number, None)):
            raise ProtocolError(f"bundle {number} was used before; prepare a new one")

    @abstractmethod
    def _fields(self, bundle: Bundle, content: Content) -> Fields:
        """What a bundle consists of, for the JSON part; arrays go into `content`."""

    @abstractmethod
    def _bundle(self, number: int, content: Content) -> Bundle:
        """The bundle again."""

    def _put_lookups(self, activations: Mapping[str, object], content: Content) -> Fields:
        lookups = {name: kept for name, kept in activations.items() if isinstance(kept, Lookups)}
        if not lookups:
            return {}
        party = next(iter(lookups.values())).party
        return {
            "party": _put_party(party, content),
            "lookups": {
                name: [_put_wave(wave, content) for wave in kept.packed or ()] for name, kept in lookups.items()
            },
        }

    def _get_lookups(self, client: bool, content: Content) -> dict[str, Lookups]:
        if "party" not in content.fields:
            return {}
        party, found = _get_party(client, content), {}
        for node in self.agreement.looked_up_nodes():
            batch, waves = self.agreement.batch(node), content.fields["lookups"][node.name]
            counts = [part.stop - part.start for part in batch.slices]
            packed = [_get_wave(batch.shape, *wave, content) for wave in zip(counts, waves, strict=True)]
            found[node.name] = Lookups(party, packed)
        return found


class KeptClientBundles(KeptBundles[ClientBundle]):
    """The client's."""

    def _fields(self, bundle: ClientBundle, content: Content) -> Fields:
        put, garbled = content.put, _of(bundle.activations, ClientGarbling)
        return {
            "masks": {node: {str(p): seed.key.hex() for p, seed in own.items()} for node, own in bundle.masks.items()},
            "shares": {node: {str(p): put(part) for p, part in own.items()} for node, own in bundle.shares.items()},
            "factors": {node: seed.key.hex() for node, seed in bundle.factors.items()},
            "products": {node: put(own) for node, own in bundle.products.items()},
            "garbled": {node: [put(own.labels), [put(table) for table in own.tables]] for node, own in garbled.items()},
            "answer": bundle.answer and [put(bundle.answer.labels), [put(table) for table in bundle.answer.tables]],
            **self._put_lookups(bundle.activations, content),
        }

    def _bundle(self, number: int, content: Content) -> ClientBundle:
        fields, get, bundle = content.fields, content.get, ClientBundle(number, 0)

        def tables(places: list[Any]) -> list[memoryview]:
            return [get(place).data for place in places]

        bundle.masks = {
            node: {int(p): Seed(bytes.fromhex(seed)) for p, seed in own.items()}
            for node, own in fields["masks"].items()
        }
        shares = {node: {int(p): get(part) for p, part in own.items()} for node, own in fields["shares"].items()}
        bundle.shares = OnceWritten(shares)
        bundle.factors = _seeds(fields["factors"])
        bundle.products = {node: get(own) for node, own in fields["products"].items()}
        for node, (labels, own) in fields["garbled"].items():
            bundle.activations[node] = ClientGarbling(get(labels), tables(own))
        if fields["answer"]:
            bundle.answer = ClientAnswer(get(fields["answer"][0]), tables(fields["answer"][1]))
        bundle.activations |= self._get_lookups(True, content)
        return bundle


class KeptServerBundles(KeptBundles[ServerBundle]):
    """The server's."""

    def _fields(self, bundle: ServerBundle, content: Content) -> Fields:
        put, garbled, answer = content.put, _of(bundle.activations, ServerGarbling), bundle.answer
        return {
            "masks": {node: seed.key.hex() for node, seed in bundle.masks.items()},
            "products": {node: seed.key.hex() for node, seed in bundle.products.items()},
            "garbled": {
                node: [put(own.label_seed), put(own.output_masks), put(own.delta)] for node, own in garbled.items()
            },
            "answer": answer and [put(answer.label_seed), put(answer.masks), put(answer.delta)],
            **self._put_lookups(bundle.activations, content),
        }

    def _bundle(self, number: int, content: Content) -> ServerBundle:
        fields, get, bundle = content.fields, content.get, ServerBundle(number, 0)
        bundle.masks, bundle.products = _seeds(fields["masks"]), _seeds(fields["products"])
        for node, (seed, masks, delta) in fields["garbled"].items():
            bundle.activations[node] = ServerGarbling(bytes(get(seed)), get(masks), get(delta))
        if fields["answer"]:
            seed, masks, delta = fields["answer"]
            bundle.answer = ServerAnswer(bytes(get(seed)), get(masks), get(delta))
        bundle.activations |= self._get_lookups(False, content)
        return bundle


def _of(activations: Mapping[str, object], kind: type) -> dict[str, Any]:
    return {node: kept for node, kept in activations.items() if isinstance(kept, kind)}


def _seeds(values: Mapping[str, str]) -> dict[str, Seed]:
    return {node: Seed(bytes.fromhex(value)) for node, value in values.items()}


def _put_wave(wave: PackedWave | KeptWave, content: Content) -> list[Any]:
    if isinstance(wave, KeptWave):
        return [{name: _put_values(value, content) for name, value in wave.values.items()}]
    return [[wave.receiver, wave.sender, wave.keys], [content.put(message) for message in wave.messages]]


def _put_values(value: np.ndarray | list[np.ndarray], content: Content) -> dict[str, Any]:
    arrays = value if isinstance(value, list) else [value]
    return {"many": isinstance(value, list), "arrays": [content.put(array) for array in arrays]}


def _get_wave(shape: LookupShape, count: int, value: list[Any], content: Content) -> PackedWave | KeptWave:
    if len(value) == 1:
        arrays = {name: [content.get(place) for place in own["arrays"]] for name, own in value[0].items()}
        return KeptWave(shape, count, {name: own if value[0][name]["many"] else own[0] for name, own in arrays.items()})
    (receiver, sender, keys), messages = value
    return PackedWave(shape, count, receiver, sender, keys, tuple(bytes(content.get(message)) for message in messages))


def _put_party(party: Party, content: Content) -> Fields:
    value: Fields = {"delta": content.put(party.delta), "key": party.keys.session_key.hex()}
    if isinstance(party.transfers, ExtendedTransfers):
        for name, seeds in (("receiver", party.transfers.receiver.seeds), ("sender", party.transfers.sender.seeds)):
            value[name] = [content.put(seeds.leaves), seeds.bits, seeds.key.hex()]
    return value


def _get_party(client: bool, content: Content) -> Party:
    """The party that prepared the lookups; no new ones can be made by it."""
    value = content.fields["party"]
    delta, keys = content.get(value["delta"]), HashKeys(bytes.fromhex(value["key"]))
    transfers: RandomTransfers = NoTransfers()
    if "receiver" in value:
        receiver, sender = (
            StreamSeeds(content.get(value[name][0]), value[name][1], bytes.fromhex(value[name][2]))
            for name in ("receiver", "sender")
        )
        transfers = ExtendedTransfers(ExtensionReceiver.at(receiver, 0), ExtensionSender.at(delta, sender, 0))
    return Party(client, delta, transfers, keys)


class NoTransfers:
    """Of a session that is over."""

    def begin(self, received: int, sent: int) -> tuple[bytes, Finish]:
        """RuntimeError."""
        raise RuntimeError("the session that made these lookups is over")
