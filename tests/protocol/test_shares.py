"""Share arithmetic: exact against integer convolution, linear in the shares."""

import numpy as np
import pytest

from autoprivacy.protocol.shares import apply_layer, local_operation
from autoprivacy.quantization.integer_network import LayerShape, LinearLayer, Node, sign_threshold, to_signed

P = 1032193
RNG = np.random.default_rng(5)


def direct_convolution(layer, values):
    shape = layer.shape
    channels, rows, columns = shape.output_shape
    padded = np.pad(values, ((0, 0), (shape.padding,) * 2, (shape.padding,) * 2))
    per_group, filters = shape.input_shape[0] // shape.groups, channels // shape.groups
    out = np.zeros(shape.output_shape, object)
    for o, y, x in np.ndindex(channels, rows, columns):
        group = o // filters
        window = padded[
            group * per_group : (group + 1) * per_group,
            y * shape.stride : y * shape.stride + shape.kernel[0],
            x * shape.stride : x * shape.stride + shape.kernel[1],
        ]
        out[o, y, x] = int((layer.weight[o] * window).sum()) + int(layer.bias[o])
    return out


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "stride", "padding", "groups"),
    [(3, 4, 3, 1, 1, 1), (4, 6, 3, 2, 1, 2), (4, 4, 3, 1, 0, 4), (5, 7, 1, 1, 0, 1), (2, 3, 2, 2, 1, 1)],
)
def test_linear_layers_are_exact(inputs, outputs, kernel, stride, padding, groups):
    shape = LayerShape("a", "convolution", (inputs, 7, 6), outputs, (kernel, kernel), stride, padding, groups)
    weight = RNG.integers(-127, 128, (outputs, inputs // groups, kernel, kernel))
    layer = LinearLayer(shape, weight, RNG.integers(-(10**6), 10**6, outputs))
    values = RNG.integers(0, P, shape.input_shape)
    assert np.array_equal(apply_layer(layer, values, P), direct_convolution(layer, values) % P)


def test_sums_that_doubles_cannot_hold_are_refused():
    shape = LayerShape("big", "fully_connected", (1 << 20, 1, 1), 1, (1, 1))
    layer = LinearLayer(shape, np.zeros((1, 1 << 20, 1, 1), np.int64), np.zeros(1, np.int64))
    with pytest.raises(ValueError, match="exceed 2\\^53"):
        apply_layer(layer, np.zeros((1 << 20, 1, 1), np.int64), 1 << 30)


def nodes():
    return [
        Node("pool", "sum_pool", ("a",), (3, 2, 3), kernel=2, stride=2),
        Node("flat", "flatten", ("a",), (72, 1, 1)),
        Node("add", "add", ("a", "b"), (3, 4, 6)),
        Node("scale", "scale", ("a",), (3, 4, 6), factor=8),
    ]


@pytest.mark.parametrize("node", nodes(), ids=lambda node: node.operation)
def test_local_operations_on_shares_give_shares_of_the_result(node):
    values = [RNG.integers(0, P, (3, 4, 6)) for _ in node.inputs]
    masks = [RNG.integers(0, P, (3, 4, 6)) for _ in node.inputs]
    shares = [(v - m) % P for v, m in zip(values, masks, strict=True)]
    total = (local_operation(node, shares, P) + local_operation(node, masks, P)) % P
    expected = {
        "sum_pool": lambda: values[0].reshape(3, 2, 2, 3, 2).sum((2, 4)),
        "flatten": lambda: values[0].reshape(72, 1, 1),
        "add": lambda: values[0] + values[1],
        "scale": lambda: values[0] * 8,
    }[node.operation]()
    assert np.array_equal(total, expected % P)


def test_other_operations_are_not_local():
    with pytest.raises(ValueError, match="not local"):
        local_operation(Node("x", "activation", ("a",)), [np.zeros((1, 1, 1), np.int64)], P)


@pytest.mark.parametrize("p", [P, 1 << 20, 13])
def test_signed_residues(p):
    threshold = sign_threshold(p)
    assert to_signed(np.array([0, 1, threshold - 1, threshold, p - 1, p, -1]), p).tolist() == [
        0,
        1,
        threshold - 1,
        threshold - p,
        -1,
        0,
        -1,
    ]
