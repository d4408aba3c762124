"""The connection: frames arrive whole, every byte is counted, a bad or silent peer ends it with a clear error."""

import os
import socket
import threading
import time
import unittest.mock
from pathlib import Path

import pytest

from autoprivacy.errors import UserError
from autoprivacy.link import Link
from autoprivacy.protocol.channel import (
    FRAME_COST,
    HEADER,
    PROGRESS_BYTES,
    PROTOCOL_VERSION,
    Bounds,
    Channel,
    Message,
    ProtocolError,
)
from autoprivacy.protocol.endpoints import connect, parse_address

LONGEST = 1 << 26
ANYTHING = Bounds(dict.fromkeys(Message, LONGEST), unread=1 << 28)


@pytest.fixture
def ends():
    a, b = socket.socketpair()
    yield a, b
    a.close()
    b.close()


def test_frames_arrive_whole_and_are_counted(ends):
    left, right = channel_of(ends[0], 10), channel_of(ends[1], 10)
    big = bytes(range(256)) * 20000  # far beyond the socket buffers, in both directions at once
    left.send(Message.ENCRYPTED_MASKS, big, b"tail")
    right.send(Message.ENCRYPTED_SHARES, big)
    left.send(Message.GOODBYE)
    assert right.receive_payload(Message.ENCRYPTED_MASKS, len(big) + 4) == big + b"tail"
    assert right.receive(Message.GOODBYE, Message.PREPARE) == (Message.GOODBYE, bytearray())
    assert left.receive_payload(Message.ENCRYPTED_SHARES) == big
    assert left.bytes_sent == right.bytes_received == 2 * HEADER.size + len(big) + 4
    assert right.bytes_sent == left.bytes_received == HEADER.size + len(big)


def socket_like(end):
    """A socket pair has no TCP options; the channel sets one."""

    class Wrapped:
        def setsockopt(self, *_):
            pass

        def __getattr__(self, name):
            return getattr(end, name)

    return Wrapped()


def channel_of(end, timeout, link=None, bounds=ANYTHING):
    """A channel that takes every message."""
    return Channel(socket_like(end), timeout, link, bounds)


def receive_after(ends, raw, *expected, timeout=5.0):
    channel = channel_of(ends[0], timeout)
    if raw is None:
        ends[1].close()
    else:
        ends[1].sendall(raw)
    return channel.receive(*(expected or (Message.PREPARE,)))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (HEADER.pack(PROTOCOL_VERSION + 1, 5, 0), f"version {PROTOCOL_VERSION + 1}, this side {PROTOCOL_VERSION}"),
        (
            HEADER.pack(PROTOCOL_VERSION, 5, LONGEST + 1),
            f"PREPARE of {LONGEST + 1} bytes was announced",
        ),
        (HEADER.pack(PROTOCOL_VERSION, 200, 0), "type 200 of 0 bytes came; expected WELCOME or PUBLIC_KEY"),
        (HEADER.pack(PROTOCOL_VERSION, Message.GOODBYE, 1) + b"x", "expected PREPARE, got GOODBYE of 1 bytes"),
        (HEADER.pack(PROTOCOL_VERSION, Message.FAILURE, 3) + b"why", "the peer ended the session: why"),
        (HEADER.pack(PROTOCOL_VERSION, Message.FAILURE, 6) + b"a\n\x1b[2J", r"the peer ended the session: a  \[2J$"),
        (None, "the peer closed the connection"),
    ],
)
def test_what_the_protocol_does_not_allow(ends, raw, words):
    with pytest.raises(ProtocolError, match=words):
        receive_after(ends, raw)


def test_a_wrong_length_names_both(ends):
    channel = channel_of(ends[0], 5)
    ends[1].sendall(HEADER.pack(PROTOCOL_VERSION, Message.GARBLED_TABLES, 2) + b"ab")
    with pytest.raises(ProtocolError, match="GARBLED_TABLES: 2 bytes, expected 3"):
        channel.receive_payload(Message.GARBLED_TABLES, 3)


def test_a_peer_that_goes_away_in_the_middle(ends):
    channel = channel_of(ends[0], 5)
    ends[1].sendall(HEADER.pack(PROTOCOL_VERSION, Message.PREPARE, 10) + b"abc")
    ends[1].close()
    with pytest.raises(ProtocolError, match="3 of 10 bytes had come"):
        channel.receive(Message.PREPARE)


def test_a_silent_peer_times_out(ends):
    with pytest.raises(ProtocolError, match="waiting for PREPARE: nothing from the peer for 0.1 s"):
        receive_after(ends, b"", timeout=0.1)


