"""What each party receives is uniform where theory says so, and no two runs have a block in common.

A wrong refusal happens once in ten thousand tests of a kind at the thresholds below.
"""

import numpy as np
import pytest
from made_up_profile import LINK, PROFILE
from scipy import stats
from test_protocol import IMAGES, NETWORK, P_POWER, P_PRIME, POLICY, WELCOME, session

from autoprivacy.gc.activation import modulus_bits
from autoprivacy.he.bits import packed_bytes, unpack_bits, unpack_polynomials
from autoprivacy.he.cipher import polynomial_bytes
from autoprivacy.he.parameters import Flooding
from autoprivacy.he.schemes import darl
from autoprivacy.he.selection import Selection
from autoprivacy.protocol.bundles import NUMBER_BYTES
from autoprivacy.protocol.channel import HEADER, Message
from autoprivacy.protocol.session import Agreement
from autoprivacy.secure_random import KEY_BYTES

SIGNIFICANCE = 1e-4
BINS = 64
RUNS = 6
BLOCK = 16  # bytes: a label, an AES block
AGREEMENT = Agreement(NETWORK.architecture, POLICY)


def frames(stream):
    """The messages of a recorded stream: (type, payload)."""
    while stream:
        _, kind, length = HEADER.unpack_from(stream)
        yield Message(kind), bytes(stream[HEADER.size : HEADER.size + length])
        stream = stream[HEADER.size + length :]


def transcript(image, policy=POLICY, runs=RUNS, network=NETWORK):
    """Payloads by message of both parties over a session that asks for one image again and again."""
    with session(policy, network) as (client, ends):
        for _ in range(runs):
            client.infer(client.prepare(), image)
    payloads = {}
    for end in ends:
        for kind, payload in frames(bytes(end.sent)):
            payloads.setdefault(kind, []).append(payload)
    return payloads


@pytest.fixture(scope="module")
def payloads():
    """Of one image, asked for several times: what hangs on the image alone would show."""
    return transcript(IMAGES[0])


def residues(payload, bits, skip=0):
    count = (len(payload) - skip) * 8 // bits
    return unpack_bits(payload[skip : skip + packed_bytes(count, bits)], bits, count)


def assert_uniform(values, modulus):
    """Chi-squared over bins of equal width, and over the lowest bits."""
    values = np.concatenate([np.ravel(part) for part in values]).astype(np.float64)
    assert values.size > 5 * BINS and values.max() < modulus
    counts = np.bincount((values * BINS // modulus).astype(int), minlength=BINS)
    edges = -(-np.arange(BINS + 1) * modulus // BINS)  # integers below each bin's end
    expected = np.diff(edges) / modulus * values.size
    assert stats.chisquare(counts, expected).pvalue > SIGNIFICANCE
    odd = int((values % 2).sum())
    assert stats.binomtest(odd, values.size, (modulus // 2) / modulus).pvalue > SIGNIFICANCE


def assert_uniform_bytes(payloads):
    data = np.frombuffer(b"".join(payloads), np.uint8)
    assert data.size > 5000
    assert stats.chisquare(np.bincount(data, minlength=256)).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("p", [P_PRIME, P_POWER])
def test_what_the_server_receives_of_the_image_and_of_activations_is_uniform(p, payloads):
    own = payloads
    if p != P_PRIME:
        own = transcript(IMAGES[0], darl(NETWORK, "residual", p, Selection(PROFILE, LINK, Flooding("statistical"))))
    bits = modulus_bits(p)
    assert_uniform([residues(payload, bits, NUMBER_BYTES) for payload in own[Message.INFER]], p)
    assert_uniform([residues(payload, bits) for payload in own[Message.MASKED_ACTIVATION]], p)


def test_masks_that_the_client_decrypts_are_uniform():
    """M r - s for the same r every time: s alone makes it uniform."""
    with session() as (client, _):
        fixed = {}

        class Fixed:
            def below(self, modulus, shape):
                return fixed.setdefault(shape, np.random.default_rng(2).integers(0, modulus, shape, np.uint64))

            def random_bytes(self, count):
                return np.frombuffer(np.random.default_rng().bytes(count), np.uint8)

        client._random = Fixed()
        for name in ("first", "second"):
            assert_uniform([client.prepare().shares[name][P_PRIME] for _ in range(5)], P_PRIME)


def test_oblivious_transfers_tables_and_labels_are_uniform_bytes(payloads):
    for kind in (Message.OT_EXTENSION, Message.GARBLED_TABLES, Message.GARBLER_LABELS):
        assert_uniform_bytes(payloads[kind])


def test_colours_of_the_labels_say_nothing():
    """Lowest bits of the garbler's labels: fair, over an image whose bits are all alike."""
    labels = transcript(np.zeros((3, 8, 8), np.int64))[Message.GARBLER_LABELS]
    colours = np.concatenate(
        [np.frombuffer(payload, np.uint64).reshape(-1, 2)[:, 0] & np.uint64(1) for payload in labels]
    )
    assert stats.binomtest(int(colours.sum()), colours.size).pvalue > SIGNIFICANCE
    pairs = np.bincount(2 * colours[:-1].astype(int) + colours[1:].astype(int), minlength=4)
    assert stats.chisquare(pairs).pvalue > SIGNIFICANCE


def test_ciphertexts_of_the_masks_are_uniform_modulo_their_primes(payloads):
    """The polynomials that hide the client's shares; in front of them stands a seed, which is public."""
    (parameters,) = AGREEMENT.parameter_sets
    bits = tuple(prime.bit_length() for prime in parameters.primes)
    received = []
    for payload in payloads[Message.ENCRYPTED_MASKS]:
        body = payload[KEY_BYTES:]
        out = np.empty((len(body) // polynomial_bytes(parameters), len(bits), parameters.polynomial_degree), np.uint32)
        unpack_polynomials(memoryview(body), bits, out)
        received.append(out)
    for row, prime in enumerate(parameters.primes):
        assert_uniform([polynomials[:, row] for polynomials in received], prime)


def blocks(payloads):
    """Aligned blocks of all payloads, with repeats."""
    return [
        payload[start : start + BLOCK]
        for kind, own in payloads.items()
        if kind not in PUBLIC
        for payload in own
        for start in range(0, len(payload) - BLOCK + 1, BLOCK)
    ]


# The announcement, architecture and policy, is the same for everybody; headers are no payload; all else is fresh.
PUBLIC = (Message.WELCOME,)


def test_no_block_comes_twice_within_a_session_or_in_two(payloads):
    """The same image in every run: a mask, label, key or seed used twice would show as a repeated block."""
    again = transcript(IMAGES[0], runs=2)
    assert payloads[Message.WELCOME] == again[Message.WELCOME] == [WELCOME]
    first, second = blocks(payloads), blocks(again)
    assert len(first) > 10_000 and len(second) > 3_000
    assert len(set(first)) == len(first) and len(set(second)) == len(second)
    assert not set(first) & set(second)
