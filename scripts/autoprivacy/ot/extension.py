"""Correlated oblivious transfers, any number, from trees of seeds: SoftSpoken.

Every transfer gives the receiver a bit u and a label t, the sender a label q, with t = q ^ u * delta for the sender's
secret offset delta. Labels are those of garbled circuits: q is the label of 0, t the label of u. The receiver sends
128 / b bits a transfer for bits that it chooses and one bit fewer for random ones, b the bits of a tree; the work
grows with 2^b / b. Messages are bytes; who carries them is the protocol's affair. Semi-honest parties; malformed
messages raise ValueError.

How: the receiver knows all leaves of a tree, the sender all but number x, its share of delta's bits. With a stream
r_y of bits for every leaf y, the receiver adds up u' = sum of r_y and, for every bit i of a leaf's number, t_i = sum
of r_y over the y with bit i set; the sender q_i = sum of r_y over the y with bit i of y ^ x set, where r_x does not
count. So t_i = q_i ^ x_i u'. The receiver sends u ^ u' for every tree, u the bits that all trees are to share, and
the sender adds it to q_i where x_i is set. Random bits u are those of the first tree, which saves its correction.

Security: the sender sees u ^ u' masked by the stream of a leaf that it does not know; the receiver sees nothing.
Streams are H(leaf ^ counter), the hash of `kernels_numpy.hash_labels` under a key of the session: what it takes is
that the hash is correlation robust, as free XOR takes it to be. There is no consistency check: parties are semi-honest.

Source: Roy, "SoftSpokenOT: quieter OT extension from small-field silent VOLE in the minicrypt model", CRYPTO 2022: its
vector OLE over small fields with the repetition code, without the consistency check. Correlated transfers as in
Asharov, Lindell, Schneider, Zohner, CCS 2013.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoprivacy.ot.kernels import load_kernels
from autoprivacy.ot.labels import LABEL_BITS, LABEL_BYTES, offset_bits
from autoprivacy.ot.trees import tree_sizes

# Transfers extended at once: 128 rows of 1 KiB, 128 KiB, stay in the second-level cache. Both parties must agree on it.
SLAB = 1 << 13


@dataclass(frozen=True)
class StreamSeeds:
    """What a side's streams come from; secret.

    Attributes:
        leaves: of its trees, uint64 [sum of 2^b, 2].
        bits: of a tree.
        key: of the hash, 16 public bytes.
    """

    leaves: np.ndarray
    bits: int
    key: bytes


class _End:
    """What both sides have: streams, and a place in them."""

    _streams: _Streams

    @property
    def seeds(self) -> StreamSeeds:
        """What the streams come from."""
        return self._streams.seeds

    @property
    def place(self) -> int:
        """How far the streams have been read."""
        return self._streams.place


class ExtensionReceiver(_End):
    """The side that gets a bit and its label.

    Args:
        leaves: of `trees.plant`.
        bits: of a tree.
        key: of the hash, 16 public bytes that both parties share; with the leaves used for one extension and no other.
        backend: "numba" or "numpy", the same bits; None takes the faster one that this machine has.
    """

    def __init__(self, leaves: np.ndarray, bits: int, key: bytes, backend: str | None = None) -> None:
        self._streams = _Streams(StreamSeeds(leaves, bits, key), backend)

    @classmethod
    def at(cls, seeds: StreamSeeds, place: int, backend: str | None = None) -> ExtensionReceiver:
        """A side as it stood at that place, for transfers that were made from there to be computed again."""
        side = cls(seeds.leaves, seeds.bits, seeds.key, backend)
        side._streams.place = place
        return side

    def extend(self, choices: np.ndarray) -> tuple[np.ndarray, bytes]:
        """Labels of m chosen bits, uint64 [m, 2], and the message for the sender, `extension_bytes(m, bits)` long.

        Every call draws on from where the last one stopped, so the sender must make the same calls in the same order.
        """
        labels, _, message = self._extend(len(choices), choices)
        return labels, message

    def extend_random(self, count: int) -> tuple[np.ndarray, np.ndarray, bytes]:
        """Random bits, uint8 [count], their labels, and the message of `random_extension_bytes(count, bits)`."""
        labels, chosen, message = self._extend(count, None)
        return chosen, labels, message

    def _extend(self, count: int, choices: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, bytes]:
        labels, chosen, parts = np.empty((count, 2), np.uint64), np.empty(count, np.uint8), []
        for start in range(0, count, SLAB):
            size = min(SLAB, count - start)
            rows, sums = self._streams.draw(size)
            if choices is None:
                bits = sums[0].copy()
                sums = sums[1:]
            else:
                bits = _packed(choices[start : start + size], rows.shape[1])
            parts.append((sums ^ bits).tobytes())
            labels[start : start + size] = self._streams.transpose(rows)[:size]
            chosen[start : start + size] = np.unpackbits(bits.view(np.uint8), count=size, bitorder="little")
        return labels, chosen, b"".join(parts)


class ExtensionSender(_End):
    """The side that gets the labels of 0.

    Args:
        delta: the offset, uint64 [2]; its bits were the choices in the base transfers.
        leaves: of `trees.prune`.
        bits, key, backend: as for the receiver.
    """

    def __init__(
        self, delta: np.ndarray, leaves: np.ndarray, bits: int, key: bytes, backend: str | None = None
    ) -> None:
        self._streams = _Streams(StreamSeeds(leaves, bits, key), backend)
        sizes = tree_sizes(bits)
        # Row by row the tree that its correction is of, and a word of ones where delta's bit is set.
        self._trees = np.repeat(np.arange(len(sizes)), sizes)
        self._chosen = -offset_bits(delta).astype(np.uint64)[:, None]

    @classmethod
    def at(cls, delta: np.ndarray, seeds: StreamSeeds, place: int, backend: str | None = None) -> ExtensionSender:
        """As the receiver's."""
        side = cls(delta, seeds.leaves, seeds.bits, seeds.key, backend)
        side._streams.place = place
        return side

    def extend(self, message: bytes | bytearray | memoryview, count: int) -> np.ndarray:
        """Labels of value 0 of `count` transfers, uint64 [count, 2]; the receiver's are these ^ choice * delta.

        Raises:
            ValueError: the message has the wrong length.
        """
        return self._extend(message, count, random=False)

    def extend_random(self, message: bytes | bytearray | memoryview, count: int) -> np.ndarray:
        """As `extend`, of transfers of random bits."""
        return self._extend(message, count, random=True)

    def _extend(self, message: bytes | bytearray | memoryview, count: int, random: bool) -> np.ndarray:
        trees, first = self._streams.trees, int(random)
        expected = _message_bytes(count, trees - first)
        if len(message) != expected:
            raise ValueError(f"oblivious transfers: expected {expected} bytes for {count}, got {len(message)}")
        zero, data = np.empty((count, 2), np.uint64), np.frombuffer(message, np.uint64)
        for start in range(0, count, SLAB):
            size = min(SLAB, count - start)
            rows, corrections = self._streams.draw(size)
            words = (trees - first) * rows.shape[1]
            corrections[:first] = 0
            corrections[first:] = data[:words].reshape(trees - first, -1)
            data = data[words:]
            rows ^= corrections[self._trees] & self._chosen
            zero[start : start + size] = self._streams.transpose(rows)[:size]
        return zero


