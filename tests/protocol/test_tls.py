"""TLS: a server is who its certificate says, a client too where it is asked, and two threads may use one connection."""

import datetime
import logging
import os
import re
import socket
import ssl
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from support.certificates import Authority
from support.protocol_sessions import IMAGES, NETWORK, P_PRIME, POLICY
from support.reference import reference_forward
from support.services import service

from autoprivacy.errors import UserError
from autoprivacy.protocol.channel import Bounds, Channel, Message, ProtocolError
from autoprivacy.protocol.client import Client
from autoprivacy.protocol.endpoints import connect
from autoprivacy.protocol.server import main as server_main
from autoprivacy.protocol.tls import ServerIdentity, ServerTrust

PATIENCE = 60.0
ANYTHING = Bounds(dict.fromkeys(Message, 1 << 26), unread=1 << 28)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("other"), "other")


@pytest.fixture(scope="module")
def served(authority):
    return authority.issue("server")


@pytest.fixture(scope="module")
def address(served):
    """A server with a certificate, which has to survive everybody."""
    with service(tls=ServerIdentity.load(served.certificate, served.key)) as address:
        yield address


def infer(address, trust):
    channel = connect(address, PATIENCE, trust=trust)
    try:
        client = Client(channel)
        return client.infer(client.prepare(), IMAGES[0])
    finally:
        channel.fail("done")


def test_an_authority_a_fingerprint_or_both_tell_the_server(address, authority, served):
    for trust in (
        ServerTrust.load(authority.file),
        ServerTrust.load(None, served.fingerprint),
        ServerTrust.load(authority.file, served.fingerprint.upper()),
    ):
        assert np.array_equal(infer(address, trust), reference_forward(NETWORK, IMAGES[0], P_PRIME))


@pytest.mark.parametrize(
    ("trust", "words"),
    [
        (lambda authority, other, served: ServerTrust.load(other.file), "certificate is refused: "),
        (
            lambda authority, other, served: ServerTrust.load(None, "ab" * 32),
            f"has the fingerprint .*expected {'ab' * 32}",
        ),
        (lambda authority, other, served: ServerTrust.load(authority.file, "ab" * 32), "has the fingerprint"),
    ],
)
def test_another_certificate_is_refused_before_anything_is_said(address, authority, other, served, trust, words):
    with pytest.raises(ProtocolError, match=words) as caught:
        infer(address, trust(authority, other, served))
    assert str(caught.value).isprintable()
    infer(address, ServerTrust.load(None, served.fingerprint))  # the server goes on


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"address": "127.0.0.2"}, "IP address mismatch"),
        ({"after": -datetime.timedelta(hours=1)}, "certificate has expired"),
    ],
)
def test_a_certificate_of_another_address_or_time_is_refused(authority, given, words):
    files = authority.issue("wrong", **given)
    with (
        service(tls=ServerIdentity.load(files.certificate, files.key)) as address,
        pytest.raises(ProtocolError, match=words),
    ):
        infer(address, ServerTrust.load(authority.file))


def test_clients_show_certificates_of_their_own_where_they_are_asked_for_them(authority, other, served):
    mine, foreign = authority.issue("client"), other.issue("stranger")
    identity = ServerIdentity.load(served.certificate, served.key, authority.file)
    with service(tls=identity, images_per_client=1) as address:
        for nobody in (
            ServerTrust.load(authority.file),
            ServerTrust.load(authority.file, None, foreign.certificate, foreign.key),
        ):
            with pytest.raises(ProtocolError, match="closed the connection|broke"):
                infer(address, nobody)
        infer(address, ServerTrust.load(authority.file, None, mine.certificate, mine.key))
        with pytest.raises(ProtocolError, match="all 1 images that this server answers a client have been asked for"):
            infer(address, ServerTrust.load(authority.file, None, mine.certificate, mine.key))
        # the quota is the certificate's, not the address's
        second = authority.issue("second")
        infer(address, ServerTrust.load(authority.file, None, second.certificate, second.key))


def test_tls_on_one_side_alone_is_told(address, authority):
    with pytest.raises(ProtocolError, match="the peer speaks TLS, this side does not|closed the connection|broke"):
        infer(address, None)
    with service() as clear, pytest.raises(ProtocolError, match="the peer does not speak TLS"):
        infer(clear, ServerTrust.load(authority.file))


def test_a_stranger_has_few_seconds_for_the_handshake(served, monkeypatch, caplog):
    monkeypatch.setattr("autoprivacy.protocol.endpoints.HANDSHAKE_SECONDS", 0.3)
    with service(tls=ServerIdentity.load(served.certificate, served.key)) as address:
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as stranger:
            stranger.settimeout(PATIENCE)
            start = time.monotonic()
            assert stranger.recv(1) == b""
            assert time.monotonic() - start < 5
    assert "TLS: the handshake took too long" in caplog.text


def test_old_versions_are_refused(address):
    host, port = address.split(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection((host, int(port))) as raw, pytest.raises(ssl.SSLError):
        context.wrap_socket(raw)


@pytest.fixture
def tls_ends(served):
    """Both ends of a TLS connection over loopback."""
    identity, trust = ServerIdentity.load(served.certificate, served.key), ServerTrust.load(None, served.fingerprint)
    accepted = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: accepted.append(identity.accept(listener.accept()[0], PATIENCE)))
        thread.start()
        client = trust.connect(socket.create_connection(listener.getsockname()), "127.0.0.1", PATIENCE)
        thread.join()
    yield accepted[0], client
    for end in (*accepted, client):
        end.close()


