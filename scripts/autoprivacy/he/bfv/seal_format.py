"""Reads and writes SEAL 4.1's uncompressed serialisation as arrays, so that SEAL and this library share keys.

Every object is a 16-byte header (magic, header size, version, compression, reserved, total size) and little-endian
members; coefficients are an object of their own inside (SEAL 4.1: serialization.h, plaintext.cpp, ciphertext.cpp).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

VERSION = (4, 1)
HEADER = struct.Struct("<HBBBBHQ")
MAGIC = 0xA15E
UNCOMPRESSED = 0
ARRAY = struct.Struct("<Q")
PLAINTEXT = struct.Struct("<32sQd")  # parameters' hash, coefficient count, CKKS scale
# parameters' hash, in NTT form or not, polynomials, degree, primes, CKKS scale, BGV correction factor
CIPHERTEXT = struct.Struct("<32sBQQQdQ")
PLAIN_HASH = bytes(32)  # of plaintexts that are not in NTT form


@dataclass(frozen=True)
class SealPlaintext:
    """A plaintext or a secret key: 64-bit words, and the hash of the parameters (zeros unless in NTT form)."""

    parameters_hash: bytes
    words: np.ndarray


@dataclass(frozen=True)
class SealCiphertext:
    """A ciphertext or a public key.

    Attributes:
        parameters_hash: names the primes that the ciphertext is under, as SEAL hashes them.
        transformed: whether the polynomials are in NTT form.
        polynomials: uint64 [size, k, n].
    """

    parameters_hash: bytes
    transformed: bool
    polynomials: np.ndarray


def _wrap(body: bytes) -> bytes:
    return HEADER.pack(MAGIC, HEADER.size, *VERSION, UNCOMPRESSED, 0, HEADER.size + len(body)) + body


def _unwrap(data: bytes) -> bytes:
    """The members after an object's header.

    Raises:
        ValueError: not an uncompressed object of SEAL 4.1, or cut short.
    """
    if len(data) < HEADER.size:
        raise ValueError(f"SEAL object: expected at least {HEADER.size} bytes, got {len(data)}")
    magic, header_size, major, minor, compression, _, size = HEADER.unpack_from(data)
    if (magic, header_size, compression) != (MAGIC, HEADER.size, UNCOMPRESSED):
        raise ValueError(f"SEAL object: unknown header {data[: HEADER.size].hex()}")
    if (major, minor) != VERSION:
        raise ValueError(f"SEAL object: expected format version {VERSION}, got {(major, minor)}")
    if size != len(data):
        raise ValueError(f"SEAL object: expected {size} bytes, got {len(data)}")
    return data[HEADER.size :]


def _read_array(data: bytes) -> np.ndarray:
    body = _unwrap(data)
    (count,) = ARRAY.unpack_from(body)
    if len(body) != ARRAY.size + 8 * count:
        raise ValueError(f"SEAL array: expected {8 * count} bytes of data, got {len(body) - ARRAY.size}")
    return np.frombuffer(body, "<u8", offset=ARRAY.size)


def _write_array(words: np.ndarray) -> bytes:
    return _wrap(ARRAY.pack(words.size) + np.ascontiguousarray(words, "<u8").tobytes())


def read_plaintext(data: bytes) -> SealPlaintext:
    """A serialised plaintext or secret key; a secret key is in NTT form, [k * n] with the special prime last.

    Raises:
        ValueError: the bytes are not such an object of format 4.1.
    """
    body = _unwrap(data)
    parameters_hash, count, _ = PLAINTEXT.unpack_from(body)
    words = _read_array(body[PLAINTEXT.size :])
    if words.size != count:
        raise ValueError(f"SEAL plaintext: expected {count} coefficients, got {words.size}")
    return SealPlaintext(parameters_hash, words)


def write_plaintext(plaintext: SealPlaintext) -> bytes:
    """The inverse of `read_plaintext`; BFV plaintexts have the zero hash and n coefficients modulo p."""
    members = PLAINTEXT.pack(plaintext.parameters_hash, plaintext.words.size, 1.0)
    return _wrap(members + _write_array(plaintext.words))


def read_ciphertext(data: bytes) -> SealCiphertext:
    """A serialised ciphertext or public key; a public key has rows for the special prime too.

    Raises:
        ValueError: the bytes are not such an object of format 4.1, or hold a seed instead of a polynomial.
    """
    body = _unwrap(data)
    parameters_hash, transformed, size, degree, primes, _, _ = CIPHERTEXT.unpack_from(body)
    words = _read_array(body[CIPHERTEXT.size :])
    if words.size != size * primes * degree:
        raise ValueError(f"SEAL ciphertext: expected {size * primes * degree} words, got {words.size}")
    return SealCiphertext(parameters_hash, bool(transformed), words.reshape(size, primes, degree))


def write_ciphertext(ciphertext: SealCiphertext) -> bytes:
    """The inverse of `read_ciphertext`."""
    size, primes, degree = ciphertext.polynomials.shape
    members = CIPHERTEXT.pack(ciphertext.parameters_hash, ciphertext.transformed, size, degree, primes, 1.0, 1)
    return _wrap(members + _write_array(ciphertext.polynomials))
