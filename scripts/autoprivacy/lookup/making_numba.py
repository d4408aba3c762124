"""Steps of making and reading lookups compiled by numba, in blocks that stay in cache. Same functions and bits as
`making_numpy`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autoprivacy.kernel_cache import njit
from autoprivacy.lookup.making_numpy import INTEGER_PLACE, WITHOUT
from autoprivacy.ot.aes_llvm import ROUND_KEY_BYTES
from autoprivacy.ot.aes_llvm import hash_words as hash_row
from autoprivacy.ot.kernels_numba import CACHE_LINE_WORDS, address, hash_words, round_keys
from autoprivacy.ot.labels import LABEL_BYTES

BLOCK = 128  # lookups whose seeds of an index of 10 bits take 32 KiB, or whose labels of 8 bits take 16
WORD_BYTES = 8
ONE, NONE = np.uint64(1), np.uint64(0)
MASKS = np.array(WITHOUT)


@njit(cache=True, nogil=True)
def _packed(rows: Any, words: Any) -> None:
    for i in range(len(words)):
        words[i] = NONE
    for place in range(len(rows)):
        for i in range(len(words)):
            words[i] |= np.uint64(rows[place, i]) << np.uint64(place)


def packed(rows: np.ndarray) -> np.ndarray:
    """As `making_numpy.packed`."""
    words = np.empty(rows.shape[1], np.uint64)
    _packed(rows, words)
    return words


@njit(cache=True, nogil=True)
def _hash_both(keys: Any, labels: Any, delta: Any, nothing: Any, zero: Any, both: Any, spare: Any) -> None:
    """Blocks of a row under both offsets, one after the other, so that labels are read from memory once."""
    rows, count = zero.shape
    for row in range(rows):
        key = address(keys) + ROUND_KEY_BYTES * row
        for start in range(0, count, BLOCK):
            width = min(BLOCK, count - start)
            place = count * row + start
            source, out = address(labels) + LABEL_BYTES * place, address(both) + WORD_BYTES * place
            hash_row(key, source, address(nothing), address(zero) + WORD_BYTES * place, address(spare), width)
            hash_row(key, source, address(delta), out, address(spare), width)
            for i in range(start, start + width):
                both[row, i] ^= zero[row, i]


def hash_both(keys: np.ndarray, labels: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `making_numpy.hash_both`."""
    zero, both = np.empty(labels.shape[:2], np.uint64), np.empty(labels.shape[:2], np.uint64)
    labels, nothing, spare = np.ascontiguousarray(labels), np.zeros(2, np.uint64), np.empty(BLOCK, np.uint64)
    _hash_both(round_keys(keys), labels, delta, nothing, zero, both, spare)
    return zero, both


@njit(cache=True, nogil=True)
def _ones(count: Any) -> Any:
    return (ONE << np.uint64(count)) - ONE


@njit(cache=True, nogil=True)
def _integer_messages(own: Any, zero: Any, both: Any, messages: Any, total: Any) -> None:
    bits, count = zero.shape
    for i in range(count):
        total[i] = own[i]
    for bit in range(bits - 1):
        mask, place, up = _ones(bits - 1 - bit), np.uint64(bit), np.uint64(bit + 1)
        for i in range(count):
            start = zero[bit, i] >> INTEGER_PLACE
            end = (zero[bit, i] ^ both[bit, i]) >> INTEGER_PLACE
            total[i] -= (start & mask) << up
            messages[bit, i] = (start - end - (own[i] >> place & ONE)) & mask
    for i in range(count):
        total[i] &= _ones(bits)


