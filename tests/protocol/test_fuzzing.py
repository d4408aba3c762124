"""Whatever a peer sends, or does not send, the other side ends its session with one clear line, and in time.

Every message that a party receives is replaced on its way by something that the protocol does not allow. The messages'
contents are not authenticated (the model is semi-honest), so random bytes of the right length may go through; what
they make of the result is garbage, but all of it.
"""

import logging
import os
import random
import socket
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from support.made_up_profile import LINK, PROFILE
from support.reference import reference_forward

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.parameter_set import Flooding
from autoprivacy.protocol.channel import GREETING, HEADER, PROTOCOL_VERSION, STRANGER, Channel, Message
from autoprivacy.protocol.client import Client
from autoprivacy.protocol.server import Model, serve
from autoprivacy.quantization.integer_network import Architecture, IntegerNetwork, LayerShape, LinearLayer, Node
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.schemes import darl, delphi

P = 1032193
STALLED, PATIENT = 1.0, 30.0  # time-outs in seconds: of a side whose peer falls silent, of all others


def small_network():
    """One convolution, one activation, one fully connected layer; 4x4 images."""
    conv = LayerShape("conv", "convolution", (2, 4, 4), 2, (3, 3), padding=1, input_maximum=128)
    fc = LayerShape("fc", "fully_connected", (32, 1, 1), 3, (1, 1), input_maximum=255)
    nodes = (
        Node("image", "input", (), (2, 4, 4)),
        Node("conv", "linear", ("image",), (2, 4, 4)),
        Node("relu", "activation", ("conv",), (2, 4, 4), shift=5),
        Node("flat", "flatten", ("relu",), (32, 1, 1)),
        Node("fc", "linear", ("flat",), (3, 1, 1)),
    )
    rng = np.random.default_rng(4)
    layers = {
        shape.name: LinearLayer(shape, rng.integers(-50, 51, size), rng.integers(-99, 99, size[0]))
        for shape, size in ((conv, (2, 2, 3, 3)), (fc, (3, 32, 1, 1)))
    }
    return IntegerNetwork(Architecture(nodes, (conv, fc), (0.5,) * 2, (0.25,) * 2, 0.02), layers, 1.0)


NETWORK = small_network()
FLOODING = Flooding("statistical")
MODEL = Model(NETWORK, darl(NETWORK, "small", P, Selection(PROFILE, LINK, FLOODING)))
SQUARING = replace(
    NETWORK,
    architecture=replace(
        NETWORK.architecture,
        nodes=tuple(
            replace(node, minimum=-16, maximum=15, squared=True) if node.operation == "activation" else node
            for node in NETWORK.architecture.nodes
        ),
    ),
)
SQUARING_MODEL = Model(SQUARING, darl(SQUARING, "small", P, Selection(PROFILE, LINK, FLOODING)))
SLOT_MODEL = Model(NETWORK, delphi(NETWORK, "small", (-60_000, 60_000), Selection(PROFILE, LINK, FLOODING, "slot")))
LOOKED_UP = darl(NETWORK, "small", 1 << 17, Selection(PROFILE, LINK, FLOODING))
LOOKED_UP = replace(LOOKED_UP, layers=tuple(replace(layer, activation="lookup") for layer in LOOKED_UP.layers))
LOOKUP_MODEL, SILENT_MODEL = (Model(NETWORK, replace(LOOKED_UP, silent_table_bits=bits)) for bits in (None, 16))
IMAGE = np.random.default_rng(6).integers(-128, 128, (2, 4, 4))


def frame(kind, payload, version=PROTOCOL_VERSION, length=None):
    return HEADER.pack(version, kind, len(payload) if length is None else length) + payload


