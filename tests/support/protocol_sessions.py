"""A small network, its policies, and both parties of the protocol in one process."""

import contextlib
import socket
import threading
from pathlib import Path

import numpy as np

from autoprivacy.he.packing import PACKINGS
from autoprivacy.he.parameters.parameter_set import Flooding
from autoprivacy.protocol.bundles import NUMBER_BYTES
from autoprivacy.protocol.channel import HEADER, STRANGER, Channel, Message, ProtocolError
from autoprivacy.protocol.client import Client
from autoprivacy.protocol.server import Model, serve
from autoprivacy.protocol.session import Agreement, pack_shares
from autoprivacy.quantization.integer_network import Architecture, IntegerNetwork, LayerShape, LinearLayer, Node
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.schemes import darl, delphi
from support.made_up_profile import LINK, PROFILE

ROOT = Path(__file__).parents[2]
P_PRIME, P_POWER = 1032193, 1 << 20


def with_random_weights(nodes, shapes, seed):
    """An integer network of these nodes and linear layers."""
    rng, layers = np.random.default_rng(seed), {}
    for shape in shapes:
        size = (shape.output_channels, shape.input_shape[0] // shape.groups, *shape.kernel)
        weight = rng.normal(0, 25, size).round().clip(-127, 127).astype(np.int64)
        layers[shape.name] = LinearLayer(shape, weight, rng.integers(-2000, 2000, shape.output_channels))
    return IntegerNetwork(Architecture(nodes, shapes, (0.5,) * 3, (0.25,) * 3, 0.02), layers, 1e-5)


def residual_network():
    """A strided, a grouped and a residual convolution, sum pooling, fully connected; 8x8 images."""
    shapes = (
        LayerShape("first", "convolution", (3, 8, 8), 8, (3, 3), stride=2, padding=1, input_maximum=128),
        LayerShape("second", "convolution", (8, 4, 4), 8, (3, 3), padding=1, groups=2),
        LayerShape("fc", "fully_connected", (32, 1, 1), 5, (1, 1), input_maximum=1020),
    )
    nodes = (
        Node("image", "input", (), (3, 8, 8)),
        Node("first", "linear", ("image",), (8, 4, 4)),
        Node("relu1", "activation", ("first",), (8, 4, 4), shift=7),
        Node("second", "linear", ("relu1",), (8, 4, 4)),
        Node("scaled", "scale", ("relu1",), (8, 4, 4), factor=16),
        Node("sum", "add", ("second", "scaled"), (8, 4, 4)),
        Node("relu2", "activation", ("sum",), (8, 4, 4), shift=6),
        Node("pooled", "sum_pool", ("relu2",), (8, 2, 2), kernel=2, stride=2),
        Node("flat", "flatten", ("pooled",), (32, 1, 1)),
        Node("fc", "linear", ("flat",), (5, 1, 1)),
    )
    return with_random_weights(nodes, shapes, seed=3)


NETWORK = residual_network()
FLOODED, FLOODED_SLOTS = (Selection(PROFILE, LINK, Flooding("statistical"), packing) for packing in PACKINGS)
POLICY = darl(NETWORK, "residual", P_PRIME, FLOODED)
SLOT_POLICY = delphi(NETWORK, "residual", (-60_000, 60_000), FLOODED_SLOTS)
WELCOME = Agreement(NETWORK.architecture, POLICY).to_bytes()
RNG = np.random.default_rng(8)
IMAGES = RNG.integers(-128, 128, (3, 3, 8, 8))


class Recorder:
    """A socket that keeps what is sent through it."""

    def __init__(self, connection):
        self.connection, self.sent = connection, bytearray()

    def setsockopt(self, *_):
        pass

    def sendall(self, data):
        self.sent += bytes(data)
        self.connection.sendall(data)

    def __getattr__(self, name):
        return getattr(self.connection, name)


@contextlib.contextmanager
def session(policy=POLICY, network=NETWORK, expected=None, pool=16, folder=None, **more):
    """A client, given `more`, connected to a server thread; yields it and the recorders of both ends."""
    left, right = (Recorder(end) for end in socket.socketpair())
    model, settings = Model(network, policy), {"pool": pool, "folder": folder}
    thread = threading.Thread(target=lambda: serve(model, Channel(right, 60, bounds=STRANGER), **settings))
    thread.start()
    channel = Channel(left, 60)
    try:
        client = Client(channel, expected, **more)
        yield client, (left, right)
        with contextlib.suppress(ProtocolError):
            client.close()
    finally:
        channel.close()
        thread.join(timeout=30)
    assert not thread.is_alive()


def payload_lengths(stream, kind):
    """The lengths of the payloads of one kind of message in a recorded stream of frames."""
    lengths = []
    while stream:
        _, message, length = HEADER.unpack_from(stream)
        if message == kind:
            lengths.append(length)
        stream = stream[HEADER.size + length :]
    return lengths


def ask_for(client, number):
    """An online phase's first message, from a client that keeps no rules; what the server answers."""
    share = pack_shares({client.agreement.output_modulus: np.zeros((3, 8, 8), np.int64)})
    client.channel.send(Message.INFER, number.to_bytes(NUMBER_BYTES, "little"), share)
    return client.channel.receive(Message.GARBLER_LABELS)
