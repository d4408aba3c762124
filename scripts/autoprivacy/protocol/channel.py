"""A framed connection between client and server; every byte of its frames is counted.

A thread sends and a thread receives, so a party computes while its messages travel and two full socket buffers cannot
block each other. A frame is refused by its header unless its type is due and its length allowed; memory for it grows as
its bytes come. A channel can behave as a slower link would (`Link`): what it sends is paced, what it receives is late.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from autoprivacy.link import Link
from autoprivacy.protocol.messages import (
    FAILURE_BYTES,
    HEADER,
    MAXIMUM_PAYLOAD,
    PROTOCOL_VERSION,
    Buffer,
    Message,
    ProtocolError,
    ended_by_peer,
    failure_frame,
    message_name,
)

PIECE = 1 << 18  # bytes handed to the connection at a time, so that a long message shows progress
PROGRESS_BYTES = 1 << 14  # of a message that must come within the time-out, or all of it: less is no progress
FRAME_COST = 512  # bytes of memory that a frame takes beside its payload
TLS_RECORDS = (21, 22)  # first byte of a TLS alert and handshake (RFC 8446, section 5.1)
FAREWELL_SECONDS = 1.0  # how long a side that closes waits for the other to take its last words


@dataclass(frozen=True)
class Bounds:
    """What a side takes from its peer, and keeps for it, at a time.

    Attributes:
        lengths: the largest payload of every message that may come now; others are refused. A FAILURE may always come.
        unread: bytes of received messages that wait to be read before no more is taken from the connection, the last
            message not counted. Of two ends that both wait for the other to read, one at least must allow all that its
            peer sends without being asked again, or both would wait for ever.
        queued: bytes that wait to be sent before `send` waits too.
    """

    lengths: Mapping[Message, int]
    unread: int = 1 << 22
    queued: int = 1 << 26

    def check(self, kind: int, length: int) -> None:
        """ProtocolError unless a frame of that type and length may come."""
        allowed = FAILURE_BYTES if kind == Message.FAILURE else self.lengths.get(kind)  # type: ignore[call-overload]
        if allowed is None:
            due = " or ".join(message.name for message in self.lengths)
            raise ProtocolError(f"{message_name(kind)} of {length} bytes came; expected {due}")
        if length > allowed:
            raise ProtocolError(f"{message_name(kind)} of {length} bytes was announced, allowed {allowed}")


# What a client takes from a server that it knows nothing of yet, and a server from a client.
GREETING, STRANGER = Bounds({Message.WELCOME: 1 << 22}), Bounds({Message.HELLO: 0})


class Connection(Protocol):
    """A stream between two parties: a socket, or TLS over one."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        """As a socket's."""

    def settimeout(self, seconds: float | None, /) -> None:
        """As a socket's."""

    def sendall(self, data: memoryview, /) -> None:
        """Send all bytes; one thread may send while another receives."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Receive up to as many bytes as the buffer has; 0 where the peer has closed."""

    def shutdown(self, how: int, /) -> None:
        """As a socket's; wakes threads that wait in it."""

    def close(self) -> None:
        """Free the descriptor."""


