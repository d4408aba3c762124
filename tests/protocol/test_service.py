"""The server as a service: clients in parallel, each with keys of its own; a silent or broken one harms no other."""

import logging
import socket
import threading
import time

import numpy as np
import pytest
from support.protocol_sessions import IMAGES, NETWORK, P_PRIME
from support.reference import reference_forward
from support.services import service

from autoprivacy.errors import UserError
from autoprivacy.link import Link
from autoprivacy.protocol.channel import HEADER, PROTOCOL_VERSION, Message, ProtocolError
from autoprivacy.protocol.client import Client
from autoprivacy.protocol.endpoints import ServiceSettings, connect
from autoprivacy.protocol.server_session import Session


def infer(address, image, link=None):
    client = Client(connect(address, 20, link))
    outputs = client.infer(client.prepare(), image)
    client.close()
    return outputs


def test_clients_are_served_at_the_same_time_with_results_of_their_own():
    """Every client is in its session before any ends."""
    together, results = threading.Barrier(3), {}

    def run(number):
        client = Client(connect(address, 20))
        bundle = client.prepare()
        together.wait(timeout=20)
        results[number] = client.infer(bundle, IMAGES[number])
        client.close()

    with service() as address:
        threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
    for number in range(3):
        assert np.array_equal(results[number], reference_forward(NETWORK, IMAGES[number], P_PRIME))


def test_sessions_share_no_secret(monkeypatch):
    sessions = []
    start = Session.__init__
    monkeypatch.setattr(Session, "__init__", lambda self, *a: sessions.append(self) or start(self, *a))
    with service() as address:
        for _ in range(2):
            infer(address, IMAGES[0])
    first, second = sessions
    assert not np.array_equal(first._garbled.delta, second._garbled.delta) and first._pool is not second._pool
    for parameters, cipher in first._ciphers.items():
        assert not np.array_equal(cipher._public, second._ciphers[parameters]._public)


def test_a_silent_client_makes_nobody_wait():
    with service(timeout=20.0) as address:
        host, port = address.split(":")
        with socket.create_connection((host, int(port))), socket.create_connection((host, int(port))) as half:
            half.sendall(HEADER.pack(PROTOCOL_VERSION, Message.PUBLIC_KEY, 1000) + b"not all")
            start = time.monotonic()
            assert np.array_equal(infer(address, IMAGES[1]), reference_forward(NETWORK, IMAGES[1], P_PRIME))
            assert time.monotonic() - start < 19  # it did not wait for the silent ones to time out


def test_too_many_clients_are_sent_away_and_may_come_back():
    with service(clients=1) as address:
        first = Client(connect(address, 20))
        with pytest.raises(ProtocolError, match="the server has its 1 clients already; try again later"):
            Client(connect(address, 20))
        first.close()
        deadline = time.monotonic() + 10
        while True:  # the slot is free once the first session's thread has ended
            try:
                infer(address, IMAGES[0])
                break
            except ProtocolError:
                assert time.monotonic() < deadline
                time.sleep(0.05)


def test_a_fault_of_the_server_ends_one_session(monkeypatch, caplog):
    prepare = Session._prepare
    broken = [True]

    def fails_once(self, number):
        if broken:
            raise ZeroDivisionError("secret") from broken.clear()
        prepare(self, number)

    monkeypatch.setattr(Session, "_prepare", fails_once)
    with service() as address:
        with pytest.raises(ProtocolError, match="a fault of the server, whose log has more$"):
            infer(address, IMAGES[0])
        assert np.array_equal(infer(address, IMAGES[0]), reference_forward(NETWORK, IMAGES[0], P_PRIME))
    assert any(record.levelno == logging.ERROR for record in caplog.records)


def test_the_protocol_runs_over_a_slow_link():
    link = Link(2e8, 0.01)
    with service(link=link) as address:
        client = Client(connect(address, 20, link))
        start = time.monotonic()
        outputs = client.infer(client.prepare(), IMAGES[0])
        elapsed = time.monotonic() - start
        client.close()
    assert np.array_equal(outputs, reference_forward(NETWORK, IMAGES[0], P_PRIME))
    offline, online = client.ledger.phases[1:3]
    # tables and labels come after all that they hang on: what the server sends takes at least its time, and the
    # online phase's messages wait for each other
    received = offline["bytes_received"] + online["bytes_received"]
    rounds = 1 + 1 + len(client.agreement.activation_nodes())
    assert elapsed >= link.seconds(received) + rounds * link.round_trip_seconds


@pytest.mark.parametrize("wrong", [{"clients": 0}, {"pool": 0}, {"timeout": 0.0}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(UserError, match="expected at least 1 client"):
        ServiceSettings(**wrong)
