"""Kernels of oblivious transfer compiled by numba around the AES instructions. Same functions and bits as
`kernels_numpy`.

Everything runs without the interpreter's lock, so threads overlap. `kernels.numba_supported` says whether the processor
has what this needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autoprivacy.kernel_cache import njit
from autoprivacy.ot.aes_llvm import ROUND_KEY_BYTES, expand_key, fold4, fold8, fold16
from autoprivacy.ot.aes_llvm import hash_words as hash_row
from autoprivacy.ot.labels import LABEL_BYTES

CACHE_LINE_WORDS = 8
LOW_HALF = np.uint64((1 << 32) - 1)
NONE = np.uint64(0)
WORD_BYTES = 8


@njit(cache=True, nogil=True, inline="always")
def address(array: Any) -> Any:
    """Where an array's memory begins. The caller's caller keeps the array, as numba drops its own at their last use."""
    return array.ctypes.data


@njit(cache=True, nogil=True)
def expand_keys(keys: Any, expanded: Any) -> None:
    """Round keys, uint64 [keys, 22], of AES keys, uint64 [keys, 2]."""
    for i in range(len(keys)):
        expand_key(address(keys) + i * LABEL_BYTES, address(expanded) + i * ROUND_KEY_BYTES)


def round_keys(keys: np.ndarray) -> np.ndarray:
    """Round keys, uint8 [keys, 176], of AES keys, uint8 [keys, 16]."""
    expanded = np.empty((len(keys), ROUND_KEY_BYTES), np.uint8)
    expand_keys(keys, expanded)
    return expanded


@njit(cache=True, nogil=True)
def _transpose(rows: Any, labels: Any) -> None:
    """Eight blocks of 64 columns at once, as every row's share of them is one cache line."""
    block = np.zeros((2, 64 * CACHE_LINE_WORDS), np.uint64)
    for start in range(0, rows.shape[1], CACHE_LINE_WORDS):
        width = min(CACHE_LINE_WORDS, rows.shape[1] - start)
        for half in range(2):
            for i in range(64):
                for word in range(width):
                    block[half, CACHE_LINE_WORDS * i + word] = rows[64 * half + i, start + word]
            _transpose_block(block[half])
        for i in range(64):
            for word in range(width):
                for half in range(2):
                    labels[64 * (start + word) + i, half] = block[half, CACHE_LINE_WORDS * i + word]


@njit(cache=True, nogil=True)
def _transpose_block(block: Any) -> None:
    """In place the transposes of eight 64 x 64 bit matrices, uint64 [64 * 8], row 0 of all of them first.

    Swaps quarters of halving size (Warren, Hacker's Delight, 7-3).
    """
    distance, mask = 32, LOW_HALF
    while distance:
        shift, span = np.uint64(distance), CACHE_LINE_WORDS * distance
        for start in range(0, len(block), 2 * span):
            upper, lower = block[start : start + span], block[start + span : start + 2 * span]
            for i in range(span):
                swap = ((upper[i] >> shift) ^ lower[i]) & mask
                lower[i] ^= swap
                upper[i] ^= swap << shift
        distance >>= 1
        mask ^= mask << np.uint64(distance)


def transpose(rows: np.ndarray) -> np.ndarray:
    """A bit matrix's columns as labels; as `kernels_numpy.transpose`."""
    labels = np.empty((64 * rows.shape[1], 2), np.uint64)
    _transpose(rows, labels)
    return labels


@njit(cache=True, nogil=True)
def _hash_rows(keys: Any, labels: Any, offset: Any, hashes: Any, spare: Any) -> None:
    count = labels.shape[1]
    for i in range(len(labels)):
        key, row, out = address(keys) + ROUND_KEY_BYTES * i, address(labels) + LABEL_BYTES * count * i, address(hashes)
        hash_row(key, row, address(offset), out + WORD_BYTES * count * i, address(spare), count)


