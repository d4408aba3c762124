"""Silent transfers: the relation over rounds, equal backends, no correlation twice, uniform and malformed messages."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from autoprivacy.ot import kernels
from autoprivacy.ot.labels import random_delta
from autoprivacy.ot.setup import TransferSetup, trees_bytes
from autoprivacy.ot.silent import PublicKeys, SilentReceiver, SilentSender, load_kernels
from autoprivacy.ot.silent_parameters import SILENT_PARAMETERS, SilentParameters
from autoprivacy.ot.transfers import TransferKind
from autoprivacy.randomness.generator import SecureRandom

BACKENDS = ["numpy", "numba"] if kernels.numba_supported() else ["numpy"]
DELTA = random_delta(SecureRandom(b"d" * 32))
KEYS = PublicKeys(b"t" * 16, b"c" * 16)
TINY = SilentParameters.endless(10)  # of no security; a round gives a few thousand transfers
ROUND = TINY.blocks * TINY.given
COUNTS = (1, 7, 5000, 0, ROUND // 2, 3, 4, ROUND)


def parties(backend: str | None, parameters: SilentParameters = TINY) -> tuple[SilentReceiver, SilentSender]:
    random = SecureRandom(b"b" * 32)
    zero = random.words((parameters.base, 2)).copy()
    choices = random.random_bytes(parameters.base) & np.uint8(1)
    labels = zero ^ choices[:, None].astype(np.uint64) * DELTA
    sender = SilentSender(DELTA, zero, parameters, KEYS, SecureRandom(b"r" * 32), backend)
    return SilentReceiver(labels, choices, parameters, KEYS, backend), sender


def check_relation(labels: np.ndarray, zero: np.ndarray, choices: np.ndarray, delta: np.ndarray = DELTA) -> None:
    assert labels.shape == zero.shape == (len(choices), 2)
    np.testing.assert_array_equal(labels, zero ^ choices[:, None].astype(np.uint64) * delta)


@pytest.mark.parametrize("backend", BACKENDS)
def test_labels_are_zero_labels_plus_choices_over_several_rounds(backend: str) -> None:
    receiver, sender = parties(backend)
    ones = total = 0
    for count in COUNTS:
        zero, message = sender.send(count)
        assert len(message) == TINY.message_bytes(count) == -(-count // TINY.given) * 16 * TINY.depth
        choices, labels = receiver.receive(message, count)
        check_relation(labels, zero, choices)
        ones, total = ones + int(choices.sum()), total + count
    assert total > 2 * ROUND and abs(ones / total - 0.5) < 0.05


@pytest.mark.parametrize("parameters", SILENT_PARAMETERS.values(), ids=SILENT_PARAMETERS)
def test_the_parameters_in_use_make_a_round_out_of_a_round(parameters: SilentParameters) -> None:
    assert parameters.blocks * parameters.reserved >= parameters.base
    receiver, sender = parties(None, parameters)
    for trees in (3, 1):
        count = trees * parameters.given
        zero, message = sender.send(count)
        choices, labels = receiver.receive(message, count)
        check_relation(labels, zero, choices)
        assert stats.binomtest(int(choices.sum()), count).pvalue > 1e-6


def test_backends_agree_bit_for_bit() -> None:
    results = []
    for backend in BACKENDS:
        receiver, sender = parties(backend)
        parts = []
        for count in COUNTS:
            zero, message = sender.send(count)
            parts += [zero, np.frombuffer(message, np.uint8), *receiver.receive(message, count)]
        results.append(parts)
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(got, expected)


def test_no_correlation_and_no_key_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transfers for use, those of the next round, the rows that mask messages, and keys of levels all differ."""
    kernel, keys, blocks = load_kernels(None), list[bytes](), list[range]()
    sent, public = kernel.send_trees, kernel.public_blocks
    receiver, sender = parties(None)
    leaves = 1 << TINY.depth

    def recording(level_keys: np.ndarray, roots: np.ndarray, delta: np.ndarray, code, table, parts) -> np.ndarray:
        keys.extend(key.tobytes() for key in level_keys.reshape(-1, 2))
        blocks.append(range(code[1], code[1] + len(roots) * leaves * 10 * 4 // 16))
        return sent(level_keys, roots, delta, code, table, parts)

    monkeypatch.setattr(kernel, "send_trees", recording)
    seen, masks, messages = [], [], []
    for count in COUNTS:
        rounds = sender._rounds
        zero, message = sender.send(count)
        seen.append(zero)
        messages.append(message)
        masks.append(rounds.base)
    everything = np.concatenate(seen + [base for i, base in enumerate(masks) if not i or base is not masks[i - 1]])
    assert len(np.unique(everything, axis=0)) == len(everything)
    assert len(set(keys)) == len(keys) == sum(map(TINY.trees, COUNTS)) * (TINY.depth - 1)
    ends = [(piece.start, piece.stop) for piece in blocks]
    assert all(stop == start for (_, stop), (start, _) in zip(ends[:-1], ends[1:], strict=True))
    assert public(KEYS.trees, 0, 3).tolist() == public(KEYS.trees, 0, 5)[:3].tolist()
    assert receiver is not None


def test_messages_are_uniform() -> None:
    _, sender = parties(BACKENDS[-1])
    data = np.frombuffer(b"".join(sender.send(ROUND)[1] for _ in range(2)), np.uint8)
    assert data.size > 100_000
    assert stats.chisquare(np.bincount(data, minlength=256)).pvalue > 1e-6
    bits = np.unpackbits(data.reshape(-1, 16), axis=1).sum(0)
    assert min(stats.binomtest(int(ones), data.size // 16).pvalue for ones in bits) > 1e-6


def test_receivers_bits_are_not_those_of_its_table() -> None:
    """A bit is a sum of ten of the table and, once in a tree, one more: errors stand where the trees' paths end."""
    receiver, sender = parties("numpy")
    table = (receiver._rounds.table[:, 0] & np.uint64(1)).astype(np.uint8)
    count = 64 * TINY.given
    choices, _ = receiver.receive(sender.send(count)[1], count)
    blocks = load_kernels("numpy").public_blocks(KEYS.code, 0, 64 * (1 << TINY.depth) * 10 // 4)
    places = blocks.view("<u4").reshape(64, 1 << TINY.depth, 10) // 16 % len(table)
    errors = np.bitwise_xor.reduce(table[places], 2)[:, TINY.reserved :].reshape(-1) ^ choices
    assert 0 < errors.sum() < 64 and errors.reshape(64, -1).sum(1).max() == 1


@pytest.mark.parametrize("change", [-1, 1])
def test_messages_of_wrong_length_are_refused(change: int) -> None:
    receiver, sender = parties("numpy")
    _, message = sender.send(10)
    wrong = message[:change] if change < 0 else message + b"?"
    with pytest.raises(ValueError, match=f"silent transfers: expected {len(message)} bytes for 10, got {len(wrong)}"):
        receiver.receive(wrong, 10)


def test_a_base_of_another_size_and_more_than_the_first_round_has_are_refused() -> None:
    with pytest.raises(ValueError, match=f"a base of 7 labels; expected {TINY.base}"):
        SilentSender(DELTA, np.zeros((7, 2), np.uint64), TINY, KEYS)
    first = SilentParameters(10, 3, 0)
    _, sender = parties("numpy", first)
    sender.send(3 << first.depth)
    with pytest.raises(ValueError, match="3 trees are used up; there is no next round"):
        sender.send(1)


def test_a_kind_must_exist() -> None:
    with pytest.raises(ValueError, match="table of 15 bits: expected one of 16, 17, 18"):
        TransferKind(8, 15)


@pytest.mark.parametrize("table_bits", [None, *SILENT_PARAMETERS])
def test_a_set_up_serves_both_directions(table_bits: int | None) -> None:
    kind = TransferKind(8, table_bits)
    deltas = random_delta(SecureRandom(b"o" * 32)), DELTA
    client, server = (TransferSetup(delta, kind) for delta in deltas)
    answers = client.answer(server.hello()), server.answer(client.hello())
    trees = client.trees(answers[1]), server.trees(answers[0])
    client.finish(trees[1]), server.finish(trees[0])
    rounds = client.round(), server.round()
    for sent in trees:
        assert len(sent) == trees_bytes(kind)
    for sent in rounds:
        assert len(sent) == kind.round_bytes
    ends = client.transfers(rounds[1]), server.transfers(rounds[0])
    for counts in ((100, 3000), (0, 5), (5000, 1)):
        begun = ends[0].begin(*counts), ends[1].begin(*counts[::-1])
        assert [len(message) for message, _ in begun] == [
            kind.message_bytes(*counts),
            kind.message_bytes(*counts[::-1]),
        ]
        finished = begun[0][1](begun[1][0]), begun[1][1](begun[0][0])
        for (choices, labels, _), (_, _, zero), delta in zip(finished, finished[::-1], deltas[::-1], strict=True):
            check_relation(labels, zero, choices, delta)
