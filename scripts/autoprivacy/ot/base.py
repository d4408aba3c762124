"""Base oblivious transfers on an elliptic curve: 128 at a time, of which everything else is made with AES alone.

The receiver's choices are the bits of its secret offset. Messages are bytes; who carries them is the protocol's affair.
Semi-honest parties; malformed messages raise ValueError.

Source: Chou and Orlandi, "The simplest protocol for oblivious transfer", LATINCRYPT 2015 (figure 1). What it takes: the
computational Diffie-Hellman assumption in the prime-order group of ed25519, SHA-256 as a random oracle.
"""

from __future__ import annotations

import hashlib

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

from autoprivacy.ot.labels import LABEL_BITS
from autoprivacy.randomness.generator import KEY_BYTES, SecureRandom

POINT_BYTES = crypto_core_ed25519_BYTES
BASE_MESSAGE_BYTES = POINT_BYTES
BASE_REPLY_BYTES = LABEL_BITS * POINT_BYTES


class BaseSender:
    """The side that gets both seeds of every transfer; it receives in the extension.

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
    """The side that gets the seed which its choice names; it sends in the extension.

    Args:
        choices: 128 bits, uint8: `offset_bits(delta)`.
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
