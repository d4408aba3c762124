"""One party's side of a shared random index and its one-hot vector, exchange by exchange.

The index a is the XOR of both parties' choice bits in random transfers. Its one-hot vector is built from the products
of its bits, which are XOR-shared: m_S for every set S of bits, m of the empty set being 1. With one bit more there
are as many products again, m_S a_i, and a product of two shared values is two one-way messages: for a party's own bit
u, whose transfer gives it t and the other party q = t ^ u delta, the other sends H(q) ^ H(q ^ delta) ^ v and both
have shares of u v. The entry of the one-hot vector at j is the sum of the products of all sets that contain j's.

Low bits and high bits have products of their own. The products of the high bits are authenticated under both parties'
offsets (those of one bit are already, by its transfers): the parties get seeds that are equal where a high entry is 0
and differ by delta_C ^ delta_S where it is 1. The sum of all seeds' hashes and of the low vector, opened, is the word
W that turns the hash of the one different seed into the low vector, so that `H(seed_j) ^ entry_j W` are shares of the
whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from autoprivacy.lookup.shape import WORD_INDEX_BITS, IndexShape
from autoprivacy.ot.kernels import load_kernels as load_hashes

ONE = np.uint64(1)
INTEGER_PLACE = np.uint64(48)  # of the hash's bits for shares as integers; the lower 32 are for products
# Masks that pick, of all sets, those without bit i: places whose bit i is 0.
WITHOUT = tuple(
    np.uint64(sum(1 << place for place in range(64) if not place >> bit & 1)) for bit in range(WORD_INDEX_BITS)
)


@dataclass(frozen=True)
class Ends:
    """One party's ends of its random transfers in both directions for some lookups.

    Attributes:
        choices: of those that it receives, uint64 [roles, count], 0 or 1.
        received: their labels, uint64 [roles, count, 2].
        sent: labels of 0 of those that it sends, uint64 [other party's roles, count, 2].
    """

    choices: np.ndarray
    received: np.ndarray
    sent: np.ndarray

    def part(self, first: int, count: int) -> Ends:
        """Roles first to first + count of both directions."""
        roles = slice(first, first + count)
        return Ends(self.choices[roles], self.received[roles], self.sent[roles])


class IndexSide:
    """One party's side; both call the same methods in the same order.

    Args:
        shape: the index's.
        client: whether this is the client, which holds the constant 1.
        delta: this party's offset.
        ends: of its transfers, `shape.transfers` roles in each direction.
        keys: hash keys, `shape.keys`: of the bits that the client receives, of those that the server receives, of
        words.
        backend: "numba" or "numpy"; None takes the faster one that this machine has.
    """

    def __init__(
        self,
        shape: IndexShape,
        client: bool,
        delta: np.ndarray,
        ends: Ends,
        keys: np.ndarray,
        backend: str | None,
    ) -> None:
        self.shape, self._client, self._delta = shape, client, delta
        self._hashes: ModuleType = load_hashes(backend)
        bits = shape.bits
        self._bits = ends.choices[:bits]
        own, others = (keys[:bits], keys[bits : 2 * bits]) if client else (keys[bits : 2 * bits], keys[:bits])
        self._received = self._hashes.hash_words(own, ends.received[:bits])
        self._zero = self._hashes.hash_words(others, ends.sent[:bits])
        self._both = self._zero ^ self._hashes.hash_words(others, ends.sent[:bits], delta)
        self._word_keys = keys[2 * bits :]
        self._authenticated = self._start_seeds(ends) if shape.high else np.empty((0, 0, 2), np.uint64)
        self._choices = ends.choices[bits:]
        self._low = _Products(self._bits[: shape.low], client)
        self._high = _Products(self._bits[shape.low :], client) if shape.high else None
        self.integer = self._plain_integer()
        self.vectors = np.empty((0, 0), np.uint64)

    def _start_seeds(self, ends: Ends) -> np.ndarray:
        """Seeds of the products of high bits as far as they are known: t ^ q, and of single bits u delta as well.

        uint64 [2^h, count, 2], by set; that of the empty set, whose product is 1, is this party's offset.
        """
        shape, count = self.shape, ends.choices.shape[1]
        seeds = np.empty((shape.words, count, 2), np.uint64)
        seeds[0] = self._delta
        for bit in range(shape.high):
            role = shape.low + bit
            np.bitwise_xor(ends.received[role], ends.sent[role], out=seeds[1 << bit])
            self._hashes.add_where(seeds[1 << bit], ends.choices[role], self._delta[None])
        for number, role in zip(shape.products, range(shape.bits, shape.transfers), strict=True):
            np.bitwise_xor(ends.received[role], ends.sent[role], out=seeds[number])
        return seeds

    def _plain_integer(self) -> np.ndarray:
        """The sum of this party's own bits; `integers` adds the products with the other's."""
        return np.bitwise_or.reduce([row << np.uint64(bit) for bit, row in enumerate(self._bits)])

    def send_integers(self) -> Iterator[tuple[np.ndarray, int]]:
        """The client's fields, by which the parties' `integer` add up to the index modulo 2^bits.

        a = sum of 2^i (u_i + v_i - 2 u_i v_i): the client sends the products -u_i v_i of its bit with the server's.
        """
        for bit, size in enumerate(self.shape.integer_fields):
            mask = np.uint64((1 << size) - 1)
            zero = self._zero[bit] >> INTEGER_PLACE
            one = (self._zero[bit] ^ self._both[bit]) >> INTEGER_PLACE
            self.integer -= (zero & mask) << np.uint64(bit + 1)
            yield (zero - one - self._bits[bit]) & mask, size
        self.integer &= np.uint64((1 << self.shape.bits) - 1)

    def receive_integers(self, fields: list[np.ndarray]) -> None:
        """The server's part."""
        for bit, (size, message) in enumerate(zip(self.shape.integer_fields, fields, strict=True)):
            product = (self._received[bit] >> INTEGER_PLACE) + self._bits[bit] * message
            self.integer += (product & np.uint64((1 << size) - 1)) << np.uint64(bit + 1)
        self.integer &= np.uint64((1 << self.shape.bits) - 1)

    def send(self, exchange: int) -> list[np.ndarray]:
        """This party's fields of an exchange, `shape.fields(exchange)` bits each."""
        shape, fields = self.shape, []
        if exchange < shape.low:
            fields.append(self._low.send(exchange, self._both[exchange]))
        if self._high and exchange < shape.high:
            fields.append(self._high.send(exchange, self._both[shape.low + exchange]))
        if self._high and shape.products and exchange == shape.high:
            fields.append(self._corrections())
        if self._high and exchange == shape.opening:
            fields.append(self._opened())
        return fields

    def receive(self, exchange: int, fields: list[np.ndarray]) -> None:
        """The other party's fields of the exchange."""
        shape, left = self.shape, list(fields)
        for products, first, bits in ((self._low, 0, shape.low), (self._high, shape.low, shape.high)):
            if products and exchange < bits:
                row = first + exchange
                products.receive(exchange, self._received[row], self._zero[row], left.pop(0))
        if self._high and shape.products and exchange == shape.high:
            self._authenticate(left.pop(0))
        if self._high and exchange == shape.opening:
            self._finish(left.pop(0))
        elif exchange == shape.opening:
            self.vectors = self._low.one_hot()[:, None]

    def _corrections(self) -> np.ndarray:
        """What this party's shares of the products are beside its random choices, a bit for each product."""
        assert self._high
        shares = [self._high.word >> np.uint64(number) & ONE for number in self.shape.products]
        bits = [
            (share ^ choice) << np.uint64(i)
            for i, (share, choice) in enumerate(zip(shares, self._choices, strict=True))
        ]
        return np.bitwise_or.reduce(bits)

    def _authenticate(self, corrections: np.ndarray) -> None:
        """Completes the seeds of the products and turns them into those of the entries."""
        assert self._high
        for i, number in enumerate(self.shape.products):
            share = self._high.word >> np.uint64(number) ^ corrections >> np.uint64(i)
            self._hashes.add_where(self._authenticated[number], share & ONE, self._delta[None])

    def _opened(self) -> np.ndarray:
        """This party's share of W; the seeds become their hashes' first words."""
        seeds = self._authenticated
        for bit in range(self.shape.high):
            pairs = seeds.reshape(-1, 2, 1 << bit, *seeds.shape[1:])
            pairs[:, 0] ^= pairs[:, 1]  # sets with the bit count for those without
        self._words = self._hashes.hash_words(self._word_keys, seeds)
        self._authenticated = np.empty((0, 0, 2), np.uint64)
        self._own: np.ndarray = np.bitwise_xor.reduce(self._words, 0) ^ self._low.one_hot()
        return self._own

    def _finish(self, other: np.ndarray) -> None:
        assert self._high
        word, entries = self._own ^ other, self._high.one_hot()
        for number, row in enumerate(self._words):
            row ^= word & (np.uint64(0) - (entries >> np.uint64(number) & ONE))
        self.vectors = np.ascontiguousarray(self._words.T)


class _Products:
    """Shares of the products of a few bits, a word for each lookup: bit S for the set S."""

    def __init__(self, bits: np.ndarray, client: bool) -> None:
        self._bits = bits
        self.word = bits[0] << ONE | np.uint64(client)

    def send(self, step: int, both: np.ndarray) -> np.ndarray:
        """For the other party's product of its bit number `step` with this party's shares."""
        return (both ^ self.word >> ONE) & _ones((1 << step) - 1)

    def receive(self, step: int, received: np.ndarray, zero: np.ndarray, message: np.ndarray) -> None:
        """Doubles the products by bit number `step`."""
        own = np.uint64(0) - self._bits[step]
        product = (received ^ zero ^ own & (message ^ self.word >> ONE)) & _ones((1 << step) - 1)
        self.word = self.word | (product << ONE | self._bits[step]) << np.uint64(1 << step)

    def one_hot(self) -> np.ndarray:
        """Shares of the one-hot vector of these bits."""
        word = self.word
        for bit in range(len(self._bits)):
            word = word ^ word >> np.uint64(1 << bit) & WITHOUT[bit]
        return word


def _ones(count: int) -> np.uint64:
    return np.uint64((1 << count) - 1)