def hash_words(keys: np.ndarray, labels: np.ndarray, offset: np.ndarray | None = None) -> np.ndarray:
    """The first words of hashes; as `kernels_numpy.hash_words`."""
    words = np.empty(labels.shape[:2], np.uint64)
    offset = np.zeros(2, np.uint64) if offset is None else offset
    _hash_rows(round_keys(keys), np.ascontiguousarray(labels), offset, words, np.empty(labels.shape[1], np.uint64))
    return words


@njit(cache=True, nogil=True)
def _fold_group(key: Any, leaves: Any, first: Any, bits: Any, counter: Any, spare: Any, blocks: Any) -> None:
    """The rows of a group of 2^bits leaves, bits 2 to 4, and their sum behind, into the spare memory."""
    seeds, out, stride = address(leaves) + LABEL_BYTES * first, address(spare), LABEL_BYTES * blocks
    if bits == 4:
        fold16(address(key), seeds, counter, out, stride, blocks)
    elif bits == 3:
        fold8(address(key), seeds, counter, out, stride, blocks)
    else:
        fold4(address(key), seeds, counter, out, stride, blocks)


@njit(cache=True, nogil=True)
def _expand_tree(key: Any, leaves: Any, first: Any, bits: Any, counter: Any, spare: Any, rows: Any, total: Any) -> None:
    """One tree: groups of at most 16 leaves, then the groups' sums level by level."""
    width, low = len(total), min(bits, 4)
    groups = 1 << (bits - low)
    sums = spare[(low + 1) * width :]
    for group in range(groups):
        _fold_group(key, leaves, first + (group << low), low, counter, spare, width // 2)
        for bit in range(low):
            for i in range(width):
                rows[bit, i] = spare[bit * width + i] ^ (rows[bit, i] if group else NONE)
        for i in range(width):
            sums[group * width + i] = spare[low * width + i]
    for bit in range(low, bits):
        groups //= 2
        for i in range(width):
            rows[bit, i] = NONE
        for group in range(groups):
            left, right, out = 2 * group * width, (2 * group + 1) * width, group * width
            for i in range(width):
                odd = sums[right + i]
                rows[bit, i] ^= odd
                sums[out + i] = sums[left + i] ^ odd
    for i in range(width):
        total[i] = sums[i]


@njit(cache=True, nogil=True)
def _expand_trees(key: Any, leaves: Any, tree_bits: Any, counter: Any, spare: Any, rows: Any, sums: Any) -> None:
    first = row = 0
    for tree in range(len(tree_bits)):
        bits = tree_bits[tree]
        _expand_tree(key, leaves, first, bits, counter, spare, rows[row : row + bits], sums[tree])
        first += 1 << bits
        row += bits


def expand_trees(
    key: bytes, leaves: np.ndarray, tree_bits: tuple[int, ...], counter: int, rows: np.ndarray, sums: np.ndarray
) -> None:
    """Streams of the leaves of all trees, added up; as `kernels_numpy.expand_trees`."""
    expanded = round_keys(np.frombuffer(key, np.uint8)[None])
    spare = np.empty(rows.shape[1] * (5 + (1 << max(tree_bits) >> 4)) + rows.shape[1], np.uint64)
    _expand_trees(expanded, leaves, np.array(tree_bits), counter, spare, rows, sums)


@njit(cache=True, nogil=True)
def _add_where(labels: Any, bits: Any, addend: Any) -> None:
    step = 1 if len(addend) > 1 else 0
    for i in range(len(labels)):
        chosen = NONE - bits[i]
        labels[i, 0] ^= chosen & addend[i * step, 0]
        labels[i, 1] ^= chosen & addend[i * step, 1]


def add_where(labels: np.ndarray, bits: np.ndarray, addend: np.ndarray) -> None:
    """Adds labels where a bit is 1; as `kernels_numpy.add_where`."""
    _add_where(labels, bits, addend)
