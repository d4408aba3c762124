"""Steps of making and reading lookups in numpy. Same functions and bits as `making_numba`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprivacy.ot.kernels_numpy import add_where, hash_words

ONE = np.uint64(1)
INTEGER_PLACE = np.uint64(48)  # of the hash's bits for shares as integers; the lower ones are for products
WORD_INDEX_BITS = 6  # low bits of an index, whose one-hot vector is a word
# Masks that pick, of all sets, those without bit i: places whose bit i is 0.
WITHOUT = tuple(
    np.uint64(sum(1 << place for place in range(64) if not place >> bit & 1)) for bit in range(WORD_INDEX_BITS)
)


def packed(rows: np.ndarray) -> np.ndarray:
    """Bits, 0 or 1 of any type, [rows, count], as one number for each column: uint64 [count]."""
    words = np.zeros(rows.shape[1], np.uint64)
    for place, row in enumerate(rows):
        words |= row.astype(np.uint64) << np.uint64(place)
    return words


def hash_both(keys: np.ndarray, labels: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of labels, and what those of label ^ delta differ by: uint64 [rows, count] each.

    Args:
        keys: uint8 [rows, 16].
        labels: uint64 [rows, count, 2].
        delta: uint64 [2].
    """
    zero = hash_words(keys, labels)
    return zero, zero ^ hash_words(keys, labels, delta)


