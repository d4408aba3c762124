"""Questions about the graph, and one step of evaluation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.search_support import small_network

from autoprivacy.quantization.architecture import Architecture, Node
from autoprivacy.quantization.operations import ArrayOperations, Operations
from autoprivacy.quantization.tensor_operations import TensorOperations

SMALL = small_network().architecture


def with_nodes(*added: Node) -> Architecture:
    """The small network with nodes put before its sum."""
    nodes = list(SMALL.nodes)
    position = [node.name for node in nodes].index("sum")
    return replace(SMALL, nodes=(*nodes[:position], *added, *nodes[position:]))


def test_nodes_by_what_they_are() -> None:
    assert [node.name for node in SMALL.linear_nodes] == [layer.name for layer in SMALL.layers]
    assert {node.operation for node in SMALL.activations} == {"activation"} and not SMALL.squares
    assert all(node in SMALL.nodes for node in SMALL.activations)


def test_a_node_belongs_to_the_layer_before_it() -> None:
    preceding = SMALL.preceding_layer
    assert preceding[SMALL.nodes[0].name] == "input" and preceding["first.relu"] == "first"
    assert preceding["sum"] == preceding["clipped"] == "body.second" and preceding["fc"] == "fc"


def test_feeders_and_readers_are_seen_through_local_operations() -> None:
    graph = with_nodes(Node("louder", "scale", ("body.second",), (6, 8, 8), factor=-4))
    assert graph.feeders["louder"] == {"body.second": 4.0} and graph.feeders["body.second"] == {"body.second": 1.0}
    assert graph.feeders["first.relu"] == {} and "body.second" in graph.feeders["sum"]
    assert graph.reading_layers["first.relu"] >= {"body.second"} and graph.reading_layers["fc"] == set()
    assert [node.name for node in graph.readers["body.second"]] == ["louder", "sum"]
    assert [node.name for node in graph.activations_of["body.second"]] == ["clipped"]
    assert graph.activations_of["fc"] == ()


def test_local_operations_agree_on_arrays_and_tensors() -> None:
    x = np.random.default_rng(0).integers(-50, 50, (4, 6, 6))
    tensor = torch.from_numpy(x.astype(np.float64))[None]
    for node in (
        Node("pool", "sum_pool", ("x",), (4, 3, 3), kernel=2, stride=2),
        Node("flat", "flatten", ("x",), (144, 1, 1)),
        Node("sum", "add", ("x", "x"), (4, 6, 6)),
        Node("one", "scale", ("x",), (4, 6, 6), factor=3),
        Node("each", "scale", ("x",), (4, 6, 6), factor=(1, -2, 3, 4)),
        Node("sub", "subsample", ("x",), (4, 3, 3), stride=2),
        Node("pad", "pad_channels", ("x",), (7, 6, 6), before=1, after=2),
    ):
        count = len(node.inputs)
        values = ArrayOperations().step(node, [x] * count), TensorOperations().step(node, [tensor] * count)
        assert values[0].shape == node.shape and np.array_equal(values[0], values[1][0].numpy()), node.name


def test_operations_that_nobody_gives_are_refused() -> None:
    for name in ("input", "linear", "activation"):
        node = Node("x", name, () if name == "input" else ("y",))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"node x: {name} is not local"):
            ArrayOperations().step(node, [np.zeros((1, 1, 1))] * len(node.inputs))
    with pytest.raises(ValueError, match="node x: unknown operation step"):
        Operations[int]().step(Node("x", "step"), [])  # type: ignore[arg-type]
