"""Kernels of oblivious transfer in numpy and the cryptography package's AES. Same functions and bits
as `kernels_numba`.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from autoprivacy.ot.labels import LABEL_BITS

WORD_BITS = 64
TRANSPOSE_WORDS = 256  # columns transposed at once: 128 rows of 256 words are 256 KiB


def transpose(rows: np.ndarray) -> np.ndarray:
    """A bit matrix's columns as labels.

    Args:
        rows: uint64 [128, count / 64], bit 0 of word 0 first.

    Returns:
        uint64 [count, 2]; bit i of label j is bit j of row i.
    """
    width = rows.shape[1]
    labels = np.empty((width, WORD_BITS, 2), np.uint64)
    for start in range(0, width, TRANSPOSE_WORDS):
        words = rows[:, start : start + TRANSPOSE_WORDS].copy()
        _transpose_words(words)
        labels[start : start + TRANSPOSE_WORDS] = words.reshape(2, WORD_BITS, -1).transpose(2, 1, 0)
    return labels.reshape(-1, 2)


def _transpose_words(words: np.ndarray) -> None:
    """Transposes every 64 x 64 block in place: swaps quarters of halving size (Warren, Hacker's Delight, 7-3)."""
    distance = WORD_BITS // 2
    mask = (1 << distance) - 1
    while distance:
        shift = np.uint64(distance)
        pairs = words.reshape(LABEL_BITS // (2 * distance), 2, distance, -1)
        upper, lower = pairs[:, 0], pairs[:, 1]
        swap = ((upper >> shift) ^ lower) & np.uint64(mask)
        lower ^= swap
        upper ^= swap << shift
        distance //= 2
        mask ^= mask << distance & (1 << WORD_BITS) - 1


def hash_labels(key: bytes, labels: np.ndarray) -> np.ndarray:
    """H(x) = AES(sigma(x)) ^ sigma(x) of labels, sigma(l, r) = (l ^ r, l); uint64 of the same shape [.., 2]."""
    permuted = np.empty(labels.shape, np.uint64)
    np.bitwise_xor(labels[..., 0], labels[..., 1], out=permuted[..., 0])
    permuted[..., 1] = labels[..., 0]
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    hashed = np.frombuffer(encryptor.update(permuted.data.cast("B")), np.uint64).reshape(labels.shape)
    return hashed ^ permuted


def hash_words(keys: np.ndarray, labels: np.ndarray, offset: np.ndarray | None = None) -> np.ndarray:
    """The first words of the hashes of rows of labels, each row under its own key.

    Args:
        keys: AES keys, uint8 [rows, 16].
        labels: uint64 [rows, count, 2].
        offset: added to every label, uint64 [2]; None adds nothing.

    Returns:
        uint64 [rows, count].
    """
    words = np.empty(labels.shape[:2], np.uint64)
    for key, row, out in zip(keys, labels, words, strict=True):
        out[:] = hash_labels(key.tobytes(), row if offset is None else row ^ offset)[:, 0]
    return words


def expand_trees(
    key: bytes, leaves: np.ndarray, tree_bits: tuple[int, ...], counter: int, rows: np.ndarray, sums: np.ndarray
) -> None:
    """Streams of the leaves of all trees, added up.

    A leaf's stream is H(leaf ^ counter), H(leaf ^ counter + 1), ...; leaf number x of a tree of b bits counts in the
    row of each of its set bits, and in the tree's sum.

    Args:
        key: of the hash, 16 bytes.
        leaves: uint64 [sum of 2^b, 2], tree after tree.
        tree_bits: b of every tree, 2 to 8; 128 in all.
        counter: number of the first block.
        rows: uint64 [128, 2 blocks], to be written, b rows a tree.
        sums: uint64 [trees, 2 blocks], to be written.
    """
    blocks, first, row = rows.shape[1] // 2, 0, 0
    counters = np.arange(counter, counter + blocks, dtype=np.uint64)
    for tree, bits in enumerate(tree_bits):
        inputs = np.repeat(leaves[first : first + (1 << bits), None], blocks, axis=1)
        inputs[..., 0] ^= counters
        streams = hash_labels(key, inputs).reshape(1 << bits, -1)
        np.bitwise_xor.reduce(streams, 0, out=sums[tree])
        for bit in range(bits):
            chosen = np.arange(1 << bits) >> bit & 1 == 1
            np.bitwise_xor.reduce(streams[chosen], 0, out=rows[row + bit])
        first, row = first + (1 << bits), row + bits


def add_where(labels: np.ndarray, bits: np.ndarray, addend: np.ndarray) -> None:
    """Adds labels to others in place where a bit is 1.

    Args:
        labels: uint64 [count, 2].
        bits: uint64 [count], 0 or 1.
        addend: uint64 [count, 2], or [1, 2] for one that is added to all.
    """
    labels ^= (np.uint64(0) - bits)[:, None] & addend
