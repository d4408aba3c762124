"""Both parties of garbled activations in one process."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from autoprivacy.he.parameters.policy import Policy
from autoprivacy.protocol.channel import STRANGER, Channel, ProtocolError
from autoprivacy.protocol.client import Client
from autoprivacy.protocol.server import Model, serve
from autoprivacy.quantization.integer_network import IntegerNetwork
from support.inverted_residual import inverted_residual_network

NETWORK = inverted_residual_network()


@contextlib.contextmanager
def session(policy: Policy, network: IntegerNetwork = NETWORK) -> Iterator[Client]:
    """A client connected to a server thread."""
    model = Model(network, policy)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = socket.create_connection(listener.getsockname())
        right, _ = listener.accept()
    thread = threading.Thread(target=lambda: serve(model, Channel(right, 60, bounds=STRANGER)))
    thread.start()
    channel = Channel(left, 60)
    try:
        client = Client(channel, policy)
        yield client
        with contextlib.suppress(ProtocolError):
            client.close()
    finally:
        channel.close()
        thread.join(timeout=30)
    assert not thread.is_alive()
