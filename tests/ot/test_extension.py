"""Correlated transfers in both directions: the relation, lockstep over calls, bytes, malformed messages."""

from __future__ import annotations

import numpy as np
import pytest

from autoprivacy.gc.activation import Activation
from autoprivacy.gc.garbling import evaluate, garble
from autoprivacy.ot import kernels
from autoprivacy.ot.extension import (
    SLAB,
    ExtensionReceiver,
    ExtensionSender,
    choice_bits,
    extension_bytes,
    random_extension_bytes,
)
from autoprivacy.ot.labels import encode, offset_bits, random_delta
from autoprivacy.ot.setup import ANSWER_BYTES, HELLO_BYTES, TransferSetup
from autoprivacy.ot.transfers import TransferKind
from autoprivacy.ot.trees import TREES_BYTES, plant, prune, tree_sizes
from autoprivacy.randomness.generator import SecureRandom

BACKENDS = ["numpy", "numba"] if kernels.numba_supported() else ["numpy"]
DELTA, OTHER_DELTA = (random_delta(SecureRandom(key * 32)) for key in (b"d", b"o"))
KEY = b"k" * 16
BITS = 4
EVERY_BITS = range(2, 9)


def trees(bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Both parties' leaves, the second's for DELTA."""
    pairs = SecureRandom(b"p" * 32).random_bytes(128 * 2 * 32).reshape(128, 2, 32)
    leaves, message = plant(pairs, bits, SecureRandom(b"t" * 32))
    return leaves, prune(pairs[np.arange(128), offset_bits(DELTA)], offset_bits(DELTA), bits, message)


TREES = {bits: trees(bits) for bits in EVERY_BITS}


def parties(backend: str, bits: int = BITS) -> tuple[ExtensionReceiver, ExtensionSender]:
    whole, pruned = TREES[bits]
    return ExtensionReceiver(whole, bits, KEY, backend), ExtensionSender(DELTA, pruned, bits, KEY, backend)


def random_choices(count: int, key: int = 7) -> np.ndarray:
    return SecureRandom(bytes([key]) * 32).random_bytes(count) & np.uint8(1)


@pytest.mark.parametrize("bits", EVERY_BITS)
def test_trees_have_128_bits_and_the_pruned_ones_lack_one_leaf_each(bits: int) -> None:
    sizes, (whole, pruned) = tree_sizes(bits), TREES[bits]
    assert sum(sizes) == 128 and max(sizes) == bits and min(sizes) >= 2
    missing, first, place = offset_bits(DELTA).astype(int), 0, 0
    for size in sizes:
        number = int((missing[place : place + size] << np.arange(size)).sum())
        order = first + (np.arange(1, 1 << size) ^ number)
        np.testing.assert_array_equal(pruned[first + 1 : first + (1 << size)], whole[order])
        assert not pruned[first].any()
        first, place = first + (1 << size), place + size
    assert len({leaf.tobytes() for leaf in whole}) == first == len(whole)


@pytest.mark.parametrize("bits", [1, 9])
def test_trees_of_other_sizes_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="expected 2 to 8"):
        tree_sizes(bits)


def check_relation(labels: np.ndarray, zero: np.ndarray, choices: np.ndarray, delta: np.ndarray = DELTA) -> None:
    assert labels.dtype == zero.dtype == np.uint64
    np.testing.assert_array_equal(labels, zero ^ choices[:, None].astype(np.uint64) * delta)


@pytest.mark.parametrize("bits", EVERY_BITS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_labels_are_zero_labels_plus_choices(backend: str, bits: int) -> None:
    receiver, sender = parties(backend, bits)
    choices = random_choices(1000)
    labels, message = receiver.extend(choices)
    assert len(message) == extension_bytes(1000, bits) == 1024 // 8 * len(tree_sizes(bits))
    check_relation(labels, sender.extend(message, 1000), choices)
    drawn, labels, message = receiver.extend_random(1000)
    assert len(message) == random_extension_bytes(1000, bits) == 1024 // 8 * (len(tree_sizes(bits)) - 1)
    check_relation(labels, sender.extend_random(message, 1000), drawn)
    assert 400 < int(drawn.sum()) < 600


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_label_comes_twice_over_several_calls(backend: str) -> None:
    receiver, sender = parties(backend)
    seen, counts = set(), (1, 127, 128, 129, 1000, SLAB, SLAB + 1, 0, 5)
    for call, count in enumerate(counts):
        choices = random_choices(count, call)
        labels, message = receiver.extend(choices)
        zero = sender.extend(message, count)
        check_relation(labels, zero, choices)
        seen |= {label.tobytes() for label in zero}
        drawn, labels, message = receiver.extend_random(count)
        zero = sender.extend_random(message, count)
        check_relation(labels, zero, drawn)
        seen |= {label.tobytes() for label in zero}
    assert len(seen) == 2 * sum(counts)


@pytest.mark.parametrize("bits", EVERY_BITS)
def test_backends_agree_bit_for_bit(bits: int) -> None:
    choices = random_choices(SLAB + 300)
    results = []
    for backend in BACKENDS:
        receiver, sender = parties(backend, bits)
        labels, message = receiver.extend(choices)
        drawn = receiver.extend_random(len(choices))
        zeros = sender.extend(message, len(choices)), sender.extend_random(drawn[2], len(choices))
        arrays = (labels, np.frombuffer(message, np.uint8), *drawn[:2], np.frombuffer(drawn[2], np.uint8), *zeros)
        results.append(arrays)
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(got, expected)


def test_backends_hash_alike() -> None:
    keys, labels = SecureRandom(b"h" * 32).random_bytes(5 * 16).reshape(5, 16), SecureRandom(KEY * 2).words((5, 77, 2))
    for offset in (None, DELTA):
        words = [kernels.load_kernels(backend).hash_words(keys, labels, offset) for backend in BACKENDS]
        assert len({word for word in words[0].reshape(-1).tolist()}) == 5 * 77
        for other in words[1:]:
            np.testing.assert_array_equal(other, words[0])


def test_a_set_up_serves_both_directions() -> None:
    client, server = TransferSetup(OTHER_DELTA, TransferKind(BITS)), TransferSetup(DELTA, TransferKind(BITS))
    hellos = client.hello(), server.hello()
    answers = client.answer(hellos[1]), server.answer(hellos[0])
    messages = client.trees(answers[1]), server.trees(answers[0])
    assert [len(part[0]) for part in (hellos, answers, messages)] == [HELLO_BYTES, ANSWER_BYTES, TREES_BYTES]
    ends = client.finish(messages[1]), server.finish(messages[0])
    for (receiver, _), (_, sender), delta in ((*ends, DELTA), (*ends[::-1], OTHER_DELTA)):
        choices = random_choices(300)
        labels, message = receiver.extend(choices)
        check_relation(labels, sender.extend(message, 300), choices, delta)
    assert client.session_key(b"a") == server.session_key(b"a") != client.session_key(b"b")
    with pytest.raises(ValueError, match="trees: expected 4096 bytes, got 4095"):
        client.finish(messages[1][1:])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("words", [1, 6, 8, 19, 300])
def test_transpose_moves_every_bit(backend: str, words: int) -> None:
    rows = SecureRandom(bytes(32)).words((128, words)).copy()
    labels = kernels.load_kernels(backend).transpose(rows)
    bits = np.unpackbits(rows.view(np.uint8), axis=1, bitorder="little")
    np.testing.assert_array_equal(np.unpackbits(labels.view(np.uint8), axis=1, bitorder="little"), bits.T)


@pytest.mark.parametrize("value", [0, 1])
def test_messages_look_uniform_whatever_the_choices(value: int) -> None:
    receiver, _ = parties(BACKENDS[-1])
    choices = np.full(40_000, value, np.uint8)
    (labels, first), (_, second) = receiver.extend(choices), receiver.extend(choices)
    assert first != second
    for data in (first, second, labels.tobytes()):
        bits = np.unpackbits(np.frombuffer(data, np.uint8))
        assert abs(float(bits.mean()) - 0.5) < 5 * 0.5 / bits.size**0.5
    rows = np.unpackbits(np.frombuffer(first, np.uint8).reshape(128, -1), axis=1)
    assert np.abs(rows.mean(1) - 0.5).max() < 5 * 0.5 / rows.shape[1] ** 0.5


def test_a_sender_out_of_step_gets_other_labels() -> None:
    receiver, sender = parties(BACKENDS[-1])
    choices = random_choices(1000)
    receiver.extend(choices)
    labels, message = receiver.extend(choices)
    zero = sender.extend(message, 1000)  # its first call, the receiver's second
    differs = labels ^ zero ^ choices[:, None].astype(np.uint64) * DELTA
    assert np.count_nonzero(differs.any(1)) == 1000


@pytest.mark.parametrize("change", [-1, 1])
def test_messages_of_wrong_length_are_refused(change: int) -> None:
    receiver, sender = parties(BACKENDS[-1])
    _, message = receiver.extend(random_choices(200))
    wrong = message[:change] if change < 0 else message + bytes(change)
    with pytest.raises(ValueError, match=f"expected 1024 bytes for 200, got {1024 + change}"):
        sender.extend(wrong, 200)


@pytest.mark.parametrize("ignored", [0, 6])
@pytest.mark.parametrize("backend", BACKENDS)
def test_transferred_labels_are_the_inputs_of_a_garbled_activation(backend: str, ignored: int) -> None:
    modulus, shift, count = 114689, 6, 300
    client, server = SecureRandom(bytes(32)).below(modulus, (2, count))
    activation = Activation(modulus, shift, 0, 255, ignored)
    circuit, bits = activation.circuit, activation.share_bits
    receiver, sender = parties(backend)
    labels, message = receiver.extend(choice_bits(activation.evaluator_input(client), bits))
    zero = sender.extend(message, bits * count).reshape(bits, count, 2)
    garbled = garble(circuit, count, DELTA, zero, (modulus,), SecureRandom(bytes(32)), backend)
    online = encode(garbled.garbler_zero, DELTA, activation.garbler_input(server))
    (masked,) = evaluate(circuit, count, garbled.tables, online, labels.reshape(bits, count, 2), (modulus,), backend)
    outputs = (masked + np.uint64(modulus) - garbled.output_masks[0]) % np.uint64(modulus)
    np.testing.assert_array_equal(outputs, activation.reference(client, server))


def test_choice_bits_are_bit_major() -> None:
    values = np.array([0, 1, 2, 0x10005, 0x7FFFFF], np.uint64)
    bits = choice_bits(values, 23)
    assert bits.dtype == np.uint8 and bits.shape == (23 * 5,)
    for i, value in enumerate(values.tolist()):
        assert bits.reshape(23, 5)[:, i].tolist() == [value >> bit & 1 for bit in range(23)]
    assert choice_bits(np.empty(0, np.uint64), 17).size == 0