class Channel:
    """One end of a connection.

    Args:
        connection: a connected stream; the channel closes it.
        timeout: seconds without progress after which the peer counts as gone.
        link: what the connection is to behave like: each end paces what it sends and holds back what it receives for
            half the round trip, so both must be given the same. None leaves it as fast as it is.
        bounds: what is taken at first; `admit` changes it.
        peer: who the peer is, as far as anybody knows: its certificate's fingerprint, or its address.
    """

    def __init__(
        self,
        connection: Connection,
        timeout: float,
        link: Link | None = None,
        bounds: Bounds = GREETING,
        peer: str = "",
    ) -> None:
        self.peer = peer
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(None)
        self._connection = connection
        self._timeout = timeout
        self._link = link
        self._bounds = bounds
        self._deadline: float | None = None
        self._outgoing: queue.SimpleQueue[tuple[float, list[memoryview]] | None] = queue.SimpleQueue()
        self._incoming: queue.SimpleQueue[tuple[float, int, memoryview] | ProtocolError] = queue.SimpleQueue()
        self._failure: ProtocolError | None = None
        self._room = threading.Condition()  # guards _queued and _unread
        self._queued = self._unread = 0
        self._closing = threading.Event()
        self._free = 0.0  # when the link has carried all that was sent
        self._sent_at = self._received_at = time.monotonic()  # the last progress in each direction
        self.sent: Counter[str] = Counter()  # bytes by name of the message, headers included
        self.received: Counter[str] = Counter()
        self._sender = threading.Thread(target=self._send_loop, daemon=True)
        self._receiver = threading.Thread(target=self._receive_loop, daemon=True)
        self._sender.start()
        self._receiver.start()

    def admit(self, bounds: Bounds) -> None:
        """Change what the peer may send from now on; call it before the message that the peer will answer to."""
        with self._room:
            self._bounds = bounds
            self._room.notify_all()

    def limit(self, seconds: float | None) -> None:
        """Make the peer send what is received from now on within so many seconds in all; None ends that."""
        self._deadline = None if seconds is None else time.monotonic() + seconds

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
                if self._queued <= self._bounds.queued:
                    return
                left = max(start, self._sent_at) + self._timeout - time.monotonic()
                if left <= 0:
                    seconds = f"{self._timeout:g} s"
                    raise ProtocolError(f"sending {message.name}: the peer has taken nothing for {seconds}")
                self._room.wait(left)
        raise self._reason_of_the_peer() or self._failure

    def _patience(self, start: float) -> float:
        """Seconds until the peer counts as gone for one who has waited for a message since `start`.

        A peer that still takes what was sent before has not had its turn yet.
        """
        now = time.monotonic()
        left = max(start, self._received_at, self._sent_at) + self._timeout - now
        return left if self._deadline is None else min(left, self._deadline - now)

    def receive(self, *expected: Message) -> tuple[Message, memoryview]:
        """The next frame, which must be one of `expected`; ProtocolError otherwise, at a time-out, or a lost peer."""
        names = " or ".join(message.name for message in expected)
        due, kind, payload = self._next(names)
        time.sleep(max(0.0, due - time.monotonic()))
        with self._room:
            self._unread -= len(payload) + FRAME_COST
            self._room.notify_all()
        name = message_name(kind)
        self.received[name] += HEADER.size + len(payload)
        if kind == Message.FAILURE:
            raise ended_by_peer(payload)
        if kind not in expected:
            raise ProtocolError(f"expected {names}, got {name} of {len(payload)} bytes")
        return Message(kind), payload

    def _next(self, names: str) -> tuple[float, int, memoryview]:
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
        if self._deadline is not None and self._deadline <= time.monotonic():
            raise ProtocolError(f"waiting for {names}: the peer took too long")
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
                return ended_by_peer(item[2])

    def receive_payload(self, expected: Message, length: int | None = None) -> memoryview:
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
        self._sent_at = time.monotonic()
        with self._room:
            self._queued -= len(piece)
            self._room.notify_all()

    def _receive_loop(self) -> None:
        delay = self._link.round_trip_seconds / 2 if self._link is not None else 0.0
        try:
            while True:
                version, kind, length = HEADER.unpack(self._read_exactly(HEADER.size))
                if version in TLS_RECORDS:
                    raise ProtocolError("the peer speaks TLS, this side does not: give both the options for it")
                if version != PROTOCOL_VERSION:
                    raise ProtocolError(f"the peer speaks protocol version {version}, this side {PROTOCOL_VERSION}")
                self._bounds.check(kind, length)
                payload = self._read_exactly(length)
                self._incoming.put((time.monotonic() + delay, kind, payload))
                self._wait_until_read(length + FRAME_COST)
        except ProtocolError as error:
            self._incoming.put(error)
        except OSError as error:
            self._incoming.put(ProtocolError(f"the connection broke ({error})"))
        except MemoryError:
            self._incoming.put(ProtocolError(f"no memory for a message of {length} bytes"))

    def _wait_until_read(self, cost: int) -> None:
        with self._room:
            self._unread += cost
            self._room.wait_for(lambda: self._unread <= self._bounds.unread or self._closing.is_set())

    def _read_exactly(self, length: int) -> memoryview:
        # Not bytearray(length), which writes zeros: pages of `empty` are taken from the system as bytes arrive in them.
        content, got, shown = np.empty(length, np.uint8).data, 0, 0
        while got < length:
            count = self._connection.recv_into(content[got:])
            if count == 0:
                part = f" ({got} of {length} bytes had come)" if got else ""
                raise ProtocolError(f"the peer closed the connection{part}")
            got += count
            if got == length or got - shown >= PROGRESS_BYTES:
                self._received_at, shown = time.monotonic(), got
        return content
