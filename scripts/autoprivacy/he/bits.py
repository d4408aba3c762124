"""Packs integers into as many bits as they need, for messages: the first value lowest, little-endian."""

from __future__ import annotations

import numpy as np

from autoprivacy.he.kernels import load_kernels

MAXIMUM_BITS = 63
WORD_BYTES = 8


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that `count` values of `bits` bits take, the last byte filled up with zeros."""
    return -(-count * bits // 8)


def pack_bits(values: np.ndarray, bits: int, backend: str | None = None) -> bytes:
    """The values, uint64 [count] and each below 2^bits, as `packed_bytes(count, bits)` bytes.

    Raises:
        ValueError: bits is not 1 to 63, or a value does not fit.
    """
    _check_bits(bits)
    if values.size and int(values.max()) >> bits:
        raise ValueError(f"value {values.max()} does not fit into {bits} bits")
    words = np.empty(-(-values.size * bits // 64), np.uint64)
    load_kernels(backend).pack(np.ascontiguousarray(values).reshape(-1), bits, words)
    return words.astype("<u8", copy=False).view(np.uint8)[: packed_bytes(values.size, bits)].tobytes()


def unpack_bits(data: bytes | memoryview, bits: int, count: int, backend: str | None = None) -> np.ndarray:
    """Undoes `pack_bits`: uint64 [count].

    Raises:
        ValueError: bits is not 1 to 63, the length is wrong, or the bits that fill the last byte are not zero.
    """
    _check_bits(bits)
    size = packed_bytes(count, bits)
    if len(data) != size:
        raise ValueError(f"{count} values of {bits} bits: expected {size} bytes, got {len(data)}")
    if (unused := size * 8 - count * bits) and data[-1] >> (8 - unused):
        raise ValueError(f"{count} values of {bits} bits: the last {unused} bits are not zero")
    words = np.zeros(-(-size // WORD_BYTES) + 1, "<u8")  # one more: a value may be read across the end
    words.view(np.uint8)[:size] = np.frombuffer(data, np.uint8)
    values = np.empty(count, np.uint64)
    load_kernels(backend).unpack(words.astype(np.uint64, copy=False), bits, values)
    return values


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= MAXIMUM_BITS:
        raise ValueError(f"{bits} bits: expected 1 to {MAXIMUM_BITS}")