# What goes over the wire in place of a message; with some the sender falls silent or dies.
MUTATIONS = {
    "another type": lambda kind, data: frame(Message.FAILURE - 1 if kind != 14 else Message.WELCOME, data),
    "an unknown type": lambda kind, data: frame(77, data),
    "a byte too few": lambda kind, data: frame(kind, data[:-1]),
    "a byte too many": lambda kind, data: frame(kind, data + b"\0"),
    "nothing in it": lambda kind, data: frame(kind, b""),
    "an oversized length": lambda kind, data: frame(kind, data, length=(1 << 30) + 1),
    "a length beyond all bounds": lambda kind, data: frame(kind, data, length=(1 << 64) - 1),
    "another version": lambda kind, data: frame(kind, data, version=PROTOCOL_VERSION + 1),
    "random bytes": lambda kind, data: frame(kind, os.urandom(len(data))),
    "all ones": lambda kind, data: frame(kind, b"\xff" * len(data)),
    "half, then silence": lambda kind, data: frame(kind, data)[: (HEADER.size + len(data)) // 2],
    "silence": lambda kind, data: b"",
    "half, then death": lambda kind, data: frame(kind, data)[: (HEADER.size + len(data)) // 2],
    "death": lambda kind, data: b"",
}
MAY_PASS = ("random bytes", "all ones")


class Wrapped:
    """A socket pair has no TCP options; the channel sets one."""

    def __init__(self, end):
        self.end = end

    def setsockopt(self, *_):
        pass

    def __getattr__(self, name):
        return getattr(self.end, name)


def tamper(channel, connection, kind, mutation):
    """Let the channel send the mutation in place of the first message of that kind.

    Nothing follows, unless the mutation may pass for the message.
    """
    send, done = channel.send, []

    def sending(message, *parts):
        if done and mutation not in MAY_PASS:
            return
        if done or message != kind:
            send(message, *parts)
            return
        done.append(message)
        data = b"".join(bytes(memoryview(part).cast("B")) for part in parts)
        channel._outgoing.put((time.monotonic(), [memoryview(MUTATIONS[mutation](kind, data))]))
        if "death" in mutation:
            channel._outgoing.put(None)
            channel._sender.join(timeout=PATIENT)
            connection.shutdown(socket.SHUT_RDWR)

    channel.send = sending


def run_session(model, kind, mutation, from_client):
    """One session in which a message is tampered with: the error and the outputs of the client, if any, and what the
    server said."""
    ends = socket.socketpair()
    patience = [STALLED if "silence" in mutation else PATIENT, PATIENT]  # of the side that is sinned against, the other
    bounds = (STRANGER, GREETING) if from_client else (GREETING, STRANGER)
    channels = [Channel(Wrapped(end), *rest) for end, *rest in zip(ends, patience, (None, None), bounds, strict=True)]
    survivor, sinner = channels
    server_channel, client_channel = (survivor, sinner) if from_client else (sinner, survivor)
    tamper(sinner, ends[1], kind, mutation)
    thread = threading.Thread(target=serve, args=(model, server_channel), name=f"{kind.name}: {mutation}")
    thread.start()
    error = outputs = None
    try:
        client = Client(client_channel)
        outputs = client.infer(client.prepare(), IMAGE)
        client.close()
    except UserError as caught:
        error = str(caught)
        client_channel.fail(error)
    thread.join(timeout=2 * PATIENT)
    for end in ends:
        end.close()
    assert not thread.is_alive(), f"the server hangs: {thread.name}"
    return error, outputs


def run_all(model, kind, from_client, caplog):
    """Every mutation of a message, all at once; the survivors' words by mutation."""
    results = {}

    def run(mutation):
        results[mutation] = run_session(model, kind, mutation, from_client)

    with caplog.at_level(logging.WARNING):
        threads = [threading.Thread(target=run, args=(mutation,)) for mutation in MUTATIONS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=4 * PATIENT)
    assert set(results) == set(MUTATIONS)  # none hung, none ended with another exception
    faults = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert faults == []
    said = {record.threadName: record.getMessage() for record in caplog.records}
    caplog.clear()
    return results, said


def honest_session_succeeds(model):
    left, right = socket.socketpair()
    thread = threading.Thread(target=serve, args=(model, Channel(Wrapped(right), PATIENT, bounds=STRANGER)))
    thread.start()
    client = Client(Channel(Wrapped(left), PATIENT))
    outputs = client.infer(client.prepare(), IMAGE)
    client.close()
    thread.join(timeout=PATIENT)
    assert np.array_equal(outputs, reference_forward(model.network, IMAGE, model.agreement.output_modulus))


TO_SERVER = [
    (MODEL, Message.HELLO),
    (MODEL, Message.PUBLIC_KEY),
    (SLOT_MODEL, Message.GALOIS_KEYS),
    (MODEL, Message.BASE_OT),
    (MODEL, Message.OT_TREES),
    (MODEL, Message.PREPARE),
    (MODEL, Message.ENCRYPTED_MASKS),
    (SILENT_MODEL, Message.OT_TREES),
    (SILENT_MODEL, Message.SILENT_ROUND),
    (SILENT_MODEL, Message.LOOKUP_MAKING),
    (SILENT_MODEL, Message.LOOKUP_ANSWER),
    (MODEL, Message.OT_EXTENSION),
    (MODEL, Message.INFER),
    (SQUARING_MODEL, Message.TRIPLE_FACTORS),
    (MODEL, Message.MASKED_ACTIVATION),
    (SQUARING_MODEL, Message.MASKED_ACTIVATION),
    (LOOKUP_MODEL, Message.LOOKUP_MAKING),
    (LOOKUP_MODEL, Message.LOOKUP_ANSWER),
    (MODEL, Message.GOODBYE),
]
TO_CLIENT = [
    (MODEL, Message.WELCOME),
    (MODEL, Message.BASE_OT_REPLY),
    (MODEL, Message.OT_TREES),
    (SILENT_MODEL, Message.OT_TREES),
    (SILENT_MODEL, Message.SILENT_ROUND),
    (SILENT_MODEL, Message.LOOKUP_MAKING),
    (SILENT_MODEL, Message.LOOKUP_QUESTION),
    (MODEL, Message.ENCRYPTED_SHARES),
    (MODEL, Message.GARBLED_TABLES),
    (SQUARING_MODEL, Message.TRIPLE_PRODUCTS),
    (MODEL, Message.GARBLER_LABELS),
    (LOOKUP_MODEL, Message.LOOKUP_MAKING),
    (LOOKUP_MODEL, Message.LOOKUP_QUESTION),
    (LOOKUP_MODEL, Message.OUTPUT_SHARE),
    (MODEL, Message.OUTPUT_SHARE),
]


def names(cases):
    more = {id(SQUARING_MODEL): " of squares", id(LOOKUP_MODEL): " of lookups", id(SILENT_MODEL): " of silent lookups"}
    return [kind.name + more.get(id(model), "") for model, kind in cases]


@pytest.mark.parametrize(("model", "kind"), TO_SERVER, ids=names(TO_SERVER))
def test_the_server_survives_a_client_that_breaks_the_protocol(model, kind, caplog):
    results, said = run_all(model, kind, True, caplog)
    for mutation, (_, outputs) in results.items():
        words = said.get(f"{kind.name}: {mutation}")
        if kind == Message.GOODBYE and mutation in (*MAY_PASS, "a byte too few", "nothing in it"):
            continue  # a GOODBYE is empty, so these are none
        if mutation in MAY_PASS and words is None:
            assert outputs is not None and outputs.shape == (3,)
            continue
        assert words is not None and words.startswith("session ended: ") and "\n" not in words, mutation
        if kind != Message.GOODBYE:
            assert outputs is None
    honest_session_succeeds(model)


@pytest.mark.parametrize(("model", "kind"), TO_CLIENT, ids=names(TO_CLIENT))
def test_the_client_survives_a_server_that_breaks_the_protocol(model, kind, caplog):
    results, _ = run_all(model, kind, False, caplog)
    for mutation, (error, outputs) in results.items():
        if mutation in MAY_PASS and error is None:
            assert outputs.shape == (3,)
            continue
        assert error and "\n" not in error and outputs is None, mutation
        if mutation == "another version":
            assert f"version {PROTOCOL_VERSION + 1}, this side {PROTOCOL_VERSION}" in error
        if "silence" in mutation:
            assert f"nothing from the peer for {STALLED:g} s" in error


@pytest.mark.parametrize(
    "welcome",
    [b"", b"\xff\xfe", b"null", b"[]", b'{"architecture": 3}', b"[" * 100_000, b'{"architecture": {}, "policy": {}}'],
)
def test_an_announcement_of_any_form_is_refused_in_one_line(welcome):
    left, right = socket.socketpair()
    peer, channel = Channel(Wrapped(right), PATIENT, bounds=STRANGER), Channel(Wrapped(left), PATIENT)
    peer.send(Message.WELCOME, welcome)
    with pytest.raises(UserError) as caught:
        Client(channel)
    assert "\n" not in str(caught.value)
    for end in (peer, channel):
        end.fail("done")


def test_a_client_that_expects_another_model_says_what_differs():
    other = replace(NETWORK.architecture, image_scale=0.03)
    left, right = socket.socketpair()
    thread = threading.Thread(target=serve, args=(MODEL, Channel(Wrapped(right), PATIENT, bounds=STRANGER)))
    thread.start()
    channel = Channel(Wrapped(left), PATIENT)
    with pytest.raises(UserError, match="architecture is not the expected one: image_scale: 0.03 expected, 0.02 told"):
        Client(channel, architecture=other)
    channel.fail("another model")
    thread.join(timeout=PATIENT)


@pytest.mark.slow
def test_many_sessions_of_flipped_bits_leave_the_server_serving(caplog):
    """A bit of a random place of the client's stream is flipped, session after session."""
    generator = random.Random(1)
    stream = 60_000  # about as long as what a client sends here
    for _ in range(300):
        left, right = socket.socketpair()
        place, bit = generator.randrange(stream), 1 << generator.randrange(8)

        class Flipping(Wrapped):
            sent = 0

            def sendall(self, data, place=place, bit=bit):
                data = bytearray(data)
                if 0 <= place - self.sent < len(data):
                    data[place - self.sent] ^= bit
                self.sent += len(data)
                self.end.sendall(data)

        thread = threading.Thread(target=serve, args=(MODEL, Channel(Wrapped(right), STALLED, bounds=STRANGER)))
        thread.start()
        channel = Channel(Flipping(left), STALLED)
        try:
            client = Client(channel)
            assert client.infer(client.prepare(), IMAGE).shape == (3,)
            client.close()
        except UserError as error:
            channel.fail(str(error))
        thread.join(timeout=PATIENT)
        assert not thread.is_alive()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    honest_session_succeeds(MODEL)
