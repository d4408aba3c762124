"""Kernels of silent transfers in plain numpy. Same functions and bits as `silent_kernels_numba`."""

from __future__ import annotations

import numpy as np

from autoprivacy.ot.kernels_numpy import hash_labels
from autoprivacy.ot.labels import LABEL_BYTES
from autoprivacy.ot.silent_parameters import LOCALITY

LOWEST = np.uint64(1)


def public_blocks(key: bytes, first: int, count: int) -> np.ndarray:
    """H(first), H(first + 1), ... under a key, uint64 [count, 2]."""
    counters = np.zeros((count, 2), np.uint64)
    counters[:, 0] = np.arange(first, first + count, dtype=np.uint64)
    return hash_labels(key, counters)


def send_trees(
    keys: np.ndarray,
    roots: np.ndarray,
    delta: np.ndarray,
    code: tuple[bytes, int],
    table: np.ndarray,
    parts: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """The sender's trees: leaves with their lowest bits cleared, plus rows of the table.

    Node x has the children H(x) and x ^ H(x), H under a key of the level; a level's left ones come first, in the order
    of their parents, then its right ones. The nodes of a level add up to delta.

    Args:
        keys: AES keys of every level but the first, uint64 [trees, depth - 1, 2].
        roots: the first level's left nodes, uint64 [trees, 2].
        delta: the offset, uint64 [2], its lowest bit 1.
        code: key of the code, number of the first block.
        table: uint64 [rows, 2], rows a power of two.
        parts: to be written: the first of every tree's results, uint64 [trees, reserved, 2], and the rest.

    Returns:
        What every level's left nodes add up to, uint64 [trees, depth, 2].
    """
    nodes = np.stack([roots, roots ^ delta], 1)
    sums = [roots]
    for level in range(keys.shape[1]):
        nodes, left = _grown(keys[:, level], nodes)
        sums.append(left)
    nodes[..., 0] &= ~LOWEST
    _encode(code, table, nodes, parts)
    return np.stack(sums, 1)


def receive_trees(
    keys: np.ndarray,
    known: np.ndarray,
    choices: np.ndarray,
    code: tuple[bytes, int],
    table: np.ndarray,
    parts: tuple[np.ndarray, np.ndarray],
) -> None:
    """The receiver's trees, equal to the sender's but for one leaf, which is delta more and whose lowest bit is set.

    Args:
        known: what the left nodes of each level add up to where its choice is 0, the right ones where it is 1, uint64
            [trees, depth, 2].
        choices: uint64 [trees, depth], 0 or 1.
        keys, code, table, parts: as for `send_trees`.
    """
    trees, one = np.arange(len(known)), choices.astype(np.int64)
    nodes = np.zeros((len(known), 2, 2), np.uint64)
    nodes[trees, one[:, 0]] = known[:, 0]
    path = 1 - one[:, 0]
    for level in range(keys.shape[1]):
        size = nodes.shape[1]
        nodes, _ = _grown(keys[:, level], nodes)
        place = path + one[:, level + 1] * size
        nodes[trees, path] = nodes[trees, path + size] = 0
        halves = np.bitwise_xor.reduce(nodes.reshape(len(known), 2, size, 2), 2)
        nodes[trees, place] = known[:, level + 1] ^ halves[trees, one[:, level + 1]]
        path += (1 - one[:, level + 1]) * size
    nodes[trees, path] = np.bitwise_xor.reduce(nodes, 1)
    nodes[..., 0] &= ~LOWEST
    nodes[trees, path, 0] |= LOWEST
    _encode(code, table, nodes, parts)


def _grown(keys: np.ndarray, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The children of every tree's nodes, uint64 [trees, nodes, 2], and what the left ones add up to."""
    hashed = np.stack([hash_labels(key.tobytes(), row) for key, row in zip(keys, nodes, strict=True)])
    return np.concatenate([hashed, nodes ^ hashed], 1), np.bitwise_xor.reduce(hashed, 1)


def _encode(
    code: tuple[bytes, int], table: np.ndarray, nodes: np.ndarray, parts: tuple[np.ndarray, np.ndarray]
) -> None:
    """Adds rows of the table; a leaf takes the next `LOCALITY` numbers of 32 bits of the code's blocks for theirs."""
    key, first = code
    rows = nodes.reshape(-1, 2)
    blocks = public_blocks(key, first, len(rows) * LOCALITY * 4 // LABEL_BYTES)
    places = blocks.astype("<u8").view("<u4").reshape(len(rows), LOCALITY) // LABEL_BYTES % len(table)
    for place in places.T:
        rows ^= table[place]
    split = parts[0].shape[1]
    parts[0][:], parts[1][:] = nodes[:, :split], nodes[:, split:]
