"""What the two parties agree on is checked before anything secret moves."""

import json
from dataclasses import replace

import numpy as np
import pytest
from made_up_profile import LINK, PROFILE

from autoprivacy.errors import UserError
from autoprivacy.he.parameters import Flooding
from autoprivacy.he.schemes import darl
from autoprivacy.he.selection import Selection
from autoprivacy.protocol.server import Model
from autoprivacy.protocol.session import Agreement
from autoprivacy.quantization.integer_network import Architecture, IntegerNetwork, LayerShape, LinearLayer, Node

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
        Model(other, policy)
    announcement = json.loads(told)
    announcement["architecture"]["nodes"][-1].update(change)
    with pytest.raises(UserError, match=message):
        Agreement.from_bytes(json.dumps(announcement).encode())
