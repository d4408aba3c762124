"""Cryptographic randomness for masks, keys, labels and noise: a ChaCha20 stream keyed by the operating system.

No config seed reaches this module; only tests pass a key, through the constructor's own argument.
"""

from __future__ import annotations

import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

KEY_BYTES = 32
# SEAL's centred binomial: 21 bits less 21 bits, variance 10.5 (SEAL 4.1 util/rlwe.cpp, sample_poly_cbd).
CENTRED_BINOMIAL_PAIRS = 21


class SecureRandom:
    """A stream of cryptographic randomness; not safe to share between threads.

    Args:
        key: 32 bytes; None (the default) takes them from the operating system. Public seeds that both parties
            expand (the uniform part of a ciphertext) and tests are the only uses of an explicit key.
    """

    def __init__(self, key: bytes | None = None) -> None:
        key = os.urandom(KEY_BYTES) if key is None else key
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, got {len(key)}")
        self._stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()

    def random_bytes(self, count: int) -> np.ndarray:
        """`count` uniform bytes, uint8."""
        return np.frombuffer(self._stream.update(bytes(count)), np.uint8)

    def words(self, shape: int | tuple[int, ...]) -> np.ndarray:
        """Uniform uint64 words."""
        count = int(np.prod(shape))
        return np.frombuffer(self._stream.update(bytes(8 * count)), np.uint64).reshape(shape)

    def below(self, modulus: int, shape: int | tuple[int, ...]) -> np.ndarray:
        """Uniform integers in [0, modulus), uint64, exactly uniform by rejection; modulus at most 2^63."""
        if not 1 <= modulus <= 1 << 63:
            raise ValueError(f"modulus {modulus}: expected 1 to 2^63")
        mask = np.uint64((1 << (modulus - 1).bit_length()) - 1)
        values = self.words(shape) & mask
        flat = values.reshape(-1)
        rejected = np.flatnonzero(flat >= modulus)
        while rejected.size:
            flat[rejected] = self.words(rejected.size) & mask
            rejected = rejected[flat[rejected] >= modulus]
        return values

    def ternary(self, shape: int | tuple[int, ...]) -> np.ndarray:
        """Uniform over -1, 0, 1, int64."""
        return self.below(3, shape).astype(np.int64) - 1

    def centred_binomial(self, shape: int | tuple[int, ...]) -> np.ndarray:
        """SEAL's noise distribution, variance 10.5, int64."""
        half = np.uint64((1 << CENTRED_BINOMIAL_PAIRS) - 1)
        words = self.words(shape)
        ones = np.bitwise_count(words & half).astype(np.int64)
        return ones - np.bitwise_count((words >> np.uint64(CENTRED_BINOMIAL_PAIRS)) & half).astype(np.int64)

    def gaussian(self, shape: int | tuple[int, ...], standard_deviation: float) -> np.ndarray:
        """A rounded Gaussian, int64, for flooding; standard_deviation at most 2^58 (ValueError beyond).

        A double has 53 bits: a Gaussian wider than that would have empty low bits and show what it is to hide. So
        the high part is Gaussian and the low bits are uniform, which adds a 2^-40 part to the variance.
        """
        if not 0 <= standard_deviation <= 2.0**58:
            raise ValueError(f"standard deviation {standard_deviation}: expected 0 to 2^58")
        count = int(np.prod(shape))
        half = (count + 1) // 2
        uniform = (self.words((2, half)) >> np.uint64(11)).astype(np.float64)
        radius = np.sqrt(-2 * np.log((uniform[0] + 0.5) * 2.0**-53))
        angle = uniform[1] * (2 * np.pi * 2.0**-53)
        normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count].reshape(shape)
        low_bits = max(0, int(np.log2(max(standard_deviation, 1.0))) - 20)
        high = np.rint(normal * (standard_deviation / 2.0**low_bits)).astype(np.int64)
        if not low_bits:
            return high
        return (high << low_bits) + self.below(1 << low_bits, shape).astype(np.int64) - (1 << (low_bits - 1))
