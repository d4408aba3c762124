"""Ciphertexts: SEAL as the oracle, exact encoding, noise as derived, the full walk of a layer, malformed messages."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from support.checked_client import CheckedClient
from support.real_noise import decrypt_with_noise

from autoprivacy.errors import UserError
from autoprivacy.he.bfv import seal_format
from autoprivacy.he.bfv.cipher import ClientCipher, ServerCipher, message_bytes, public_key_bytes
from autoprivacy.he.bfv.encoding import PlaintextEncoding
from autoprivacy.he.bfv.reply import ReplyForm
from autoprivacy.he.bfv.seal_context import SealContext
from autoprivacy.he.parameters.parameter_set import ParameterSet, ReplyBits
from autoprivacy.he.ring.ring import Ring, ntt_primes, primes_for
from autoprivacy.he.ring.weight_products import WeightProducts
from autoprivacy.randomness.generator import CENTRED_BINOMIAL_PAIRS, KEY_BYTES, SecureRandom

SIGMA_SQUARED = CENTRED_BINOMIAL_PAIRS / 2
TWO_PRIMES = ParameterSet(114689, 4096, primes_for(76, 4096))
ONE_PRIME = ParameterSet(12289, 2048, primes_for(50, 2048))
THREE_PRIMES = ParameterSet(4079617, 8192, ntt_primes(1 << 60, 8192, 3))
SMALL_PRIMES = ParameterSet(114689, 4096, ntt_primes(1 << 26, 4096, 3))
SETS = {
    f"n{base.polynomial_degree}-p{p}": replace(base, plaintext_modulus=p)
    for base, p in [
        (TWO_PRIMES, 114689),
        (TWO_PRIMES, 1 << 17),
        (ONE_PRIME, 12289),
        (ONE_PRIME, 1 << 14),
        (THREE_PRIMES, 4079617),
        (THREE_PRIMES, 1 << 22),
        (SMALL_PRIMES, 114689),
        (SMALL_PRIMES, 1 << 17),
    ]
}


@pytest.fixture(scope="module", params=list(SETS.values()), ids=list(SETS))
def parties(request: pytest.FixtureRequest) -> tuple[CheckedClient, ServerCipher]:
    client = CheckedClient(request.param)
    return client, ServerCipher(request.param, client.public_key())


@pytest.fixture(scope="module")
def two_primes() -> tuple[ClientCipher, ServerCipher]:
    client = ClientCipher(TWO_PRIMES, SecureRandom(bytes(KEY_BYTES)))
    return client, ServerCipher(TWO_PRIMES, client.public_key(), SecureRandom(bytes(range(KEY_BYTES))))


def random_plain(parameters: ParameterSet, count: int, seed: int = 0) -> np.ndarray:
    """Residues [count, n], with 0, p - 1 and p / 2 among them and an all-zero polynomial at the end."""
    p = parameters.plaintext_modulus
    plain = np.random.default_rng(seed).integers(0, p, (count, parameters.polynomial_degree), dtype=np.uint64)
    plain[:, :4] = [0, p - 1, p // 2, p // 2 + 1]
    plain[-1] = 0
    return plain


def form_of(client: ClientCipher, count: int) -> ReplyForm:
    """A reply of which everything is sent, in bits that no test's plaintexts miss."""
    return ReplyForm(client.ring.degree, count, ReplyBits(36, 40))


def negacyclic(x: np.ndarray, w: np.ndarray, modulus: int) -> np.ndarray:
    """x * w in Z[X]/(X^n + 1), modulo p; exact while sums stay below 2^63."""
    full = np.convolve(x.astype(np.int64), w)
    full = np.append(full, np.zeros(2 * len(x) - len(full), np.int64))
    return np.mod(full[: len(x)] - full[len(x) :], modulus).astype(np.uint64)


