"""A framed TCP connection between client and server; every byte on the socket is counted.

Frame: version (1 byte), message type (1), length of the payload (8, little-endian), payload. A thread
sends and a thread receives, so a party computes while its messages travel and two full socket buffers cannot block
each other.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import TypeAlias

from autoprivacy.errors import UserError

PROTOCOL_VERSION = 2
HEADER = struct.Struct("<BBQ")
MAXIMUM_PAYLOAD = 1 << 30  # bytes; no message of a supported network comes near

Buffer: TypeAlias = bytes | bytearray | memoryview


class Message(IntEnum):
    """What a frame holds; docs/architecture.md has the order."""

    WELCOME = 1  # server: architecture and policy, JSON
    PUBLIC_KEY = 2  # client: one per distinct (n, primes)
    BASE_OT = 3  # client: first message of the base oblivious transfers
    BASE_OT_REPLY = 4  # server
    PREPARE = 5  # client: asks for a bundle (offline phase)
    ENCRYPTED_MASKS = 6  # client: Enc(r) of one linear layer
    ENCRYPTED_SHARES = 7  # server: Enc(M r - s)
    OT_EXTENSION = 8  # client: the choice bits of one activation, masked
    GARBLED_TABLES = 9  # server: a chunk of one activation's garbled circuits
    INFER = 10  # client: x - r of the image (online phase), with the number of the bundle
    GARBLER_LABELS = 11  # server: the labels of its share of one activation's input
    MASKED_ACTIVATION = 12  # client: y - r of one activation, masked by the server's rho
    OUTPUT_SHARE = 13  # server: its share of the network's output
    GOODBYE = 14  # client
    FAILURE = 15  # either: why the sender ends the session
    GALOIS_KEYS = 16  # client: after a PUBLIC_KEY whose layers rotate ciphertexts


class ProtocolError(UserError):
    """The peer sent what the protocol does not allow, or went away; the session is over."""


def _ended_by_peer(payload: bytearray) -> ProtocolError:
    return ProtocolError(f"the peer ended the session: {payload.decode(errors='replace')[:300]}")


@contextlib.contextmanager
def parsing(message: Message) -> Iterator[None]:
    """Turns the ValueErrors of code that reads a received payload into ProtocolErrors that name the message."""
    try:
        yield
    except ValueError as error:
        raise ProtocolError(f"{message.name} is malformed: {error}") from None


class Channel:
    """One end of a connection.

    Args:
        connection: a connected stream socket; the channel closes it.
        timeout: seconds without any progress after which the peer counts as gone.
    """

    def __init__(self, connection: socket.socket, timeout: float) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(None)
        self._connection = connection
        self._timeout = timeout
        self._outgoing: queue.SimpleQueue[tuple[Buffer, ...] | None] = queue.SimpleQueue()
        self._incoming: queue.SimpleQueue[tuple[int, bytearray] | ProtocolError] = queue.SimpleQueue()
        self._failure: ProtocolError | None = None
        self.bytes_sent = 0
        self.bytes_received = 0
        self._threads = [threading.Thread(target=f, daemon=True) for f in (self._send_loop, self._receive_loop)]
        for thread in self._threads:
            thread.start()

    def send(self, message: Message, *parts: Buffer) -> None:
        """Queue one frame; `parts` (contiguous) are joined and must not change afterwards."""
        if self._failure is not None:
            raise self._reason_of_the_peer() or self._failure
        views = tuple(memoryview(part).cast("B") for part in parts)
        length = sum(len(view) for view in views)
        if length > MAXIMUM_PAYLOAD:
            raise ProtocolError(f"sending {message.name}: {length} bytes, allowed {MAXIMUM_PAYLOAD}")
        self._outgoing.put((HEADER.pack(PROTOCOL_VERSION, message, length), *views))
        self.bytes_sent += HEADER.size + length

    def receive(self, *expected: Message) -> tuple[Message, bytearray]:
        """The next frame, which must be one of `expected`; ProtocolError otherwise, at a time-out, or a lost peer."""
        names = " or ".join(message.name for message in expected)
        try:
            item = self._incoming.get(timeout=self._timeout)
        except queue.Empty:
            raise ProtocolError(f"waiting for {names}: nothing from the peer for {self._timeout:g} s") from None
        if isinstance(item, ProtocolError):
            raise ProtocolError(f"waiting for {names}: {item}")
        kind, payload = item
        self.bytes_received += HEADER.size + len(payload)
        if kind == Message.FAILURE:
            raise _ended_by_peer(payload)
        if kind not in expected:
            got = Message(kind).name if kind in Message._value2member_map_ else f"type {kind}"
            raise ProtocolError(f"expected {names}, got {got} of {len(payload)} bytes")
        return Message(kind), payload

    def _reason_of_the_peer(self) -> ProtocolError | None:
        """Why the peer closed the connection, if it said so among the messages that still came."""
        while True:
            try:
                item = self._incoming.get(timeout=1.0)
            except queue.Empty:
                return None
            if isinstance(item, ProtocolError):
                return None
            if item[0] == Message.FAILURE:
                return _ended_by_peer(item[1])

    def receive_payload(self, expected: Message, length: int | None = None) -> bytearray:
        """The payload of the next frame; ProtocolError unless it has the type and, where given, the length expected."""
        _, payload = self.receive(expected)
        if length is not None and len(payload) != length:
            raise ProtocolError(f"{expected.name}: {len(payload)} bytes, expected {length}")
        return payload

    def fail(self, reason: str) -> None:
        """Tell the peer why the session ends, as far as it still listens, and close."""
        self._outgoing.put((HEADER.pack(PROTOCOL_VERSION, Message.FAILURE, len(reason.encode())), reason.encode()))
        self.close()

    def close(self) -> None:
        """Send what is queued and close the connection."""
        self._outgoing.put(None)
        self._threads[0].join(timeout=self._timeout)
        with contextlib.suppress(OSError):  # the peer was faster
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _send_loop(self) -> None:
        while (parts := self._outgoing.get()) is not None:
            try:
                for part in parts:
                    self._connection.sendall(part)
            except OSError as error:
                self._failure = ProtocolError(f"the connection broke while sending ({error})")
                return

    def _receive_loop(self) -> None:
        try:
            while True:
                version, kind, length = HEADER.unpack(self._read_exactly(HEADER.size))
                if version != PROTOCOL_VERSION:
                    raise ProtocolError(f"the peer speaks protocol version {version}, this side {PROTOCOL_VERSION}")
                if length > MAXIMUM_PAYLOAD:
                    raise ProtocolError(f"a message of {length} bytes was announced, allowed {MAXIMUM_PAYLOAD}")
                self._incoming.put((kind, self._read_exactly(length)))
        except ProtocolError as error:
            self._incoming.put(error)
        except OSError as error:
            self._incoming.put(ProtocolError(f"the connection broke ({error})"))

    def _read_exactly(self, length: int) -> bytearray:
        content = bytearray(length)
        view, got = memoryview(content), 0
        while got < length:
            count = self._connection.recv_into(view[got:])
            if count == 0:
                raise ProtocolError(f"the peer closed the connection ({got} of {length} bytes had come)")
            got += count
        return content


def parse_address(text: str) -> tuple[str, int]:
    """`host:port`; UserError otherwise."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise UserError(f'address "{text}": expected host:port with a port up to 65535')
    return host, int(port)


def connect(address: str, timeout: float) -> Channel:
    """Connect to a server; UserError when it cannot be reached."""
    try:
        return Channel(socket.create_connection(parse_address(address), timeout=timeout), timeout)
    except OSError as error:
        raise UserError(f"{address}: no server answers ({error}); start it first") from None


def listen(address: str) -> socket.socket:
    """A listening socket; port 0 lets the system choose."""
    try:
        return socket.create_server(parse_address(address))
    except OSError as error:
        raise UserError(f"{address}: cannot listen there ({error}); choose another port") from None


def serve_forever(listener: socket.socket, timeout: float, session: Callable[[Channel], None]) -> None:
    """Serve one client after another; a client's failure ends its session and no more."""
    while True:
        connection, _ = listener.accept()
        session(Channel(connection, timeout))
