"""One party's side of a wave of lookups offline: what it sends and receives, exchange by exchange, and what it keeps.

A lookup is prepared before its input is known: a shared random index of the level with its one-hot vector, one of the
carry where low bits meet, and what turns the bits that are read into integers. `online` says how that is used. All
lookups of a wave have one shape; the messages are its fields, each packed by itself.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autoprivacy.lookup.hash_keys import HashKeys
from autoprivacy.lookup.kernels import load_kernels, load_making
from autoprivacy.lookup.one_hot import Ends, IndexSide
from autoprivacy.lookup.shape import LookupShape, fields_bytes
from autoprivacy.ot.extension import ExtensionReceiver, ExtensionSender
from autoprivacy.ot.kernels import load_kernels as load_hashes
from autoprivacy.ot.transfers import ExtendedTransfers, RandomTransfers

Exchanges = Generator[bytes, bytes, None]


@dataclass(frozen=True)
class Party:
    """What a party's lookups of a session share.

    Attributes:
        client: whether this is the client.
        delta: this party's secret offset, uint64 [2].
        transfers: its random transfers in both directions.
        keys: the session's hash keys.
        backend: "numba" or "numpy"; None takes the faster one that this machine has.
    """

    client: bool
    delta: np.ndarray
    transfers: RandomTransfers
    keys: HashKeys
    backend: str | None = None

    def at(self, receiver: int, sender: int, keys: int) -> Party:
        """This party as it stood when its streams of extended transfers and hash keys had been read so far."""
        assert isinstance(self.transfers, ExtendedTransfers)
        transfers = ExtendedTransfers(
            ExtensionReceiver.at(self.transfers.receiver.seeds, receiver, self.backend),
            ExtensionSender.at(self.delta, self.transfers.sender.seeds, sender, self.backend),
        )
        return replace(self, transfers=transfers, keys=HashKeys(self.keys.session_key, keys))


@dataclass(frozen=True)
class PackedWave:
    """A wave that is ready, as what it was made from: a fraction of its size, and the work of making it to expand.

    Attributes:
        shape, count: as the wave's.
        receiver, sender, keys: where its transfers and hash keys stand in the streams of the session.
        messages: the other party's, exchange by exchange.
    """

    shape: LookupShape
    count: int
    receiver: int
    sender: int
    keys: int
    messages: tuple[bytes, ...]

    def expand(self, party: Party) -> Wave:
        """The wave. What it would send is what was sent before, and is dropped."""
        nothing = np.zeros(self.count, np.uint64)
        parts = (nothing, nothing) if party.client else None
        wave = Wave(party.at(self.receiver, self.sender, self.keys), self.shape, self.count, parts, packable=False)
        for message in self.messages:
            wave.receive(message)
        return wave


# What is left of a wave when it is ready; see its attributes.
KEPT = (
    "vectors",
    "places",
    "carry",
    "differences",
    "products",
    "labels",
    "difference_labels",
    "carry_labels",
    "choices",
    "output_keys",
)


@dataclass(frozen=True)
class KeptWave:
    """A wave that is ready, as it is.

    Attributes:
        shape, count: as the wave's.
        values: its attributes that `KEPT` names.
    """

    shape: LookupShape
    count: int
    values: dict[str, Any]

    def expand(self, party: Party) -> Wave:
        """The wave."""
        return Wave.ready(party, self)


class Wave:
    """One party's side of some lookups of one shape.

    Args:
        party: this party.
        shape: the lookups'.
        count: how many.
        parts: of the client: its high and low part of its shares, uint64 [count]; see `LookupTable.client_parts`.
        packable: whether it keeps the messages that `packed` is made of.

    Attributes:
        vectors: per index the share of its one-hot vector, uint64 [count, words].
        places: per index, of the client nothing; of the server what its own part makes the place, less that part.
        carry: this party's share of the carry's mask mu, uint64 [count].
        differences: of the masks nu of the differences of both values, bit by bit, uint64 [count].
        products: of mu nu.
        labels: label by output bit of its mask's transfer, uint64 [w, count, 2], received by the server.
        difference_labels, carry_labels: of nu, and of mu, [1, count, 2].
        choices: of the server, the masks of the output bits, uint64 [count].
        output_keys: hash keys of the output bits' transfers.
    """

    def __init__(
        self,
        party: Party,
        shape: LookupShape,
        count: int,
        parts: tuple[np.ndarray, np.ndarray] | None = None,
        packable: bool = True,
    ) -> None:
        self.party, self.shape, self.count, self._parts = party, shape, count, parts
        self._kernels, self._hashes = load_kernels(party.backend), load_hashes(party.backend)
        self._making = load_making(party.backend)
        self.vectors: list[np.ndarray] = []
        self.places: list[np.ndarray] = []
        nothing = np.zeros(count, np.uint64)
        self.carry = self.differences = self.products = self.choices = nothing
        self.labels = self.difference_labels = self.carry_labels = np.empty((0, count, 2), np.uint64)
        self._keys_place, self._messages = party.keys.drawn, list[bytes]()
        self._packable = packable
        self._places = (0, 0)
        if isinstance(party.transfers, ExtendedTransfers):
            self._places = party.transfers.receiver.place, 0
        self._index_keys = [party.keys.draw(index.keys) for index in shape.indices]
        self._carry_keys = party.keys.draw(2 if shape.low else 0)
        self.output_keys = party.keys.draw(shape.output)
        self._exchanges = self._run()
        self._message = next(self._exchanges)

    @classmethod
    def ready(cls, party: Party, kept: KeptWave) -> Wave:
        """A wave whose exchanges are over."""
        wave = cls.__new__(cls)
        wave.party, wave.shape, wave.count, wave._messages = party, kept.shape, kept.count, []
        wave._packable = False
        wave._kernels, wave._hashes = load_kernels(party.backend), load_hashes(party.backend)
        wave._making = load_making(party.backend)
        for name, value in kept.values.items():
            setattr(wave, name, value)
        return wave

    def send(self) -> bytes:
        """This party's message of the next exchange."""
        return self._message

    def receive(self, message: bytes) -> bool:
        """The other party's message; True where that was the last exchange.

        Raises:
            ValueError: it has the wrong length.
        """
        if self._packable:
            self._messages.append(message)
        try:
            self._message = self._exchanges.send(message)
        except StopIteration:
            return True
        return False

    def packed(self) -> PackedWave | KeptWave:
        """What this wave is made from, once the last exchange is over; the wave keeps nothing of it.

        Silent transfers are made for all lookups at once, not from places of their own: then it is the wave itself.
        """
        assert self._packable
        messages, self._messages = tuple(self._messages), []
        if isinstance(self.party.transfers, ExtendedTransfers):
            return PackedWave(self.shape, self.count, *self._places, self._keys_place, messages)
        return KeptWave(self.shape, self.count, {name: getattr(self, name) for name in KEPT})

    def _run(self) -> Exchanges:
        shape, own = self.shape, self._sizes(self.party.client)
        other = self._sizes(not self.party.client)
        ends = yield from self._transfer()
        indices = self._indices(ends)
        del ends  # most of the memory of a wave in the making
        for exchange in range(1, shape.exchanges):
            fields = [field for index in indices for field in index.send(exchange)]
            if exchange == 1:
                fields += self._send_extras(indices)
            if exchange == shape.exchanges - 1 and self.party.client:
                fields += self._masked_parts(indices)
            incoming = yield self._packed(fields, own[exchange])
            left = self.unpack(incoming, other[exchange])
            for index in indices:
                mine = index.shape.fields(exchange)
                index.receive(exchange, left[: len(mine)])
                left = left[len(mine) :]
            if exchange == 1:
                left = self._receive_extras(indices, left)
            if left:  # the client's parts, masked
                self.places = [place - index.integer for place, index in zip(left, indices, strict=True)]
        self.vectors = [index.vectors for index in indices]

    def _sizes(self, client: bool) -> list[list[int]]:
        fields = self.shape.client_fields if client else self.shape.server_fields
        return [[], *(fields(exchange) for exchange in range(1, self.shape.exchanges))]

    def _transfer(self) -> Generator[bytes, bytes, Ends]:
        """Random transfers in both directions, role by role."""
        shape, count = self.shape, self.count
        mine, others = shape.client_transfers, shape.server_transfers
        if not self.party.client:
            mine, others = others, mine
        message, finish = self.party.transfers.begin(mine * count, others * count)
        incoming = yield message
        if isinstance(self.party.transfers, ExtendedTransfers):
            self._places = self._places[0], self.party.transfers.sender.place
        choices, received, sent = finish(incoming)
        return Ends(
            choices.reshape(mine, count),
            received.reshape(mine, count, 2),
            sent.reshape(others, count, 2),
        )

    def _indices(self, ends: Ends) -> list[IndexSide]:
        """The indices' sides; the other roles' ends are kept."""
        party, shape, first, indices = self.party, self.shape, 0, []
        for index, keys in zip(shape.indices, self._index_keys, strict=True):
            part = ends.part(first, index.transfers)
            indices.append(IndexSide(index, party.client, party.delta, part, keys, party.backend))
            first += index.transfers
        if shape.low:
            self._start_products(ends, first)
            first += 1
        # The server receives, the client sends.
        labels = (ends.sent if party.client else ends.received)[first:]
        self.labels, self.difference_labels = labels[: shape.output].copy(), labels[shape.output :].copy()
        if not party.client:
            self.choices = self._making.packed(ends.choices[first : first + shape.output])
            if shape.low:
                self.differences = self._making.packed(ends.choices[first + shape.output :])
        return indices

    def _start_products(self, ends: Ends, role: int) -> None:
        """mu nu, which needs a message of the server alone: the client's nu makes its product with the server's mu
        known.

        The client's nu is what the hashes of both labels of the server's mu differ by.
        """
        party, own, others = self.party, slice(0, 1), slice(1, 2)  # keys of what the client, the server receives
        if not party.client:
            own, others = others, own
        hashes, keys = self._hashes, self._carry_keys
        self.carry = ends.choices[role].astype(np.uint64)
        received = hashes.hash_words(keys[own], ends.received[role : role + 1])[0]
        zero, both = self._making.hash_both(keys[others], ends.sent[role : role + 1], party.delta)
        self._carry_both: np.ndarray = both[0]
        self.products = received ^ zero[0]
        labels = ends.sent if party.client else ends.received
        self.carry_labels = labels[role : role + 1].copy()
        if party.client:
            self.differences = self._carry_both & self._output_mask

    @property
    def _output_mask(self) -> np.uint64:
        return np.uint64((1 << self.shape.output) - 1)

    def _send_extras(self, indices: list[IndexSide]) -> list[np.ndarray]:
        """Besides the indices' fields: of the client the products for integers, of the server that for mu nu."""
        if self.party.client:
            return [field for index in indices for field in index.send_integers()]
        return [(self._carry_both ^ self.differences) & self._output_mask] if self.shape.low else []

    def _receive_extras(self, indices: list[IndexSide], left: list[np.ndarray]) -> list[np.ndarray]:
        own = np.uint64(0) - self.carry
        if self.party.client:
            if self.shape.low:
                self.products = self.products ^ own & left.pop(0)
        else:
            for index in indices:
                size = len(index.shape.integer_fields)
                index.receive_integers(left[:size])
                left = left[size:]
        if self.shape.low:
            self.products = (self.products ^ own & self.differences) & self._output_mask
        return left

    def _masked_parts(self, indices: list[IndexSide]) -> list[np.ndarray]:
        """The client's parts less its shares of the indices."""
        assert self._parts is not None
        return [part - index.integer for part, index in zip(self._parts, indices, strict=False)]

    def _packed(self, fields: list[np.ndarray], sizes: list[int]) -> bytes:
        return b"".join(self._kernels.pack(field, size) for field, size in zip(fields, sizes, strict=True))

    def pack(self, fields: list[np.ndarray], sizes: list[int]) -> bytes:
        """Fields of the lookups, each of so many low bits and in whole bytes."""
        return self._packed(fields, sizes)

    def unpack(self, message: bytes | bytearray | memoryview, sizes: list[int]) -> list[np.ndarray]:
        """The fields of a message; ValueError where its length is wrong."""
        expected = fields_bytes(sizes, self.count)
        if len(message) != expected:
            raise ValueError(f"{self.count} lookups: expected {expected} bytes, got {len(message)}")
        view, fields = memoryview(message), []
        for size in sizes:
            length = fields_bytes([size], self.count)
            fields.append(self._kernels.unpack(view[:length], size, self.count))
            view = view[length:]
        return fields
