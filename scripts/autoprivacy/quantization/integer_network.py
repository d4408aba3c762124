"""The 8-bit integer network: a small graph of integer operations with exact semantics modulo p, and its weights.

It is the specification that the secure protocol matches bit for bit when no decryption error occurs. The graph is in
architecture.py, batched evaluation in evaluation.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.quantization.architecture import (
    LOCAL_OPERATIONS,
    MAXIMUM_MODULUS_BITS,
    SIGNED_RANGE,
    UNSIGNED_RANGE,
    Architecture,
    Interval,
    LayerShape,
    Node,
    Operation,
    Shape,
    both,
    rounding_constant,
    sign_threshold,
    to_signed,
)
from autoprivacy.quantization.graph_check import read_architecture
from autoprivacy.storage import read_arrays, write_arrays

__all__ = [
    "Architecture",
    "IntegerNetwork",
    "Interval",
    "LOCAL_OPERATIONS",
    "LayerShape",
    "LinearLayer",
    "MAXIMUM_MODULUS_BITS",
    "Node",
    "Operation",
    "SIGNED_RANGE",
    "Shape",
    "UNSIGNED_RANGE",
    "WEIGHT_MAXIMUM",
    "both",
    "rounding_constant",
    "sign_threshold",
    "to_signed",
]

WEIGHT_MAXIMUM = 127  # symmetric, of the 8 bits that weights have unless more are asked for
WIDEST_BITS = 14  # of weights and activations
FORMAT_VERSION = 1


def weight_maximum(bits: int) -> int:
    """The largest weight of so many bits, sign included; the smallest is its negative."""
    return (1 << bits - 1) - 1


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer with its integer weights.

    Attributes:
        shape: its public part.
        weight: int64, of WIDEST_BITS at most, [output channels, input channels / groups, kernel height, kernel width].
        bias: int64 in accumulator units, [output channels].
    """

    shape: LayerShape
    weight: np.ndarray
    bias: np.ndarray

    def __post_init__(self) -> None:
        shape = self.shape
        expected = (shape.output_channels, shape.input_shape[0] // shape.groups, *shape.kernel)
        if self.weight.shape != expected or self.bias.shape != (shape.output_channels,):
            raise UserError(
                f"layer {shape.name}: weights {self.weight.shape} and bias {self.bias.shape}; expected {expected} "
                f"and {(shape.output_channels,)}"
            )
        largest = int(np.abs(self.weight).max(initial=0))
        if largest > weight_maximum(WIDEST_BITS):
            raise UserError(
                f"layer {shape.name}: a weight of {largest} in size; allowed {weight_maximum(WIDEST_BITS)}, "
                f"{WIDEST_BITS} bits; quantize the network again"
            )

    @property
    def weight_maximum(self) -> int:
        """The largest weight of as many bits as the layer's have, 8 at least."""
        return weight_maximum(max(8, int(np.abs(self.weight).max(initial=0)).bit_length() + 1))

    @property
    def weight_norm(self) -> float:
        """The largest 2-norm of the weights that feed one output; a packing may add outputs' noise on top of it."""
        return float(np.sqrt((self.weight.astype(np.float64) ** 2).reshape(len(self.weight), -1).sum(1).max()))

    @property
    def worst_case(self) -> int:
        """The largest |accumulator| that any input can give."""
        sums = np.abs(self.weight).reshape(len(self.weight), -1).sum(1) * self.shape.input_maximum
        return int((sums + np.abs(self.bias)).max())


@dataclass(frozen=True)
class IntegerNetwork:
    """The integer network: its architecture, its weights, and the scale that turns integer outputs into logits."""

    architecture: Architecture
    layers: dict[str, LinearLayer]
    output_scale: float

    def with_weights(self, layers: dict[str, LinearLayer]) -> IntegerNetwork:
        """The same network with other weights (finetuning)."""
        return replace(self, layers=layers)

    def save(self, path: str | Path, **more: Any) -> None:
        """Write as one npz with a JSON header, which `more` (provenance) joins; the weights are private, so for the
        owner alone to read."""
        arrays = {}
        for name, layer in self.layers.items():
            arrays[f"{name}.weight"] = layer.weight.astype(
                np.int8 if layer.weight_maximum == WEIGHT_MAXIMUM else np.int16
            )
            arrays[f"{name}.bias"] = layer.bias.astype(np.int64)
        header = {
            "format": FORMAT_VERSION,
            "architecture": self.architecture.as_json(),
            "output_scale": self.output_scale,
            **more,
        }
        write_arrays(path, arrays, header=header, private=True)

    @classmethod
    def load(cls, path: str | Path) -> IntegerNetwork:
        """Read what `save` wrote; UserError when it is damaged or of another version."""
        arrays, header = read_arrays(path)
        if not header or header.get("format") != FORMAT_VERSION:
            raise UserError(f"{path}: not an integer network of format {FORMAT_VERSION}; make it again")
        try:
            architecture = read_architecture(header["architecture"])
            weights = {name: array.astype(np.int64) for name, array in arrays.items()}
            layers = {
                shape.name: LinearLayer(shape, weights[f"{shape.name}.weight"], weights[f"{shape.name}.bias"])
                for shape in architecture.layers
            }
            return cls(architecture, layers, header["output_scale"])
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: damaged: {type(error).__name__} {error}; make it again") from None
