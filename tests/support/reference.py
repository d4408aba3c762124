"""The integer network's semantics written out in plain integer arithmetic: slow, to check others by and to read.

Everything else that evaluates an integer network (evaluation.py, the secure protocol) must give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from autoprivacy.quantization.integer_network import (
    IntegerNetwork,
    LinearLayer,
    Node,
    rounding_constant,
    to_signed,
)
from autoprivacy.quantization.outputs import Output, shown
from autoprivacy.quantization.residues import Residues, truncated_activation


def reference_forward(
    network: IntegerNetwork,
    image: np.ndarray,
    modulus: int | Residues | None,
    client_shares: Mapping[str, np.ndarray] | None = None,
    output: Output = "logits",
) -> np.ndarray:
    """The outputs of one image, signed modulo p, or what a client learns of them.

    Args:
        network: the integer network.
        image: int64 [C, H, W], as Architecture.quantize_images gives it.
        modulus: p, below 2^40, or what a policy says of every node; None for integers without a modulus.
        client_shares: the client's share of what each activation reads that ignores share bits, by the activation's
            name, int64 of its shape; None lets activations round to the nearest.
        output: what a client learns (`outputs.shown`); but for logits it takes a modulus.

    Returns:
        int64 [outputs], for a label [1].
    """
    architecture = network.architecture
    residues = Residues.uniform(architecture, modulus) if isinstance(modulus, int) else modulus
    read: Mapping[str, int] = residues.read if residues else {}
    values: dict[str, np.ndarray] = {}
    for node in architecture.nodes:
        if residues and client_shares and residues.ignored_bits.get(node.name):
            own = (node, residues.window(node.inputs[0]), residues.ignored_bits[node.name])
            value = truncated_activation(values[node.inputs[0]], client_shares[node.name], *own)
        else:
            value = _value(network, node, [values[name] for name in node.inputs], image, residues)
        moduli = residues.moduli[node.name] if residues else ()
        values[node.name] = _reduced(value, moduli[0] if len(moduli) == 1 else None)
    last = architecture.nodes[-1].name
    logits = _signed(values[last], read.get(last)).reshape(-1)
    return logits if output == "logits" else shown(logits, output, read[last])


def _value(
    network: IntegerNetwork, node: Node, inputs: list[np.ndarray], image: np.ndarray, residues: Residues | None
) -> np.ndarray:
    if node.operation == "input":
        return image.astype(np.int64)
    x = inputs[0]
    if node.operation == "linear":
        return _linear(network.layers[node.name], x, residues.read[node.name] if residues else None)
    if node.operation == "activation":
        rounded = x + rounding_constant(node.shift)
        shifted = (residues.window(node.inputs[0]).read(rounded) if residues else rounded) >> node.shift
        clipped = np.clip(shifted, node.minimum, node.maximum)
        if node.table:
            return np.array([node.table[level - node.minimum] for level in clipped.reshape(-1)]).reshape(clipped.shape)
        return clipped * clipped if node.squared else clipped
    if node.operation == "sum_pool":
        return _windows_sum(node, x)
    if node.operation == "flatten":
        return x.reshape(-1, 1, 1)
    if node.operation == "add":
        return x + inputs[1]
    if node.operation == "scale":
        return x * node.factors
    if node.operation == "subsample":
        return x[:, :: node.strides[0], :: node.strides[1]]
    if node.operation == "window":
        return _taken(node, x)
    if node.operation == "pad_channels":
        return np.pad(x, ((node.before, node.after), (0, 0), (0, 0)))
    raise ValueError(f"node {node.name}: unknown operation {node.operation}")


def _linear(layer: LinearLayer, x: np.ndarray, modulus: int | None) -> np.ndarray:
    shape = layer.shape
    channels, rows, columns = shape.output_shape
    padding = ((0, 0), (shape.padding, shape.padding), (shape.padding, shape.padding))
    padded = np.pad(x, padding)
    result = np.zeros((channels, rows, columns), np.int64)
    inputs_per_group = shape.input_shape[0] // shape.groups
    outputs_per_group = channels // shape.groups
    for output in range(channels):
        first = output // outputs_per_group * inputs_per_group
        for i in range(shape.kernel[0]):
            for j in range(shape.kernel[1]):
                row_end, column_end = i + shape.stride * rows, j + shape.stride * columns
                window = padded[
                    first : first + inputs_per_group, i : row_end : shape.stride, j : column_end : shape.stride
                ]
                # one kernel position at a time, reduced, so that int64 holds every sum
                products = (layer.weight[output, :, i, j, None, None] * window).sum(0)
                result[output] = _reduced(result[output] + products, modulus)
    return result + layer.bias[:, None, None]


def _windows_sum(node: Node, x: np.ndarray) -> np.ndarray:
    channels, rows, columns = node.shape
    result = np.zeros((channels, rows, columns), np.int64)
    down, along = node.strides
    for i in range(node.window[0]):
        for j in range(node.window[1]):
            result += x[:, i::down, j::along][:, :rows, :columns]
    return result


def _taken(node: Node, x: np.ndarray) -> np.ndarray:
    channels, rows, columns = node.shape
    result = np.zeros(node.shape, np.int64)
    for i in range(rows):
        for j in range(columns):
            row = min(max(node.offset[0] + i * node.strides[0], 0), x.shape[1] - 1)
            column = min(max(node.offset[1] + j * node.strides[1], 0), x.shape[2] - 1)
            result[:, i, j] = x[:, row, column]
    return result


def _reduced(values: np.ndarray, modulus: int | None) -> np.ndarray:
    return values if modulus is None else values % modulus


def _signed(values: np.ndarray, modulus: int | None) -> np.ndarray:
    return values if modulus is None else to_signed(values, modulus)
