"""The messages between client and server, and the frames that carry them.

Frame: version (1 byte), message type (1), length of the payload (8, little-endian), payload.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from enum import IntEnum, unique
from typing import TypeAlias

from autoprivacy.errors import UserError

PROTOCOL_VERSION = 8
HEADER = struct.Struct("<BBQ")
MAXIMUM_PAYLOAD = 1 << 30  # bytes that a side sends in one message; no message of a supported network comes near
SHOWN_CHARACTERS = 300  # of the peer's reason; more would be no message to a person
FAILURE_BYTES = 4 * SHOWN_CHARACTERS  # of a reason in UTF-8

Buffer: TypeAlias = bytes | bytearray | memoryview


@unique
class Message(IntEnum):
    """What a frame holds; docs/architecture.md has the order."""

    WELCOME = 1  # server: architecture and policy, JSON
    PUBLIC_KEY = 2  # client: one per distinct (n, primes)
    BASE_OT = 3  # client: hello of the transfers' set-up
    BASE_OT_REPLY = 4  # server: its hello and its answer to the client's
    PREPARE = 5  # client: asks for a bundle (offline phase), which it gives a number
    ENCRYPTED_MASKS = 6  # client: Enc(r) of one linear layer
    ENCRYPTED_SHARES = 7  # server: Enc(M r - s)
    OT_EXTENSION = 8  # client: the choice bits of one activation, masked
    GARBLED_TABLES = 9  # server: a chunk of one activation's garbled circuits
    INFER = 10  # client: x - r of the image (online phase), with the number of the bundle
    GARBLER_LABELS = 11  # server: the labels of its share of one activation's input
    MASKED_ACTIVATION = 12  # client: y - r of one activation, masked by the server's rho; v and w of a squared one
    OUTPUT_SHARE = 13  # server: its share of the network's output
    GOODBYE = 14  # client
    FAILURE = 15  # either: why the sender ends the session
    GALOIS_KEYS = 16  # client: after a PUBLIC_KEY whose layers rotate ciphertexts
    TRIPLE_FACTORS = 17  # client: Enc(a) of all squared activations
    TRIPLE_PRODUCTS = 18  # server: Enc(a rho - m)
    HELLO = 23  # client: the first message, empty; a server keeps no place for strangers who do not send it
    OT_TREES = 19  # client: its answer to the server's hello, and its trees; then the server: its trees
    LOOKUP_MAKING = 20  # both at once, exchange by exchange: what makes the lookups of a bundle
    LOOKUP_QUESTION = 21  # server: places and what is opened, for one activation
    LOOKUP_ANSWER = 22  # client: what is opened, transfers of the output's bits, its share
    SILENT_ROUND = 24  # both: the trees of the first round of silent transfers
    BUNDLES = 25  # client: numbers of the bundles that it has on disk; then the server: those that it has as well


class ProtocolError(UserError):
    """The peer sent what the protocol does not allow, or went away; the session is over."""


def message_name(kind: int) -> str:
    """The name of a message type, or its number where it has none."""
    return Message(kind).name if kind in Message._value2member_map_ else f"type {kind}"


def printable(text: str) -> str:
    """A peer's words for a terminal or a log: one line of bounded length, nothing that a terminal obeys."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:SHOWN_CHARACTERS]


def ended_by_peer(payload: Buffer) -> ProtocolError:
    """The error for a FAILURE that was received."""
    return ProtocolError(f"the peer ended the session: {printable(bytes(payload).decode(errors='replace'))}")


def failure_frame(reason: str) -> bytes:
    """The frame that tells the peer why the session ends."""
    words = reason[:SHOWN_CHARACTERS].encode()
    return HEADER.pack(PROTOCOL_VERSION, Message.FAILURE, len(words)) + words


@contextlib.contextmanager
def parsing(message: Message) -> Iterator[None]:
    """Turns the ValueErrors of code that reads a received payload into ProtocolErrors that name the message."""
    try:
        yield
    except ValueError as error:
        raise ProtocolError(f"{message.name} is malformed: {error}") from None
