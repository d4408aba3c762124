"""The connection: frames arrive whole, every byte is counted, a bad or silent peer ends it with a clear error."""

import socket
import threading

import pytest

from autoprivacy.errors import UserError
from autoprivacy.protocol.channel import (
    HEADER,
    MAXIMUM_PAYLOAD,
    PROTOCOL_VERSION,
    Channel,
    Message,
    ProtocolError,
    connect,
    parse_address,
)


@pytest.fixture
def ends():
    a, b = socket.socketpair()
    yield a, b
    a.close()
    b.close()


def test_frames_arrive_whole_and_are_counted(ends):
    left, right = Channel(socket_like(ends[0]), 10), Channel(socket_like(ends[1]), 10)
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


def receive_after(ends, raw, *expected, timeout=5.0):
    channel = Channel(socket_like(ends[0]), timeout)
    if raw is None:
        ends[1].close()
    else:
        ends[1].sendall(raw)
    return channel.receive(*(expected or (Message.PREPARE,)))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (HEADER.pack(PROTOCOL_VERSION + 1, 5, 0), "version 3, this side 2"),
        (HEADER.pack(PROTOCOL_VERSION, 5, MAXIMUM_PAYLOAD + 1), "bytes was announced, allowed"),
        (HEADER.pack(PROTOCOL_VERSION, 200, 0), "expected PREPARE, got type 200"),
        (HEADER.pack(PROTOCOL_VERSION, Message.GOODBYE, 1) + b"x", "expected PREPARE, got GOODBYE of 1 bytes"),
        (HEADER.pack(PROTOCOL_VERSION, Message.FAILURE, 3) + b"why", "the peer ended the session: why"),
        (None, "the peer closed the connection"),
    ],
)
def test_what_the_protocol_does_not_allow(ends, raw, words):
    with pytest.raises(ProtocolError, match=words):
        receive_after(ends, raw)


def test_a_wrong_length_names_both(ends):
    channel = Channel(socket_like(ends[0]), 5)
    ends[1].sendall(HEADER.pack(PROTOCOL_VERSION, Message.GARBLED_TABLES, 2) + b"ab")
    with pytest.raises(ProtocolError, match="GARBLED_TABLES: 2 bytes, expected 3"):
        channel.receive_payload(Message.GARBLED_TABLES, 3)


def test_a_peer_that_goes_away_in_the_middle(ends):
    channel = Channel(socket_like(ends[0]), 5)
    ends[1].sendall(HEADER.pack(PROTOCOL_VERSION, Message.PREPARE, 10) + b"abc")
    ends[1].close()
    with pytest.raises(ProtocolError, match="3 of 10 bytes had come"):
        channel.receive(Message.PREPARE)


def test_a_silent_peer_times_out(ends):
    with pytest.raises(ProtocolError, match="waiting for PREPARE: nothing from the peer for 0.1 s"):
        receive_after(ends, b"", timeout=0.1)


def test_too_large_a_message_is_not_sent(ends):

    channel = Channel(socket_like(ends[0]), 5)
    part = bytes(1 << 20)
    with pytest.raises(ProtocolError, match="sending PREPARE"):
        channel.send(Message.PREPARE, *[part] * 1025)


def test_a_failure_reaches_the_peer(ends):
    left, right = Channel(socket_like(ends[0]), 5), Channel(socket_like(ends[1]), 5)
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