def test_both_ends_send_and_receive_at_once(tls_ends):
    """Far more than buffers hold, in pieces of all sizes, both ways at the same time: each byte arrives, in order."""
    left, right = (Channel(end, PATIENCE, bounds=ANYTHING) for end in tls_ends)
    sizes = [1, 0, 100_000, 7, 3_000_000, 16384, 16385, 5_000_000]
    payloads = [os.urandom(size) for size in sizes]

    def talk(channel, kind, received):
        for payload in payloads:
            channel.send(kind, payload)
        received += [channel.receive_payload(Message.PREPARE, size) for size in sizes]

    results = [], []
    threads = [
        threading.Thread(target=talk, args=(channel, Message.PREPARE, received))
        for channel, received in zip((left, right), results, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=PATIENCE)
    assert list(results[0]) == payloads and list(results[1]) == payloads
    closing = threading.Thread(target=left.close)
    closing.start()
    right.close()
    closing.join()


def test_a_peer_that_goes_away_is_noticed(tls_ends):
    channel = Channel(tls_ends[0], PATIENCE, bounds=ANYTHING)
    tls_ends[1].shutdown(socket.SHUT_RDWR)
    with pytest.raises(ProtocolError, match="the peer closed the connection|broke"):
        channel.receive(Message.PREPARE)
    channel.fail("gone")


def test_altered_bytes_end_the_session(served):
    """An attacker on the path flips one bit of a record."""
    identity, trust = ServerIdentity.load(served.certificate, served.key), ServerTrust.load(None, served.fingerprint)
    accepted, ends = [], socket.socketpair()
    thread = threading.Thread(target=lambda: accepted.append(identity.accept(ends[0], PATIENCE)))
    thread.start()
    client = trust.connect(ends[1], "127.0.0.1", PATIENCE)
    thread.join()

    class Flipping:
        def sendall(self, data):
            ends[1].sendall(bytes(data[:-1]) + bytes([data[-1] ^ 1]))

    client._socket = Flipping()
    client.sendall(memoryview(b"a message"))
    with pytest.raises(ssl.SSLError, match="(?i)bad record mac"):
        accepted[0].recv_into(memoryview(bytearray(100)))
    for end in ends:
        end.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tls-cert=none.pem", "--tls-key=none.key"], "TLS: certificate none.pem and key none.key: No such file"),
        (["--tls-cert={cert}"], "--tls-cert and --tls-key belong together; give both"),
        (["--tls-client-ca={cert}"], "--tls-client-ca without --tls-cert and --tls-key; give all three"),
        (["--tls-cert={cert}", "--tls-key={other}"], "TLS: certificate .* and key .*: key values mismatch"),
        (["--tls-cert={cert}", "--tls-key={key}", "--tls-client-ca={key}"], "TLS: authorities .*"),
    ],
)
def test_the_servers_mistakes_with_certificates_are_told_in_one_line(
    options, words, authority, served, capsys, tmp_path
):
    NETWORK.save(tmp_path / "network.npz")
    POLICY.save(tmp_path / "policy.json")
    names = {"cert": served.certificate, "key": served.key, "other": authority.issue("mismatch").key}
    files = [f"--network={tmp_path / 'network.npz'}", f"--policy={tmp_path / 'policy.json'}"]
    assert server_main([*files, *(option.format(**names) for option in options)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(words, line), line


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((None, None, "cert", "key"), "give --tls-ca or --tls-fingerprint"),
        ((None, "12:34"), "fingerprint '12:34': expected the SHA-256"),
        ((None, "zz" * 32), "expected the SHA-256"),
        (("none.pem",), "authorities none.pem: No such file"),
        (("none.pem", None, "cert"), "--tls-cert and --tls-key belong together"),
    ],
)
def test_the_clients_mistakes_with_certificates_are_told(given, words):
    with pytest.raises(UserError, match=words):
        ServerTrust.load(*given)


def test_a_key_that_every_user_can_read_is_warned_of(authority, caplog):
    issued = authority.issue("readable")
    os.chmod(issued.key, 0o600)
    ServerIdentity.load(issued.certificate, issued.key)
    assert not caplog.records
    os.chmod(issued.key, 0o644)
    ServerIdentity.load(issued.certificate, issued.key)
    assert caplog.messages == [f"TLS: key {issued.key} can be read by every user of this machine; chmod 600 it"]


def test_listening_beyond_loopback_in_the_clear_is_warned_of(tmp_path, monkeypatch, caplog, served):
    NETWORK.save(tmp_path / "network.npz")
    POLICY.save(tmp_path / "policy.json")
    monkeypatch.setattr("autoprivacy.protocol.server.serve_clients", lambda *arguments: None)
    files = [f"--network={tmp_path / 'network.npz'}", f"--policy={tmp_path / 'policy.json'}"]
    with caplog.at_level(logging.INFO):
        assert server_main([*files, "--listen=0.0.0.0:0"]) == 0
        assert "listening on 0.0.0.0 in the clear: give --tls-cert and --tls-key" in caplog.text
        caplog.clear()
        assert server_main([*files, "--listen=127.0.0.1:0"]) == 0 and "in the clear" not in caplog.text
        tls = [f"--tls-cert={served.certificate}", f"--tls-key={served.key}"]
        assert server_main([*files, *tls, "--listen=0.0.0.0:0"]) == 0 and "in the clear" not in caplog.text
    assert f"certificate fingerprint {served.fingerprint}" in caplog.text and Path(served.key).exists()