def exact_phase(client: ClientCipher, pair: np.ndarray) -> list[int]:
    """c0 + c1 s of one ciphertext [2, k, n] in NTT form, as integers in [0, q)."""
    ring, q = client.ring, client.parameters.q
    secret = client.deployed_secret[: len(ring.primes)].astype(ring.dtype)
    residues = ring.inverse(ring.add(pair[0], ring.multiply(pair[1], secret)))
    lifts = [q // prime * pow(q // prime, -1, prime) for prime in ring.primes]
    return [sum(int(r) * lift for r, lift in zip(column, lifts, strict=True)) % q for column in residues.T]


def test_secret_key_is_seals_and_ternary(parties: tuple[CheckedClient, ServerCipher]) -> None:
    client, _ = parties
    secret = client.ring.inverse(client.seal.secret_key().astype(client.ring.dtype))
    for residues, prime in zip(secret, client.ring.primes, strict=True):
        signed = np.where(residues == prime - 1, -1, residues.astype(np.int64))
        assert set(np.unique(signed)) == {-1, 0, 1}
        assert np.array_equal(signed, np.where(secret[0] == client.ring.primes[0] - 1, -1, secret[0].astype(np.int64)))
        # a third each: 5 standard deviations of a binomial
        assert abs(np.mean(signed == 0) - 1 / 3) < 5 * math.sqrt(2 / 9 / len(signed))


def test_seal_decrypts_ours(parties: tuple[CheckedClient, ServerCipher]) -> None:
    client, server = parties
    plain = random_plain(client.parameters, 3)
    ciphertexts = server.load(client.encrypt(plain), 3)
    assert np.array_equal(client.seal.decrypt(client.ring.inverse(ciphertexts)), plain)


def test_we_decrypt_seals(parties: tuple[CheckedClient, ServerCipher]) -> None:
    client, server = parties
    plain = random_plain(client.parameters, 3)
    plain[-1, 0] = 1  # SEAL's own encryption through Pyfhel wants a non-zero plaintext
    ciphertexts = client.ring.forward(client.seal.encrypt(plain).astype(client.ring.dtype))
    form = form_of(client, 3)
    reply = server.reply(ciphertexts, np.zeros_like(plain), 0.0, form)
    assert np.array_equal(client.decrypt(reply, form), plain)


def test_a_layer_equals_integer_arithmetic(parties: tuple[ClientCipher, ServerCipher]) -> None:
    client, server = parties
    p, n, ring = client.parameters.plaintext_modulus, client.ring.degree, client.ring
    plain, masks = random_plain(client.parameters, 3), random_plain(client.parameters, 2, seed=1)
    weights = np.random.default_rng(2).integers(-127, 128, (4, n))
    weights[:, 64:] = 0
    weights[3, n - 1] = -127  # wraps around
    inputs, outputs = np.array([0, 1, 2, 1]), np.array([0, 0, 0, 1])
    sums = WeightProducts(ring, inputs, outputs, 2)
    sums.put(0, ring.forward(ring.reduce(weights)))
    products = sums.sums(server.load(client.encrypt(plain), 3))
    form, flood = form_of(client, 2), server.parameters.q / (20 * p)
    reply = server.reply(products, masks, flood, form)
    expected = masks.copy()
    for w, i, o in zip(weights, inputs, outputs, strict=True):
        expected[o] = (expected[o] + negacyclic(plain[i], w, p)) % np.uint64(p)
    result, noise = decrypt_with_noise(client, reply, form)
    assert np.array_equal(client.decrypt(reply, form), expected)
    assert np.array_equal(result, expected)
    assert 0.9 * flood < noise.std() < 1.1 * flood


def test_messages_have_the_announced_length(parties: tuple[ClientCipher, ServerCipher]) -> None:
    client, server = parties
    n = client.ring.degree
    bits = sum(prime.bit_length() for prime in client.ring.primes)
    for count in (0, 1, 5):
        message = client.encrypt(np.zeros((count, n), np.uint64))
        assert len(message) == message_bytes(client.parameters, count) == KEY_BYTES + count * n * bits // 8
        loaded = server.load(message, count)
        form = form_of(client, count)
        reply = server.reply(loaded, np.zeros((count, n), np.uint64), 0.0, form)
        assert len(reply) == form.size == count * n * (36 + 40) // 8
        assert client.decrypt(reply, form).shape == (count, n)
    assert len(client.public_key()) == public_key_bytes(client.parameters) == KEY_BYTES + n * bits // 8


@pytest.mark.parametrize(
    "parameters", [TWO_PRIMES, replace(THREE_PRIMES, plaintext_modulus=1 << 22), ONE_PRIME, SMALL_PRIMES]
)
def test_encoding_is_exact(parameters: ParameterSet) -> None:
    p, q, n = parameters.plaintext_modulus, parameters.q, parameters.polynomial_degree
    ring = Ring(n, parameters.primes)
    encoding = PlaintextEncoding(ring, p)
    plain = random_plain(parameters, 1)[0]
    integers = [(2 * q * m + p) // (2 * p) for m in plain.tolist()]
    residues = np.array([[value % prime for value in integers] for prime in ring.primes], ring.dtype)
    assert np.array_equal(encoding.encode(plain), residues)


@pytest.mark.parametrize("p", [1, 1 << 31, TWO_PRIMES.primes[0]])
def test_encoding_refuses_other_plaintext_moduli(p: int) -> None:
    with pytest.raises(UserError, match="no common factor"):
        PlaintextEncoding(Ring(4096, TWO_PRIMES.primes), p)


def exact_noise(client: ClientCipher, pairs: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """c0 + c1 s - q m / p of ciphertexts [T, 2, k, n] in NTT form, centred modulo q, in exact integers to the end."""
    p, q = client.parameters.plaintext_modulus, client.parameters.q
    noise = []
    for pair, row in zip(pairs, plain.tolist(), strict=True):
        phases = exact_phase(client, pair)
        scaled = ((p * v - q * m + p * q // 2) % (p * q) - p * q // 2 for v, m in zip(phases, row, strict=True))
        noise.append([value / p for value in scaled])
    return np.array(noise)


def test_fresh_noise_is_seals_binomial_plus_rounding(two_primes: tuple[ClientCipher, ServerCipher]) -> None:
    client, server = two_primes
    plain = random_plain(client.parameters, 8)[:7]
    noise = exact_noise(client, server.load(client.encrypt(plain), 7), plain)
    assert abs(np.mean(noise)) < 5 * math.sqrt(SIGMA_SQUARED / noise.size)
    assert np.std(noise) == pytest.approx(math.sqrt(SIGMA_SQUARED + 1 / 12), rel=0.05)
    assert np.max(np.abs(noise)) <= CENTRED_BINOMIAL_PAIRS + 0.5


@pytest.mark.parametrize("log2_flood", [None, 20, 40, 55])
def test_noise_before_the_switch(two_primes: tuple[ClientCipher, ServerCipher], log2_flood: int | None) -> None:
    """That of an encryption under the public key, and of the flood."""
    client, server = two_primes
    n, flood = client.ring.degree, 2.0**log2_flood if log2_flood else 0.0
    masks = random_plain(client.parameters, 12)
    zeros = np.zeros((12, 2, len(client.ring.primes), n), np.uint64)
    noise = exact_noise(client, client.ring.forward(server._hide(zeros, masks, flood, SecureRandom())), masks)
    expected = math.hypot(flood, math.sqrt(SIGMA_SQUARED * (4 * n / 3 + 1)))
    assert noise.std() == pytest.approx(expected, rel=0.02 if flood else 0.07)
    assert abs(noise.mean()) < 5 * expected / math.sqrt(12 if not flood else noise.size)


def test_equal_plaintexts_make_unrelated_messages(two_primes: tuple[ClientCipher, ServerCipher]) -> None:
    client, server = two_primes
    plain = random_plain(client.parameters, 2)
    first, second = (client.encrypt(plain) for _ in range(2))
    blocks = {first[i : i + 16] for i in range(len(first) - 15)}
    assert not any(second[i : i + 16] in blocks for i in range(0, len(second) - 15, 16))
    pairs = server.load(first, 2)
    replies = [server.reply(pairs, plain, 0.0, form_of(client, 2)) for _ in range(2)]
    blocks = {replies[0][i : i + 16] for i in range(len(replies[0]) - 15)}
    assert not any(replies[1][i : i + 16] in blocks for i in range(0, len(replies[1]) - 15, 16))


def test_calls_may_run_in_threads() -> None:
    client = ClientCipher(ONE_PRIME)
    server = ServerCipher(ONE_PRIME, client.public_key())

    def walk(seed: int) -> tuple[bytes, bool]:
        plain = random_plain(ONE_PRIME, 2, seed)
        message = client.encrypt(plain)
        form = form_of(client, 2)
        reply = server.reply(server.load(message, 2), plain, 0.0, form)
        doubled = plain * np.uint64(2) % np.uint64(ONE_PRIME.plaintext_modulus)
        return message[:KEY_BYTES], np.array_equal(client.decrypt(reply, form), doubled)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(walk, range(20)))
    assert all(right for _, right in results)
    assert len({seed for seed, _ in results}) == len(results)


def test_malformed_messages_are_refused(two_primes: tuple[ClientCipher, ServerCipher]) -> None:
    client, server = two_primes
    plain = random_plain(client.parameters, 2)
    message = client.encrypt(plain)
    form = form_of(client, 2)
    reply = server.reply(server.load(message, 2), plain, 0.0, form)
    for data in (message[:-1], message + b"\0", b""):
        with pytest.raises(ValueError, match=f"expected {len(message)} bytes, got {len(data)}"):
            server.load(data, 2)
    with pytest.raises(ValueError, match=f"expected {len(reply)} bytes, got {len(reply) - 1}"):
        client.decrypt(reply[1:], form)
    with pytest.raises(ValueError, match="public key: expected"):
        ServerCipher(client.parameters, client.public_key()[:-1])
    too_large = b"\xff" * 64
    with pytest.raises(ValueError, match="residues below the prime"):
        server.load(message[:KEY_BYTES] + too_large + message[KEY_BYTES + 64 :], 2)
    with pytest.raises(ValueError, match="residues below the prime"):
        ServerCipher(client.parameters, client.public_key()[:-64] + too_large)


def test_wrong_arguments_are_refused(two_primes: tuple[ClientCipher, ServerCipher]) -> None:
    client, server = two_primes
    n, p = client.ring.degree, client.parameters.plaintext_modulus
    with pytest.raises(ValueError, match=f"plaintexts: expected residues below {p}, got {p}"):
        client.encrypt(np.full((1, n), p, np.uint64))
    with pytest.raises(ValueError, match="plaintexts: expected uint64"):
        client.encrypt(np.zeros((1, n), np.int64))
    with pytest.raises(ValueError, match="plaintexts: expected uint64"):
        client.encrypt(np.zeros(n, np.uint64))
    with pytest.raises(ValueError, match="results: expected uint64"):
        server.reply(np.zeros((1, 2, 1, n), np.uint64), np.zeros((1, n), np.uint64), 0.0, form_of(client, 1))
    with pytest.raises(ValueError, match="and 2 masks"):
        server.reply(np.zeros((1, 2, 2, n), np.uint64), np.zeros((2, n), np.uint64), 0.0, form_of(client, 1))
    with pytest.raises(ValueError, match="masks: expected residues below"):
        server.reply(np.zeros((1, 2, 2, n), np.uint64), np.full((1, n), p, np.uint64), 0.0, form_of(client, 1))


def test_seal_refuses_a_composite_modulus() -> None:
    composite = next(m for m in range(8193 + (1 << 40), 1 << 41, 8192) if m % 3 == 0)
    with pytest.raises(UserError, match="SEAL refuses"):
        SealContext(ParameterSet(12289, 4096, (composite,)))


def test_seal_bytes_round_trip_in_format_4_1() -> None:
    context = SealContext(TWO_PRIMES)
    n, pyfhel = TWO_PRIMES.polynomial_degree, context._pyfhel
    secret = pyfhel.to_bytes_secret_key()
    public = pyfhel.to_bytes_public_key()
    plain = pyfhel.encodeInt(np.arange(1, 9))
    ciphertext = pyfhel.encryptPtxt(plain).to_bytes()
    assert seal_format.VERSION == (4, 1) == tuple(secret[3:5]) == tuple(ciphertext[3:5])
    assert seal_format.read_plaintext(secret).words.shape == (3 * n,)  # the special prime's row is the third
    assert seal_format.write_plaintext(seal_format.read_plaintext(secret)) == secret
    assert seal_format.write_plaintext(seal_format.read_plaintext(plain.to_bytes())) == plain.to_bytes()
    for data, primes, transformed in ((public, 3, True), (ciphertext, 2, False)):
        read = seal_format.read_ciphertext(data)
        assert read.polynomials.shape == (2, primes, n) and read.transformed == transformed
        assert seal_format.write_ciphertext(read) == data


def test_other_formats_than_seal_4_1_are_refused() -> None:
    words = np.arange(4, dtype=np.uint64)
    data = bytearray(seal_format.write_plaintext(seal_format.SealPlaintext(seal_format.PLAIN_HASH, words)))
    assert np.array_equal(seal_format.read_plaintext(bytes(data)).words, words)
    with pytest.raises(ValueError, match="expected at least 16 bytes, got 3"):
        seal_format.read_plaintext(bytes(data[:3]))
    with pytest.raises(ValueError, match=f"expected {len(data)} bytes, got {len(data) - 8}"):
        seal_format.read_plaintext(bytes(data[:-8]))
    for position, message in ((0, "unknown header"), (4, "expected format version"), (5, "unknown header")):
        broken = data.copy()
        broken[position] ^= 2
        with pytest.raises(ValueError, match=message):
            seal_format.read_plaintext(bytes(broken))
