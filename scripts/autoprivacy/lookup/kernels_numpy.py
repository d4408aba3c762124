"""Kernels of lookups in numpy. Same functions and bits as `kernels_numba`."""

from __future__ import annotations

import numpy as np

WORD_BITS = 64


def pack(values: np.ndarray, bits: int) -> bytes:
    """The `bits` low bits of every value, uint64 [count], one after the other, the last byte filled up with zeros."""
    planes = np.unpackbits(np.ascontiguousarray(values, "<u8").view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    return np.packbits(planes[:, :bits].reshape(-1), bitorder="little").tobytes()


def unpack(data: bytes | bytearray | memoryview, bits: int, count: int) -> np.ndarray:
    """Undoes `pack`: uint64 [count]."""
    planes = np.zeros((count, WORD_BITS), np.uint8)
    content = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits, bitorder="little")
    planes[:, :bits] = content.reshape(count, bits)
    return np.packbits(planes, axis=1, bitorder="little").view("<u8").reshape(-1).astype(np.uint64)


def read(vectors: np.ndarray, places: np.ndarray, index_bits: int, tables: np.ndarray) -> np.ndarray:
    """What every table says of the one-hot vectors, each moved on by its place.

    Args:
        vectors: shares of one-hot vectors, uint64 [count, words], bit v % 64 of word v / 64 for place v.
        places: d, uint64 [count]: what stood at v stands at v + d modulo 2^index_bits.
        index_bits: of the vectors.
        tables: bits by place, uint64 [tables, words], at most 64 tables.

    Returns:
        uint64 [count]; bit b is the parity of table b AND the moved vector.
    """
    size, count = 1 << index_bits, len(vectors)
    bits = np.unpackbits(vectors.astype("<u8").view(np.uint8).reshape(count, -1), axis=1, bitorder="little")[:, :size]
    looked = np.unpackbits(tables.astype("<u8").view(np.uint8).reshape(len(tables), -1), axis=1, bitorder="little")
    looked, read = looked[:, :size], np.zeros(count, np.uint64)
    for index in range(count):
        moved = np.roll(bits[index], int(places[index]))
        parities = (looked & moved).sum(1) & 1
        read[index] = sum(int(parity) << bit for bit, parity in enumerate(parities))
    return read
