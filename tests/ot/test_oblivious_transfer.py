"""Base transfers and their extension: what each party learns, lockstep over calls, malformed messages."""

from __future__ import annotations

import numpy as np
import pytest

from autoprivacy.gc import garbling_kernels
from autoprivacy.gc.activation import Activation
from autoprivacy.gc.garbling import evaluate, garble
from autoprivacy.gc.labels import encode, offset_bits, random_delta
from autoprivacy.ot.extension import (
    BASE_MESSAGE_BYTES,
    BASE_REPLY_BYTES,
    SLAB,
    BaseReceiver,
    BaseSender,
    ExtensionReceiver,
    ExtensionSender,
    choice_bits,
    extension_bytes,
)
from autoprivacy.randomness.generator import SecureRandom

BACKENDS = ["numpy", "numba"] if garbling_kernels.numba_supported() else ["numpy"]
DELTA = random_delta(SecureRandom(b"d" * 32))


def base_transfers() -> tuple[np.ndarray, np.ndarray]:
    """Seed pairs and chosen seeds of the base transfers for DELTA."""
    sender = BaseSender(SecureRandom(b"s" * 32))
    receiver = BaseReceiver(offset_bits(DELTA), SecureRandom(b"r" * 32))
    return sender.finish(receiver.reply(sender.message())), receiver.seeds


PAIRS, CHOSEN = base_transfers()


def parties(backend: str) -> tuple[ExtensionReceiver, ExtensionSender]:
    return ExtensionReceiver(PAIRS, backend), ExtensionSender(DELTA, CHOSEN, backend)


def random_choices(count: int, key: int = 7) -> np.ndarray:
    return SecureRandom(bytes([key]) * 32).random_bytes(count) & np.uint8(1)


def test_base_receiver_gets_the_seed_it_chose_and_not_the_other() -> None:
    choices = offset_bits(DELTA)
    assert PAIRS.shape == (128, 2, 32) and CHOSEN.shape == (128, 32)
    np.testing.assert_array_equal(PAIRS[np.arange(128), choices], CHOSEN)
    assert len({seed.tobytes() for seed in PAIRS.reshape(-1, 32)}) == 256


def test_base_transfers_are_fresh_without_a_key() -> None:
    sender, other = BaseSender(), BaseSender()
    assert sender.message() != other.message()
    receivers = [BaseReceiver(np.zeros(128, np.uint8)) for _ in range(2)]
    replies = [receiver.reply(sender.message()) for receiver in receivers]
    assert replies[0] != replies[1] and len(replies[0]) == BASE_REPLY_BYTES
    np.testing.assert_array_equal(sender.finish(replies[1])[:, 0], receivers[1].seeds)


def test_malformed_base_messages_are_refused() -> None:
    sender = BaseSender()
    message = sender.message()
    receiver = BaseReceiver(offset_bits(DELTA))
    reply = receiver.reply(message)
    identity, small_order = bytes([1]) + bytes(31), bytes(32)  # y = 1, and y = 0: a point of order 4
    for wrong in (b"", message[:-1], message + b"?", b"\xff" * 32, identity, small_order):
        with pytest.raises(ValueError, match="base transfer message"):
            receiver.reply(wrong)
    for tail in (b"", b"\xff" * 32, identity, small_order, message):
        with pytest.raises(ValueError, match="base transfer reply"):
            sender.finish(reply[:-BASE_MESSAGE_BYTES] + tail)
    with pytest.raises(ValueError, match="expected 128"):
        BaseReceiver(np.zeros(127, np.uint8))


@pytest.mark.parametrize("backend", BACKENDS)
def test_labels_are_zero_labels_plus_choices_over_several_calls(backend: str) -> None:
    receiver, sender = parties(backend)
    seen = set()
    for call, count in enumerate((1, 127, 128, 129, 1000, SLAB, SLAB + 1, 0, 5)):
        choices = random_choices(count, call)
        labels, message = receiver.extend(choices)
        zero = sender.extend(message, count)
        assert len(message) == extension_bytes(count) and zero.dtype == labels.dtype == np.uint64
        np.testing.assert_array_equal(labels, zero ^ choices[:, None].astype(np.uint64) * DELTA)
        seen |= {label.tobytes() for label in zero}
    assert len(seen) == 1 + 127 + 128 + 129 + 1000 + 2 * SLAB + 1 + 5  # no label comes twice


def test_backends_agree_bit_for_bit() -> None:
    choices = random_choices(SLAB + 300)
    results = []
    for backend in BACKENDS:
        receiver, sender = parties(backend)
        labels, message = receiver.extend(choices)
        results.append((labels, np.frombuffer(message, np.uint8), sender.extend(message, len(choices))))
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("words", [1, 6, 8, 19, 300])
def test_transpose_moves_every_bit(backend: str, words: int) -> None:
    rows = SecureRandom(bytes(32)).words((128, words)).copy()
    labels = garbling_kernels.load_kernels(backend).transpose(rows)
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
    with pytest.raises(ValueError, match=f"expected 4096 bytes for 200, got {4096 + change}"):
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
