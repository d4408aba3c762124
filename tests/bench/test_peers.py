"""The relay that shapes another system's connection, and networks exported for it."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from autoprivacy.bench.peers import HOST, Relay, cheetah_inference, export, free_ports
from autoprivacy.errors import UserError
from autoprivacy.networks.small_squares import small_relus
from autoprivacy.quantization.importer import import_module


def echo(port: int) -> threading.Thread:
    """A server that sends back what it gets, to one connection."""
    listening = socket.create_server((HOST, port))

    def serve() -> None:
        with listening, listening.accept()[0] as connection:
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def exchange(port: int, data: bytes) -> tuple[bytes, float]:
    """Send, receive as much, and how long that took."""
    with socket.create_connection((HOST, port)) as connection:
        started = time.monotonic()
        connection.sendall(data)
        received = b""
        while len(received) < len(data):
            received += connection.recv(1 << 16)
        return received, time.monotonic() - started


@pytest.mark.parametrize(("rate", "trip", "least"), [(8e6, 0.0, 0.2), (None, 0.2, 0.2)])
def test_the_relay_forwards_counts_and_takes_its_time(rate: float | None, trip: float, least: float) -> None:
    port, target = free_ports(2)
    echo(target)
    data = np.random.default_rng(1).bytes(200_000)  # 0.2 s at 8 Mbit/s
    with Relay([(port, target)], rate, trip) as relay:
        received, seconds = exchange(port, data)
        assert received == data and seconds >= least
        assert relay.forwarded == 2 * len(data)


def test_an_exported_network_has_all_that_another_system_needs(tmp_path: Path) -> None:
    graph = import_module(small_relus(10).eval(), (3, 32, 32))
    image = np.zeros((1, 3, 32, 32))
    export(graph, image, tmp_path / "network")
    nodes = json.loads((tmp_path / "network.json").read_text())
    assert [node["name"] for node in nodes] == [node.name for node in graph.nodes]
    with np.load(tmp_path / "network.npz") as arrays:
        assert arrays["image"].shape == (1, 3, 32, 32)
        for name, layer in graph.layers.items():
            assert np.array_equal(arrays[f"{name}.weight"], layer.weight.numpy())
            assert np.array_equal(arrays[f"{name}.bias"], layer.bias.numpy())


def test_a_peer_that_fails_is_one_line(tmp_path: Path) -> None:
    script = tmp_path / "peer.py"
    script.write_text("raise SystemExit('no such protocol')")
    with pytest.raises(UserError, match=r"peer\.py: exit status 1: no such protocol"):
        cheetah_inference(Path(sys.executable), script, tmp_path / "network.npz", None, 0.0)
