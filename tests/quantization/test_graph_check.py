"""An architecture, announced or in a file, is a graph that holds together, or it is refused in one line."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support.inverted_residual import inverted_residual_network
from support.protocol_sessions import NETWORK

from autoprivacy.errors import UserError
from autoprivacy.quantization.graph_check import check_architecture, read_architecture
from autoprivacy.quantization.integer_network import Architecture, IntegerNetwork, LayerShape, LinearLayer, Node

ARCHITECTURE = NETWORK.architecture


def changed(path, value):
    """The JSON of the architecture with the entry at `path` replaced."""
    told = json.loads(json.dumps(ARCHITECTURE.as_json()))
    place = told
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return told


@pytest.mark.parametrize("network", [NETWORK, inverted_residual_network()], ids=["residual", "inverted residual"])
def test_networks_pass_and_come_back_equal(network):
    told = json.loads(json.dumps(network.architecture.as_json()))
    assert read_architecture(told) == network.architecture


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("nodes", 1, "name"), "image", r"linear nodes \['image', 'second', 'fc'\]; expected the layers \['first'"),
        (("nodes", 2, "name"), "image", "node 'image': the name is another node's too"),
        (("nodes", 2, "name"), "x\x1b]0;title\x07", "name: expected 1 to 100 printable characters"),
        (("nodes", 2, "name"), "", "name: expected 1 to 100 printable"),
        (("nodes", 2, "name"), 7, "node 7: name: expected 1 to 100 printable"),
        (("nodes", 2, "operation"), "print", "node 'relu1': operation 'print': expected one of input, linear"),
        (("nodes", 2, "operation"), "input", "node 'relu1': operation input: expected one input, the first node"),
        (("nodes", 0, "operation"), "flatten", "node 'image': operation flatten: expected one input, the first node"),
        (("nodes", 2, "inputs"), ["relu2"], r"inputs \['relu2'\]: expected nodes that stand before it"),
        (("nodes", 2, "inputs"), ["relu1"], r"inputs \['relu1'\]: expected nodes that stand before it"),
        (("nodes", 2, "inputs"), [], "0 inputs; expected 1 for activation"),
        (("nodes", 5, "inputs"), ["second"], "1 inputs; expected 2 for add"),
        (("nodes", 2, "inputs"), "first", "inputs 'first': expected names"),
        (("nodes", 0, "inputs"), ["image"], "1 inputs; expected 0 for input"),
        (("nodes", 2, "shape"), [8, 4, 5], r"node 'relu1': shape \(8, 4, 5\); expected \(8, 4, 4\)"),
        (("nodes", 7, "shape"), [8, 1, 1], r"node 'pooled': shape \(8, 1, 1\); expected \(8, 2, 2\)"),
        (("nodes", 0, "shape"), [3, 8], r"expected 3 means|expected None means"),
        (("nodes", 0, "shape"), [3, 8, 9], r"node 'first': reads \(3, 8, 9\); its layer takes \(3, 8, 8\)"),
        (("nodes", 2, "shift"), -1, "shift -1: expected an integer from 0 to 31"),
        (("nodes", 2, "shift"), True, "shift True: expected an integer"),
        (("nodes", 2, "shift"), 2.5, "shift 2.5: expected an integer"),
        (("nodes", 2, "squared"), 1, "squared 1: expected true or false"),
        (("nodes", 2, "table"), 5, "table 5: expected a list of integers"),
        (("nodes", 2, "table"), [0, 1], "a table of 2 values; expected one for each of 256 levels"),
        (("nodes", 2, "table"), [0] * 255 + [1 << 15], "table value 32768: expected an integer from -16384 to 16384"),
        (("nodes", 2, "table"), [0] * 255 + [0.5], "table value 0.5: expected an integer"),
        (("nodes", 4, "table"), [0] * 256, "node 'scaled': a table: expected one at activations alone"),
        (("nodes", 7, "kernel"), 0, "kernel 0: expected an integer from 1"),
        (("nodes", 7, "kernel"), 9, "kernel 9: expected at most the image, 4 x 4"),
        (("nodes", 7, "stride"), [2, 0], "stride 0: expected an integer from 1"),
        (("nodes", 4, "factor"), [1, 2], "2 factors; expected one, or one for each of 8 channels"),
        (("nodes", 4, "factor"), 1 << 40, "factor 1099511627776: expected an integer"),
        (("nodes",), [], "expected None means|0 nodes; expected 2"),
        (("nodes",), 3, "damaged: TypeError"),
        (("nodes", 1, "colour"), "red", "damaged: TypeError"),
        (("layers", 0, "name"), "other", r"expected the layers \['other', 'second', 'fc'\]"),
        (("layers", 0, "kind"), "attention", "layer 'first': kind 'attention'"),
        (("layers", 0, "stride"), 0, "stride 0: expected an integer from 1"),
        (("layers", 0, "kernel"), [3], r"kernel \(3,\): expected 2 sizes"),
        (("layers", 0, "kernel"), [30, 30], "expected at most the padded image, 8 x 8"),
        (("layers", 0, "groups"), 2, "2 groups: expected a divisor of 3 and 8"),
        (("layers", 0, "output_channels"), 1 << 30, "output_channels 1073741824: expected an integer"),
        (("layers", 0, "input_shape"), [1 << 20, 1 << 20, 1], "values; allowed"),
        (("layers", 2, "kind"), "convolution", None),
        (("layers", 1, "kind"), "fully_connected", r"fully_connected: expected an input of \[features, 1, 1\]"),
        (("image_scale",), float("nan"), "image_scale .*: expected finite numbers"),
        (("image_scale",), "1", "expected finite numbers"),
        (("image_std",), [0.1, 0.2], "expected 3 means and 3 standard deviations"),
        (("image_std",), [0.1, 0.0, 0.1], "above 0"),
    ],
    ids=str,
)
def test_a_graph_that_does_not_hold_together_is_refused_in_one_line(path, value, words):
    if words is None:
        read_architecture(changed(path, value))
        return
    with pytest.raises(UserError, match=words) as caught:
        read_architecture(changed(path, value))
    assert str(caught.value).isprintable()


def test_the_sum_of_all_values_is_bounded():
    shape = (1 << 24, 1, 1)
    layer = LayerShape("fc", "fully_connected", shape, 1, (1, 1))
    more = tuple(Node(f"n{i}", "scale", ("image",), shape, factor=2) for i in range(8))
    nodes = (Node("image", "input", (), shape), *more, Node("fc", "linear", ("n7",), (1, 1, 1)))
    with pytest.raises(UserError, match="architecture: 150994945 values in all; allowed 134217728"):
        check_architecture(Architecture(nodes, (layer,), (0.5,) * (1 << 24), (0.2,) * (1 << 24), 0.02))


def test_the_levels_of_squares_are_bounded():
    """Squared and looked up they become a list: 2^31 of them took a client tens of gigabytes."""
    told = changed(("nodes", 2, "squared"), True)
    read_architecture(told)
    told["nodes"][2]["maximum"] = (1 << 31) - 1
    with pytest.raises(UserError, match="node 'relu1': 2147483648 levels that are squared; allowed 32768"):
        read_architecture(told)
    shape = (1, 1, 1)
    squares = tuple(Node(f"n{i}", "activation", ("fc",), shape, maximum=(1 << 15) - 1, squared=True) for i in range(33))
    nodes = (Node("image", "input", (), shape), Node("fc", "linear", ("image",), shape), *squares)
    layer = LayerShape("fc", "fully_connected", shape, 1, (1, 1))
    with pytest.raises(UserError, match="1081344 levels of squared activations in all; allowed 1048576"):
        check_architecture(Architecture(nodes, (layer,), (0.5,), (0.2,), 0.02))


def test_a_network_file_with_an_odd_graph_is_refused_and_named(tmp_path):
    """A layer of the input's name would make the client encrypt, and answer with, the same share twice."""
    layer = LayerShape("image", "convolution", (2, 4, 4), 2, (1, 1), input_maximum=128)
    nodes = (
        Node("image", "input", (), (2, 4, 4)),
        Node("image", "linear", ("image",), (2, 4, 4)),
        Node("relu", "activation", ("image",), (2, 4, 4), shift=3),
    )
    architecture = Architecture(nodes, (layer,), (0.5,) * 2, (0.25,) * 2, 0.02)
    weights = {"image": LinearLayer(layer, np.zeros((2, 2, 1, 1), np.int64), np.zeros(2, np.int64))}
    IntegerNetwork(architecture, weights, 1.0).save(tmp_path / "odd.npz")
    with pytest.raises(UserError, match="odd.npz: architecture: node 'image': the name is another node's too"):
        IntegerNetwork.load(tmp_path / "odd.npz")
    with pytest.raises(UserError, match="the name is another node's too"):
        check_architecture(replace(architecture, nodes=nodes[:2]))
