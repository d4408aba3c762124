"""Trees of seeds that one party knows whole and the other but for one leaf each, from base transfers.

A tree of b bits takes b base transfers: level by level its owner sends the sum of all left and the sum of all right
children, each masked with one of the transfer's two seeds. The other party learns the sum that is not on the path to
its own leaf, number x, so it can compute all leaves but x, and nothing of that one; the owner does not learn x.

Source: Goldreich, Goldwasser, Micali, JACM 1986 (the tree), Boyle et al., "Efficient two-round OT extension and silent
non-interactive secure computation", CCS 2019 (section 4, puncturing by transfers of the levels' sums). What it takes:
SHA-256 as a length-doubling generator, seeds of base transfers used as one-time pads.
"""

from __future__ import annotations

import hashlib

import numpy as np

from autoprivacy.ot.labels import LABEL_BITS, LABEL_BYTES
from autoprivacy.randomness.generator import SecureRandom

MINIMUM_TREE_BITS, MAXIMUM_TREE_BITS = 2, 8
# Where neither link nor machine is known: 4 bytes a chosen transfer, and about the least work.
DEFAULT_TREE_BITS = 4
TREES_BYTES = 2 * LABEL_BITS * LABEL_BYTES  # of the owner's message: two sums a base transfer


def tree_sizes(bits: int) -> tuple[int, ...]:
    """The bits of every tree, 128 in all: as many of `bits` as fit, and one smaller.

    Raises:
        ValueError: bits is not 2 to 8.
    """
    if not MINIMUM_TREE_BITS <= bits <= MAXIMUM_TREE_BITS:
        raise ValueError(f"trees of {bits} bits: expected {MINIMUM_TREE_BITS} to {MAXIMUM_TREE_BITS}")
    whole, rest = divmod(LABEL_BITS, bits)
    sizes = (bits,) * whole
    if rest == 1:  # a tree has two bits at least
        return (*sizes[:-1], bits - 1, 2)
    return (*sizes, rest) if rest else sizes


def plant(pairs: np.ndarray, bits: int, random: SecureRandom) -> tuple[np.ndarray, bytes]:
    """The owner's leaves of all trees and what it sends.

    Args:
        pairs: both seeds of every base transfer, uint8 [128, 2, 32], used for this alone.
        bits: of a tree.
        random: draws the roots.

    Returns:
        Leaves, uint64 [sum of 2^b, 2], tree after tree; the message, `TREES_BYTES` long.
    """
    leaves, message, first = [], b"", 0
    for size in tree_sizes(bits):
        nodes = [random.random_bytes(LABEL_BYTES).tobytes()]
        for level in range(size):
            nodes = _children(nodes)
            left, right = pairs[first + size - 1 - level]  # the path's highest bit is decided at the root
            # Whose leaf is on the right there knows the second seed, and may learn the sum of the left children.
            message += _xor(_sum(nodes[0::2]), right.tobytes()) + _xor(_sum(nodes[1::2]), left.tobytes())
        leaves += nodes
        first += size
    return _labels(leaves), message


def prune(seeds: np.ndarray, choices: np.ndarray, bits: int, message: bytes | bytearray | memoryview) -> np.ndarray:
    """The other party's leaves, those of a tree in the order y = number ^ x: leaf x itself, at y = 0, is zeros.

    Args:
        seeds: its seed of every base transfer, uint8 [128, 32].
        choices: of the base transfers, uint8 [128]; x of a tree is the number of its bits.
        bits: of a tree.
        message: the owner's.

    Returns:
        uint64 [sum of 2^b, 2].

    Raises:
        ValueError: the message has the wrong length.
    """
    if len(message) != TREES_BYTES:
        raise ValueError(f"trees: expected {TREES_BYTES} bytes, got {len(message)}")
    sums = np.frombuffer(message, np.uint8).reshape(LABEL_BITS, 2, LABEL_BYTES)
    leaves, first = [], 0
    for size in tree_sizes(bits):
        nodes, path = [bytes(LABEL_BYTES)], 0
        for level in range(size):
            transfer = first + size - 1 - level
            turn = int(choices[transfer])
            nodes, path = _children(nodes), 2 * path
            nodes[path] = nodes[path + 1] = bytes(LABEL_BYTES)  # children of the node that is not known
            total = _xor(sums[first + level, 1 - turn].tobytes(), seeds[transfer].tobytes())
            nodes[path + 1 - turn] = _xor(total, _sum(nodes[1 - turn :: 2]))
            path += turn
        leaves += [nodes[number ^ path] for number in range(len(nodes))]
        first += size
    return _labels(leaves)


def _children(nodes: list[bytes]) -> list[bytes]:
    return [hashlib.sha256(b"tree" + side + node).digest()[:LABEL_BYTES] for node in nodes for side in (b"l", b"r")]


def _sum(nodes: list[bytes]) -> bytes:
    words = np.frombuffer(b"".join(nodes), np.uint8).reshape(-1, LABEL_BYTES)
    return np.bitwise_xor.reduce(words, 0).tobytes()


def _xor(block: bytes, pad: bytes) -> bytes:
    """A block of 16 bytes masked with the first bytes of a pad."""
    return bytes(a ^ b for a, b in zip(block, pad[:LABEL_BYTES], strict=True))


def _labels(nodes: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(nodes), "<u8").astype(np.uint64).reshape(-1, 2)
