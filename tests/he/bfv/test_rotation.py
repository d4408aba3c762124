"""Batching and rotations: SEAL as the oracle, noise as derived, key sizes, malformed keys."""

from __future__ import annotations

import math

import numpy as np
import pytest
from Pyfhel import Pyfhel
from support.checked_client import CheckedClient

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.cipher import ServerCipher
from autoprivacy.he.bfv.rotation import GaloisKeyMaker, Rotator, galois_key_bytes
from autoprivacy.he.bfv.seal_format import read_plaintext
from autoprivacy.he.packing.batching import SlotEncoding
from autoprivacy.he.parameters.noise import rotation_noise
from autoprivacy.he.parameters.parameter_set import ParameterSet
from autoprivacy.he.ring.automorphisms import permutation, rotation_element, swap_element
from autoprivacy.he.ring.ring import Ring, ntt_primes
from autoprivacy.randomness.generator import KEY_BYTES, SecureRandom

P = 114689


def parameter_set(degree: int, bits: int, count: int, special_bits: int, p: int = P) -> ParameterSet:
    primes = ntt_primes(1 << bits, degree, count + 1)
    return ParameterSet(p, degree, primes[:count], ntt_primes(1 << special_bits, degree, count + 1)[count])


# As SEAL likes them, a special prime below the others, one prime alone, primes of less than half a word.
SETS = {
    "two primes": parameter_set(4096, 35, 2, 35),
    "small special prime": parameter_set(4096, 40, 2, 25),
    "one prime": parameter_set(4096, 53, 1, 53),
    "small primes": parameter_set(4096, 26, 3, 26),
    "small primes and a large one": parameter_set(4096, 26, 2, 40),
}


