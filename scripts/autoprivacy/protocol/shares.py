"""Arithmetic on additive shares modulo p that each party does alone: pooling, additions, squares by Beaver triples, and
the server's own linear layers in the clear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from autoprivacy.quantization.integer_network import LinearLayer, Node
from autoprivacy.quantization.operations import ArrayOperations

LOCAL = ArrayOperations()
ModularShares = dict[int, np.ndarray]  # one party's shares of a value by modulus, int64 [C, H, W] in [0, p)


def local_shares(node: Node, shares: Mapping[str, ModularShares], moduli: Sequence[int]) -> ModularShares:
    """Shares of a node's output modulo each of its moduli, from those of its inputs."""
    return {p: local_operation(node, [shares[name][p] for name in node.inputs], p) for p in moduli}


def local_operation(node: Node, inputs: list[np.ndarray], modulus: int) -> np.ndarray:
    """A share of the node's output from shares of its inputs, int64 [C, H, W] in [0, p).

    All these operations are linear without constants, so both parties do the same to their shares.
    """
    return LOCAL.step(node, inputs) % modulus


def masked_square(
    u: np.ndarray, factor: np.ndarray, product: np.ndarray, share: np.ndarray, modulus: int
) -> np.ndarray:
    """What the client sends for the server to have a share of x^2, v = u - a and w = u^2 - 2 h - r', int64 [2, ...].

    Args:
        u: x + rho modulo p, rho the server's; residues int64 as all others.
        factor: a, uniform and used once.
        product: h, the client's share of a rho.
        share: r', the client's share of x^2, uniform and used once.
        modulus: p, at most 2^32.
    """
    return np.stack([(u - factor) % modulus, (_product(u, u, modulus) - 2 * product - share) % modulus])


def square_share(masked: np.ndarray, factor: np.ndarray, product: np.ndarray, modulus: int) -> np.ndarray:
    """The server's share of x^2, x^2 - r' = w - 2 v rho - 2 m + rho^2 modulo p, int64.

    Because x = u - rho, x^2 = u^2 - 2 u rho + rho^2, and u rho = v rho + a rho = v rho + h + m.

    Args:
        masked: v and w of `masked_square`, int64 [2, ...].
        factor: rho.
        product: m, the server's share of a rho.
        modulus: p, at most 2^32.
    """
    v, w = masked
    square = _product(factor, factor, modulus)
    return (w - 2 * _product(v, factor, modulus) - 2 * product + square) % modulus


def _product(x: np.ndarray, y: np.ndarray, modulus: int) -> np.ndarray:
    """Products of residues, int64; unsigned on the way, as they may take 64 bits."""
    return (x.astype(np.uint64) * y.astype(np.uint64) % np.uint64(modulus)).astype(np.int64)


def apply_layer(layer: LinearLayer, values: np.ndarray, modulus: int) -> np.ndarray:
    """M v + b modulo p for residues v int64 [C, H, W]; exact: the sums stay below 2^53.

    Double-precision matrix products are exact on integers up to 2^53; a residue of 24 bits, a weight of 7 and 2^20
    summands stay below that.
    """
    shape = layer.shape
    if modulus.bit_length() + 7 + int(layer.weight[0].size).bit_length() > 53:
        raise ValueError(f"layer {shape.name}: sums of {layer.weight[0].size} products modulo {modulus} exceed 2^53")
    pad = ((0, 0), (shape.padding, shape.padding), (shape.padding, shape.padding))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, pad), shape.kernel, axis=(1, 2))
    windows = windows[:, :: shape.stride, :: shape.stride]  # [C, H', W', kernel rows, kernel columns]
    channels, rows, columns = shape.output_shape
    per_group = shape.input_shape[0] // shape.groups
    grouped = windows.reshape(shape.groups, per_group, rows, columns, *shape.kernel)
    columns_matrix = grouped.transpose(0, 1, 4, 5, 2, 3).reshape(shape.groups, -1, rows * columns).astype(np.float64)
    weights = layer.weight.reshape(shape.groups, channels // shape.groups, -1).astype(np.float64)
    products = np.rint(weights @ columns_matrix).astype(np.int64).reshape(channels, rows, columns)
    return (products + layer.bias[:, None, None]) % modulus