def test_too_large_a_message_is_not_sent(ends):

    channel = channel_of(ends[0], 5)
    part = bytes(1 << 20)
    with pytest.raises(ProtocolError, match="sending PREPARE"):
        channel.send(Message.PREPARE, *[part] * 1025)


def test_a_failure_reaches_the_peer(ends):
    left, right = channel_of(ends[0], 5), channel_of(ends[1], 5)
    thread = threading.Thread(target=left.fail, args=("bundle 3 was used before",))
    thread.start()
    with pytest.raises(ProtocolError, match="bundle 3 was used before"):
        right.receive(Message.PREPARE)
    thread.join()


@pytest.mark.parametrize("address", ["", "host", ":1", "host:", "host:x", "host:70000"])
def test_bad_addresses(address):
    with pytest.raises(UserError, match="expected host:port"):
        parse_address(address)


def test_no_server_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UserError, match="no server answers"):
        connect(f"127.0.0.1:{port}", 2)


def test_a_link_takes_its_time_in_both_directions(ends):
    """Frames of 40,000 bytes at 2 Mbit/s take 0.16 s each, one after the other, and half of 0.2 s more."""
    link = Link(2e6, 0.2)
    left, right = (channel_of(end, 20, link) for end in ends)
    payload = bytes(40_000)
    computed = 3 * 8 * (len(payload) + HEADER.size) / 2e6 + 0.1
    start = time.monotonic()
    for _ in range(3):
        left.send(Message.ENCRYPTED_MASKS, payload)
        right.send(Message.ENCRYPTED_SHARES, payload)
    for _ in range(3):
        assert right.receive_payload(Message.ENCRYPTED_MASKS) == left.receive_payload(Message.ENCRYPTED_SHARES)
    elapsed = time.monotonic() - start
    # not below what a link takes; above, a busy machine's delays alone
    assert computed <= elapsed < computed + 5


def test_a_round_trip_is_charged_half_on_each_way(ends):
    left, right = (channel_of(end, 20, Link(1e9, 0.3)) for end in ends)
    start = time.monotonic()
    left.send(Message.PREPARE)
    right.receive(Message.PREPARE)
    one_way = time.monotonic() - start
    right.send(Message.GOODBYE)
    left.receive(Message.GOODBYE)
    assert one_way >= 0.15 and time.monotonic() - start >= 0.3


def test_pacing_keeps_to_a_virtual_clock(ends):
    """The link begins on a piece when it was queued, or else when it has done with the piece before."""

    class Clock:
        now, waits = 100.0, []

        def wait(self, seconds):
            self.waits.append(round(seconds, 6))
            self.now += seconds + 0.25  # sleeps last longer than asked for

    clock = Clock()
    channel = channel_of(ends[0], 5, Link(8e3, 0.0))
    closing, channel._closing = channel._closing, clock
    with unittest.mock.patch("autoprivacy.protocol.channel.time.monotonic", lambda: clock.now):
        for queued_at in (100.0, 100.0, 103.0):
            channel._send_piece(queued_at, memoryview(bytes(1000)))
    channel._closing = closing
    # done at 101, 102 and 104, whatever the sleeps made of it
    assert clock.waits == [1.0, 0.75, 1.75]


def test_what_the_peer_does_not_take_makes_the_sender_wait_and_then_fail(ends):
    channel = channel_of(ends[0], 0.3, bounds=Bounds({}, queued=1 << 20))
    with pytest.raises(ProtocolError, match=r"sending PREPARE: the peer has taken nothing for 0.3 s"):
        for _ in range(10):
            channel.send(Message.PREPARE, bytes(1 << 20))
    channel.fail("too slow")  # and returns although nobody listens


def test_unread_messages_stay_in_the_socket_beyond_the_limit(ends):
    sender = channel_of(ends[0], 5)
    reader = channel_of(ends[1], 5, bounds=Bounds({Message.PREPARE: 1 << 16}, unread=1 << 16))
    for _ in range(40):
        sender.send(Message.PREPARE, bytes(1 << 16))
    time.sleep(0.3)  # what is taken, is taken by now
    assert reader._incoming.qsize() <= 3
    for _ in range(40):
        assert len(reader.receive_payload(Message.PREPARE)) == 1 << 16


