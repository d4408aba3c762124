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

from dataclasses import dataclass
from types import ModuleType

import numpy as np

from autoprivacy.lookup.kernels import load_making
from autoprivacy.lookup.shape import IndexShape
from autoprivacy.ot.kernels import load_kernels as load_hashes

ONE = np.uint64(1)


@dataclass(frozen=True)
class Ends:
    """One party's ends of its random transfers in both directions for some lookups.

    Attributes:
        choices: of those that it receives, uint8 [roles, count], 0 or 1.
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
        ends: of its transfers, `shape.transfers` roles in each direction; nothing of them is kept.
        keys: hash keys, `shape.keys`: of the bits that the client receives, of those that the server receives, of
        words.
        backend: "numba" or "numpy"; None takes the faster one that this machine has.

    Attributes:
        integer: this party's share of the index modulo 2^bits, once the integers' messages are sent and received.
        vectors: of its one-hot vector, uint64 [count, words], after the last exchange.
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
        self.shape, self._delta = shape, delta
        self._making: ModuleType = load_making(backend)
        bits = shape.bits
        own, others = (keys[:bits], keys[bits : 2 * bits]) if client else (keys[bits : 2 * bits], keys[:bits])
        self._received: np.ndarray = load_hashes(backend).hash_words(own, ends.received[:bits])
        self._zero, self._both = self._making.hash_both(others, ends.sent[:bits], delta)
        self._word_keys = keys[2 * bits :]
        self._own: np.ndarray = self._making.packed(ends.choices[:bits])
        self._choices: np.ndarray = self._making.packed(ends.choices[bits:])
        # of the high bits' products, t ^ q each; delta is added where their shares say so, see `_opened`
        authenticating = slice(shape.low, shape.transfers if shape.high else shape.low)
        self._seeds = ends.received[authenticating] ^ ends.sent[authenticating]
        self._products = np.array(shape.products, np.int64)
        self._low = self._start(0, client)
        self._high = self._start(shape.low, client) if shape.high else np.empty(0, np.uint64)
        self._corrections = np.zeros(len(self._own), np.uint64)
        self.integer = self._own
        self.vectors = np.empty((0, 0), np.uint64)

    def _bit(self, place: int) -> np.ndarray:
        """This party's share of a bit of the index."""
        return self._own >> np.uint64(place) & ONE

    def _start(self, place: int, client: bool) -> np.ndarray:
        """Shares of the products of one bit: of the empty set's, 1, and of the bit."""
        return self._bit(place) << ONE | np.uint64(client)

    def send_integers(self) -> list[np.ndarray]:
        """The client's fields, `shape.integer_fields` bits each, by which the parties' `integer` add up to the
        index.
        """
        messages, self.integer = self._making.integer_messages(self._own, self._zero, self._both)
        return list(messages)

    def receive_integers(self, fields: list[np.ndarray]) -> None:
        """The server's part."""
        self.integer = self._making.integer_share(self._own, self._received, fields)

    def send(self, exchange: int) -> list[np.ndarray]:
        """This party's fields of an exchange, `shape.fields(exchange)` bits each."""
        shape, fields = self.shape, []
        if exchange < shape.low:
            fields.append(self._both[exchange] ^ self._low >> ONE)
        if exchange < shape.high:
            fields.append(self._both[shape.low + exchange] ^ self._high >> ONE)
        if shape.products and exchange == shape.high:
            # what this party's shares of the products are beside its random choices, a bit for each product
            self._corrections = self._making.gathered(self._high, self._products) ^ self._choices
            fields.append(self._corrections)
        if shape.high and exchange == shape.opening:
            fields.append(self._opened())
        return fields

    def receive(self, exchange: int, fields: list[np.ndarray]) -> None:
        """The other party's fields of the exchange."""
        shape, left = self.shape, list(fields)
        if exchange < shape.low:
            self._low = self._doubled(self._low, exchange, 0, left.pop(0))
        if exchange < shape.high:
            self._high = self._doubled(self._high, exchange, shape.low, left.pop(0))
        if shape.products and exchange == shape.high:
            self._corrections = left.pop(0)
        if shape.high and exchange == shape.opening:
            self._finish(left.pop(0))
        elif exchange == shape.opening:
            self.vectors = self._making.one_hot(self._low, shape.low)[:, None]

    def _doubled(self, word: np.ndarray, step: int, first: int, message: np.ndarray) -> np.ndarray:
        row = first + step
        own = self._received[row], self._zero[row]
        result: np.ndarray = self._making.doubled(word, step, self._bit(row), *own, message)
        return result

    def _opened(self) -> np.ndarray:
        """This party's share of W, from the seeds of the entries.

        A product's authenticated share is t ^ q, and delta where this party's choice is set or was corrected by either
        party: where its share of the product, and the other's correction, say so.
        """
        shape = self.shape
        numbers = np.array([*(1 << bit for bit in range(shape.high)), *shape.products], np.int64)
        flips = self._high ^ self._making.spread(self._corrections, self._products)
        self._words, total = self._making.expanded(self._word_keys, self._seeds, numbers, flips, self._delta)
        self._seeds = np.empty((0, 0, 2), np.uint64)
        self._share: np.ndarray = total ^ self._making.one_hot(self._low, shape.low)
        return self._share

    def _finish(self, other: np.ndarray) -> None:
        entries = self._making.one_hot(self._high, self.shape.high)
        self.vectors = self._making.completed(self._words, self._share ^ other, entries)
        del self._words