class Parties:
    def __init__(self, parameters: ParameterSet) -> None:
        self.parameters, self.degree = parameters, parameters.polynomial_degree
        self.client = CheckedClient(parameters)
        self.server = ServerCipher(parameters, self.client.public_key())
        self.elements = [rotation_element(1, self.degree), rotation_element(-512, self.degree)]
        self.elements.append(swap_element(self.degree))
        self.keys = GaloisKeyMaker(self.client).keys(self.elements)
        self.rotator = Rotator(parameters, self.elements, self.keys)
        self.encoding = SlotEncoding(self.degree, parameters.plaintext_modulus)

    def phase(self, ciphertexts: np.ndarray) -> np.ndarray:
        """c0 + c1 s, transformed."""
        ring = self.client.ring
        second = np.ascontiguousarray(ciphertexts[:, 1])
        return ring.add(ciphertexts[:, 0], ring.multiply(second, self.client.seal.secret_key().astype(ring.dtype)))

    def rotation_error(self, rotator: Rotator, ciphertexts: np.ndarray, element: int) -> np.ndarray:
        """What a rotation adds to the noise of each coefficient, int64 [T, n]."""
        ring = self.client.ring
        moved = np.take_along_axis(self.phase(ciphertexts), permutation(ring, element)[None], -1)
        residues = ring.inverse(ring.subtract(self.phase(rotator.rotate(ciphertexts, element)), moved))[:, 0]
        prime = self.parameters.primes[0]
        return np.where(residues > prime // 2, residues.astype(np.int64) - prime, residues.astype(np.int64))


@pytest.fixture(scope="module", params=SETS.values(), ids=SETS.keys())
def parties(request: pytest.FixtureRequest) -> Parties:
    return Parties(request.param)


def seal_rotations(parameters: ParameterSet, slots: np.ndarray, steps: list[int]) -> tuple[np.ndarray, list[list[int]]]:
    """SEAL's encoding of the slots, and what SEAL decrypts after rotating; step 0 swaps the rows."""
    seal = Pyfhel()
    status = seal.contextGen(
        "bfv",
        n=parameters.polynomial_degree,
        t=parameters.plaintext_modulus,
        sec=0,
        qi=list(parameters.deployed_primes),
    )
    assert "success" in status
    seal.keyGen()
    seal.rotateKeyGen(steps)
    plaintext = seal.encodeInt(slots.astype(np.int64))
    results = []
    for step in steps:
        ciphertext = seal.encryptPtxt(plaintext)
        seal.flip(ciphertext) if step == 0 else seal.rotate(ciphertext, step)
        results.append(seal.decryptInt(ciphertext) % parameters.plaintext_modulus)
    return read_plaintext(plaintext.to_bytes()).words, results


def test_slots_and_rotations_are_seals(parties: Parties) -> None:
    slots = np.random.default_rng(1).integers(0, P, parties.degree, dtype=np.uint64)
    polynomial, rotated = seal_rotations(parties.parameters, slots, [1, -512, 0])
    ours = parties.encoding.encode(slots)
    np.testing.assert_array_equal(ours, polynomial)
    ciphertexts = parties.server.load(parties.client.encrypt(ours[None]), 1)
    for element, expected in zip(parties.elements, rotated, strict=True):
        result = parties.client.ring.inverse(parties.rotator.rotate(ciphertexts, element))
        decrypted = parties.encoding.decode(parties.client.seal.decrypt(result))[0]
        np.testing.assert_array_equal(decrypted, expected)


@pytest.mark.parametrize("degree", [8, 256, 1024])
def test_slots_multiply_one_by_one_and_survive(degree: int) -> None:
    p = ntt_primes(1 << 20, degree, 1)[0]
    encoding, ring = SlotEncoding(degree, p), Ring(degree, (p,))
    left, right = np.random.default_rng(2).integers(0, p, (2, 3, degree), dtype=np.uint64)
    polynomials = [encoding.encode(slots).astype(ring.dtype)[:, None] for slots in (left, right)]
    product = ring.inverse(ring.multiply(*map(ring.forward, polynomials)))[:, 0]
    np.testing.assert_array_equal(encoding.decode(product.astype(np.uint64)), left * right % np.uint64(p))
    np.testing.assert_array_equal(encoding.decode(encoding.encode(left)), left)
    np.testing.assert_array_equal(encoding.encode(np.full(degree, 5, np.uint64)), [5] + [0] * (degree - 1))


@pytest.mark.parametrize("element", [3, 27, 127, 65])
def test_permutation_is_the_automorphism(element: int) -> None:
    ring = Ring(64, ntt_primes(1 << 40, 64, 2))
    coefficients = np.random.default_rng(3).integers(-1000, 1000, 64)
    image = np.zeros(64, np.int64)
    for exponent, value in enumerate(coefficients):
        sign, place = divmod(exponent * element, 64)
        image[place] += value if sign % 2 == 0 else -value
    transformed = ring.forward(ring.reduce(coefficients))
    moved = np.take_along_axis(transformed, permutation(ring, element), -1)
    np.testing.assert_array_equal(moved, ring.forward(ring.reduce(image)))
    with pytest.raises(ValueError, match="odd"):
        permutation(ring, 4)


@pytest.mark.parametrize("name", ["two primes", "small special prime"])
def test_rotation_noise_is_the_predicted_one(name: str) -> None:
    """Over 100 keys of one secret; the model has a quarter of the variance that residues from 0 would have."""
    parties = Parties(SETS[name])
    element = parties.elements[0]
    ciphertexts = parties.server.load(parties.client.encrypt(np.ones((2, parties.degree), np.uint64)), 2)
    maker = GaloisKeyMaker(parties.client)
    squares, means = [], []
    for _ in range(100):
        rotator = Rotator(parties.parameters, [element], maker.keys([element]))
        errors = parties.rotation_error(rotator, ciphertexts, element).astype(float)
        squares.append(np.mean(errors**2))
        means.append(np.mean(errors[0] * errors[1]))
    expected = rotation_noise(parties.parameters)
    assert math.sqrt(np.mean(squares)) == pytest.approx(expected, rel=0.05)
    # with one key, the noises of two ciphertexts have nothing in common
    assert abs(np.mean(means)) < 0.05 * expected**2


def test_keys_have_the_predicted_length_and_are_fresh(parties: Parties) -> None:
    assert len(parties.keys) == galois_key_bytes(parties.parameters, 3)
    bits = sum(prime.bit_length() for prime in parties.parameters.deployed_primes)
    per_key = len(parties.parameters.primes) * parties.degree * bits // 8
    assert len(parties.keys) == KEY_BYTES + 3 * per_key
    again = GaloisKeyMaker(parties.client).keys(parties.elements)
    blocks = [{keys[i : i + 16] for i in range(0, len(keys) - 15, 16)} for keys in (parties.keys, again)]
    assert not blocks[0] & blocks[1]
    seeded = [GaloisKeyMaker(parties.client, SecureRandom(bytes(KEY_BYTES))).keys([3]) for _ in range(2)]
    assert seeded[0] == seeded[1]


def test_missing_and_malformed_keys_are_refused(parties: Parties) -> None:
    ciphertexts = np.zeros((1, 2, len(parties.parameters.primes), parties.degree), np.uint64)
    with pytest.raises(UserError, match="Galois element 9: no key for it; the client sent keys for"):
        parties.rotator.rotate(ciphertexts, 9)
    with pytest.raises(ValueError, match=r"2 Galois keys: expected \d+ bytes"):
        Rotator(parties.parameters, parties.elements[:2], parties.keys)
    with pytest.raises(ValueError, match="residues below the prime"):
        Rotator(
            parties.parameters, parties.elements, parties.keys[:KEY_BYTES] + b"\xff" * len(parties.keys[KEY_BYTES:])
        )


def test_a_set_without_a_key_switching_prime_does_not_rotate() -> None:
    parameters = ParameterSet(P, 4096, ntt_primes(1 << 50, 4096, 2))
    with pytest.raises(UserError, match="rotations need a key-switching prime"):
        galois_key_bytes(parameters, 1)
    with pytest.raises(UserError, match="no key-switching prime"):
        rotation_noise(parameters)


@pytest.mark.parametrize("p", [1 << 17, 40961, 3 * 8192 + 1])
def test_a_modulus_that_does_not_batch_is_refused(p: int) -> None:
    """A power of two, a prime that is 1 mod 8192 alone, a number that is 1 mod 16384 and no prime."""
    with pytest.raises(UserError, match=f"plaintext modulus {p} does not batch at n = 8192: .* prime == 1 mod 16384"):
        SlotEncoding(8192, p)
