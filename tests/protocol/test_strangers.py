"""What strangers cost a server: little memory, no place for long, and never the session of anybody else."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.protocol_sessions import FLOODED, IMAGES, NETWORK, P_PRIME, POLICY, ROOT
from support.reference import reference_forward
from support.services import service

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.parameter_set import Target
from autoprivacy.protocol.channel import HEADER, PROTOCOL_VERSION, Message, ProtocolError
from autoprivacy.protocol.client import Client
from autoprivacy.protocol.endpoints import Quota, ServiceSettings, connect
from autoprivacy.protocol.server import main as server_main
from autoprivacy.protocol.session import Agreement
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.selection.schemes import layerwise

CONNECTIONS = 100
GROWTH_BYTES = 200 << 20  # that all of them may take together
PATIENCE = 60.0
LENGTHS = Agreement(NETWORK.architecture, POLICY).lengths


@contextlib.contextmanager
def server_process(folder, *options):
    """The server program; yields its address and a function that reads its resident memory."""
    NETWORK.save(folder / "network.npz")
    POLICY.save(folder / "policy.json")
    files = ["--network", str(folder / "network.npz"), "--policy", str(folder / "policy.json")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "autoprivacy.protocol.server", *files, *options],
            env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    status = Path(f"/proc/{process.pid}/status")
    try:
        yield process.stdout.readline().strip(), lambda: int(re.search(r"VmRSS:\s+(\d+)", status.read_text())[1]) << 10
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def frame(kind, length, payload=b""):
    return HEADER.pack(PROTOCOL_VERSION, kind, length) + payload


HELLO = frame(Message.HELLO, 0)
KEY = LENGTHS.public_key(POLICY.parameter_sets[0])
# What each stranger says, before it falls silent with the connection open; none reads a byte.
ATTACKS = {
    "silence": b"",
    "a key of half a gigabyte": HELLO + frame(Message.PUBLIC_KEY, 512 << 20, bytes(1 << 20)),
    "an endless key": HELLO + frame(Message.PUBLIC_KEY, (1 << 64) - 1),
    "a key too long": HELLO + frame(Message.PUBLIC_KEY, 256 << 20, bytes(4 << 20)),
    "half a key": HELLO + frame(Message.PUBLIC_KEY, KEY, bytes(KEY // 2)),
    "empty frames": HELLO + frame(Message.HELLO, 0) * 100_000,
    "keys again and again": HELLO + frame(Message.PUBLIC_KEY, KEY, bytes(KEY)) * 200,
    "what comes later": HELLO + frame(Message.INFER, LENGTHS.infer, bytes(LENGTHS.infer)),
    "noise": os.urandom(1 << 20),
}


def say(address, words):
    """A connection over which the words were sent as far as they are taken within a second."""
    host, port = address.split(":")
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE)
    connection.settimeout(1.0)
    with contextlib.suppress(OSError):  # the server has heard enough
        connection.sendall(words)
    return connection


def test_a_hundred_hostile_connections_cost_a_server_little_memory(tmp_path):
    """All of them are let in at once, and the server serves an honest client afterwards."""
    with server_process(tmp_path, "--clients", str(CONNECTIONS + 1)) as (address, resident):
        client = Client(connect(address, PATIENCE))
        client.infer(client.prepare(), IMAGES[0])  # what a first session loads for good
        idle, words = resident(), list(ATTACKS.values())
        strangers = [say(address, words[index % len(words)]) for index in range(CONNECTIONS)]
        worst = 0
        for _ in range(20):
            worst = max(worst, resident() - idle)
            time.sleep(0.1)
        answer = client.infer(client.prepare(), IMAGES[1])
        for stranger in strangers:
            stranger.close()
    assert np.array_equal(answer, reference_forward(NETWORK, IMAGES[1], P_PRIME))
    assert worst < GROWTH_BYTES, f"{worst >> 20} MiB for {CONNECTIONS} connections"
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log and "fault of the server" not in log
    client.channel.fail("the server is gone")


def test_strangers_that_say_nothing_lose_their_place(monkeypatch, caplog):
    monkeypatch.setattr("autoprivacy.protocol.server_session.HANDSHAKE_SECONDS", 0.3)
    with service(clients=1) as address:
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as silent:
            silent.settimeout(PATIENCE)
            start = time.monotonic()
            while silent.recv(1 << 12):
                pass
            assert time.monotonic() - start < 10
    assert "session ended: waiting for HELLO: the peer took too long" in caplog.text


def test_images_are_counted_and_limited_per_client():
    with service(images_per_client=2) as address:
        for _ in range(2):  # a new session is no new client
            client = Client(connect(address, PATIENCE))
            client.infer(client.prepare(), IMAGES[0])
            client.close()
        client = Client(connect(address, PATIENCE))
        bundle = client.prepare()
        with pytest.raises(ProtocolError, match="all 2 images that this server answers a client have been asked for"):
            client.infer(bundle, IMAGES[0])
        client.channel.fail("no more")
    quota = Quota(1)
    for peer in "ab":
        quota.take(peer)
        with pytest.raises(ProtocolError):
            quota.take(peer)


def test_the_pool_is_memory_that_clients_share():
    size = LENGTHS.server_bundle_bytes
    assert ServiceSettings(clients=4, pool=12 * size).bundles(size) == 3
    with pytest.raises(UserError, match=f"a bundle takes {size} bytes; expected at least {4 * size}, or fewer clients"):
        ServiceSettings(clients=4, pool=4 * size - 1).bundles(size)
    with pytest.raises(UserError, match="--images-per-client 0: expected at least 1"):
        ServiceSettings(images_per_client=0)


def serve_program(folder, network, policy, monkeypatch, *options):
    monkeypatch.setattr("autoprivacy.protocol.server.serve_clients", lambda *arguments: None)
    network.save(folder / "network.npz")
    policy.save(folder / "policy.json")
    files = [f"--network={folder / 'network.npz'}", f"--policy={folder / 'policy.json'}"]
    return server_main([*files, *options])


def test_approximate_policies_give_the_label_alone_unless_clients_are_trusted(tmp_path, monkeypatch, capsys, caplog):
    loose = layerwise(NETWORK, "residual", P_PRIME, dict.fromkeys(NETWORK.layers, Target(2.0**-7)), FLOODED)
    assert serve_program(tmp_path, NETWORK, loose, monkeypatch) == 1
    assert "is approximate and gives logits: clients that repeat queries learn weights" in capsys.readouterr().err
    assert serve_program(tmp_path, NETWORK, replace(loose, output="scores"), monkeypatch) == 1
    assert serve_program(tmp_path, NETWORK, replace(loose, output="label"), monkeypatch) == 0
    assert serve_program(tmp_path, NETWORK, loose, monkeypatch, "--allow-approximate-logits") == 0
    assert caplog.text.count("the policy is approximate") == 2


def test_a_policy_of_other_weights_is_refused_when_the_server_starts(tmp_path, monkeypatch, capsys, caplog):
    layers = dict(NETWORK.layers)
    weight = layers["fc"].weight.copy()
    weight[0, 0] += 1
    layers["fc"] = replace(layers["fc"], weight=weight)
    other = IntegerNetwork(NETWORK.architecture, layers, NETWORK.output_scale)
    assert serve_program(tmp_path, other, POLICY, monkeypatch) == 1
    assert "made for another network: weights, shapes, shifts or ranges differ" in capsys.readouterr().err
    assert serve_program(tmp_path, NETWORK, POLICY, monkeypatch) == 0 and caplog.text == ""
    louder = {name: replace(layer, weight=np.sign(layer.weight) * 127) for name, layer in NETWORK.layers.items()}
    loud = IntegerNetwork(NETWORK.architecture, louder, NETWORK.output_scale)
    assert serve_program(tmp_path, loud, replace(POLICY, commitment=None), monkeypatch) == 1
    assert "norm_bound" in capsys.readouterr().err


def test_clients_are_told_what_both_must_agree_on_and_no_more():
    told = json.loads(Agreement(NETWORK.architecture, POLICY).to_bytes())["policy"]
    assert told["provenance"] == {} and told["predicted"] == {} and told["commitment"] is None
    assert all(layer["predicted"] == {} for layer in told["layers"])
    assert POLICY.commitment is not None and POLICY.layers[0].predicted
