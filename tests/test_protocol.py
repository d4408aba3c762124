"""The protocol end to end: equal to the integer network, fresh every time, and strict about what it accepts."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_profile import LINK, PROFILE
from scipy import stats

from autoprivacy.errors import UserError
from autoprivacy.he.cipher import public_key_bytes
from autoprivacy.he.packing import PACKINGS
from autoprivacy.he.parameters import Flooding, Target
from autoprivacy.he.plaintext import plaintext_modulus
from autoprivacy.he.rotation import GaloisKeyMaker, galois_key_bytes
from autoprivacy.he.schemes import darl, delphi, delphi_worst_case, layerwise
from autoprivacy.he.security import InsecureParameters
from autoprivacy.he.selection import Selection
from autoprivacy.policy import EXACT_TARGET
from autoprivacy.protocol.channel import HEADER, Channel, Message, ProtocolError
from autoprivacy.protocol.client import Client
from autoprivacy.protocol.server import Model, serve
from autoprivacy.protocol.session import Agreement
from autoprivacy.quantization.integer_network import Architecture, IntegerNetwork, LayerShape, LinearLayer, Node
from autoprivacy.quantization.reference import reference_forward

ROOT = Path(__file__).parents[1]
P_PRIME, P_POWER = 1032193, 1 << 20
P_WORST = plaintext_modulus(1 << 24, -(1 << 24), degree_for_batching=1 << 14)  # holds all that any image can give


def residual_network():
    """A strided, a grouped and a residual convolution, sum pooling, fully connected; 8x8 images."""
    rng = np.random.default_rng(3)
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
    layers = {}
    for shape in shapes:
        size = (shape.output_channels, shape.input_shape[0] // shape.groups, *shape.kernel)
        weight = rng.normal(0, 25, size).round().clip(-127, 127).astype(np.int64)
        layers[shape.name] = LinearLayer(shape, weight, rng.integers(-2000, 2000, shape.output_channels))
    return IntegerNetwork(Architecture(nodes, shapes, (0.5,) * 3, (0.25,) * 3, 0.02), layers, 1e-5)


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
def session(policy=POLICY, network=NETWORK, expected=None):
    """A client connected to a server thread; yields the client and the recorders of both ends."""
    left, right = (Recorder(end) for end in socket.socketpair())
    thread = threading.Thread(target=lambda: serve(Model(network, policy), Channel(right, 20)))
    thread.start()
    channel = Channel(left, 20)
    try:
        client = Client(channel, expected)
        yield client, (left, right)
        with contextlib.suppress(ProtocolError):
            client.close()
    finally:
        channel.close()
        thread.join(timeout=30)
    assert not thread.is_alive()


@pytest.mark.parametrize("p", [P_PRIME, P_POWER])
@pytest.mark.parametrize("kind", ["statistical", "none"])
def test_outputs_equal_the_integer_network_bit_for_bit(p, kind):
    policy = darl(NETWORK, "residual", p, Selection(PROFILE, LINK, Flooding(kind)))
    with session(policy) as (client, _):
        for image in IMAGES:
            assert np.array_equal(client.infer(client.prepare(), image), reference_forward(NETWORK, image, p))


@pytest.mark.parametrize("kind", ["statistical", "none"])
@pytest.mark.parametrize("scheme", ["delphi", "delphi-worst-case", "darl", "layerwise"])
def test_slot_packing_gives_the_integer_network_too(scheme, kind):
    selection = Selection(PROFILE, LINK, Flooding(kind), "slot")
    targets = dict.fromkeys(NETWORK.layers, EXACT_TARGET)
    policy = {
        "delphi": lambda: delphi(NETWORK, "r", (-60_000, 60_000), selection),
        "delphi-worst-case": lambda: delphi_worst_case(NETWORK, "r", P_WORST, selection),
        "darl": lambda: darl(NETWORK, "r", P_PRIME, selection),
        "layerwise": lambda: layerwise(NETWORK, "r", P_PRIME, targets, selection),
    }[scheme]()
    with session(policy) as (client, _):
        outputs = client.infer(client.prepare(), IMAGES[0])
    assert np.array_equal(outputs, reference_forward(NETWORK, IMAGES[0], policy.plaintext_modulus))


@pytest.mark.parametrize("kind", ["statistical", "none"])
def test_the_worst_case_rule_gives_the_integer_network_in_coefficient_packing(kind):
    policy = delphi_worst_case(NETWORK, "r", P_WORST, Selection(PROFILE, LINK, Flooding(kind)))
    with session(policy) as (client, _):
        outputs = client.infer(client.prepare(), IMAGES[0])
    assert np.array_equal(outputs, reference_forward(NETWORK, IMAGES[0], P_WORST))


def test_a_policy_with_several_plaintext_moduli_is_refused():
    moduli = {"first": P_PRIME, "second": P_POWER, "fc": P_PRIME}
    policy = layerwise(NETWORK, "r", moduli, dict.fromkeys(NETWORK.layers, EXACT_TARGET), FLOODED)
    with pytest.raises(UserError, match=r"plaintext moduli \[1032193, 1048576\]; the protocol works modulo one"):
        Model(NETWORK, policy)


def test_galois_keys_are_sent_where_layers_rotate_and_count_in_the_set_up():
    agreement = Agreement(NETWORK.architecture, SLOT_POLICY)
    (parameters,) = agreement.parameter_sets
    elements = agreement.galois_elements(parameters)
    assert elements and set(elements) == {
        e for la in SLOT_POLICY.layers for e in agreement.plan(la.name).galois_elements
    }
    with session(SLOT_POLICY) as (client, _):
        set_up = client.ledger.phases[0]["bytes_sent"]
    keys = public_key_bytes(parameters) + galois_key_bytes(parameters, len(elements))
    assert keys + 3 * HEADER.size < set_up < keys + 10_000  # the rest are base oblivious transfers
    (coefficient,) = Agreement(NETWORK.architecture, POLICY).parameter_sets
    assert Agreement(NETWORK.architecture, POLICY).galois_elements(coefficient) == ()


def test_missing_galois_keys_end_the_session(monkeypatch):
    monkeypatch.setattr(GaloisKeyMaker, "keys", lambda self, elements: b"none")
    with (
        pytest.raises(ProtocolError, match=r"GALOIS_KEYS is malformed: \d+ Galois keys: expected \d+ bytes, got 4"),
        session(SLOT_POLICY),
    ):
        pass


def test_a_modulus_that_does_not_batch_and_an_unknown_packing_are_refused():
    with pytest.raises(UserError, match="packing 'sloth': expected one of coefficient, slot"):
        Agreement(NETWORK.architecture, replace(POLICY, packing="sloth"))
    layers = tuple(
        replace(layer, parameters=replace(layer.parameters, plaintext_modulus=P_POWER)) for layer in SLOT_POLICY.layers
    )
    agreement = Agreement(NETWORK.architecture, replace(SLOT_POLICY, layers=layers))
    with pytest.raises(UserError, match="plaintext modulus 1048576 does not batch"):
        agreement.plan("first")


def test_bundles_may_be_prepared_ahead_and_used_in_any_order():
    with session() as (client, _):
        bundles = [client.prepare() for _ in range(3)]
        for index in (2, 0, 1):
            outputs = client.infer(bundles[index], IMAGES[index])
            assert np.array_equal(outputs, reference_forward(NETWORK, IMAGES[index], P_PRIME))


def test_tolerated_errors_change_outputs_a_little():
    """At a rate of one half every accumulator is off by about one: far from exact, and far from garbage."""
    names = [layer.name for layer in POLICY.layers]
    policy = layerwise(NETWORK, "r", P_PRIME, dict.fromkeys(names, Target(0.5)), FLOODED)
    assert not policy.promises_exactness() and POLICY.promises_exactness()
    with session(policy) as (client, _):
        differences = np.concatenate(
            [client.infer(client.prepare(), image) - reference_forward(NETWORK, image, P_PRIME) for image in IMAGES]
        )
    assert np.any(differences) and np.abs(differences).max() < 20000


def test_a_bundle_is_used_once():
    with session() as (client, _):
        bundle = client.prepare()
        copies = replace(bundle, shares=dict(bundle.shares), labels=dict(bundle.labels), tables=dict(bundle.tables))
        client.infer(bundle, IMAGES[0])
        with pytest.raises(ProtocolError, match="bundle 0 was used before"):
            client.infer(copies, IMAGES[1])


def test_another_policy_than_the_expected_is_refused():
    other = darl(NETWORK, "residual", P_POWER, FLOODED)
    with pytest.raises(ProtocolError, match="not the expected"), session(expected=other):
        pass
    with session(expected=POLICY) as (client, _):
        assert client.agreement.policy.essence() == POLICY.essence()


def test_the_client_refuses_insecure_parameters_on_its_own():
    value = json.loads(Agreement(NETWORK.architecture, POLICY).to_bytes())
    value["policy"]["layers"][0]["parameters"]["polynomial_degree"] = 2048
    with pytest.raises(InsecureParameters, match="n = 2048"):
        Agreement.from_bytes(json.dumps(value).encode())
    with pytest.raises(ProtocolError, match="announcement is damaged"):
        Agreement.from_bytes(b"{}")


def test_a_policy_of_other_layers_is_refused():
    with pytest.raises(UserError, match="the network has"):
        Agreement(NETWORK.architecture, replace(POLICY, layers=POLICY.layers[:2]))


def payload_blocks(stream):
    """The aligned 16-byte blocks of every payload in a recorded stream of frames."""
    blocks = set()
    while stream:
        _, _, length = HEADER.unpack_from(stream)
        payload, stream = stream[HEADER.size : HEADER.size + length], stream[HEADER.size + length :]
        blocks |= {bytes(payload[i : i + 16]) for i in range(0, length - 15, 16)}
    return blocks


def test_two_runs_on_one_image_have_no_block_in_common():
    runs = []
    for _ in range(2):
        with session() as (client, ends):
            client.infer(client.prepare(), IMAGES[0])
        runs.append([payload_blocks(end.sent) for end in ends])
    announcement = {bytes(WELCOME[i : i + 16]) for i in range(0, len(WELCOME) - 15, 16)}
    for first, second in zip(*runs, strict=True):
        assert len(first) > 1000
        assert first & second <= announcement


def test_masked_values_are_uniform():
    """What the server receives of the image, whatever the image: x - r over many bundles."""
    with session() as (client, _):
        masked = [(IMAGES[0] - bundle.shares["image"]) % P_PRIME for bundle in (client.prepare() for _ in range(20))]
    assert stats.kstest(np.concatenate(masked).ravel() / P_PRIME, "uniform").pvalue > 1e-4


def test_every_byte_and_second_is_accounted_for():
    with session() as (client, ends):
        client.infer(client.prepare(), IMAGES[0])
        phases = client.ledger.phases
    assert [phase["phase"] for phase in phases] == ["set-up", "offline", "online"]
    goodbye = 10
    assert sum(phase["bytes_sent"] for phase in phases) == len(ends[0].sent) - goodbye
    assert sum(phase["bytes_received"] for phase in phases) == len(ends[1].sent)
    for phase in phases:
        assert 0 < sum(part["seconds"] for part in phase["parts"]) <= phase["seconds"]


@pytest.mark.parametrize("message", [Message.ENCRYPTED_MASKS, Message.OT_EXTENSION])
def test_a_wrong_message_ends_the_session_with_an_error_on_both_sides(message, monkeypatch):
    with session() as (client, _):
        send = client.channel.send
        monkeypatch.setattr(
            client.channel, "send", lambda kind, *parts: send(kind, *(parts if kind != message else (b"short",)))
        )
        with pytest.raises(ProtocolError, match=f"the peer ended the session: {message.name} is malformed: .*expected"):
            client.prepare()


def test_a_server_that_goes_away_is_noticed():
    with session() as (client, ends):
        ends[1].connection.shutdown(socket.SHUT_RDWR)
        with pytest.raises(ProtocolError, match="closed the connection|broke"):
            client.prepare()


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("server", ["--network", "none.npz", "--policy", "none.json"], "server: none.npz: no such file"),
        ("client", ["--connect", "127.0.0.1:1", "--dataset", "none.npz"], "client: none.npz: no such file"),
    ],
)
def test_the_programs_tell_mistakes_in_one_line(program, arguments, message, tmp_path):
    command = [sys.executable, "-m", f"autoprivacy.protocol.{program}", *arguments]
    environment = {"PYTHONPATH": str(ROOT / "scripts"), "PATH": "/usr/bin:/bin"}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.strip() == message
