"""Wire labels: 128 bits as two uint64 words, free XOR with a secret offset, the colour in the lowest bit.

The label of value v is zero ^ v * delta. delta's lowest bit is 1, so the lowest bits of a wire's two labels differ.
That bit is the colour: it tells the evaluator the row of a table and nothing of the value (point and permute).
"""

from __future__ import annotations

import numpy as np

from autoprivacy.randomness.generator import SecureRandom

LABEL_BYTES = 16
LABEL_BITS = 8 * LABEL_BYTES


def random_delta(random: SecureRandom) -> np.ndarray:
    """A garbler's secret offset, uint64 [2], lowest bit 1."""
    delta = random.words(2).copy()
    delta[0] |= np.uint64(1)
    return delta


def offset_bits(delta: np.ndarray) -> np.ndarray:
    """The 128 bits of an offset, uint8: the garbler's choices in the base oblivious transfers."""
    return np.unpackbits(np.ascontiguousarray(delta, "<u8").view(np.uint8), bitorder="little")


def zero_labels(seed: bytes, bits: int, count: int) -> np.ndarray:
    """The labels of value 0 that a secret 32-byte seed stands for, uint64 [bits, count, 2].

    A garbler keeps the seed from the offline to the online phase instead of 16 bytes a wire.
    """
    return SecureRandom(seed).words((bits, count, 2))


def encode(zero: np.ndarray, delta: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The labels of numbers.

    Args:
        zero: labels of value 0, uint64 [bits, count, 2].
        delta: the offset, uint64 [2].
        values: numbers below 2^bits, uint64 [count]; wire i carries bit i.

    Returns:
        uint64 [bits, count, 2].
    """
    labels = np.empty_like(zero)
    for i in range(len(zero)):
        chosen = -(values >> np.uint64(i) & np.uint64(1))  # all ones where the bit is set
        for word in range(2):
            np.bitwise_xor(zero[i, :, word], chosen & delta[word], out=labels[i, :, word])
    return labels


def encode_seeded(seed: bytes, delta: np.ndarray, values: np.ndarray, bits: int) -> np.ndarray:
    """The labels of numbers below 2^bits under the zero labels of a seed: `encode(zero_labels(seed, ..), ..)`.

    The zero labels are a key stream, so the seed's cipher turns delta at the bits that are set into labels at once.
    """
    labels, stream = np.empty((bits, len(values), 2), np.uint64), SecureRandom(seed)
    chosen = np.empty((len(values), 2), np.uint64)
    for i in range(bits):
        ones = -(values >> np.uint64(i) & np.uint64(1))  # all ones where the bit is set
        for word in range(2):
            np.bitwise_and(ones, delta[word], out=chosen[:, word])
        stream.mask(chosen, labels[i])
    return labels


def check_labels(name: str, labels: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The labels, contiguous and read-only; ValueError where they are not uint64 [bits, count, 2]."""
    if labels.shape != (bits, count, 2) or labels.dtype != np.uint64:
        raise ValueError(f"{name} labels: expected uint64 {[bits, count, 2]}, got {labels.dtype} {list(labels.shape)}")
    return read_only(labels)


def read_only(array: np.ndarray) -> np.ndarray:
    """A contiguous, aligned view (or copy) that cannot be written: one type for numba, wherever the array is from."""
    view = np.require(array, requirements=["C", "A"]).view()
    view.flags.writeable = False
    return view
