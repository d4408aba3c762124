"""Sessions with lookups: what crosses is uniform, no correlation, tweak or mask serves twice, bits are as counted."""

from collections import Counter

import numpy as np
import pytest
from support.kept_sessions import GARBLED, LOOKED_UP, P, with_lookups
from support.protocol_sessions import IMAGES, NETWORK, payload_lengths, session
from support.transcripts import MANY_RUNS, RUNS, residues, transcript
from support.uniformity import assert_fair_bits, assert_uniform, assert_uniform_bytes

from autoprivacy.gc import garbling
from autoprivacy.gc.activation import modulus_bits
from autoprivacy.lookup.kernels import load_kernels as load_lookup_kernels
from autoprivacy.lookup.shape import fields_bytes
from autoprivacy.ot import kernels
from autoprivacy.protocol import garbled
from autoprivacy.protocol.bundles import NUMBER_BYTES, Seed
from autoprivacy.protocol.channel import Message
from autoprivacy.protocol.session import Agreement

AGREEMENT = Agreement(NETWORK.architecture, LOOKED_UP)
NODES = AGREEMENT.looked_up_nodes()


@pytest.fixture(scope="module")
def payloads():
    """Of one image, asked for again and again."""
    return transcript(IMAGES[0], LOOKED_UP, MANY_RUNS)


def test_masked_image_and_output_are_uniform_and_independent_from_run_to_run(payloads):
    for kind, skip in ((Message.INFER, NUMBER_BYTES), (Message.OUTPUT_SHARE, 0)):
        runs = [residues(payload, modulus_bits(P), skip).astype(np.int64) for payload in payloads[kind]]
        assert_uniform(runs, P)
        assert_uniform([(second - first) % P for first, second in zip(runs[:-1], runs[1:], strict=True)], P)


@pytest.mark.parametrize("kind", [Message.LOOKUP_MAKING, Message.LOOKUP_QUESTION, Message.LOOKUP_ANSWER])
def test_messages_of_lookups_are_uniform_bytes_and_differ_by_uniform_bytes(payloads, kind):
    """All of a kind; then run against run, where what depends on the image alone would cancel."""
    parties = 2 if kind == Message.LOOKUP_MAKING else 1  # the client's messages come first
    for own in np.array_split(np.array(payloads[kind], object), parties):
        assert_uniform_bytes(own)
        runs = [np.frombuffer(b"".join(run), np.uint8) for run in np.array_split(own, MANY_RUNS)]
        assert_uniform_bytes([(first ^ second).tobytes() for first, second in zip(runs[:-1], runs[1:], strict=True)])


@pytest.mark.parametrize(
    ("kind", "fields"),
    [(Message.LOOKUP_QUESTION, "question_fields"), (Message.LOOKUP_ANSWER, "answer_fields")],
    ids=["question", "answer"],
)
def test_every_field_of_what_is_opened_is_uniform(payloads, kind, fields):
    """Places, opened bits, corrections, transfers and shares, each by itself, activation by activation."""
    unpack = load_lookup_kernels(None).unpack
    for index, node in enumerate(NODES):
        batch, place = AGREEMENT.batch(node), 0
        for size in getattr(batch.shape, fields):
            end = place + fields_bytes([size], batch.count)
            own = [payload[place:end] for payload in payloads[kind][index :: len(NODES)]]
            assert_fair_bits([unpack(memoryview(part), size, batch.count) for part in own], size)
            place = end
        assert place == len(payloads[kind][index])


def one_hot_bits(bits):
    """What a party sends for an index of so many bits, transfers apart: docs/protocol.md, the table of lookups."""
    low, high = min(bits, 6), max(0, bits - 6)
    products = 2**low - 1 - low + (2**high - 1 - high)
    return products + (2**high - 1 - high + 64 if high else 0)


