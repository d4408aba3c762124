"""Packs integers into as many bits as they need, for messages, little-endian.

`pack_bits` is for any number of values: the first lowest. `pack_polynomials` takes every row of n residues as n / 64
lanes side by side, which vector instructions pack and unpack several times as fast.
"""

from __future__ import annotations

import numpy as np

from autoprivacy.he.ring import words64_numba as kernels

MAXIMUM_BITS = 63
WORD_BYTES = 8


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that `count` values of `bits` bits take, the last byte filled up with zeros."""
    return -(-count * bits // 8)


def pack_bits(values: np.ndarray, bits: int) -> bytes:
    """The values, uint64 [count] and each below 2^bits, as `packed_bytes(count, bits)` bytes.

    Raises:
        ValueError: bits is not 1 to 63, or a value does not fit.
    """
    _check_bits(bits)
    if values.size and int(values.max()) >> bits:
        raise ValueError(f"value {values.max()} does not fit into {bits} bits")
    words = np.empty(-(-values.size * bits // 64), np.uint64)
    kernels.pack(np.ascontiguousarray(values).reshape(-1), bits, words)
    return words.astype("<u8", copy=False).view(np.uint8)[: packed_bytes(values.size, bits)].tobytes()


def unpack_bits(data: bytes | memoryview, bits: int, count: int) -> np.ndarray:
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
    kernels.unpack(words.astype(np.uint64, copy=False), bits, values)
    return values


def pack_polynomials(values: np.ndarray, bits: tuple[int, ...]) -> bytes:
    """Polynomials [T, k, n] one after the other, each row i in bits[i] bits a value, n a multiple of 64.

    Value j of a row is number j // (n / 64) of lane j % (n / 64). A lane's 64 values of b bits, the first lowest, fill
    b words of 64 bits; on the wire the first words of all lanes stand before the second words of any.
    """
    words = np.empty((len(values), values.shape[2] * sum(bits) // 64), np.uint64)
    kernels.pack_lanes(np.ascontiguousarray(values), np.array(bits), words)
    return words.astype("<u8", copy=False).tobytes()


def unpack_polynomials(data: bytes | memoryview, bits: tuple[int, ...], out: np.ndarray) -> None:
    """Undoes `pack_polynomials` into out [T, k, n]; ValueError where the length is wrong."""
    size = out.shape[2] * sum(bits) // 8
    if len(data) != len(out) * size:
        raise ValueError(f"{len(out)} polynomials: expected {len(out) * size} bytes, got {len(data)}")
    words = np.frombuffer(data, "<u8").astype(np.uint64, copy=False).reshape(len(out), -1)
    kernels.unpack_lanes(words, np.array(bits), out)


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= MAXIMUM_BITS:
        raise ValueError(f"{bits} bits: expected 1 to {MAXIMUM_BITS}")
