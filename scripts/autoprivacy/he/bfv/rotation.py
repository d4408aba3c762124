"""Rotations of ciphertexts: Galois keys and key switching with one special prime.

Hybrid key switching in the residue number system as in SEAL (Chen, Laine, Player, 2017; Gentry, Halevi, Smart, Crypto
2012, appendix D): the part of a ciphertext that is under the rotated secret is split into its residues modulo each
prime of q, each residue polynomial meets a key under all primes and the special prime P, and the sum is divided by P.
The residues are centred here, where SEAL's are not negative: the noise has a quarter of the variance, and the noises of
two rotations with one key are independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.cipher import ClientCipher, Party, polynomial_bytes
from autoprivacy.he.bfv.reply import chunks
from autoprivacy.he.parameters.parameter_set import ParameterSet
from autoprivacy.he.ring.automorphisms import permutation
from autoprivacy.he.ring.ring import Ring
from autoprivacy.randomness.generator import KEY_BYTES, SecureRandom


def _extended(parameters: ParameterSet) -> ParameterSet:
    """The set whose ciphertext primes are all deployed primes, the special one last: what Galois keys are under."""
    if parameters.key_switching_prime is None:
        raise UserError(
            f"parameter set with n = {parameters.polynomial_degree}, primes {parameters.primes}: rotations need a "
            "key-switching prime; add one, or take a tiling without rotations"
        )
    return replace(parameters, primes=parameters.deployed_primes, key_switching_prime=None)


def galois_key_bytes(parameters: ParameterSet, count: int) -> int:
    """Bytes of `count` Galois keys on the wire; UserError where the set has no key-switching prime."""
    return KEY_BYTES + count * len(parameters.primes) * polynomial_bytes(_extended(parameters))


class GaloisKeyMaker(Party):
    """The key holder's side.

    Args:
        cipher: the client's keys.
        random: the source of noise and seeds, the operating system's by default; tests may give one.

    Raises:
        UserError: the set has no key-switching prime.
    """

    def __init__(self, cipher: ClientCipher, random: SecureRandom | None = None) -> None:
        super().__init__(_extended(cipher.parameters), random)
        self._secret = cipher.deployed_secret.astype(self.ring.dtype)

    def keys(self, elements: Sequence[int]) -> bytes:
        """The keys of the automorphisms X -> X^g, g in `elements`: a seed, then for each the packed first polynomials.

        Key i of g is (-(a s + e) + P t_i, a): t_i is the rotated secret modulo prime i of q and 0 modulo the others.
        """
        seed, noise = self._fork()
        shared = SecureRandom(seed)
        count = len(self.ring.primes) - 1
        special = self.ring.primes[-1]
        parts = [seed]
        for element in elements:
            rotated = np.take_along_axis(self._secret, permutation(self.ring, element), -1)
            wanted = self.ring.scale(rotated, [special % prime for prime in self.ring.primes])
            added = np.zeros((count, *wanted.shape), wanted.dtype)
            for i in range(count):
                added[i, i] = wanted[i]
            error = self._small(noise.centred_binomial((count, self.ring.degree)))
            masked = self.ring.add(self.ring.multiply(self._uniform(shared, count), self._secret), error)
            parts.append(self._pack(self.ring.subtract(added, masked)))
        return b"".join(parts)


class Rotator(Party):
    """The evaluator's side: rotates ciphertexts with the client's Galois keys. Calls may run in several threads.

    Args:
        parameters: the client's parameter set.
        elements: the automorphisms that the keys are for, in the order in which they were made.
        message: `GaloisKeyMaker.keys(elements)`.

    Raises:
        ValueError: the message's length is wrong or a residue is not below its prime.
        UserError: the set has no key-switching prime.
    """

    def __init__(self, parameters: ParameterSet, elements: Sequence[int], message: bytes) -> None:
        super().__init__(_extended(parameters), None)
        expected = galois_key_bytes(parameters, len(elements))
        if len(message) != expected:
            raise ValueError(f"{len(elements)} Galois keys: expected {expected} bytes, got {len(message)}")
        degree, self._count = parameters.polynomial_degree, len(parameters.primes)
        self._data = Ring(degree, parameters.primes)
        self._special = Ring(degree, self.ring.primes[-1:])
        special = self.ring.primes[-1]
        self._special_inverses = [pow(special, -1, prime) for prime in parameters.primes]
        self._halves = np.array([prime // 2 for prime in self.ring.primes], np.int64)[:, None]
        self._columns = np.array(self.ring.primes, np.int64)[:, None]
        shared = SecureRandom(message[:KEY_BYTES])
        size = (len(message) - KEY_BYTES) // max(1, len(elements))
        self._keys, self._permutations = {}, {}
        for index, element in enumerate(elements):
            part = memoryview(message)[KEY_BYTES + index * size : KEY_BYTES + (index + 1) * size]
            # [k, 2, k + 1, n]
            self._keys[element] = np.stack(
                [self._unpack(part, self._count), self._uniform(shared, self._count)], axis=1
            )
            self._permutations[element] = permutation(self._data, element)

    def rotate(self, ciphertexts: np.ndarray, element: int) -> np.ndarray:
        """The ciphertexts of the plaintexts under X -> X^element: [T, 2, k, n] in NTT form, as given.

        Raises:
            UserError: the client sent no key for the element.
        """
        if element not in self._keys:
            raise UserError(
                f"rotation by the Galois element {element}: no key for it; the client sent keys for "
                f"{sorted(self._keys)}"
            )
        out = np.empty_like(ciphertexts)
        for chunk in chunks(len(ciphertexts)):
            out[chunk] = self._rotate(ciphertexts[chunk], element)
        return out

    def _rotate(self, ciphertexts: np.ndarray, element: int) -> np.ndarray:
        pairs = np.take_along_axis(ciphertexts, self._permutations[element][None, None], -1)
        count = self._count
        digits = self._small(self._centred(self._data.inverse(pairs[:, 1]), slice(count)))
        switched = np.zeros((len(pairs), 2, *digits.shape[2:]), digits.dtype)
        for i, key in enumerate(self._keys[element]):
            for part in range(2):
                product = self.ring.multiply(digits[:, i], key[part])
                switched[:, part] = self.ring.add(switched[:, part], product)
        last = self._special.inverse(switched[:, :, count:].astype(self._special.dtype))
        rest = self._data.forward(self._data.reduce(self._centred(last, slice(count, None))[:, :, 0]))
        kept = switched[:, :, :count].astype(self._data.dtype)
        out = self._data.scale(self._data.subtract(kept, rest), self._special_inverses)
        out[:, 0] = self._data.add(out[:, 0], pairs[:, 0])
        return out

    def _centred(self, residues: np.ndarray, rows: slice) -> np.ndarray:
        """Residues of the given primes as the integers of least magnitude, int64."""
        values = residues.astype(np.int64)
        return values - np.where(values > self._halves[rows], self._columns[rows], 0)