def test_every_messages_bits_are_those_of_the_table():
    """Bytes on the wire of a session, counted by the formulas of docs/protocol.md, not by the library."""
    with session(LOOKED_UP) as (client, (up, down)):
        client.infer(client.prepare(), IMAGES[0])
        streams = bytes(up.sent), bytes(down.sent)
    transfers, questions, answers, offline = [0, 0], [], [], [0, 0]
    for node in NODES:
        k, f, w, count = 18, node.shift, 8, int(np.prod(node.shape))
        n, carry = k - f, f + 1
        indices = [bits + 2 ** max(0, bits - 6) - 1 - max(0, bits - 6) for bits in (n, carry)]
        roles = sum(indices) + 1, sum(indices) + 1 + 2 * w
        integers = n * (n - 1) // 2 + carry * (carry - 1) // 2
        both = one_hot_bits(n) + one_hot_bits(carry)
        for party, (own, more) in enumerate(zip(roles, (integers + n + carry, w), strict=True)):
            transfers[party] += own * count * (128 // AGREEMENT.transfers.tree_bits - 1) // 8
            offline[party] += (both + more) * count // 8
        questions.append((n + carry + 1 + w + w) * count // 8)
        answers.append((1 + w + sum(k - i for i in range(w)) + k) * count // 8)
    for stream, moved, later in zip(streams, transfers, offline, strict=True):
        assert sum(payload_lengths(stream, Message.LOOKUP_MAKING)) == moved + later
    assert payload_lengths(streams[1], Message.LOOKUP_QUESTION) == questions
    assert payload_lengths(streams[0], Message.LOOKUP_ANSWER) == answers


class Uses:
    """What a session draws and hashes, and how often."""

    def __init__(self, monkeypatch):
        self.hashed, self.gates, self.seeds, self.labels = Counter(), Counter(), {}, Counter()
        self.streams = {}
        module = kernels.load_kernels(None)
        self._hash, self._expand = module.hash_words, module.expand_trees
        self._keys, self._residues, self._zero = garbling.gate_keys, Seed.residues, garbled.zero_labels
        monkeypatch.setattr(module, "hash_words", self.hash_words)
        monkeypatch.setattr(module, "expand_trees", self.expand_trees)
        monkeypatch.setattr(garbling, "gate_keys", self.gate_keys)
        monkeypatch.setattr(garbled, "zero_labels", self.zero_labels)
        uses = self
        monkeypatch.setattr(Seed, "residues", lambda seed, modulus, shape: uses.residues(seed, modulus, shape))

    def hash_words(self, keys, labels, offset=None):
        for key, row in zip(keys, labels if offset is None else labels ^ offset, strict=True):
            self.hashed.update(key.tobytes() + label.tobytes() for label in row)
        return self._hash(keys, labels, offset)

    def expand_trees(self, key, leaves, sizes, counter, rows, sums):
        blocks = rows.shape[1] // 2
        self.streams.setdefault((bytes(key), leaves.tobytes()), []).append((counter, counter + blocks))
        return self._expand(key, leaves, sizes, counter, rows, sums)

    def gate_keys(self, circuit, moduli, seed):
        keys = self._keys(circuit, moduli, seed)
        self.gates.update(key.tobytes() for key in keys)
        return keys

    def residues(self, seed, modulus, shape):
        self.seeds.setdefault(seed.key, set()).add((modulus, tuple(shape)))
        return self._residues(seed, modulus, shape)

    def zero_labels(self, seed, bits, count):
        self.labels[seed] += 1
        return self._zero(seed, bits, count)


@pytest.mark.parametrize("layers", [("second",), ()], ids=["both kinds", "lookups alone"])
def test_no_correlation_tweak_or_mask_serves_twice_in_a_session(layers, monkeypatch):
    """Both parties' uses over several images: what the two know in common occurs twice, nothing more often."""
    uses, numbers = Uses(monkeypatch), set()
    with session(with_lookups(GARBLED, *layers)) as (client, _):
        for image in IMAGES:
            bundle = client.prepare()
            numbers.add(bundle.number)
            client.infer(bundle, image)
        keys = client._lookups.party.keys.drawn
    assert len(numbers) == len(IMAGES) and keys > 0
    # a label under a key: who made it, and who received it
    assert len(uses.hashed) > 10_000 and max(uses.hashed.values()) <= 2
    # streams of transfers, two ends in each direction: every block is drawn once
    assert len(uses.streams) == 4
    for drawn in uses.streams.values():
        places = [place for first, last in sorted(drawn) for place in (first, last)]
        assert len(drawn) >= len(IMAGES) and places == sorted(places)
    # keys of half-gates: garbler and evaluator
    assert max(uses.gates.values(), default=2) == 2 and bool(uses.gates) == bool(layers)
    # a seed stands for the residues of one value modulo one p
    assert len(uses.seeds) >= len(IMAGES) * 6 and all(len(own) == 1 for own in uses.seeds.values())
    assert all(count == 1 for count in uses.labels.values()) and bool(uses.labels) == bool(layers)


def test_packed_bundles_repeat_their_own_uses_and_no_others(monkeypatch):
    """A bundle that is made again draws from its own places in the streams, and sends nothing."""
    uses = Uses(monkeypatch)
    with session(LOOKED_UP) as (client, ends):
        bundles = [client.prepare() for _ in range(3)]
        drawn = {stream: set(own) for stream, own in uses.streams.items()}
        sent = [len(end.sent) for end in ends]
        bundles[2].expand()
        assert [len(end.sent) for end in ends] == sent
        assert all(set(own) <= drawn[stream] for stream, own in uses.streams.items())
        after = client.prepare()
        fresh = {place for own in uses.streams.values() for place in own} - {p for own in drawn.values() for p in own}
        assert fresh and after.number not in {bundle.number for bundle in bundles}


def test_a_run_is_long_enough_for_these_tests(payloads):
    assert len(payloads[Message.LOOKUP_QUESTION]) == MANY_RUNS * len(NODES) and RUNS < MANY_RUNS
