"""Oblivious transfer: 128 base transfers on an elliptic curve, then any number from symmetric cryptography alone.

The garbler's offset is its vector of choices in the base transfers, where it receives; from then on it sends. An
extended transfer costs 16 bytes and leaves the evaluator with the label of its bit: no ciphertexts follow. Messages are
bytes; who carries them is the protocol's affair. Semi-honest parties; malformed messages raise ValueError.

Sources: Chou and Orlandi, "The simplest protocol for oblivious transfer", LATINCRYPT 2015 (figure 1); Ishai, Kilian,
Nissim, Petrank, "Extending oblivious transfers efficiently", CRYPTO 2003 (section 3), as correlated transfers of
Asharov, Lindell, Schneider, Zohner, CCS 2013.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from nacl.bindings import (
    crypto_core_ed25519_add,
    crypto_core_ed25519_BYTES,
    crypto_core_ed25519_is_valid_point,
    crypto_core_ed25519_NONREDUCEDSCALARBYTES,
    crypto_core_ed25519_scalar_reduce,
    crypto_core_ed25519_sub,
    crypto_scalarmult_ed25519_base_noclamp,
    crypto_scalarmult_ed25519_noclamp,
)

from autoprivacy.gc.garbling_kernels import load_kernels
from autoprivacy.gc.labels import LABEL_BITS, LABEL_BYTES, offset_bits
from autoprivacy.randomness.generator import KEY_BYTES, SecureRandom

POINT_BYTES = crypto_core_ed25519_BYTES
BASE_MESSAGE_BYTES = POINT_BYTES
BASE_REPLY_BYTES = LABEL_BITS * POINT_BYTES
# Transfers extended at once: 128 rows of 8 KiB, 1 MiB, stay in cache. Both parties must agree on it.
SLAB = 1 << 16


class BaseSender:
    """The evaluator's side of the base transfers: it gets both seeds of each.

    Args:
        random: None (the default) is fresh randomness; tests pass their own.
    """

    def __init__(self, random: SecureRandom | None = None) -> None:
        self._scalar = _random_scalar(random or SecureRandom())
        self._point = crypto_scalarmult_ed25519_base_noclamp(self._scalar)

    def message(self) -> bytes:
        """The first message, 32 bytes."""
        return self._point

    def finish(self, reply: bytes) -> np.ndarray:
        """Both seeds of every transfer, uint8 [128, 2, 32], from the receiver's reply.

        Raises:
            ValueError: the reply has the wrong length, or holds what no receiver sends.
        """
        points = _points("base transfer reply", reply, LABEL_BITS)
        if self._point in points:
            raise ValueError("base transfer reply: holds the sender's own point")
        seeds = np.empty((LABEL_BITS, 2, KEY_BYTES), np.uint8)
        for i, point in enumerate(points):
            difference = crypto_core_ed25519_sub(point, self._point)
            for choice, base in enumerate((point, difference)):
                shared = crypto_scalarmult_ed25519_noclamp(self._scalar, base)
                seeds[i, choice] = _seed(i, self._point, point, shared)
        return seeds


class BaseReceiver:
    """The garbler's side of the base transfers: it gets the seed that its choice names.

    Args:
        choices: 128 bits, uint8; the garbler's `offset_bits(delta)`.
        random: as for the sender.
    """

    def __init__(self, choices: np.ndarray, random: SecureRandom | None = None) -> None:
        if choices.shape != (LABEL_BITS,):
            raise ValueError(f"base transfer choices: expected {LABEL_BITS}, got {list(choices.shape)}")
        self._choices = choices
        self._random = random or SecureRandom()
        self.seeds = np.zeros((0, KEY_BYTES), np.uint8)

    def reply(self, message: bytes) -> bytes:
        """The answer to the sender's message, 4096 bytes; fills `seeds`, uint8 [128, 32].

        Raises:
            ValueError: the message has the wrong length or is no point of the prime-order group.
        """
        (sender,) = _points("base transfer message", message, 1)
        seeds = np.empty((LABEL_BITS, KEY_BYTES), np.uint8)
        points = []
        for i, choice in enumerate(self._choices.tolist()):
            scalar = _random_scalar(self._random)
            point = crypto_scalarmult_ed25519_base_noclamp(scalar)
            # Both candidates are made whatever the choice, so that the work does not depend on it.
            point = (point, crypto_core_ed25519_add(point, sender))[choice]
            points.append(point)
            seeds[i] = _seed(i, sender, point, crypto_scalarmult_ed25519_noclamp(scalar, sender))
        self.seeds = seeds
        return b"".join(points)


class ExtensionReceiver:
    """The evaluator's side of the extension: it gets the labels of its choice bits.

    Args:
        seed_pairs: what the base sender got, uint8 [128, 2, 32]; used for one extension and no other.
        backend: "numba" or "numpy", the same bits; None takes the faster one that this machine has.
    """

    def __init__(self, seed_pairs: np.ndarray, backend: str | None = None) -> None:
        self._zero_streams = _streams(seed_pairs[:, 0])
        self._one_streams = _streams(seed_pairs[:, 1])
        self._transpose = load_kernels(backend).transpose

    def extend(self, choices: np.ndarray) -> tuple[np.ndarray, bytes]:
        """Labels of m choice bits, uint64 [m, 2], and the message for the sender, `extension_bytes(m)` long.

        Every call draws on from where the last one stopped, so the sender must make the same calls in the same order.
        """
        count = len(choices)
        labels = np.empty((count, 2), np.uint64)
        message = np.empty(extension_bytes(count), np.uint8)
        for start in range(0, count, SLAB):
            part = choices[start : start + SLAB]
            width = _row_bytes(len(part))
            chosen = np.zeros(width, np.uint8)
            packed = np.packbits(part, bitorder="little")
            chosen[: len(packed)] = packed
            rows = _draw(self._zero_streams, width)
            place = LABEL_BYTES * start
            masked = message[place : place + LABEL_BITS * width].reshape(LABEL_BITS, width)
            np.bitwise_xor(_draw(self._one_streams, width), chosen, out=masked)
            masked ^= rows
            labels[start : start + SLAB] = self._transpose(rows.view(np.uint64))[: len(part)]
        return labels, message.tobytes()


class ExtensionSender:
    """The garbler's side of the extension: it gets the labels of value 0.

    Args:
        delta: the offset, uint64 [2]; its bits were the choices in the base transfers.
        seeds: what the base receiver got, uint8 [128, 32]; used for one extension and no other.
        backend: as for the receiver.
    """

    def __init__(self, delta: np.ndarray, seeds: np.ndarray, backend: str | None = None) -> None:
        self._streams = _streams(seeds)
        self._chosen = -offset_bits(delta)[:, None]  # a byte of ones where the bit is set
        self._transpose = load_kernels(backend).transpose

    def extend(self, message: bytes | bytearray, count: int) -> np.ndarray:
        """Labels of value 0 of `count` transfers, uint64 [count, 2]; the receiver's are these ^ choice * delta.

        Raises:
            ValueError: the message has the wrong length.
        """
        if len(message) != extension_bytes(count):
            raise ValueError(
                f"oblivious transfers: expected {extension_bytes(count)} bytes for {count}, got {len(message)}"
            )
        zero = np.empty((count, 2), np.uint64)
        data = np.frombuffer(message, np.uint8)
        for start in range(0, count, SLAB):
            size = min(SLAB, count - start)
            width = _row_bytes(size)
            received, data = data[: LABEL_BITS * width], data[LABEL_BITS * width :]
            rows = _draw(self._streams, width)
            rows ^= received.reshape(LABEL_BITS, width) & self._chosen
            zero[start : start + SLAB] = self._transpose(rows.view(np.uint64))[:size]
        return zero


def extension_bytes(count: int) -> int:
    """Bytes of the receiver's message for `count` transfers: 16 each, rounded up to a multiple of 128 transfers."""
    return LABEL_BYTES * LABEL_BITS * -(-count // LABEL_BITS)


def choice_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """The bits of numbers, uint64 [count], as choices, uint8 [bits * count]: bit 0 of all numbers, then bit 1, ...

    Labels of these choices, reshaped to [bits, count, 2], are the input labels of the circuit.
    """
    planes = np.asarray(values, "<u8").view(np.uint8).reshape(-1, 8).T.copy()
    return np.concatenate([planes[bit // 8] >> np.uint8(bit % 8) & np.uint8(1) for bit in range(bits)])


def _row_bytes(count: int) -> int:
    return LABEL_BYTES * -(-count // LABEL_BITS)


def _streams(seeds: np.ndarray) -> list[SecureRandom]:
    return [SecureRandom(seed.tobytes()) for seed in seeds]


def _draw(streams: Sequence[SecureRandom], width: int) -> np.ndarray:
    """The next `width` bytes of every stream, uint8 [128, width]."""
    rows = np.empty((len(streams), width), np.uint8)
    for row, stream in zip(rows, streams, strict=True):
        stream.fill(row)
    return rows


def _random_scalar(random: SecureRandom) -> bytes:
    return crypto_core_ed25519_scalar_reduce(random.random_bytes(crypto_core_ed25519_NONREDUCEDSCALARBYTES).tobytes())


def _points(name: str, data: bytes, count: int) -> list[bytes]:
    """The points in a message; ValueError unless there are `count`, each of the prime-order group."""
    if len(data) != count * POINT_BYTES:
        raise ValueError(f"{name}: expected {count * POINT_BYTES} bytes, got {len(data)}")
    points = [bytes(data[start : start + POINT_BYTES]) for start in range(0, len(data), POINT_BYTES)]
    if not all(crypto_core_ed25519_is_valid_point(point) for point in points):
        raise ValueError(f"{name}: holds a value that is no point of the prime-order group of ed25519")
    return points


def _seed(index: int, sender: bytes, receiver: bytes, shared: bytes) -> np.ndarray:
    """The key of one transfer, bound to its index and to both messages; all parts have a fixed length."""
    digest = hashlib.sha256(b"autoprivacy base transfer" + index.to_bytes(4, "little") + sender + receiver + shared)
    return np.frombuffer(digest.digest(), np.uint8)
