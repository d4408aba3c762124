"""Base transfers: what each party learns, fresh randomness, malformed messages."""

from __future__ import annotations

import numpy as np
import pytest

from autoprivacy.ot.base import BASE_MESSAGE_BYTES, BASE_REPLY_BYTES, BaseReceiver, BaseSender
from autoprivacy.ot.labels import offset_bits, random_delta
from autoprivacy.randomness.generator import SecureRandom

DELTA = random_delta(SecureRandom(b"d" * 32))


def base_transfers() -> tuple[np.ndarray, np.ndarray]:
    """Seed pairs and chosen seeds of the base transfers for DELTA."""
    sender = BaseSender(SecureRandom(b"s" * 32))
    receiver = BaseReceiver(offset_bits(DELTA), SecureRandom(b"r" * 32))
    return sender.finish(receiver.reply(sender.message())), receiver.seeds


PAIRS, CHOSEN = base_transfers()


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
