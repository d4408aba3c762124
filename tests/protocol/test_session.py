"""What the two parties agree on is checked before anything secret moves."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support.made_up_profile import LINK, PROFILE

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.parameter_set import Flooding
from autoprivacy.protocol.bundles import OnceWritten
from autoprivacy.protocol.channel import ProtocolError
from autoprivacy.protocol.server import Model
from autoprivacy.protocol.server import main as server_main
from autoprivacy.protocol.session import Agreement, first_difference, pack_shares, unpack_shares
from autoprivacy.quantization.integer_network import Architecture, IntegerNetwork, LayerShape, LinearLayer, Node
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.schemes import darl

P = 1032193


def network_with(activation):
    shape = LayerShape("conv", "convolution", (1, 4, 4), 1, (1, 1), input_maximum=128)
    nodes = (Node("image", "input", (), (1, 4, 4)), Node("conv", "linear", ("image",), (1, 4, 4)), activation)
    architecture = Architecture(nodes, (shape,), (0.5,), (0.2,), 0.02)
    layer = LinearLayer(shape, np.full((1, 1, 1, 1), 3), np.zeros(1, np.int64))
    return IntegerNetwork(architecture, {"conv": layer}, 1.0)


RELU = Node("relu", "activation", ("conv",), (1, 4, 4), shift=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maximum": 200}, r"darl of small: relu: .*clip to \[0, 200\]"),
        ({"minimum": 3}, r"darl of small: relu: .*clip to \[3, 255\]"),
        ({"shift": 19}, "darl of small: relu: .*shift 19; expected 0 to 18"),
    ],
)
def test_an_activation_without_a_circuit_is_refused_by_both_parties(change, message):
    network = network_with(RELU)
    policy = darl(network, "small", P, Selection(PROFILE, LINK, Flooding("statistical")))
    told = Agreement(network.architecture, policy).to_bytes()
    other = network_with(replace(RELU, **change))
    with pytest.raises(UserError, match=message):
        Model(other, replace(policy, commitment=None))
    announcement = json.loads(told)
    announcement["architecture"]["nodes"][-1].update(change)
    with pytest.raises(UserError, match=message):
        Agreement.from_bytes(json.dumps(announcement).encode())


def test_the_first_difference_of_two_values_is_named_with_both():
    value = {"a": [1, {"b": None}], "c": "x"}
    assert first_difference(value, {"c": "x", "a": [1, {"b": None}]}) is None
    assert first_difference(value, {**value, "a": [1, {"b": 2}]}) == "a.1.b: null expected, 2 told"
    assert first_difference(value, {**value, "a": [1]}) == 'a: [1, {"b": null}] expected, [1] told'
    assert first_difference({}, {"new": 3}) == "new: null expected, 3 told"


def test_a_server_announces_what_its_clients_may_expect(tmp_path):
    network = network_with(RELU)
    policy = darl(network, "small", P, Selection(PROFILE, LINK, Flooding("statistical")))
    network.save(tmp_path / "network.npz")
    policy.save(tmp_path / "policy.json")
    announced = tmp_path / "announcement.json"
    files = ["--network", str(tmp_path / "network.npz"), "--policy", str(tmp_path / "policy.json")]
    assert server_main([*files, "--announce", str(announced)]) == 0
    told = Agreement.from_bytes(announced.read_bytes())
    told.check_expected(policy, network.architecture)
    other = network_with(replace(RELU, shift=4)).architecture
    with pytest.raises(ProtocolError, match="architecture is not the expected one: nodes.2.shift: 4 expected, 3 told"):
        told.check_expected(policy, other)


def test_a_share_is_refused_by_length_range_and_spare_bits():
    share = np.array([0, 1, P - 1]).reshape(3, 1, 1)
    packed = pack_shares({P: share})
    assert np.array_equal(unpack_shares(packed, (P,), (3, 1, 1))[P], share)
    for wrong, words in (
        (packed[:-1], "shares of 3 residues have 8 bytes, got 7"),
        (pack_shares({P: np.array([P, 0, 0])}), f"a share holds {P}, allowed below {P}"),
        (packed[:-1] + b"\xff", "a share of 3 values of 20 bits: the last 4 bits are not zero"),
    ):
        with pytest.raises(ProtocolError, match=words):
            unpack_shares(wrong, (P,), (3, 1, 1))


def test_a_share_once_drawn_is_never_replaced():
    """A second share of a node would be a one-time pad that somebody else chose, or one that is used twice."""
    shares = OnceWritten()
    shares["relu"] = {P: np.zeros((1, 4, 4), np.int64)}
    for _ in range(2):
        with pytest.raises(ProtocolError, match="node relu has a share already; a share is never replaced"):
            shares["relu"] = {P: np.ones((1, 4, 4), np.int64)}
        shares.pop("relu", None)  # used up; its name stays taken
