"""Counts of a lookup: transfers, hash keys, and the bits of every message, by which both parties know all lengths."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from autoprivacy.lookup.making_numpy import WORD_INDEX_BITS
from autoprivacy.lookup.table import LookupTable
from autoprivacy.ot.labels import LABEL_BYTES
from autoprivacy.ot.transfers import TransferKind


@dataclass(frozen=True)
class IndexShape:
    """A shared random index of `bits` bits and its one-hot vector.

    The low bits' vector is one word; the 2^h places of the high bits have a word each.
    """

    bits: int

    @cached_property
    def low(self) -> int:
        """Low bits."""
        return min(self.bits, WORD_INDEX_BITS)

    @cached_property
    def high(self) -> int:
        """h, high bits."""
        return self.bits - self.low

    @cached_property
    def words(self) -> int:
        """Words of the vector."""
        return 1 << self.high

    @cached_property
    def products(self) -> tuple[int, ...]:
        """The sets of two and more high bits, as numbers: products that are authenticated one by one."""
        return tuple(number for number in range(self.words) if number & (number - 1))

    @cached_property
    def transfers(self) -> int:
        """Random transfers in each direction: a bit of the index, and a product of high bits."""
        return self.bits + len(self.products)

    @cached_property
    def keys(self) -> int:
        """Hash keys: a bit of the index in each direction, and a word of the vector."""
        return 2 * self.bits + (self.words if self.high else 0)

    @cached_property
    def opening(self) -> int:
        """The last exchange: where there are high bits, the word is opened that makes their words of the low vector."""
        return max(self.low, self.high + 1) if self.high else max(1, self.low - 1)

    def fields(self, exchange: int) -> list[int]:
        """Bits of what each party sends for an index in an exchange from 1 on, the same for both."""
        sizes = [(1 << exchange) - 1 for bits in (self.low, self.high) if exchange < bits]
        if self.products and exchange == self.high:
            sizes.append(len(self.products))
        if self.high and exchange == self.opening:
            sizes.append(1 << WORD_INDEX_BITS)
        return sizes

    @property
    def integer_fields(self) -> list[int]:
        """Bits of what the client sends in exchange 1, for the index's shares as integers modulo 2^bits."""
        return list(range(self.bits - 1, 0, -1))


@dataclass(frozen=True)
class LookupShape:
    """What all lookups of one activation have in common.

    Attributes:
        high: bits n of the level.
        low: bits of the carry's lookup, 0 for none.
        output: bits w of what is looked up.
        modulus: bits k of the shares that come out.
    """

    high: int
    low: int
    output: int
    modulus: int

    @classmethod
    def of(cls, table: LookupTable, modulus_bits: int) -> LookupShape:
        """The shape of lookups in a table that give shares modulo 2^modulus_bits."""
        return cls(table.index_bits, table.low_bits, table.output_bits, modulus_bits)

    @cached_property
    def indices(self) -> tuple[IndexShape, ...]:
        """Of the level and, where low bits meet, of the carry."""
        return tuple(IndexShape(bits) for bits in (self.high, self.low) if bits)

    @cached_property
    def client_transfers(self) -> int:
        """Random transfers that the client receives: the indices', and one for the carry's mask."""
        return sum(index.transfers for index in self.indices) + (1 if self.low else 0)

    @cached_property
    def server_transfers(self) -> int:
        """Those that the server receives: besides the same a mask of every output bit and of every difference."""
        return self.client_transfers + (2 if self.low else 1) * self.output

    @cached_property
    def transfers(self) -> int:
        """Random transfers in both directions."""
        return self.client_transfers + self.server_transfers

    @cached_property
    def keys(self) -> int:
        """Hash keys: the indices', two for the carry's mask, one for each output bit."""
        return sum(index.keys for index in self.indices) + (2 if self.low else 0) + self.output

    @cached_property
    def exchanges(self) -> int:
        """How many messages each party sends offline."""
        return 1 + max(index.opening for index in self.indices)

    @property
    def kept_bytes(self) -> int:
        """Memory of a lookup of either party from offline to online: vectors, labels and a few words."""
        words = sum(index.words for index in self.indices) + len(self.indices) + 4
        labels = 2 * self.output + 1 if self.low else self.output
        return 8 * words + LABEL_BYTES * labels

    def client_fields(self, exchange: int) -> list[int]:
        """Bits of what the client sends in an exchange from 1 on, field by field."""
        sizes = [size for index in self.indices for size in index.fields(exchange)]
        if exchange == 1:
            sizes += [size for index in self.indices for size in index.integer_fields]
        if exchange == self.exchanges - 1:
            sizes += [index.bits for index in self.indices]
        return sizes

    def server_fields(self, exchange: int) -> list[int]:
        """Bits of what the server sends."""
        sizes = [size for index in self.indices for size in index.fields(exchange)]
        return [*sizes, self.output] if self.low and exchange == 1 else sizes

    @property
    def question_fields(self) -> list[int]:
        """Bits of what the server sends online: places, what is opened, corrections of its choices."""
        opened = [1, self.output] if self.low else []
        return [index.bits for index in self.indices] + opened + [self.output]

    @property
    def answer_fields(self) -> list[int]:
        """Bits of what the client sends online: what is opened, a transfer for every output bit, its share masked."""
        opened = [1, self.output] if self.low else []
        return [*opened, *(self.modulus - bit for bit in range(self.output)), self.modulus]

    def offline_bytes(self, count: int, kind: TransferKind, client: bool) -> list[int]:
        """Bytes of a party's message of every exchange for so many lookups, with transfers of a kind."""
        received, sent = self.client_transfers * count, self.server_transfers * count
        if not client:
            received, sent = sent, received
        fields = self.client_fields if client else self.server_fields
        later = [fields_bytes(fields(exchange), count) for exchange in range(1, self.exchanges)]
        return [kind.message_bytes(received, sent), *later]


def fields_bytes(sizes: list[int], count: int) -> int:
    """Bytes of fields of so many bits of `count` lookups, each field in whole bytes."""
    return sum(-(-size * count // 8) for size in sizes)
