"""What each party receives is uniform where theory says so, and no two runs have a block in common.

There are about a hundred tests of distributions here; at the threshold below a right program fails one of them once in
ten thousand runs.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from support.protocol_sessions import FLOODED, IMAGES, NETWORK, P_POWER, POLICY, SLOT_POLICY, WELCOME, session
from support.transcripts import MANY_RUNS, RUNS, residues, transcript
from support.uniformity import SIGNIFICANCE, assert_fair_bits, assert_uniform, assert_uniform_bytes

from autoprivacy.gc.activation import modulus_bits
from autoprivacy.he.bfv.cipher import polynomial_bytes
from autoprivacy.he.bfv.reply import ReplyForm, ReplyReader
from autoprivacy.he.ring.bit_packing import packed_bytes, unpack_bits, unpack_polynomials
from autoprivacy.protocol.bundles import NUMBER_BYTES
from autoprivacy.protocol.channel import Message
from autoprivacy.protocol.session import Agreement
from autoprivacy.randomness.generator import KEY_BYTES
from autoprivacy.selection.schemes import darl

BLOCK = 16  # bytes: a label, an AES block
AGREEMENT = Agreement(NETWORK.architecture, POLICY)
POLICIES = {"prime": POLICY, "power of two": darl(NETWORK, "residual", P_POWER, FLOODED), "slots": SLOT_POLICY}


@pytest.fixture(scope="module", params=POLICIES)
def repeated(request):
    """A policy and the payloads of many runs under it, all of one image."""
    policy = POLICIES[request.param]
    return policy, transcript(IMAGES[0], policy, MANY_RUNS)


@pytest.mark.parametrize(
    ("kind", "skip"), [(Message.INFER, NUMBER_BYTES), (Message.MASKED_ACTIVATION, 0), (Message.OUTPUT_SHARE, 0)]
)
def test_masked_values_are_uniform_and_independent_from_run_to_run(repeated, kind, skip):
    """x - r of the image, y - r of activations, the server's share of the output; one image all the time."""
    policy, payloads = repeated
    p = policy.plaintext_modulus
    runs = [residues(payload, modulus_bits(p), skip).astype(np.int64) for payload in payloads[kind]]
    assert_uniform(runs, p)
    runs = np.array_split(np.concatenate(runs), MANY_RUNS)  # a run may have several messages of the kind
    assert_uniform([(second - first) % p for first, second in zip(runs[:-1], runs[1:], strict=True)], p)


def test_coefficients_of_replies_are_uniform_over_their_bits(repeated):
    """c0 and c1 of every layer as they are sent, behind flood and modulus switch."""
    policy, payloads = repeated
    agreement = Agreement(NETWORK.architecture, policy)
    for index, layer in enumerate(policy.layers):
        bits, firsts, seconds = agreement.reply_bits(layer.name), [], []
        form = ReplyForm.of(agreement.plan(layer.name), bits)
        for payload in payloads[Message.ENCRYPTED_SHARES][index :: len(policy.layers)]:
            tail = form.ciphertexts * packed_bytes(form.degree, bits.c1)
            second = np.empty((form.ciphertexts, 1, form.degree), np.uint64)
            unpack_polynomials(memoryview(payload)[:tail], (bits.c1,), second)
            seconds.append(second)
            firsts.append(unpack_bits(payload[tail:], bits.c0, form.coefficients))
        assert_fair_bits(firsts, bits.c0)
        assert_fair_bits(seconds, bits.c1)


@pytest.mark.parametrize("name", POLICIES)
def test_all_that_the_client_decrypts_is_uniform(name, monkeypatch):
    """M r - s for the same r every time: s alone makes it uniform, in every coefficient that is sent."""
    policy, decrypted = POLICIES[name], []
    read = ReplyReader.read
    monkeypatch.setattr(ReplyReader, "read", lambda *a: decrypted.append(read(*a)) or decrypted[-1])
    with session(policy, pool=MANY_RUNS) as (client, _):
        p, fixed = policy.plaintext_modulus, {}
        fresh = client._fresh_seeds
        client._fresh_seeds = lambda node: fixed.setdefault(node.name, fresh(node))
        client._settle = lambda bundle: None  # it keeps shares that a client forgets
        bundles = [client.prepare() for _ in range(MANY_RUNS)]
    for index, layer in enumerate(policy.layers):
        assert_uniform([bundle.shares[layer.name][p] for bundle in bundles], p)
        assert_uniform(decrypted[index :: len(policy.layers)], p)


@pytest.fixture(scope="module")
def payloads():
    """Of one image, asked for several times: what hangs on the image alone would show."""
    return transcript(IMAGES[0])


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


LOOKED_UP = darl(NETWORK, "residual", 1 << 18, FLOODED)
SILENT = replace(
    LOOKED_UP,
    layers=tuple(replace(layer, activation="lookup") for layer in LOOKED_UP.layers),
    silent_table_bits=17,
)


def test_messages_of_silent_transfers_are_uniform_bytes():
    payloads = transcript(IMAGES[0], SILENT)
    for kind in (Message.SILENT_ROUND, Message.LOOKUP_MAKING):
        assert_uniform_bytes(payloads[kind])


@pytest.mark.parametrize("name", [*POLICIES, "silent"])
def test_no_block_comes_twice_within_a_session_or_in_two(name):
    """The same image in every run: a mask, label, key or seed used twice would show as a repeated block."""
    sessions = [transcript(IMAGES[0], (POLICIES | {"silent": SILENT})[name], runs) for runs in (RUNS, 2)]
    if name == "prime":
        assert [own[Message.WELCOME] for own in sessions] == [[WELCOME]] * 2
    first, second = (blocks(own) for own in sessions)
    assert len(first) > 10_000 and len(second) > 3_000
    assert len(set(first)) == len(first) and len(set(second)) == len(second)
    assert not set(first) & set(second)
