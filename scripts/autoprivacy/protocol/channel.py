"""A framed TCP connection between client and server; every byte on the socket is counted.

Frame: version (1 byte), message type (1), length of the payload (8, little-endian), payload. A thread
sends and a thread receives, so a party computes while its messages travel and two full socket buffers cannot block
each other. A channel can behave as a slower link would (`Link`): what it sends is paced, what it receives is late.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from enum import IntEnum
from typing import TypeAlias

from autoprivacy.errors import UserError
from autoprivacy.link import Link

PROTOCOL_VERSION = 3
HEADER = struct.Struct("<BBQ")
MAXIMUM_PAYLOAD = 1 << 30  # bytes; no message of a supported network comes near
MAXIMUM_QUEUED = 1 << 26  # bytes that wait to be sent before `send` waits too
PIECE = 1 << 18  # bytes handed to the socket at a time, so that a long message shows progress
FAREWELL_SECONDS = 1.0  # how long a side that closes waits for the other to take its last words
SHOWN_CHARACTERS = 300  # of the peer's reason; more would be no message to a person

Buffer: TypeAlias = bytes | bytearray | memoryview


class Message(IntEnum):
    """What a frame holds; docs/architecture.md has the order."""

    WELCOME = 1  # server: architecture and policy, JSON
    PUBLIC_KEY = 2  # client: one per distinct (n, primes)
    BASE_OT = 3  # client: first message of the base oblivious transfers
    BASE_OT_REPLY = 4  # server
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


class ProtocolError(UserError):
    """The peer sent what the protocol does not allow, or went away; the session is over."""


def _ended_by_peer(payload: bytearray) -> ProtocolError:
    # The peer's words reach a terminal or a log: one line, nothing that a terminal obeys.
    words = "".join(letter if letter.isprintable() else " " for letter in payload.decode(errors="replace"))
    return ProtocolError(f"the peer ended the session: {words[:SHOWN_CHARACTERS]}")


def failure_frame(reason: str) -> bytes:
    """The frame that tells the peer why the session ends."""
    words = reason.encode()
    return HEADER.pack(PROTOCOL_VERSION, Message.FAILURE, len(words)) + words


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
        timeout: seconds without a byte in either direction after which the peer counts as gone.
        link: what the connection is to behave like: each end paces what it sends and holds back what it receives for
            half the round trip, so both must be given the same. None leaves it as fast as it is.
        maximum_unread: bytes of received messages that wait to be read before no more is taken from the socket; on
            one end at most, or two ends that wait for each other to read would wait for ever.
    """

    def __init__(
        self,
        connection: socket.socket,
        timeout: float,
        link: Link | None = None,
        maximum_unread: int | None = None,
    ) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(None)
        self._connection = connection
        self._timeout = timeout
        self._link = link
        self._maximum_unread = maximum_unread
        self._outgoing: queue.SimpleQueue[tuple[float, list[memoryview]] | None] = queue.SimpleQueue()
        self._incoming: queue.SimpleQueue[tuple[float, int, bytearray] | ProtocolError] = queue.SimpleQueue()
        self._failure: ProtocolError | None = None
        self._room = threading.Condition()  # guards _queued and _unread
        self._queued = self._unread = 0
        self._closing = threading.Event()
        self._free = 0.0  # when the link has carried all that was sent
        self._progress = time.monotonic()
        self.sent: Counter[str] = Counter()  # bytes by name of the message, headers included
        self.received: Counter[str] = Counter()
        self._sender = threading.Thread(target=self._send_loop, daemon=True)
        self._receiver = threading.Thread(target=self._receive_loop, daemon=True)
        self._sender.start()
        self._receiver.start()

    @property
    def bytes_sent(self) -> int:
        """Bytes of all messages given to `send`."""
        return self.sent.total()

    @property
    def bytes_received(self) -> int:
        """Bytes of all messages that `receive` returned or refused."""
        return self.received.total()

    def send(self, message: Message, *parts: Buffer) -> None:
        """Queue one frame; `parts` (contiguous) are joined and must not change afterwards.

        Waits while much is queued already; ProtocolError where the peer takes nothing for the time-out.
        """
        views = [memoryview(part).cast("B") for part in parts]
        length = sum(len(view) for view in views)
        if length > MAXIMUM_PAYLOAD:
            raise ProtocolError(f"sending {message.name}: {length} bytes, allowed {MAXIMUM_PAYLOAD}")
        self._wait_for_room(message)
        header = memoryview(HEADER.pack(PROTOCOL_VERSION, message, length))
        with self._room:
            self._queued += HEADER.size + length
        self._outgoing.put((time.monotonic(), [header, *views]))
        self.sent[message.name] += HEADER.size + length

    def _wait_for_room(self, message: Message) -> None:
        start = time.monotonic()
        while self._failure is None:
            with self._room:
                if self._queued <= MAXIMUM_QUEUED:
                    return
                left = self._patience(start)
                if left <= 0:
                    seconds = f"{self._timeout:g} s"
                    raise ProtocolError(f"sending {message.name}: the peer has taken nothing for {seconds}")
                self._room.wait(left)
        raise self._reason_of_the_peer() or self._failure

    def _patience(self, start: float) -> float:
        """Seconds until the peer counts as gone for one who has waited since `start`."""
        return max(start, self._progress) + self._timeout - time.monotonic()

    def receive(self, *expected: Message) -> tuple[Message, bytearray]:
        """The next frame, which must be one of `expected`; ProtocolError otherwise, at a time-out, or a lost peer."""
        names = " or ".join(message.name for message in expected)
        due, kind, payload = self._next(names)
        time.sleep(max(0.0, due - time.monotonic()))
        with self._room:
            self._unread -= len(payload)
            self._room.notify_all()
        known = kind in Message._value2member_map_
        name = Message(kind).name if known else f"type {kind}"
        self.received[name] += HEADER.size + len(payload)
        if kind == Message.FAILURE:
            raise _ended_by_peer(payload)
        if kind not in expected:
            raise ProtocolError(f"expected {names}, got {name} of {len(payload)} bytes")
        return Message(kind), payload

    def _next(self, names: str) -> tuple[float, int, bytearray]:
        start = time.monotonic()
        while (left := self._patience(start)) > 0:
            try:
                item = self._incoming.get(timeout=left)
            except queue.Empty:
                continue  # unless a byte has moved in the meantime, the last turn
            if isinstance(item, ProtocolError):
                self._incoming.put(item)  # whoever asks again is told again
                raise ProtocolError(f"waiting for {names}: {item}")
            return item
        raise ProtocolError(f"waiting for {names}: nothing from the peer for {self._timeout:g} s")

    def _reason_of_the_peer(self) -> ProtocolError | None:
        """Why the peer closed the connection, if it said so among the messages that still came."""
        while True:
            try:
                item = self._incoming.get(timeout=FAREWELL_SECONDS)
            except queue.Empty:
                return None
            if isinstance(item, ProtocolError):
                self._incoming.put(item)
                return None
            if item[1] == Message.FAILURE:
                return _ended_by_peer(item[2])

    def receive_payload(self, expected: Message, length: int | None = None) -> bytearray:
        """The payload of the next frame; ProtocolError unless it has the type and, where given, the length expected."""
        _, payload = self.receive(expected)
        if length is not None and len(payload) != length:
            raise ProtocolError(f"{expected.name}: {len(payload)} bytes, expected {length}")
        return payload

    def fail(self, reason: str) -> None:
        """Tell the peer why the session ends, as far as it still listens, and close; what was queued is dropped."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._outgoing.get_nowait()
        self._outgoing.put((time.monotonic(), [memoryview(failure_frame(reason))]))
        self._shut(FAREWELL_SECONDS)

    def close(self) -> None:
        """Send what is queued and close the connection."""
        self._shut(self._timeout)

    def _shut(self, seconds: float) -> None:
        self._outgoing.put(None)
        self._sender.join(timeout=seconds)
        self._closing.set()
        with self._room:
            self._room.notify_all()
        with contextlib.suppress(OSError):  # the peer was faster
            # Closing with unread bytes would make the system throw away what the peer has not read either.
            self._connection.shutdown(socket.SHUT_WR)
        self._receiver.join(timeout=FAREWELL_SECONDS)
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _send_loop(self) -> None:
        while (frame := self._outgoing.get()) is not None:
            queued_at, parts = frame
            try:
                for part in parts:
                    for start in range(0, len(part), PIECE):
                        self._send_piece(queued_at, part[start : start + PIECE])
            except OSError as error:
                self._failure = ProtocolError(f"the connection broke while sending ({error})")
                with self._room:
                    self._room.notify_all()
                return

    def _send_piece(self, queued_at: float, piece: memoryview) -> None:
        if self._link is not None:
            # A virtual clock: the link starts on a piece when it was queued or when it has done with the one before,
            # so that a sleep that lasts too long costs no throughput.
            self._free = max(self._free, queued_at) + self._link.seconds(len(piece))
            self._closing.wait(max(0.0, self._free - time.monotonic()))
        self._connection.sendall(piece)
        self._progress = time.monotonic()
        with self._room:
            self._queued -= len(piece)
            self._room.notify_all()

    def _receive_loop(self) -> None:
        delay = self._link.round_trip_seconds / 2 if self._link is not None else 0.0
        try:
            while True:
                version, kind, length = HEADER.unpack(self._read_exactly(HEADER.size))
                if version != PROTOCOL_VERSION:
                    raise ProtocolError(f"the peer speaks protocol version {version}, this side {PROTOCOL_VERSION}")
                if length > MAXIMUM_PAYLOAD:
                    raise ProtocolError(f"a message of {length} bytes was announced, allowed {MAXIMUM_PAYLOAD}")
                payload = self._read_exactly(length)
                self._incoming.put((time.monotonic() + delay, kind, payload))
                self._wait_until_read(length)
        except ProtocolError as error:
            self._incoming.put(error)
        except OSError as error:
            self._incoming.put(ProtocolError(f"the connection broke ({error})"))
        except MemoryError:
            self._incoming.put(ProtocolError(f"no memory for a message of {length} bytes"))

    def _wait_until_read(self, length: int) -> None:
        with self._room:
            self._unread += length
            if self._maximum_unread is not None:
                limit = self._maximum_unread
                self._room.wait_for(lambda: self._unread <= limit or self._closing.is_set())

    def _read_exactly(self, length: int) -> bytearray:
        content = bytearray(length)
        view, got = memoryview(content), 0
        while got < length:
            count = self._connection.recv_into(view[got:])
            if count == 0:
                part = f" ({got} of {length} bytes had come)" if got else ""
                raise ProtocolError(f"the peer closed the connection{part}")
            got += count
            self._progress = time.monotonic()
        return content
