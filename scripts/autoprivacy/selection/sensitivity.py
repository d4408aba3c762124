"""How n and q of one layer follow its kernel size, its bit width and the decryption error rate (the paper's Figure 4).

The layer is a trained convolution. Other kernel sizes draw their weights from its own, with replacement; other bit
widths scale its weights and inputs by powers of two. The range of its accumulators grows with the root of the kernel's
area, as sums of independent terms do, and with the product of the two scales.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.parameter_set import Target
from autoprivacy.he.parameters.policy import EXACT_TARGET
from autoprivacy.quantization.integer_network import Interval, LinearLayer
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.layer_selection import select_layer
from autoprivacy.selection.plaintext_modulus import PlaintextRule

KERNEL, WIDTH, RATE = "kernel size", "bit width", "error rate"
KERNELS = (1, 3, 5, 7, 9)
WIDTHS = range(2, 13)  # beyond, p exceeds the 31 bits of the largest plaintext modulus
RATES = (-40, -35, -30, -25, -20, -15, -12, -10, -8, -7, -6, -5, -4, -3, -2)
PUBLISHED_WIDTH = 8  # bits of the trained layer's weights and inputs


@dataclass(frozen=True)
class Variant:
    """One point of the study: what is varied, its level, the layer, the range of its accumulators, its target."""

    kind: str
    level: float
    layer: LinearLayer
    accumulators: Interval
    target: Target = EXACT_TARGET


@dataclass(frozen=True)
class WideLayer(LinearLayer):
    """A layer whose weights may have more than 8 bits: parameters are selected for it, nothing evaluates it."""

    def __post_init__(self) -> None:
        """Weights of any size are allowed."""


def middle_convolution(layers: Iterable[LinearLayer]) -> LinearLayer:
    """Of the plain convolutions with 3x3 kernels and stride 1 the one in the middle; UserError where there is none."""
    found = [
        layer
        for layer in layers
        if layer.shape.kernel == (3, 3) and layer.shape.groups == 1 and layer.shape.stride == 1
    ]
    if not found:
        raise UserError("sensitivity: the network has no plain 3x3 convolution of stride 1; name another network")
    return found[len(found) // 2]


def variants(layer: LinearLayer, accumulators: Interval, seed: int) -> Iterator[Variant]:
    """Every point: kernel sizes, bit widths, error rates, one varied at a time."""
    low, high = accumulators
    for size in KERNELS:
        growth = size / max(layer.shape.kernel)
        yield Variant(
            KERNEL, size, _with_kernel(layer, size, seed), (math.floor(low * growth), math.ceil(high * growth))
        )
    for width in WIDTHS:
        scale = 2.0 ** (width - PUBLISHED_WIDTH)
        shape = replace(layer.shape, input_maximum=max(1, round(layer.shape.input_maximum * scale)))
        weight = np.rint(layer.weight * scale).astype(np.int64)
        scaled = (math.floor(low * scale**2), math.ceil(high * scale**2))
        yield Variant(WIDTH, width, WideLayer(shape, weight, layer.bias), scaled)
    for rate in RATES:
        yield Variant(RATE, rate, layer, accumulators, Target(decryption_error_rate=2.0**rate))


def _with_kernel(layer: LinearLayer, size: int, seed: int) -> LinearLayer:
    shape = replace(layer.shape, kernel=(size, size), padding=size // 2)
    weight = np.random.default_rng(seed).choice(layer.weight.reshape(-1), (*layer.weight.shape[:2], size, size))
    return LinearLayer(shape, weight, layer.bias)


def sensitivity_rows(studied: Iterable[Variant], selections: Iterable[Selection]) -> list[dict[str, Any]]:
    """One row per variant, packing and flooding: the set of least predicted latency that meets the target.

    p is the smallest prime that the packing can use for the range: in slot packing it batches (p == 1 mod 2n).

    Returns:
        Rows with kind, level, packing, flooding, layer, accumulator_bits, plaintext_bits, polynomial_degree, log2_q
        (as deployed), latency_seconds, and note, the reason where a row has no numbers.
    """
    studied = list(studied)
    return [_row(variant, selection) for selection in selections for variant in studied]


def _row(variant: Variant, selection: Selection) -> dict[str, Any]:
    name, (low, high) = variant.layer.shape.name, variant.accumulators
    row: dict[str, Any] = {
        "kind": variant.kind,
        "level": variant.level,
        "packing": selection.packing,
        "flooding": selection.flooding.kind,
        "layer": name,
        "accumulator_bits": (high - low).bit_length(),
        "plaintext_bits": "",
        "polynomial_degree": "",
        "log2_q": "",
        "latency_seconds": "",
        "note": "",
    }
    try:
        rule = PlaintextRule(kind="prime")
        p = rule.modulus({name: variant.accumulators}, selection.packing, selection.profile.degrees)
        choice, bits = select_layer(variant.layer, variant.target, p, selection)
    except UserError as error:
        logging.info("%s %g, %s packing: %s", variant.kind, variant.level, selection.packing, error)
        return {**row, "note": str(error)}
    return {
        **row,
        "plaintext_bits": (p - 1).bit_length(),
        "polynomial_degree": choice.parameters.polynomial_degree,
        "log2_q": choice.parameters.log2_q,
        "latency_seconds": selection.latency(choice.workload, choice.parameters, bits),
    }
