"""Kernels of lookups compiled by numba. Same functions and bits as `kernels_numpy`."""

from __future__ import annotations

from typing import Any

import numpy as np

from autoprivacy.kernel_cache import njit
from autoprivacy.lookup.popcount_llvm import popcount

WORD_BITS = np.uint64(64)
LAST = np.uint64(63)
ONE = np.uint64(1)
NONE = np.uint64(0)


@njit(cache=True, nogil=True)
def _pack(values: Any, bits: Any, words: Any) -> None:
    mask = (NONE - ONE) >> (WORD_BITS - bits)
    current, filled, position = NONE, NONE, 0
    for value in values:
        value &= mask
        current |= value << filled
        filled += bits
        if filled >= WORD_BITS:
            words[position] = current
            position += 1
            filled -= WORD_BITS
            current = value >> (bits - filled) if filled else NONE
    if filled:
        words[position] = current


def pack(values: np.ndarray, bits: int) -> bytes:
    """Values one after the other; as `kernels_numpy.pack`."""
    words = np.empty(-(-values.size * bits // 64), np.uint64)
    _pack(values, np.uint64(bits), words)
    return words.astype("<u8", copy=False).view(np.uint8)[: -(-values.size * bits // 8)].tobytes()


@njit(cache=True, nogil=True)
def _unpack(words: Any, bits: Any, out: Any) -> None:
    mask, position = (NONE - ONE) >> (WORD_BITS - bits), NONE
    for index in range(out.size):
        word, shift = position >> np.uint64(6), position & LAST
        value = words[word] >> shift
        if shift + bits > WORD_BITS:
            value |= words[word + ONE] << (WORD_BITS - shift)
        out[index] = value & mask
        position += bits


def unpack(data: bytes | bytearray | memoryview, bits: int, count: int) -> np.ndarray:
    """Undoes `pack`; as `kernels_numpy.unpack`."""
    words = np.zeros(-(-count * bits // 64) + 1, "<u8")
    words.view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
    values = np.empty(count, np.uint64)
    _unpack(words.astype(np.uint64, copy=False), np.uint64(bits), values)
    return values


@njit(cache=True, nogil=True)
def _read(vectors: Any, places: Any, tables: Any, read: Any) -> None:
    """Vectors of 64 bits and more."""
    count, words = vectors.shape
    moved = np.empty(words, np.uint64)
    for index in range(count):
        place = places[index]
        shift, start = place & LAST, words - np.int64(place >> np.uint64(6))
        for word in range(words):
            here = vectors[index, (word + start) & (words - 1)]
            before = vectors[index, (word + start - 1) & (words - 1)]
            moved[word] = (here << shift) | ((before >> (LAST - shift)) >> ONE)
        result = NONE
        for table in range(len(tables)):
            folded = NONE
            for word in range(words):
                folded ^= moved[word] & tables[table, word]
            result |= (popcount(folded) & ONE) << np.uint64(table)
        read[index] = result


@njit(cache=True, nogil=True)
def _read_word(vectors: Any, places: Any, size: Any, tables: Any, read: Any) -> None:
    """Vectors of fewer bits than a word."""
    mask = (ONE << size) - ONE
    for index in range(len(vectors)):
        vector, place, result = vectors[index, 0], places[index], NONE
        moved = ((vector << place) | (vector >> (size - place))) & mask
        for table in range(len(tables)):
            result |= (popcount(moved & tables[table, 0]) & ONE) << np.uint64(table)
        read[index] = result


def read(vectors: np.ndarray, places: np.ndarray, index_bits: int, tables: np.ndarray) -> np.ndarray:
    """What tables say of moved one-hot vectors; as `kernels_numpy.read`."""
    result = np.empty(len(vectors), np.uint64)
    if index_bits < 6:
        _read_word(vectors, places, np.uint64(1 << index_bits), tables, result)
    else:
        _read(vectors, places, tables, result)
    return result