def test_a_slow_peer_is_not_a_silent_one(ends):
    """A message that goes on keeps the session alive, however long it takes."""
    channel, payload = channel_of(ends[0], 0.6), bytes(5 * PROGRESS_BYTES)

    def trickle():
        ends[1].sendall(HEADER.pack(PROTOCOL_VERSION, Message.PREPARE, len(payload)))
        for start in range(0, len(payload), PROGRESS_BYTES):
            time.sleep(0.2)
            ends[1].sendall(payload[start : start + PROGRESS_BYTES])

    thread = threading.Thread(target=trickle)
    thread.start()
    assert channel.receive(Message.PREPARE) == (Message.PREPARE, payload)
    thread.join()


def test_a_peer_that_trickles_bytes_is_a_silent_one(ends):
    """A byte now and then is no progress: a session cannot be held open with it."""
    channel, stop = channel_of(ends[0], 0.4), threading.Event()

    def trickle():
        ends[1].sendall(HEADER.pack(PROTOCOL_VERSION, Message.PREPARE, 1000))
        while not stop.wait(0.05):
            ends[1].sendall(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    start = time.monotonic()
    with pytest.raises(ProtocolError, match=r"waiting for PREPARE: nothing from the peer for 0.4 s"):
        channel.receive(Message.PREPARE)
    assert time.monotonic() - start < 5
    stop.set()
    thread.join()


def test_messages_that_come_do_not_keep_a_blocked_send_alive(ends):
    """The peer reads nothing and sends frames: what it sends says nothing of what it takes."""
    channel, stop = channel_of(ends[0], 0.5, bounds=Bounds({Message.GOODBYE: 0}, queued=1 << 16)), threading.Event()

    def trickle():
        while not stop.wait(0.05):
            ends[1].sendall(HEADER.pack(PROTOCOL_VERSION, Message.GOODBYE, 0))

    thread = threading.Thread(target=trickle)
    thread.start()
    start = time.monotonic()
    with pytest.raises(ProtocolError, match=r"sending PREPARE: the peer has taken nothing for 0.5 s"):
        for _ in range(2):
            channel.send(Message.PREPARE, bytes(8 << 20))
    assert time.monotonic() - start < 5
    stop.set()
    thread.join()


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_header_takes_no_memory_for_what_it_announces(ends):
    channel_of(ends[0], 5, bounds=Bounds({Message.PUBLIC_KEY: 1 << 30}))
    before = resident()
    ends[1].sendall(HEADER.pack(PROTOCOL_VERSION, Message.PUBLIC_KEY, 1 << 29))
    time.sleep(0.3)
    assert resident() - before < 4 << 20


def test_a_message_longer_than_the_agreement_says_is_refused_by_its_header(ends):
    channel = channel_of(ends[0], 5, bounds=Bounds({Message.PUBLIC_KEY: 38432}))
    ends[1].sendall(HEADER.pack(PROTOCOL_VERSION, Message.PUBLIC_KEY, 256 << 20))
    with pytest.raises(ProtocolError, match=f"PUBLIC_KEY of {256 << 20} bytes was announced, allowed 38432"):
        channel.receive(Message.PUBLIC_KEY)


def test_empty_frames_count_as_unread(ends):
    unread, sent = 1 << 20, 20_000
    reader = channel_of(ends[0], 5, bounds=Bounds({Message.GOODBYE: 0}, unread=unread))
    writer = threading.Thread(
        target=ends[1].sendall, args=(HEADER.pack(PROTOCOL_VERSION, Message.GOODBYE, 0) * sent,), daemon=True
    )
    writer.start()
    time.sleep(0.5)  # what is taken, is taken by now
    assert reader._incoming.qsize() <= unread // FRAME_COST + 1
    for _ in range(sent):
        reader.receive(Message.GOODBYE)
    writer.join(timeout=5)
    assert not writer.is_alive()


def test_all_must_come_within_a_limit(ends):
    """A handshake has so many seconds in all, whatever progress it makes."""
    channel, stop = channel_of(ends[0], 5), threading.Event()
    channel.limit(0.4)

    def chatter():
        while not stop.wait(0.05):
            ends[1].sendall(HEADER.pack(PROTOCOL_VERSION, Message.GOODBYE, 0))

    thread = threading.Thread(target=chatter)
    thread.start()
    with pytest.raises(ProtocolError, match="waiting for GOODBYE: the peer took too long"):
        while True:
            channel.receive(Message.GOODBYE)
    stop.set()
    thread.join()
    channel.limit(None)
    ends[1].sendall(HEADER.pack(PROTOCOL_VERSION, Message.GOODBYE, 0))
    channel.receive(Message.GOODBYE)
