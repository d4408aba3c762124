"""Kernels of silent transfers compiled by numba. Same functions and bits as `silent_kernels_numpy`.

A tree is grown, pruned and encoded before the next one is begun, so its leaves stay in the first-level cache, and only
the table's rows come from further away.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autoprivacy.kernel_cache import njit
from autoprivacy.ot.aes_llvm import expand_key
from autoprivacy.ot.kernels_numba import address, round_keys
from autoprivacy.ot.labels import LABEL_BYTES
from autoprivacy.ot.silent_llvm import INDEX_BYTES, add_rows, draw_blocks, grow
from autoprivacy.ot.silent_parameters import LOCALITY

CHUNK = 256  # leaves whose rows' places are drawn at once: 10 KiB
CHUNK_BLOCKS = CHUNK * LOCALITY * INDEX_BYTES // LABEL_BYTES
KEY_WORDS = 22
LOWEST = np.uint64(1)
NONE = np.uint64(0)
ALL = -1


@njit(cache=True, nogil=True)
def _public_blocks(key: Any, first: Any, blocks: Any) -> None:
    draw_blocks(address(key), first, ALL, address(blocks), len(blocks))


def public_blocks(key: bytes, first: int, count: int) -> np.ndarray:
    """Blocks under a public key; as `silent_kernels_numpy.public_blocks`."""
    blocks = np.empty((count, 2), np.uint64)
    _public_blocks(_expanded(key), first, blocks)
    return blocks


@njit(cache=True, nogil=True)
def _encode(code: Any, first: Any, table: Any, places: Any, nodes: Any, skipped: Any, out: Any) -> None:
    """Adds rows of the table to the leaves after those that are skipped, an even number."""
    mask = (len(table) - 1) * LABEL_BYTES
    mask |= mask << 32
    for start in range(0, len(out), CHUNK):
        count = min(CHUNK, len(out) - start)
        blocks = (count * LOCALITY * INDEX_BYTES + LABEL_BYTES - 1) // LABEL_BYTES
        block = first + (skipped + start) * LOCALITY * INDEX_BYTES // LABEL_BYTES
        draw_blocks(address(code), block, mask, address(places), blocks)
        leaves = address(nodes) + LABEL_BYTES * (skipped + start)
        add_rows(address(places), address(table), leaves, address(out) + LABEL_BYTES * start, count)


@njit(cache=True, nogil=True)
def _send_trees(
    keys: Any, roots: Any, delta: Any, code: Any, first: Any, table: Any, kept: Any, given: Any, sums: Any, spare: Any
) -> None:
    leaves, (nodes, places, expanded, _) = kept.shape[1] + given.shape[1], spare
    for tree in range(len(roots)):
        for word in range(2):
            sums[tree, 0, word] = nodes[0, word] = roots[tree, word]
            nodes[1, word] = roots[tree, word] ^ delta[word]
        for level in range(keys.shape[1]):
            expand_key(address(keys[tree, level]), address(expanded))
            sums[tree, level + 1, 0] = sums[tree, level + 1, 1] = NONE
            grow(address(expanded), address(nodes), 2 << level, address(sums[tree, level + 1]))
        for leaf in range(leaves):
            nodes[leaf, 0] &= ~LOWEST
        block = first + tree * leaves * LOCALITY * INDEX_BYTES // LABEL_BYTES
        _encode(code, block, table, places, nodes, 0, kept[tree])
        _encode(code, block, table, places, nodes, kept.shape[1], given[tree])


def send_trees(
    keys: np.ndarray,
    roots: np.ndarray,
    delta: np.ndarray,
    code: tuple[bytes, int],
    table: np.ndarray,
    parts: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """The sender's trees; as `silent_kernels_numpy.send_trees`."""
    sums = np.empty((len(roots), keys.shape[1] + 1, 2), np.uint64)
    _send_trees(keys, roots, delta, _expanded(code[0]), code[1], table, *parts, sums, _spare(parts))
    return sums


@njit(cache=True, nogil=True)
def _prune(nodes: Any, size: Any, path: Any, choice: Any, left: Any, known: Any, total: Any) -> int:
    """The level that `size` nodes grew into lacks two nodes: what is known gives one of them, and the path goes on to
    the other. `total` is what all of the level's nodes add up to that are known.
    """
    place, other = path + choice * size, path + (1 - choice) * size
    for word in range(2):
        half = total[word] ^ left[word] if choice else left[word]
        value = known[word] ^ half ^ nodes[place, word]
        nodes[place, word] = value
        nodes[other, word] = NONE
        total[word] ^= value
    return other


@njit(cache=True, nogil=True)
def _receive_trees(
    keys: Any, known: Any, choices: Any, code: Any, first: Any, table: Any, kept: Any, given: Any, spare: Any
) -> None:
    leaves, (nodes, places, expanded, sums) = kept.shape[1] + given.shape[1], spare
    left, total = sums[0], sums[1]
    for tree in range(len(known)):
        path = np.int64(1) - np.int64(choices[tree, 0])
        for word in range(2):
            total[word] = nodes[1 - path, word] = known[tree, 0, word]
            nodes[path, word] = NONE
        for level in range(keys.shape[1]):
            expand_key(address(keys[tree, level]), address(expanded))
            left[0] = left[1] = NONE
            grow(address(expanded), address(nodes), 2 << level, address(left))
            choice = np.int64(choices[tree, level + 1])
            path = _prune(nodes, 2 << level, path, choice, left, known[tree, level + 1], total)
        for word in range(2):
            nodes[path, word] = total[word]
        for leaf in range(leaves):
            nodes[leaf, 0] &= ~LOWEST
        nodes[path, 0] |= LOWEST
        block = first + tree * leaves * LOCALITY * INDEX_BYTES // LABEL_BYTES
        _encode(code, block, table, places, nodes, 0, kept[tree])
        _encode(code, block, table, places, nodes, kept.shape[1], given[tree])


def receive_trees(
    keys: np.ndarray,
    known: np.ndarray,
    choices: np.ndarray,
    code: tuple[bytes, int],
    table: np.ndarray,
    parts: tuple[np.ndarray, np.ndarray],
) -> None:
    """The receiver's trees; as `silent_kernels_numpy.receive_trees`."""
    _receive_trees(keys, known, choices, _expanded(code[0]), code[1], table, *parts, _spare(parts))


def _spare(parts: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, ...]:
    """A tree's nodes, places of rows, round keys, and two labels; made here, as `address` asks for it."""
    leaves = parts[0].shape[1] + parts[1].shape[1]
    shapes = (leaves, 2), (CHUNK_BLOCKS, 2), (KEY_WORDS,), (2, 2)
    return tuple(np.empty(shape, np.uint64) for shape in shapes)


def _expanded(key: bytes) -> np.ndarray:
    return round_keys(np.frombuffer(key, np.uint8)[None])
