"""Cryptographic randomness for masks, keys, labels and noise: a ChaCha20 stream keyed by the operating system.

No config seed reaches this module; only tests pass a key, through the constructor's own argument.
"""

from __future__ import annotations

import math
import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import DTypeLike

from autoprivacy.randomness import gaussian_numba

KEY_BYTES = 32
# What ChaCha20 gives under one nonce: 2^32 blocks of 64 bytes (RFC 8439, section 2.3). A stream goes on under the next.
NONCE_BYTES = 12
BYTES_PER_NONCE = 1 << 38
# SEAL's centred binomial: 21 bits less 21 bits, variance 10.5 (SEAL 4.1 util/rlwe.cpp, sample_poly_cbd).
CENTRED_BINOMIAL_PAIRS = 21
# Bytes that a ternary number is taken from, and the numbers; one byte in 64 is refused, so a few more are drawn.
LAST_TERNARY_BYTE = 251
TERNARY = np.arange(LAST_TERNARY_BYTE + 1) % 3 - 1
SPARE_BYTES = 32


_forks = 0  # of this process and those it comes from


def _forked() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_forked)


class SecureRandom:
    """A stream of cryptographic randomness; not safe to share between threads.

    It has no end: 2^96 nonces of 256 GiB each. A copy in a child process (fork) never gives what the parent's gives: it
    takes a new key from the operating system, and one with an explicit key gives nothing any more.

    Args:
        key: 32 bytes; None (the default) takes them from the operating system. Seeds that are kept or that both parties
            expand, and tests, are the only uses of an explicit key.

    Raises:
        RuntimeError: by all methods, in a child process of the one that gave an explicit key.
    """

    def __init__(self, key: bytes | None = None) -> None:
        if key is not None and len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, got {len(key)}")
        self._explicit = key is not None
        self._begin(os.urandom(KEY_BYTES) if key is None else key)

    def _begin(self, key: bytes, nonce: int = 0) -> None:
        self._key, self._nonce, self._left, self._forks = key, nonce, BYTES_PER_NONCE, _forks
        start = bytes(4) + nonce.to_bytes(NONCE_BYTES, "little")  # the counter of blocks, then the nonce
        self._stream = Cipher(algorithms.ChaCha20(key, start), mode=None).encryptor()

    def random_bytes(self, count: int) -> np.ndarray:
        """`count` uniform bytes, uint8."""
        if self._forks == _forks and count < self._left:
            self._left -= count
            return np.frombuffer(self._stream.update(bytes(count)), np.uint8)
        out = np.empty(count, np.uint8)
        self.fill(out)
        return out

    def fill(self, out: np.ndarray) -> None:
        """Uniform bytes into a contiguous array, uint8 [count]: what `random_bytes(count)` would give."""
        self._add(memoryview(bytes(out.size)), out.data)

    def mask(self, values: np.ndarray, out: np.ndarray) -> None:
        """XOR of the stream's next bytes and contiguous `values` into `out` of the same size."""
        self._add(values.reshape(-1).view(np.uint8).data, out.reshape(-1).view(np.uint8).data)

    def _add(self, values: memoryview, out: memoryview) -> None:
        """XOR of the stream's next bytes and `values` into `out`, under as many nonces as it takes."""
        if self._forks != _forks:
            if self._explicit:
                raise RuntimeError("a stream with an explicit key was made before this process: it would repeat itself")
            self._begin(os.urandom(KEY_BYTES))
        while len(values):
            count = min(len(values), self._left)
            self._stream.update_into(values[:count], out[:count])
            values, out, self._left = values[count:], out[count:], self._left - count
            if not self._left:
                self._begin(self._key, self._nonce + 1)

    def words(self, shape: int | tuple[int, ...], dtype: DTypeLike = np.uint64) -> np.ndarray:
        """Uniform words, uint64 or another unsigned type."""
        size = math.prod(shape) if isinstance(shape, tuple) else shape
        return self.random_bytes(size * np.dtype(dtype).itemsize).view(dtype).reshape(shape)

    def below(self, modulus: int, shape: int | tuple[int, ...]) -> np.ndarray:
        """Uniform integers in [0, modulus), uint64, exactly uniform by rejection; modulus at most 2^63."""
        if not 1 <= modulus <= 1 << 63:
            raise ValueError(f"modulus {modulus}: expected 1 to 2^63")
        word = np.dtype(np.uint32 if modulus <= 1 << 32 else np.uint64).type
        mask = word((1 << (modulus - 1).bit_length()) - 1)
        values = self.words(shape, word) & mask
        flat = values.reshape(-1)
        rejected = np.flatnonzero(flat >= modulus)
        while rejected.size:
            flat[rejected] = self.words(rejected.size, word) & mask
            rejected = rejected[flat[rejected] >= modulus]
        return values.astype(np.uint64, copy=False)

    def ternary(self, shape: int | tuple[int, ...]) -> np.ndarray:
        """Uniform over -1, 0, 1, int64: bytes modulo 3, those above the last whole multiple of 3 drawn again."""
        count = int(np.prod(shape))
        drawn = np.zeros(0, np.uint8)
        while drawn.size < count:
            fresh = self.random_bytes(count - drawn.size + count // SPARE_BYTES + SPARE_BYTES)
            drawn = np.concatenate([drawn, fresh[fresh <= LAST_TERNARY_BYTE]])
        return TERNARY[drawn[:count]].reshape(shape)

    def centred_binomial(self, shape: int | tuple[int, ...]) -> np.ndarray:
        """SEAL's noise distribution, variance 10.5, int64."""
        values = np.empty(shape, np.int64)
        words = self.words(values.size)
        gaussian_numba.centred_binomial(words, CENTRED_BINOMIAL_PAIRS, values.reshape(-1))
        return values

    def gaussian(self, shape: int | tuple[int, ...], standard_deviation: float) -> np.ndarray:
        """A rounded Gaussian, int64, for flooding; standard_deviation at most 2^58 (ValueError beyond).

        A double has 53 bits: a Gaussian wider than that would have empty low bits and show what it is to hide. So
        the high part is Gaussian, a rounded one of a standard deviation of 2^20 to 2^21, and two uniform numbers of the
        low bits are added, which make a 2^-42 part of the variance. One alone would leave a density of steps, which
        betrays shifts that are small beside a step: their divergence would be that of a Gaussian times the step over
        the shift. With two the density is linear between the steps, and the divergence that of a Gaussian.
        """
        if not 0 <= standard_deviation <= 2.0**58:
            raise ValueError(f"standard deviation {standard_deviation}: expected 0 to 2^58")
        values = np.empty(shape, np.int64)
        words = self.words((2, (values.size + 1) // 2))
        low_bits = max(0, int(np.log2(max(standard_deviation, 1.0))) - 20)
        low = self.words((2, values.size if low_bits else 0)) >> np.uint64(64 - max(low_bits, 1))
        scale = standard_deviation / 2.0**low_bits
        gaussian_numba.gaussian(words, low.view(np.int64), scale, low_bits, values.reshape(-1))
        return values
