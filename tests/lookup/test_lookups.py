"""Lookups against integer arithmetic; every message's bits; nothing masked twice; uniform transcripts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats
from support.lookup_parties import KIND, looked_up, online, parties, prepared

from autoprivacy.errors import UserError
from autoprivacy.gc.activation import Activation
from autoprivacy.lookup import batch as batches_module
from autoprivacy.lookup import making_numpy
from autoprivacy.lookup.batch import STRIDE, WAVE, Batch, Questions, answers, schedule
from autoprivacy.lookup.shape import IndexShape, LookupShape
from autoprivacy.lookup.table import LookupTable
from autoprivacy.ot import kernels
from autoprivacy.ot.extension import random_extension_bytes
from autoprivacy.ot.transfers import TransferKind
from autoprivacy.randomness.generator import SecureRandom

BACKENDS = ["numpy", "numba"] if kernels.numba_supported() else ["numpy"]
EXACT = Activation(1 << 20, 9, 0, 255)
RNG = np.random.default_rng(4)


def expected(table: LookupTable, client: np.ndarray, server: np.ndarray, bits: int) -> np.ndarray:
    """By `Activation.reference`, modulo 2^bits."""
    values = table.activation.reference(client, server)
    if table.outputs:
        values = np.array([table.outputs[level - table.activation.minimum] for level in values])
    return values.astype(np.uint64) & np.uint64((1 << bits) - 1)


def check(table: LookupTable, client: np.ndarray, server: np.ndarray, bits: int) -> None:
    got = looked_up(*parties(), Batch(table, bits, len(client)), (client, server))
    np.testing.assert_array_equal(got, expected(table, client, server, bits))


@pytest.mark.parametrize(
    ("shift", "minimum", "maximum", "ignored"),
    [
        (3, 0, 15, 0),
        (3, 0, 15, 3),
        (4, 0, 7, 2),
        (0, 0, 127, 0),
        (5, 0, 3, 0),
        (3, -8, 7, 0),
        (1, 0, 31, 0),
        (6, 0, 1, 1),
    ],
)
def test_all_shares_of_a_small_modulus(shift: int, minimum: int, maximum: int, ignored: int) -> None:
    client, server = (part.reshape(-1).astype(np.uint64) for part in np.meshgrid(np.arange(256), np.arange(256)))
    check(LookupTable(Activation(256, shift, minimum, maximum, ignored)), client, server, 13)


@pytest.mark.parametrize(("minimum", "maximum", "ignored"), [(0, 15, 0), (0, 3, 3), (-8, 7, 0)])
def test_all_shares_in_windows(minimum: int, maximum: int, ignored: int) -> None:
    """Shares modulo 2^7 in windows of 2^6, the threshold at every step."""
    client, server = (part.reshape(-1).astype(np.uint64) for part in np.meshgrid(np.arange(128), np.arange(128)))
    for lowest in range(2 * 8 - 64, 0, 8):
        check(LookupTable(Activation(64, 3, minimum, maximum, ignored, lowest)), client, server, 13)


FUNCTIONS = {
    "SiLU": lambda x: x / (1 + np.exp(-x)),
    "hard swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "GELU": lambda x: x * (1 + special.erf(x / 2**0.5)) / 2,
    "sigmoid": special.expit,
    "tanh": np.tanh,
    "leaky ReLU": lambda x: np.where(x < 0, 0.1 * x, x),
    "square": np.square,
}


def of_levels(name: str, minimum: int, maximum: int, largest: int) -> tuple[int, ...]:
    """A function of the levels as tenths, from -largest to largest."""
    values = FUNCTIONS[name](np.arange(minimum, maximum + 1) / 10)
    return tuple(np.rint(values * largest / np.abs(values).max()).astype(int).tolist())


@pytest.mark.parametrize("ignored", [0, 2])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_all_shares_of_a_small_modulus(name: str, ignored: int) -> None:
    client, server = (part.reshape(-1).astype(np.uint64) for part in np.meshgrid(np.arange(256), np.arange(256)))
    outputs = of_levels(name, -32, 31, 100)
    assert len(set(outputs)) > 5
    check(LookupTable(Activation(256, 2, -32, 31, ignored), outputs), client, server, 12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_at_edge_values_of_a_real_modulus(name: str) -> None:
    table = LookupTable(Activation(1 << 19, 8, -256, 255), of_levels(name, -256, 255, 127))
    check(table, *edges(table.activation, 1000), 21)


def edges(activation: Activation, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares of accumulators at and around steps, both clips and the ends of the range, then of random ones."""
    p, step, half = activation.modulus, 1 << activation.shift, activation.modulus // 2
    ends = (half if activation.lowest is None else activation.threshold) // step
    levels = np.array([0, 1, 2, activation.maximum, activation.maximum + 1, activation.minimum - 1, -1, ends])
    around = np.array([-step // 2 - 1, -step // 2, -1, 0, 1, step // 2 - 1, step // 2])
    near = np.add.outer(levels * step, around).reshape(-1)
    accumulators = np.concatenate([near, RNG.integers(-half, half, count - near.size)])
    client = RNG.integers(0, p, count)
    client[: 2 * near.size : 2] = p - 1
    return client.astype(np.uint64), ((accumulators - client) % p).astype(np.uint64)


@pytest.mark.parametrize(
    ("bits", "shift", "ignored"),
    [(20, 9, 0), (19, 9, 0), (18, 9, 9), (20, 10, 4), (21, 10, 0), (16, 6, 0)],
)
def test_edge_values_of_real_moduli(bits: int, shift: int, ignored: int) -> None:
    table = LookupTable(Activation(1 << bits, shift, 0, 255, ignored))
    check(table, *edges(table.activation, 3000), bits)


@pytest.mark.parametrize(("bits", "shift", "eighths"), [(19, 8, 3), (19, 9, 7), (20, 10, 1)])
def test_edge_values_of_real_windows(bits: int, shift: int, eighths: int) -> None:
    lowest = -eighths << bits - 3
    table = LookupTable(Activation(1 << bits, shift, 0, 255, 0, lowest))
    client, server = edges(table.activation, 3000)
    check(table, client + np.uint64(3 << bits), server, 21)  # the high bits that are dropped


def test_signed_values_and_moduli_that_grow() -> None:
    table = LookupTable(Activation(1 << 18, 8, -128, 127))
    check(table, *edges(table.activation, 1000), 32)


@pytest.mark.parametrize("ignored", [0, 9])
def test_backends_give_the_same_messages_and_outputs(ignored: int) -> None:
    table = LookupTable(Activation(1 << 20, 9, 0, 255, ignored))
    client, server = edges(table.activation, 200)
    batch, transcripts = Batch(table, 20, 200), []
    for backend in BACKENDS:
        own, others, messages = prepared(*parties(b"b", backend), [batch], [client])
        np.testing.assert_array_equal(online(batch, own[0], others[0], server), expected(table, client, server, 20))
        transcripts.append(messages)
    assert all(transcript == transcripts[0] for transcript in transcripts)


def test_vectors_are_one_hot_at_a_uniform_place() -> None:
    count = 2000
    own, others, _ = prepared(*parties(), [Batch(LookupTable(EXACT), 20, count)], [np.zeros(count, np.uint64)])
    for mine, theirs, bits in zip(own[0][0].vectors, others[0][0].vectors, (11, 10), strict=True):
        opened = np.unpackbits((mine ^ theirs).view(np.uint8), axis=1, bitorder="little")
        assert opened.shape == (count, 1 << bits) and (opened.sum(1) == 1).all()
        places = np.bincount(opened.argmax(1) >> bits - 4, minlength=16)
        assert stats.chisquare(places).pvalue > 1e-6


def bits_sent(shape: LookupShape) -> list[int]:
    """Of client and server, transfers apart."""
    both = (shape.client_fields, shape.server_fields)
    return [sum(sum(fields(exchange)) for exchange in range(1, shape.exchanges)) for fields in both]


def test_bits_of_every_message() -> None:
    """By hand, for two indices of 10 bits with h = 4."""
    table = LookupTable(Activation(1 << 19, 9, 0, 255))
    shape, index = LookupShape.of(table, 20), IndexShape(10)
    assert (shape.high, shape.low, shape.output, shape.exchanges) == (10, 10, 8, 7)
    one_hots, authenticated, opened, integers, masked = (2**6 - 1 - 6) + (2**4 - 1 - 4), 2**4 - 1 - 4, 64, 45, 10
    assert index.transfers == 10 + authenticated
    both = 2 * (one_hots + authenticated + opened)
    assert bits_sent(shape) == [both + 2 * (integers + masked), both + 8]
    assert shape.transfers == 2 * 2 * index.transfers + 2 + 2 * 8 == 102
    assert shape.question_fields == [10, 10, 1, 8, 8]
    assert shape.answer_fields == [1, 8, 20, 19, 18, 17, 16, 15, 14, 13, 20]
    batch = Batch(table, 20, WAVE)
    assert batch.question_bytes + batch.answer_bytes == WAVE * 198 // 8
    first = [shape.offline_bytes(WAVE, KIND, client)[0] for client in (True, False)]
    assert first == [random_extension_bytes(count * WAVE, KIND.tree_bits) for count in (43, 59)]


def test_without_a_carry_there_is_one_index() -> None:
    exact, approximate = (LookupShape.of(LookupTable(Activation(1 << 19, 9, 0, 255, t)), 20) for t in (0, 9))
    assert approximate.transfers == 2 * 21 + 8 and approximate.low == 0
    assert approximate.question_fields == [10, 8]
    assert [2 * sent for sent in bits_sent(approximate)] == [bits_sent(exact)[0], bits_sent(exact)[1] - 8]


def test_waves_travel_together() -> None:
    table = LookupTable(EXACT)
    batches = [Batch(table, 20, count) for count in (64, 3 * WAVE + 5, 100, WAVE - 7)]
    slots, exchanges = schedule(batches), LookupShape.of(table, 20).exchanges
    assert len(slots) == STRIDE * (exchanges - 1) + 1 + 5 and slots[0][0] == (0, 0, 0)
    alone = schedule([Batch(table, 20, 1000)])
    assert exchanges <= 10 and sum(map(bool, alone)) == exchanges == len(alone[::STRIDE])
    done = [entry for slot in slots for entry in slot]
    waves = [(index, number) for index, batch in enumerate(batches) for number in range(len(batch.slices))]
    assert sorted(done) == [(*wave, exchange) for wave in waves for exchange in range(exchanges)]


def test_several_batches_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_module, "WAVE", 256)
    tables = [LookupTable(Activation(1 << bits, shift, 0, 255)) for bits, shift in ((20, 9), (17, 6), (18, 8))]
    batches = [Batch(table, 20, count) for table, count in zip(tables, (1000, 60, 511), strict=True)]
    shares = [edges(batch.table.activation, batch.count) for batch in batches]
    own, others, messages = prepared(*parties(), batches, [client for client, _ in shares])
    assert len(messages) == sum(map(bool, schedule(batches))) > sum(map(bool, schedule(batches[:1])))
    for batch, mine, theirs, (client, server) in zip(batches, own, others, shares, strict=True):
        np.testing.assert_array_equal(online(batch, mine, theirs, server), expected(batch.table, client, server, 20))


@pytest.mark.parametrize("kind", [KIND, TransferKind(8, 16)], ids=["extended", "silent"])
def test_nothing_is_masked_twice_in_a_session(kind: TransferKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """No party hashes a label twice under one key, offline and online, over two images; by the numpy backend, whose
    bits compiled code has."""
    monkeypatch.setattr(batches_module, "WAVE", 64)
    seen = dict[bytes, int]()
    hashed = making_numpy.hash_words

    def recording(keys: np.ndarray, labels: np.ndarray, offset: np.ndarray | None = None) -> np.ndarray:
        inputs = labels if offset is None else labels ^ offset
        for key, row in zip(keys, inputs, strict=True):
            for label in row:
                pair = key.tobytes() + label.tobytes()
                seen[pair] = seen.get(pair, 0) + 1
        return hashed(keys, labels, offset)

    for module in (making_numpy, kernels.load_kernels("numpy")):
        monkeypatch.setattr(module, "hash_words", recording)
    count, pair = 100, parties(b"n", "numpy", kind)
    zero, batch = np.zeros(count, np.uint64), Batch(LookupTable(EXACT), 20, count)
    for _ in range(2):
        own, others, _ = prepared(*pair, [batch], [zero], kind)
        online(batch, own[0], others[0], zero)
    assert max(seen.values()) == 2  # a label is hashed by who made it and by who received it
    drawn = [party.keys.drawn for party in pair]
    assert drawn[0] == drawn[1] == 2 * 2 * batch.shape.keys  # two images of two waves


def test_messages_are_uniform_for_one_input() -> None:
    count = 3000
    client, server = np.full(count, 77, np.uint64), np.full(count, 123456, np.uint64)
    batch = Batch(LookupTable(EXACT), 20, count)
    own, others, messages = prepared(*parties(b"u"), [batch], [client])
    question = Questions(batch, others[0], server).message
    reply = answers(batch, own[0], question, SecureRandom(b"m" * 32).below(1 << 20, count))
    for message in [*(part for pair in messages for part in pair), question, reply]:
        data = np.frombuffer(message, np.uint8)
        assert stats.chisquare(np.bincount(data, minlength=256)).pvalue > 1e-6
        assert stats.binomtest(int(np.unpackbits(data).sum()), 8 * data.size).pvalue > 1e-6


@pytest.mark.parametrize("change", [-1, 1])
def test_messages_of_a_wrong_length_are_refused(change: int) -> None:
    zero, batch = np.zeros(50, np.uint64), Batch(LookupTable(EXACT), 20, 50)
    own, others, _ = prepared(*parties(), [batch], [zero])

    def wrong(message: bytes) -> bytes:
        return message[:change] if change < 0 else message + b"?"

    questions = Questions(batch, others[0], zero)
    with pytest.raises(ValueError, match="50 lookups: expected"):
        answers(batch, own[0], wrong(questions.message), zero)
    reply = answers(batch, own[0], questions.message, zero)
    with pytest.raises(ValueError, match="50 lookups: expected"):
        questions.finish(wrong(reply))


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        (Activation(114689, 6, 0, 255), "plaintext modulus 114689; expected a power of two"),
        (Activation(1 << 24, 9, 0, 255), "15 high and 10 low bits to look up; at most 12"),
        (Activation(1 << 24, 14, 0, 255), "10 high and 15 low bits"),
    ],
)
def test_tables_that_are_too_large_are_refused(activation: Activation, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LookupTable(activation)