def integer_messages(own: np.ndarray, zero: np.ndarray, both: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `making_numpy.integer_messages`."""
    messages, total = np.empty((len(zero) - 1, own.size), np.uint64), np.empty_like(own)
    _integer_messages(own, zero, both, messages, total)
    return messages, total


@njit(cache=True, nogil=True)
def _integer_share(own: Any, received: Any, bit: Any, bits: Any, message: Any, total: Any) -> None:
    mask, place, up = _ones(bits - 1 - bit), np.uint64(bit), np.uint64(bit + 1)
    for i in range(len(own)):
        product = (received[i] >> INTEGER_PLACE) + (own[i] >> place & ONE) * message[i]
        total[i] = (total[i] + ((product & mask) << up)) & _ones(bits)


def integer_share(own: np.ndarray, received: np.ndarray, messages: Sequence[np.ndarray]) -> np.ndarray:
    """As `making_numpy.integer_share`."""
    total = own.copy()
    for bit, message in enumerate(messages):
        _integer_share(own, received[bit], bit, len(received), message, total)
    return total


@njit(cache=True, nogil=True)
def _doubled(word: Any, step: Any, bit: Any, received: Any, zero: Any, message: Any, out: Any) -> None:
    mask, up = _ones((1 << step) - 1), np.uint64(1 << step)
    for i in range(len(word)):
        chosen = NONE - bit[i]
        product = (received[i] ^ zero[i] ^ (chosen & (message[i] ^ (word[i] >> ONE)))) & mask
        out[i] = word[i] | (((product << ONE) | bit[i]) << up)


def doubled(
    word: np.ndarray, step: int, bit: np.ndarray, received: np.ndarray, zero: np.ndarray, message: np.ndarray
) -> np.ndarray:
    """As `making_numpy.doubled`."""
    out = np.empty_like(word)
    _doubled(word, step, bit, received, zero, message, out)
    return out


@njit(cache=True, nogil=True)
def _one_hot(words: Any, bits: Any, masks: Any, out: Any) -> None:
    for i in range(len(words)):
        word = words[i]
        for bit in range(bits):
            word ^= (word >> np.uint64(1 << bit)) & masks[bit]
        out[i] = word


def one_hot(word: np.ndarray, bits: int) -> np.ndarray:
    """As `making_numpy.one_hot`."""
    out = np.empty_like(word)
    _one_hot(word, bits, MASKS, out)
    return out


@njit(cache=True, nogil=True)
def _gathered(words: Any, places: Any, out: Any) -> None:
    for i in range(len(words)):
        bits = NONE
        for j in range(len(places)):
            bits |= (words[i] >> np.uint64(places[j]) & ONE) << np.uint64(j)
        out[i] = bits


def gathered(words: np.ndarray, places: np.ndarray) -> np.ndarray:
    """As `making_numpy.gathered`."""
    out = np.empty_like(words)
    _gathered(words, places, out)
    return out


@njit(cache=True, nogil=True)
def _spread(words: Any, places: Any, out: Any) -> None:
    for i in range(len(words)):
        bits = NONE
        for j in range(len(places)):
            bits |= (words[i] >> np.uint64(j) & ONE) << np.uint64(places[j])
        out[i] = bits


def spread(words: np.ndarray, places: np.ndarray) -> np.ndarray:
    """As `making_numpy.spread`."""
    out = np.empty_like(words)
    _spread(words, places, out)
    return out


@njit(cache=True, nogil=True)
def _fill(entries: Any, seeds: Any, numbers: Any, flips: Any, delta: Any, start: Any, width: Any) -> None:
    """A block of seeds, by set."""
    for i in range(width):
        entries[0, i, 0], entries[0, i, 1] = delta[0], delta[1]
    for row in range(len(numbers)):
        number = numbers[row]
        place = np.uint64(number)
        for i in range(width):
            chosen = NONE - (flips[start + i] >> place & ONE)
            entries[number, i, 0] = seeds[row, start + i, 0] ^ (chosen & delta[0])
            entries[number, i, 1] = seeds[row, start + i, 1] ^ (chosen & delta[1])


@njit(cache=True, nogil=True)
def _expanded(
    keys: Any, seeds: Any, numbers: Any, flips: Any, deltas: Any, words: Any, total: Any, entries: Any, spare: Any
) -> None:
    size, count = words.shape
    for start in range(0, count, BLOCK):
        width = min(BLOCK, count - start)
        _fill(entries, seeds, numbers, flips, deltas[0], start, width)
        distance = 1
        while distance < size:
            for row in range(size):
                if not row & distance:
                    for i in range(width):
                        entries[row, i, 0] ^= entries[row | distance, i, 0]
                        entries[row, i, 1] ^= entries[row | distance, i, 1]
            distance *= 2
        for i in range(start, start + width):
            total[i] = NONE
        for row in range(size):
            key, source = address(keys) + ROUND_KEY_BYTES * row, address(entries) + LABEL_BYTES * BLOCK * row
            out = address(words) + WORD_BYTES * (count * row + start)
            hash_row(key, source, address(deltas) + LABEL_BYTES, out, address(spare), width)
            for i in range(start, start + width):
                total[i] ^= words[row, i]


def expanded(
    keys: np.ndarray, seeds: np.ndarray, numbers: np.ndarray, flips: np.ndarray, delta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As `making_numpy.expanded`."""
    size, count = len(seeds) + 1, flips.size
    words, total = np.empty((size, count), np.uint64), np.empty(count, np.uint64)
    entries, spare = np.empty((size, BLOCK, 2), np.uint64), np.empty(BLOCK, np.uint64)
    deltas = np.stack([delta, np.zeros_like(delta)])
    _expanded(round_keys(keys), seeds, numbers, flips, deltas, words, total, entries, spare)
    return words, total


@njit(cache=True, nogil=True)
def _completed(words: Any, word: Any, entries: Any, vectors: Any) -> None:
    size, count = words.shape
    for start in range(0, count, CACHE_LINE_WORDS):
        end = min(start + CACHE_LINE_WORDS, count)
        for row in range(size):
            place = np.uint64(row)
            for i in range(start, end):
                vectors[i, row] = words[row, i] ^ (word[i] & (NONE - (entries[i] >> place & ONE)))


def completed(words: np.ndarray, word: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """As `making_numpy.completed`."""
    vectors = np.empty(words.shape[::-1], np.uint64)
    _completed(words, word, entries, vectors)
    return vectors


@njit(cache=True, nogil=True)
def _selected(labels: Any, flips: Any, delta: Any, differences: Any, carries: Any, u: Any, v: Any, chosen: Any) -> None:
    width, count = labels.shape[:2]
    with_carry = len(differences) > 0
    for row in range(width):
        place = np.uint64(row)
        for i in range(count):
            flip = NONE - (flips[i] >> place & ONE)
            first, second = labels[row, i, 0] ^ (flip & delta[0]), labels[row, i, 1] ^ (flip & delta[1])
            if with_carry:
                one, other = NONE - u[i], NONE - (v[i] >> place & ONE)
                first ^= (one & differences[row, i, 0]) ^ (other & carries[0, i, 0])
                second ^= (one & differences[row, i, 1]) ^ (other & carries[0, i, 1])
            chosen[row, i, 0], chosen[row, i, 1] = first, second


def selected(
    labels: np.ndarray,
    flips: np.ndarray,
    delta: np.ndarray,
    differences: np.ndarray,
    carries: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
) -> np.ndarray:
    """As `making_numpy.selected`."""
    chosen = np.empty_like(labels)
    _selected(labels, flips, delta, differences, carries, u, v, chosen)
    return chosen


@njit(cache=True, nogil=True)
def _sent_integers(zero: Any, both: Any, bits: Any, transfers: Any, total: Any) -> None:
    for i in range(len(bits)):
        total[i] = NONE
    for row in range(len(zero)):
        place = np.uint64(row)
        for i in range(len(bits)):
            start, bit = zero[row, i], bits[i] >> place & ONE
            transfers[row, i] = start - (start ^ both[row, i]) + ONE - (bit << ONE)
            total[i] += (bit - start) << place


def sent_integers(
    keys: np.ndarray, chosen: np.ndarray, delta: np.ndarray, bits: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As `making_numpy.sent_integers`."""
    zero, both = hash_both(keys, chosen, delta)
    transfers, total = np.empty_like(zero), np.empty_like(bits)
    _sent_integers(zero, both, bits, transfers, total)
    return transfers, total


@njit(cache=True, nogil=True)
def _received_integers(start: Any, bits: Any, place: Any, transfer: Any, total: Any) -> None:
    for i in range(len(bits)):
        total[i] += (start[i] + (bits[i] >> place & ONE) * transfer[i]) << place


def received_integers(
    keys: np.ndarray, chosen: np.ndarray, bits: np.ndarray, transfers: Sequence[np.ndarray]
) -> np.ndarray:
    """As `making_numpy.received_integers`."""
    hashes, total = hash_words(keys, chosen), np.zeros_like(bits)
    for place, transfer in enumerate(transfers):
        _received_integers(hashes[place], bits, np.uint64(place), transfer, total)
    return total
