"""BFV as the two parties use it: the client encrypts and decrypts, the server computes, masks and re-randomises.

What the client sends is in NTT form: both parties need the polynomials there, and it saves each side transforms. A
polynomial is one row per prime, every residue in as many bits as the prime has (`bit_packing.pack_polynomials`). A
fresh ciphertext's second polynomial is uniform, so 32 bytes that both sides expand stand for it. Replies are
coefficients in far fewer bits than q has (`he.bfv.reply`).
"""

from __future__ import annotations

import copy
import threading
from typing import Self

import numpy as np

from autoprivacy.he.bfv.encoding import PlaintextEncoding
from autoprivacy.he.bfv.flood import WIDEST_GAUSSIAN, wide_flood
from autoprivacy.he.bfv.reply import ReplyForm, ReplyPacker, ReplyReader, chunks
from autoprivacy.he.bfv.seal_context import SealContext
from autoprivacy.he.parameters.parameter_set import ParameterSet
from autoprivacy.he.ring.bit_packing import pack_polynomials, packed_bytes, unpack_polynomials
from autoprivacy.he.ring.ring import Ring
from autoprivacy.memory import keep_freed_memory
from autoprivacy.randomness.generator import KEY_BYTES, SecureRandom


def polynomial_bytes(parameters: ParameterSet) -> int:
    """Bytes of one polynomial on the wire."""
    degree = parameters.polynomial_degree
    return sum(packed_bytes(degree, prime.bit_length()) for prime in parameters.primes)


def public_key_bytes(parameters: ParameterSet) -> int:
    """Bytes of a public key on the wire."""
    return KEY_BYTES + polynomial_bytes(parameters)


def message_bytes(parameters: ParameterSet, count: int) -> int:
    """Bytes of `count` fresh ciphertexts, client to server; there is a seed for each component of the set."""
    return len(parameters.components) * KEY_BYTES + count * polynomial_bytes(parameters)