def integer_messages(own: np.ndarray, zero: np.ndarray, both: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The client's messages for an index as integers, uint64 [bits - 1, count], and its share, uint64 [count].

    a = sum of 2^i (u_i + v_i - 2 u_i v_i): the client sends the products -u_i v_i of its bit with the server's, modulo
    2^(bits - 1 - i).

    Args:
        own: its bits of the index, a number each.
        zero, both: of `hash_both`, [bits, count].
    """
    bits, total, messages = len(zero), own.copy(), []
    for bit in range(bits - 1):
        mask = ones(bits - 1 - bit)
        start = zero[bit] >> INTEGER_PLACE
        end = (zero[bit] ^ both[bit]) >> INTEGER_PLACE
        total -= (start & mask) << np.uint64(bit + 1)
        messages.append((start - end - (own >> np.uint64(bit) & ONE)) & mask)
    return np.array(messages, np.uint64).reshape(-1, own.size), total & ones(bits)


def integer_share(own: np.ndarray, received: np.ndarray, messages: Sequence[np.ndarray]) -> np.ndarray:
    """The server's share, uint64 [count], from the client's messages; `received` are its hashes, [bits, count]."""
    bits, total = len(received), own.copy()
    for bit, message in enumerate(messages):
        product = (received[bit] >> INTEGER_PLACE) + (own >> np.uint64(bit) & ONE) * message
        total += (product & ones(bits - 1 - bit)) << np.uint64(bit + 1)
    return total & ones(bits)


def doubled(
    word: np.ndarray, step: int, bit: np.ndarray, received: np.ndarray, zero: np.ndarray, message: np.ndarray
) -> np.ndarray:
    """Shares of the products of one bit more, bit S for the set S: uint64 [count].

    Args:
        word: of those of the first `step` bits.
        step: the number of the bit.
        bit: this party's share of it, 0 or 1.
        received, zero: hashes of the labels that it received and of 0 of those that it sent.
        message: the other party's.
    """
    chosen = np.uint64(0) - bit
    product = (received ^ zero ^ chosen & (message ^ word >> ONE)) & ones((1 << step) - 1)
    result: np.ndarray = word | (product << ONE | bit) << np.uint64(1 << step)
    return result


def one_hot(word: np.ndarray, bits: int) -> np.ndarray:
    """Shares of the one-hot vector of so many bits from those of their products, uint64 [count]."""
    for bit in range(bits):
        word = word ^ word >> np.uint64(1 << bit) & WITHOUT[bit]
    return word


def gathered(words: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The bits at some places, one after the other, uint64 [count]."""
    return packed(np.array([words >> np.uint64(place) & ONE for place in places]).reshape(-1, words.size))


def spread(words: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Undoes `gathered`, with zeros at other places."""
    result = np.zeros_like(words)
    for i, place in enumerate(places):
        result |= (words >> np.uint64(i) & ONE) << np.uint64(place)
    return result


def expanded(
    keys: np.ndarray, seeds: np.ndarray, numbers: np.ndarray, flips: np.ndarray, delta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Words of the entries' seeds, uint64 [2^h, count], and their sum, from the seeds of products.

    An entry's seed is the sum of those of all sets that contain its own.

    Args:
        keys: uint8 [2^h, 16], of the words.
        seeds: of all sets but the empty one, whose seed is delta: uint64 [2^h - 1, count, 2].
        numbers: the seeds' sets.
        flips: bit S says whether delta is added to the seed of S: uint64 [count].
        delta: uint64 [2].
    """
    entries = np.empty((len(seeds) + 1, *seeds.shape[1:]), np.uint64)
    entries[0] = delta
    for number, seed in zip(numbers, seeds, strict=True):
        entries[number] = seed
        add_where(entries[number], flips >> np.uint64(number) & ONE, delta[None])
    distance = 1
    while distance < len(entries):
        pairs = entries.reshape(-1, 2, distance, *entries.shape[1:])
        pairs[:, 0] ^= pairs[:, 1]  # sets with the bit count for those without
        distance *= 2
    words = hash_words(keys, entries)
    return words, np.bitwise_xor.reduce(words, 0)


def completed(words: np.ndarray, word: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """Shares of one-hot vectors, uint64 [count, 2^h].

    Args:
        words: of the seeds, [2^h, count].
        word: W, uint64 [count], added where an entry is set.
        entries: shares of the high bits' vectors, a bit for each entry: uint64 [count].
    """
    for number, row in enumerate(words):
        row ^= word & (np.uint64(0) - (entries >> np.uint64(number) & ONE))
    return np.ascontiguousarray(words.T)


def selected(
    labels: np.ndarray,
    flips: np.ndarray,
    delta: np.ndarray,
    differences: np.ndarray,
    carries: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
) -> np.ndarray:
    """Labels of the server's output bits: the mask's, delta where the bit of `flips` is set, the difference's where u
    is 1, and the carry's where the bit of v is.

    Args:
        labels: uint64 [w, count, 2].
        flips, v: uint64 [count], bit by bit.
        delta: uint64 [2].
        differences, carries: uint64 [w, count, 2] and [1, count, 2], or none of them.
        u: uint64 [count], 0 or 1.
    """
    chosen = labels.copy()
    for place, label in enumerate(chosen):
        add_where(label, flips >> np.uint64(place) & ONE, delta[None])
        if len(differences):
            add_where(label, u, differences[place])
            add_where(label, v >> np.uint64(place) & ONE, carries[0])
    return chosen


def sent_integers(
    keys: np.ndarray, chosen: np.ndarray, delta: np.ndarray, bits: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The client's transfers of 1 - 2 y_C for every output bit, uint64 [w, count], and its share of their sum.

    Args:
        keys: uint8 [w, 16].
        chosen: labels of the choice 0, of `selected`.
        delta: uint64 [2].
        bits: y_C, uint64 [count].
    """
    zero, both = hash_both(keys, chosen, delta)
    transfers, total = np.empty_like(zero), np.zeros_like(bits)
    for place, (start, difference) in enumerate(zip(zero, both, strict=True)):
        bit = bits >> np.uint64(place) & ONE
        transfers[place] = start - (start ^ difference) + ONE - (bit << ONE)
        total += (bit - start) << np.uint64(place)
    return transfers, total


def received_integers(
    keys: np.ndarray, chosen: np.ndarray, bits: np.ndarray, transfers: Sequence[np.ndarray]
) -> np.ndarray:
    """The server's share of the sum, uint64 [count], from its labels, its bits and the client's transfers."""
    total = np.zeros_like(bits)
    for place, (start, transfer) in enumerate(zip(hash_words(keys, chosen), transfers, strict=True)):
        total += (start + (bits >> np.uint64(place) & ONE) * transfer) << np.uint64(place)
    return total


def ones(count: int) -> np.uint64:
    """So many low bits set."""
    return np.uint64((1 << count) - 1)
