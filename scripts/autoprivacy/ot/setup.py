"""Sets up correlated transfers in both directions between two parties: each has a secret offset of its own.

Three messages from each party, of a length that is known: `hello`, `answer`, `trees`; a fourth, `round`, for silent
transfers. What follows is symmetric, so it does not matter who begins; the party that is sent the other's hello first
can send its own with its answer, and so on.
"""

from __future__ import annotations

import hashlib

import numpy as np

from autoprivacy.ot.base import BASE_MESSAGE_BYTES, BASE_REPLY_BYTES, BaseReceiver, BaseSender
from autoprivacy.ot.extension import ExtensionReceiver, ExtensionSender
from autoprivacy.ot.labels import LABEL_BYTES, offset_bits
from autoprivacy.ot.transfers import ExtendedTransfers, RandomTransfers, SilentSetup, TransferKind
from autoprivacy.ot.trees import TREES_BYTES, plant, prune
from autoprivacy.randomness.generator import SecureRandom

HELLO_BYTES, ANSWER_BYTES = BASE_MESSAGE_BYTES, BASE_REPLY_BYTES


class TransferSetup:
    """One party's side of the set-up; call `hello`, `answer`, `trees`, `finish`, `round` and `transfers` in this order.

    Args:
        delta: this party's secret offset, uint64 [2].
        kind: of the random transfers; the same for both parties.
        random: None (the default) is fresh randomness; tests pass their own.
        backend: "numba" or "numpy"; None takes the faster one that this machine has.
    """

    def __init__(
        self, delta: np.ndarray, kind: TransferKind, random: SecureRandom | None = None, backend: str | None = None
    ) -> None:
        self._delta, self._kind, self._backend = delta, kind, backend
        self._random = random or SecureRandom()
        self._sender = BaseSender(self._random)
        self._receiver = BaseReceiver(offset_bits(delta), self._random)
        self._other = b""
        self._ends: tuple[ExtensionReceiver, ExtensionSender]
        self._extended: ExtensionReceiver
        self._silent: SilentSetup
        self._base = b""

    def hello(self) -> bytes:
        """The first message, `HELLO_BYTES` long."""
        return self._sender.message()

    def answer(self, hello: bytes | bytearray | memoryview) -> bytes:
        """The answer to the other party's hello, `ANSWER_BYTES` long; ValueError for a malformed one."""
        self._other = bytes(hello)
        return self._receiver.reply(self._other)

    def trees(self, answer: bytes | bytearray | memoryview) -> bytes:
        """What follows the other party's answer, `trees_bytes(kind)` long; ValueError for a malformed one."""
        bits = self._kind.tree_bits
        owned, message = plant(self._sender.finish(bytes(answer)), bits, self._random)
        self._extended = ExtensionReceiver(owned, bits, self.session_key(b"extension"), self._backend)
        if self._kind.table_bits is None:
            return message
        self._silent = SilentSetup(self._delta, self._extended, self._kind, self._directed_key, self._backend)
        return message + self._silent.base()

    def finish(self, trees: bytes | bytearray | memoryview) -> tuple[ExtensionReceiver, ExtensionSender]:
        """Both sides of the extensions, from the other party's trees; ValueError for malformed ones."""
        bits, expected = self._kind.tree_bits, trees_bytes(self._kind)
        if len(trees) != expected:
            raise ValueError(f"trees: expected {expected} bytes, got {len(trees)}")
        pruned = prune(self._receiver.seeds, offset_bits(self._delta), bits, trees[:TREES_BYTES])
        key = self.session_key(b"extension")
        self._ends = self._extended, ExtensionSender(self._delta, pruned, bits, key, self._backend)
        self._base = bytes(trees[TREES_BYTES:])
        return self._ends

    def round(self) -> bytes:
        """What follows the other party's trees, `TransferKind.round_bytes` long: not sent where that is 0."""
        if self._kind.table_bits is None:
            return b""
        return self._silent.round(self._base, self._ends[1])

    def transfers(self, message: bytes | bytearray | memoryview = b"") -> RandomTransfers:
        """The random transfers, from the other party's round; ValueError for a malformed one."""
        if self._kind.table_bits is None:
            return ExtendedTransfers(*self._ends)
        return self._silent.finish(message)

    def session_key(self, purpose: bytes) -> bytes:
        """16 public bytes that both parties know and no other session has."""
        both = b"".join(sorted((self.hello(), self._other)))
        return hashlib.sha256(b"autoprivacy session " + both + purpose).digest()[:LABEL_BYTES]

    def _directed_key(self, purpose: bytes, sends: bool) -> bytes:
        """A session key of one direction: labels that this party sends, or those that it receives."""
        return self.session_key(purpose + (self.hello() if sends else self._other))


def trees_bytes(kind: TransferKind) -> int:
    """Bytes of a party's trees and of the transfers that come with them."""
    return TREES_BYTES + kind.base_bytes