class _Streams:
    """The trees' streams, slab by slab."""

    def __init__(self, seeds: StreamSeeds, backend: str | None) -> None:
        self.seeds, self._sizes, self.place = seeds, tree_sizes(seeds.bits), 0
        self._kernels = load_kernels(backend)
        self.trees = len(self._sizes)

    def draw(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows uint64 [128, words] and sums uint64 [trees, words] of `count` transfers, rounded up to 128."""
        blocks = -(-count // LABEL_BITS)
        rows, sums = np.empty((LABEL_BITS, 2 * blocks), np.uint64), np.empty((self.trees, 2 * blocks), np.uint64)
        self._kernels.expand_trees(self.seeds.key, self.seeds.leaves, self._sizes, self.place, rows, sums)
        self.place += blocks
        return rows, sums

    def transpose(self, rows: np.ndarray) -> np.ndarray:
        labels: np.ndarray = self._kernels.transpose(rows)
        return labels


def extension_bytes(count: int, bits: int) -> int:
    """Bytes of the receiver's message for `count` chosen bits: 128 / bits bits each, transfers in multiples of 128."""
    return _message_bytes(count, len(tree_sizes(bits)))


def random_extension_bytes(count: int, bits: int) -> int:
    """Bytes of the receiver's message for `count` random bits: 128 / bits - 1 bits each."""
    return _message_bytes(count, len(tree_sizes(bits)) - 1)


def _message_bytes(count: int, rows: int) -> int:
    return LABEL_BYTES * rows * -(-count // LABEL_BITS)


def _packed(choices: np.ndarray, words: int) -> np.ndarray:
    """Bits, uint8, as words, uint64 [words], filled up with zeros."""
    packed = np.zeros(8 * words, np.uint8)
    content = np.packbits(choices, bitorder="little")
    packed[: len(content)] = content
    return packed.view(np.uint64)


def choice_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """The bits of numbers, uint64 [count], as choices, uint8 [bits * count]: bit 0 of all numbers, then bit 1, ...

    Labels of these choices, reshaped to [bits, count, 2], are the input labels of the circuit.
    """
    planes = np.asarray(values, "<u8").view(np.uint8).reshape(-1, 8).T.copy()
    return np.concatenate([planes[bit // 8] >> np.uint8(bit % 8) & np.uint8(1) for bit in range(bits)])
