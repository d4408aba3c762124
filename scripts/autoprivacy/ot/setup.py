"""Sets up correlated transfers in both directions between two parties: each has a secret offset of its own.

Three messages from each party, of a length that is known: `hello`, `answer`, `trees`. What follows is symmetric, so
it does not matter who begins; the party that is sent the other's hello first can send its own with its answer, and so
on.
"""

from __future__ import annotations

import hashlib

import numpy as np

from autoprivacy.ot.base import BASE_MESSAGE_BYTES, BASE_REPLY_BYTES, BaseReceiver, BaseSender
from autoprivacy.ot.extension import ExtensionReceiver, ExtensionSender
from autoprivacy.ot.labels import LABEL_BYTES, offset_bits
from autoprivacy.ot.trees import plant, prune
from autoprivacy.randomness.generator import SecureRandom

HELLO_BYTES, ANSWER_BYTES = BASE_MESSAGE_BYTES, BASE_REPLY_BYTES


class TransferSetup:
    """One party's side of the set-up; call `hello`, `answer`, `trees` and `finish` in this order.

    Args:
        delta: this party's secret offset, uint64 [2].
        bits: of a tree; the same for both parties.
        random: None (the default) is fresh randomness; tests pass their own.
        backend: "numba" or "numpy"; None takes the faster one that this machine has.
    """

    def __init__(
        self, delta: np.ndarray, bits: int, random: SecureRandom | None = None, backend: str | None = None
    ) -> None:
        self._delta, self._bits, self._backend = delta, bits, backend
        self._random = random or SecureRandom()
        self._sender = BaseSender(self._random)
        self._receiver = BaseReceiver(offset_bits(delta), self._random)
        self._other = b""
        self._owned = np.empty((0, 2), np.uint64)

    def hello(self) -> bytes:
        """The first message, `HELLO_BYTES` long."""
        return self._sender.message()

    def answer(self, hello: bytes | bytearray | memoryview) -> bytes:
        """The answer to the other party's hello, `ANSWER_BYTES` long; ValueError for a malformed one."""
        self._other = bytes(hello)
        return self._receiver.reply(self._other)

    def trees(self, answer: bytes | bytearray | memoryview) -> bytes:
        """What follows the other party's answer, `TREES_BYTES` long; ValueError for a malformed one."""
        self._owned, message = plant(self._sender.finish(bytes(answer)), self._bits, self._random)
        return message

    def finish(self, trees: bytes | bytearray | memoryview) -> tuple[ExtensionReceiver, ExtensionSender]:
        """Both sides of the extensions, from the other party's trees; ValueError for malformed ones."""
        pruned = prune(self._receiver.seeds, offset_bits(self._delta), self._bits, trees)
        key = self.session_key(b"extension")
        receiver = ExtensionReceiver(self._owned, self._bits, key, self._backend)
        return receiver, ExtensionSender(self._delta, pruned, self._bits, key, self._backend)

    def session_key(self, purpose: bytes) -> bytes:
        """16 public bytes that both parties know and no other session has."""
        both = b"".join(sorted((self.hello(), self._other)))
        return hashlib.sha256(b"autoprivacy session " + both + purpose).digest()[:LABEL_BYTES]
