"""One party's random transfers in both directions, extended or silent, and how long its messages are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from autoprivacy.ot.extension import ExtensionReceiver, ExtensionSender, random_extension_bytes
from autoprivacy.ot.silent import PublicKeys, SilentReceiver, SilentSender
from autoprivacy.ot.silent_parameters import SILENT_PARAMETERS, SilentParameters
from autoprivacy.ot.trees import DEFAULT_TREE_BITS, tree_sizes

# Takes the other party's message and gives the bits received, uint8 [received], their labels, uint64 [received, 2],
# and the labels of 0 sent, uint64 [sent, 2].
Finish = Callable[[bytes], tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class TransferKind:
    """How random transfers are made; both parties know it.

    Attributes:
        tree_bits: of the trees of the extension, from which all else is made.
        table_bits: of the tables of silent transfers; None extends them.

    Raises:
        ValueError: there are no such trees or tables.
    """

    tree_bits: int = DEFAULT_TREE_BITS
    table_bits: int | None = None

    @classmethod
    def of(cls, tree_bits: int | None, table_bits: int | None) -> TransferKind:
        """That of a policy, which may leave the trees to the default."""
        return cls(tree_bits or DEFAULT_TREE_BITS, table_bits)

    def __post_init__(self) -> None:
        tree_sizes(self.tree_bits)
        if self.table_bits is not None and self.table_bits not in SILENT_PARAMETERS:
            allowed = ", ".join(map(str, SILENT_PARAMETERS))
            raise ValueError(f"silent transfers from a table of {self.table_bits} bits: expected one of {allowed}")

    @property
    def extended(self) -> TransferKind:
        """The same without silent transfers."""
        return replace(self, table_bits=None)

    @property
    def silent(self) -> tuple[SilentParameters, SilentParameters]:
        """Parameters of the first round, and of all others, whose first base it gives."""
        assert self.table_bits is not None
        parameters = SILENT_PARAMETERS[self.table_bits]
        return SilentParameters.first(parameters.base), parameters

    def message_bytes(self, received: int, sent: int) -> int:
        """Bytes of a party's message for so many random transfers, received and sent."""
        if self.table_bits is None:
            return random_extension_bytes(received, self.tree_bits)
        return SILENT_PARAMETERS[self.table_bits].message_bytes(sent)

    @property
    def base_bytes(self) -> int:
        """Bytes of a party's message of transfers for the first silent round; 0 without."""
        return random_extension_bytes(self.silent[0].base, self.tree_bits) if self.table_bits else 0

    @property
    def round_bytes(self) -> int:
        """Bytes of a party's message of the first silent round; 0 without."""
        return self.silent[0].message_bytes(self.silent[1].base) if self.table_bits else 0

    @property
    def set_up_bytes(self) -> int:
        """Bytes of both parties in the set-up, beyond what all kinds need."""
        return 2 * (self.base_bytes + self.round_bytes)


DEFAULT_TRANSFERS = TransferKind()


class RandomTransfers(Protocol):
    """One party's random transfers; both parties make the same calls in the same order."""

    def begin(self, received: int, sent: int) -> tuple[bytes, Finish]:
        """This party's message, `TransferKind.message_bytes` long, and what finishes with the other party's.

        Several may be under way; they are finished in the order in which they began. Finishing raises ValueError for
        a message of a wrong length.
        """


class ExtendedTransfers:
    """Random transfers by `extension`.

    Args:
        receiver, sender: this party's ends, which others may use as well.
    """

    def __init__(self, receiver: ExtensionReceiver, sender: ExtensionSender) -> None:
        self.receiver, self.sender = receiver, sender

    def begin(self, received: int, sent: int) -> tuple[bytes, Finish]:
        """As `RandomTransfers.begin`."""
        choices, labels, message = self.receiver.extend_random(received)
        return message, lambda other: (choices, labels, self.sender.extend_random(other, sent))


class SilentTransfers:
    """Random transfers by `silent`.

    Args:
        receiver, sender: this party's ends.
    """

    def __init__(self, receiver: SilentReceiver, sender: SilentSender) -> None:
        self._receiver, self._sender = receiver, sender

    def begin(self, received: int, sent: int) -> tuple[bytes, Finish]:
        """As `RandomTransfers.begin`."""
        labels, message = self._sender.send(sent)
        return message, lambda other: (*self._receiver.receive(other, received), labels)


class SilentSetup:
    """Makes the first base of silent transfers: `extension` gives that of a small round, which gives the first base.

    Call `base`, `round` and `finish` in this order, each with what the other party's last gave.

    Args:
        delta: this party's offset.
        receiver, sender: its ends of the extension.
        kind: silent.
        keys: 16 public bytes by purpose, and by whether this party sends.
        backend: "numba" or "numpy"; None takes the faster one that this machine has.
    """

    def __init__(
        self,
        delta: np.ndarray,
        receiver: ExtensionReceiver,
        kind: TransferKind,
        keys: Callable[[bytes, bool], bytes],
        backend: str | None = None,
    ) -> None:
        self._delta, self._receiver, self._backend = delta, receiver, backend
        (self._first, self._rounds), self._keys = kind.silent, keys
        self._choices = np.empty(0, np.uint8)
        self._received = self._sent = np.empty((0, 2), np.uint64)

    def base(self) -> bytes:
        """`TransferKind.base_bytes`."""
        self._choices, self._received, message = self._receiver.extend_random(self._first.base)
        return message

    def round(self, base: bytes | bytearray | memoryview, sender: ExtensionSender) -> bytes:
        """`TransferKind.round_bytes`; ValueError where the other party's base has a wrong length."""
        labels = sender.extend_random(base, self._first.base)
        first = SilentSender(self._delta, labels, self._first, self._public(b"first", True), backend=self._backend)
        self._sent, message = first.send(self._rounds.base)
        return message

    def finish(self, message: bytes | bytearray | memoryview) -> SilentTransfers:
        """The transfers; ValueError where the other party's round has a wrong length."""
        keys = self._public(b"first", False)
        first = SilentReceiver(self._received, self._choices, self._first, keys, self._backend)
        choices, labels = first.receive(message, self._rounds.base)
        keys = self._public(b"rounds", False)
        receiver = SilentReceiver(labels, choices, self._rounds, keys, self._backend)
        keys = self._public(b"rounds", True)
        sender = SilentSender(self._delta, self._sent, self._rounds, keys, backend=self._backend)
        self._received = self._sent = np.empty((0, 2), np.uint64)
        return SilentTransfers(receiver, sender)

    def _public(self, purpose: bytes, sends: bool) -> PublicKeys:
        return PublicKeys(self._keys(b"trees of " + purpose, sends), self._keys(b"code of " + purpose, sends))