class Party:
    """What both sides hold: the parameters, the ring, the encoding, and a source of randomness.

    Where the plaintext modulus is composite it works under the set's first component; `components` has the others too.
    """

    def __init__(self, parameters: ParameterSet, random: SecureRandom | None) -> None:
        keep_freed_memory()
        self._set, self.parameters = parameters, parameters.components[0]
        self.ring = Ring(parameters.polynomial_degree, parameters.primes)
        self._encoding = PlaintextEncoding(self.ring, self.parameters.plaintext_modulus)
        self._random = random or SecureRandom()
        self._lock = threading.Lock()
        self._bits = tuple(prime.bit_length() for prime in parameters.primes)
        # Words above the last whole multiple of the prime are drawn again: what is left is uniform modulo the prime.
        word = 1 << 8 * self.ring.dtype.itemsize
        last_words = [word // prime * prime - 1 for prime in parameters.primes]
        self._last_words = np.array(last_words, self.ring.dtype)[:, None]

    @property
    def components(self) -> list[Self]:
        """This party under each component of its set, with the same keys and randomness: keys do not depend on p."""
        return [self] if len(self._set.components) == 1 else [self._under(part) for part in self._set.components]

    def _under(self, component: ParameterSet) -> Self:
        other = copy.copy(self)
        other.parameters = component
        other._encoding = PlaintextEncoding(self.ring, component.plaintext_modulus)
        return other

    def _fork(self) -> tuple[bytes, SecureRandom]:
        """A public seed and a secret stream, both fresh, so that calls may run in several threads."""
        with self._lock:
            seed, key = self._random.random_bytes(2 * KEY_BYTES).reshape(2, KEY_BYTES)
        return seed.tobytes(), SecureRandom(key.tobytes())

    def _uniform(self, stream: SecureRandom, count: int) -> np.ndarray:
        """Uniform polynomials [count, k, n]; words are drawn polynomial by polynomial, whatever the chunk size."""
        words = np.empty((count, len(self.ring.primes), self.ring.degree), self.ring.dtype)
        for polynomial in words:
            polynomial[:] = stream.words(polynomial.shape, self.ring.dtype)
            flat = polynomial.reshape(-1)
            while (rejected := np.flatnonzero(polynomial > self._last_words)).size:
                flat[rejected] = stream.words(rejected.size, self.ring.dtype)
        return self.ring.scale(words, [1] * len(self.ring.primes))

    def _small(self, values: np.ndarray) -> np.ndarray:
        """Signed coefficients int64 [..., n] in NTT form."""
        return self.ring.forward(self.ring.reduce(values))

    def _check_plain(self, name: str, plain: np.ndarray) -> None:
        p, degree = self.parameters.plaintext_modulus, self.ring.degree
        if plain.dtype != np.uint64 or plain.ndim != 2 or plain.shape[1] != degree:
            raise ValueError(f"{name}: expected uint64 [m, {degree}], got {plain.dtype} {list(plain.shape)}")
        if plain.size and plain.max() >= p:
            raise ValueError(f"{name}: expected residues below {p}, got {plain.max()}")

    def _pack(self, polynomials: np.ndarray) -> bytes:
        """Polynomials [T, k, n] as bytes, one after the other."""
        return pack_polynomials(polynomials, self._bits)

    def _unpack(self, data: memoryview, count: int) -> np.ndarray:
        """Undoes `_pack`. ValueError where the length is wrong or a residue is not below its prime."""
        out = np.empty((count, len(self.ring.primes), self.ring.degree), self.ring.dtype)
        unpack_polynomials(data, self._bits, out)
        largest = out.max(axis=(0, 2), initial=0)
        for prime, value in zip(self.ring.primes, largest.tolist(), strict=True):
            if value >= prime:
                raise ValueError(f"ciphertext: expected residues below the prime {prime}, got {value}")
        return out


def _check_length(name: str, data: bytes, expected: int) -> None:
    if len(data) != expected:
        raise ValueError(f"{name}: expected {expected} bytes, got {len(data)}")


class ClientCipher(Party):
    """The key holder. The secret key is SEAL's, ternary; encryption is symmetric, decryption exact.

    Calls may run in several threads.

    Args:
        parameters: the parameter set; p is at most 31 bits.
        random: the source of noise and seeds, the operating system's by default; tests may give one.
        seal: what has drawn the secret; by default it is made here and let go of, since it takes megabytes.

    Attributes:
        deployed_secret: the secret in NTT form, uint64 [k, n], under the set's primes and its key-switching prime, if
            it has one.

    Raises:
        UserError: SEAL or the encoding refuses the parameters.
    """

    def __init__(
        self, parameters: ParameterSet, random: SecureRandom | None = None, seal: SealContext | None = None
    ) -> None:
        super().__init__(parameters, random)
        keys = seal or SealContext(self.parameters)
        self.deployed_secret = keys.secret_key(with_special_prime=True)
        self._secret = self.deployed_secret[: len(self.ring.primes)].astype(self.ring.dtype)
        self._negated_secret = self.ring.negate(self._secret)
        self._reader = ReplyReader(self._ternary_secret())
        self._public_key = self._make_public_key()

    def _make_public_key(self) -> bytes:
        seed, noise = self._fork()
        uniform = self._uniform(SecureRandom(seed), 1)
        error = self._small(noise.centred_binomial((1, self.ring.degree)))
        masked = self.ring.multiply(uniform, self._secret, plus=error)
        return seed + self._pack(self.ring.negate(masked))

    def _ternary_secret(self) -> np.ndarray:
        """The secret's coefficients -1, 0, 1, int64 [n]."""
        residues = self.ring.inverse(self._secret)[0].astype(np.int64)
        return np.where(residues > 1, -1, residues)

    def public_key(self) -> bytes:
        """(-(a s + e), a) under the primes of ciphertexts alone: the seed of a, then the packed first polynomial."""
        return self._public_key

    def encrypt(self, plain: np.ndarray) -> bytes:
        """Fresh ciphertexts of polynomials modulo p, uint64 [m, n]: the seed of every c1, then every packed c0.

        c0 = -(c1 s) + round(q m / p) + e with e SEAL's centred binomial.

        Raises:
            ValueError: shape, type or a residue is wrong.
        """
        self._check_plain("plaintexts", plain)
        seed, noise = self._fork()
        shared = SecureRandom(seed)
        parts = [seed]
        for chunk in chunks(len(plain)):
            error = self.ring.reduce(noise.centred_binomial(plain[chunk].shape))
            body = self.ring.forward(self.ring.add(self._encoding.encode(plain[chunk]), error))
            uniform = self._uniform(shared, len(body))
            parts.append(self._pack(self.ring.multiply(uniform, self._negated_secret, plus=body)))
        return b"".join(parts)

    def decrypt(self, message: bytes, form: ReplyForm) -> np.ndarray:
        """The plaintexts of the server's reply: round(p / q (c0 + c1 s)).

        Returns:
            uint64 [ciphertexts, n] modulo p; 0 at coefficients that are not sent.

        Raises:
            ValueError: the length is wrong.
        """
        return self._scatter(self._reader.read(message, form, self.parameters.plaintext_modulus), form)

    @staticmethod
    def _scatter(values: np.ndarray, form: ReplyForm) -> np.ndarray:
        """What is sent, [coefficients], at its place in [ciphertexts, n]."""
        shape = (form.ciphertexts, form.degree)
        if form.positions is None:
            return values.reshape(shape)
        out = np.zeros(shape, values.dtype)
        out.reshape(-1)[form.positions] = values
        return out


class ServerCipher(Party):
    """The party that computes on ciphertexts and knows the public key alone. Calls may run in several threads.

    Args:
        parameters: the client's parameter set.
        public_key: `ClientCipher.public_key()`.
        random: the source of the re-randomisation and the flood, the operating system's by default.

    Raises:
        ValueError: the public key's length is wrong or a residue is not below its prime.
        UserError: the encoding refuses the parameters.
    """

    def __init__(self, parameters: ParameterSet, public_key: bytes, random: SecureRandom | None = None) -> None:
        super().__init__(parameters, random)
        _check_length("public key", public_key, public_key_bytes(parameters))
        self._public = np.stack(
            [
                self._unpack(memoryview(public_key)[KEY_BYTES:], 1)[0],
                self._uniform(SecureRandom(public_key[:KEY_BYTES]), 1)[0],
            ]
        )
        self._packer = ReplyPacker(self.ring)

    def load(self, message: bytes, count: int) -> np.ndarray:
        """The client's ciphertexts (c0, c1) in NTT form, [count, 2, k, n].

        Raises:
            ValueError: the length is wrong or a residue is not below its prime.
        """
        _check_length(f"message of {count} ciphertexts", message, message_bytes(self.parameters, count))
        shared = SecureRandom(message[:KEY_BYTES])
        size = polynomial_bytes(self.parameters)
        out = np.empty((count, 2, len(self.ring.primes), self.ring.degree), self.ring.dtype)
        for chunk in chunks(count):
            part = memoryview(message)[KEY_BYTES + chunk.start * size : KEY_BYTES + chunk.stop * size]
            out[chunk, 0] = self._unpack(part, chunk.stop - chunk.start)
            out[chunk, 1] = self._uniform(shared, chunk.stop - chunk.start)
        return out

    def reply(
        self, accumulated: np.ndarray, masks: np.ndarray, flood_standard_deviation: float, form: ReplyForm
    ) -> bytes:
        """Result ciphertexts that show the client the masked result and nothing else.

        Adds round(q mask / p), a fresh encryption of zero (pk0 u + e0, pk1 u + e1) and a Gaussian flood. All of that
        comes before the switch to fewer bits, which is a function of what it makes and so reveals no more.

        Args:
            accumulated: sums of products in NTT form, [O, 2, k, n] of the ring's dtype.
            masks: uint64 [O, n] modulo p, added to the result; to be uniform wherever the client is to learn nothing of
                a coefficient that is sent.
            flood_standard_deviation: of the flood; 0 for none.
            form: of the reply of O ciphertexts.

        Raises:
            ValueError: a shape, a type or a mask is wrong.
        """
        self._check_plain("masks", masks)
        expected = (form.ciphertexts, 2, len(self.ring.primes), self.ring.degree)
        if len(masks) != len(accumulated) or accumulated.shape != expected or accumulated.dtype != self.ring.dtype:
            raise ValueError(
                f"results: expected {self.ring.dtype} {expected} and as many masks, got {accumulated.dtype} "
                f"{accumulated.shape} and {len(masks)} masks"
            )
        _, random = self._fork()
        hidden = (
            self._hide(accumulated[chunk], masks[chunk], flood_standard_deviation, random)
            for chunk in chunks(len(masks))
        )
        return self._packer.pack(hidden, form)

    def _hide(self, sums: np.ndarray, masks: np.ndarray, flood: float, random: SecureRandom) -> np.ndarray:
        """The masked, re-randomised and flooded ciphertexts, coefficients [T, 2, k, n]."""
        noise = random.centred_binomial((len(masks), 2, self.ring.degree))
        if flood <= WIDEST_GAUSSIAN:
            noise[:, 0] += random.gaussian(masks.shape, flood)
        added = self.ring.reduce(noise)
        if flood > WIDEST_GAUSSIAN:
            added[:, 0] = self.ring.add(added[:, 0], wide_flood(self.ring, len(masks), flood, random))
        added[:, 0] = self.ring.add(added[:, 0], self._encoding.encode(masks))
        ternary = self._small(random.ternary(masks.shape))
        for index, public in enumerate(self._public):
            products = self.ring.inverse(self.ring.multiply(ternary, public, plus=sums[:, index]))
            added[:, index] = self.ring.add(added[:, index], products)
        return added
