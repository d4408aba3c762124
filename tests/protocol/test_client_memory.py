"""A server's announcement cannot take more of a client's memory than it allows: one line, and nothing is sent."""

import socket

import numpy as np
import pytest
from support.protocol_sessions import NETWORK, POLICY, WELCOME, Recorder, session

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.cipher import ClientCipher
from autoprivacy.protocol.channel import HEADER, STRANGER, Channel, Message, ProtocolError
from autoprivacy.protocol.client_memory import ClientMemory
from autoprivacy.protocol.client_session import Client
from autoprivacy.protocol.lengths import CIPHER_POLYNOMIALS
from autoprivacy.protocol.session import Agreement

LENGTHS = Agreement(NETWORK.architecture, POLICY).lengths
NEEDED = LENGTHS.client_bundle_bytes + LENGTHS.client_working_bytes


def test_a_limit_is_held_against_the_agreement():
    assert ClientMemory(NEEDED, NEEDED + LENGTHS.set_up_memory).bundles(LENGTHS) == 1
    with pytest.raises(ProtocolError, match=f"takes {NEEDED} bytes of memory, allowed {NEEDED - 1}; .*--image-memory"):
        ClientMemory(NEEDED - 1).bundles(LENGTHS)
    with pytest.raises(ProtocolError, match="a session with this server takes .* allow more with --memory"):
        ClientMemory(NEEDED, NEEDED + LENGTHS.set_up_memory - 1).bundles(LENGTHS)


def test_more_prepared_images_take_a_bundle_each():
    memory = ClientMemory(NEEDED, NEEDED + LENGTHS.set_up_memory + 2 * LENGTHS.client_bundle_bytes)
    assert memory.bundles(LENGTHS) == 3
    memory.check_pool(3, LENGTHS)
    with pytest.raises(UserError, match="--pool 4: .* room for 3 prepared images .* at most 3"):
        memory.check_pool(4, LENGTHS)


@pytest.mark.parametrize("limits", [(0, 10), (-1, -1), (10, 9)])
def test_limits_that_make_no_sense_are_refused(limits):
    with pytest.raises(UserError, match="expected at least 1 byte an image and no less in all"):
        ClientMemory(*limits)


def test_a_client_leaves_before_it_sends_its_keys():
    recorder, other = (Recorder(end) for end in socket.socketpair())
    client, server = Channel(recorder, 20), Channel(other, 20, bounds=STRANGER)
    try:
        server.send(Message.WELCOME, WELCOME)
        with pytest.raises(ProtocolError, match="allowed 1000; allow more with --image-memory, or leave this server"):
            Client(client, memory=ClientMemory(1000))
        client.close()  # once all that it sends is sent
        assert len(recorder.sent) == HEADER.size  # its HELLO
    finally:
        client.close()
        server.close()


def test_a_client_prepares_no_more_than_it_has_memory_for():
    memory = ClientMemory(NEEDED, NEEDED + LENGTHS.set_up_memory + LENGTHS.client_bundle_bytes)
    with session(memory=memory) as (client, _):
        client.prepare()
        client.prepare()
        with pytest.raises(ProtocolError, match="the pool holds 2 bundles already"):
            client.prepare()


def arrays_of(value, seen):
    """Bytes of all arrays that an object keeps, each once."""
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        return value.nbytes if value.base is None else arrays_of(value.base, seen)
    if isinstance(value, bytes):
        return len(value)
    inner = list(value) if isinstance(value, list | tuple) else []
    if type(value).__module__.startswith("autoprivacy"):
        inner += vars(value).values()
    return sum(arrays_of(part, seen) for part in inner)


@pytest.mark.parametrize("parameters", {layer.parameters for layer in POLICY.layers}, ids=str)
def test_keys_take_no_more_than_is_counted(parameters):
    words = CIPHER_POLYNOMIALS * len(parameters.deployed_primes) * parameters.polynomial_degree
    own = arrays_of(ClientCipher(parameters), set())
    assert words * 8 / 4 < own <= words * 8
