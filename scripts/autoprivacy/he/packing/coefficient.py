"""Coefficient packing: a convolution as a few polynomial products, with no rotations and any plaintext modulus.

After Cheetah (Huang, Lu, Hong, Ding, USENIX Security 2022, section 3): pixels are coefficients, a filter's weights are
laid out backwards, and the product's coefficients are the outputs. Here besides: zero padding is shared between
neighbouring rows and channels, strided layers are split into phases, grouped layers skip the products that no output
needs, and images larger than a ciphertext are cut into bands of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.he.packing.layout import Layout, ceil_divide
from autoprivacy.he.packing.plan import EvaluationPlan, Rotate, Workload, cheapest_by_counts, tiling_from_json
from autoprivacy.he.parameters.noise import LayerNoise
from autoprivacy.he.parameters.noise_bounds import NoiseBound
from autoprivacy.he.ring.ring import Ring
from autoprivacy.quantization.integer_network import LayerShape

# How many band heights are tried from the largest that fits downwards; smaller ones only repeat more rows.
BAND_HEIGHTS = 4


@dataclass(frozen=True)
class CoefficientPlan(EvaluationPlan):
    """How one layer is laid out in polynomials of n coefficients.

    Ciphertexts are numbered block * bands + band: a block holds some channels, a band some rows.

    Attributes:
        shape: the layer.
        degree: n.
        channels_per_input: input channels in one ciphertext; for a strided layer, phases of input channels.
        channels_per_output: output channels in one reply ciphertext.
        rows_per_band: output rows that one ciphertext covers.

    Raises:
        UserError: the tiling does not fit n coefficients.
    """

    shape: LayerShape
    degree: int
    channels_per_input: int
    channels_per_output: int
    rows_per_band: int

    def __post_init__(self) -> None:
        rows = self.shape.output_shape[1]
        if min(self.channels_per_input, self.channels_per_output) < 1 or not 1 <= self.rows_per_band <= rows:
            raise UserError(f"layer {self.shape.name}: tiling {self.tiling}; expected 1 or more, rows at most {rows}")
        size = self.channels_per_output * self.layout.spacing
        if size > self.degree:
            raise UserError(
                f"layer {self.shape.name}: tiling {self.tiling} takes {size} coefficients, n = {self.degree} has "
                "fewer; take fewer channels or rows, or a larger n"
            )

    @classmethod
    def from_tiling(cls, shape: LayerShape, degree: int, tiling: dict[str, int]) -> CoefficientPlan:
        """The plan that `tiling` describes, as a policy file holds it; UserError when it does not fit or is damaged."""
        return tiling_from_json(shape, tiling, lambda sizes: cls(shape, degree, **sizes))

    @property
    def tiling(self) -> dict[str, int]:
        """What distinguishes this plan from others of the same layer and n."""
        return {
            "channels_per_input": self.channels_per_input,
            "channels_per_output": self.channels_per_output,
            "rows_per_band": self.rows_per_band,
        }

    @cached_property
    def layout(self) -> Layout:
        """Where pixels stand in a ciphertext."""
        return Layout(self.shape, self.channels_per_input, self.rows_per_band)

    @property
    def bands(self) -> int:
        """Into how many bands of rows the image is cut."""
        return self.layout.bands

    @property
    def input_blocks(self) -> int:
        """Ciphertexts per band that the client sends."""
        return ceil_divide(channel_count(self.shape), self.channels_per_input)

    @property
    def output_blocks(self) -> int:
        """Ciphertexts per band that the server replies with."""
        return ceil_divide(self.shape.output_channels, self.channels_per_output)

    @cached_property
    def _needed(self) -> tuple[np.ndarray, np.ndarray]:
        """For each output block the first input block that it needs, and the one after the last."""
        outputs_per_group = self.shape.output_channels // self.shape.groups
        channels_per_group = channel_count(self.shape) // self.shape.groups
        start = np.arange(self.output_blocks) * self.channels_per_output
        end = np.minimum(start + self.channels_per_output, self.shape.output_channels)
        first = start // outputs_per_group * channels_per_group
        last = ((end - 1) // outputs_per_group + 1) * channels_per_group - 1
        return first // self.channels_per_input, last // self.channels_per_input + 1

    @property
    def sum_count(self) -> int:
        """How many sums of products there are per band: one for every output block."""
        return self.output_blocks

    @property
    def weight_polynomials(self) -> int:
        """How many polynomials hold the weights; all bands use the same."""
        first, end = self._needed
        return int((end - first).sum())

    @cached_property
    def workload(self) -> Workload:
        """Ciphertexts and operations: nothing is rotated, as values are coefficients nothing is encoded."""
        return Workload(
            self.degree,
            self.input_ciphertexts,
            self.output_ciphertexts,
            products=self.weight_polynomials * self.bands,
            sums=self.sum_count * self.bands,
            rotations=0,
            encodings=0,
            coefficients_per_output=1,
            reply_coefficients=math.prod(self.shape.output_shape),
        )

    @property
    def galois_elements(self) -> tuple[int, ...]:
        """The automorphisms that an evaluation uses: none."""
        return ()

    @cached_property
    def products(self) -> tuple[np.ndarray, np.ndarray]:
        """Input block and output block of each weight polynomial, int64 [weight_polynomials] each, by output block."""
        first, end = self._needed
        inputs = np.concatenate([np.arange(low, high) for low, high in zip(first, end, strict=True)])
        return inputs, np.repeat(np.arange(self.output_blocks), end - first)

    @cached_property
    def _input_map(self) -> tuple[np.ndarray, np.ndarray]:
        """Flat positions of pixels in [C, H, W], and where they go in [input_ciphertexts, n]; halos go twice."""
        shape, layout = self.shape, self.layout
        channels, height, width = shape.input_shape
        axes = (channels, *layout.phases, self.bands, *layout.grid)
        channel, phase_row, phase_column, band, row, column = np.ix_(*map(np.arange, axes))
        y = (band * self.rows_per_band + row) * shape.stride + phase_row - shape.padding
        x = column * shape.stride + phase_column - shape.padding
        part = (channel * layout.phases[0] + phase_row) * layout.phases[1] + phase_column
        ciphertext = part // self.channels_per_input * self.bands + band
        place = layout.index(part % self.channels_per_input, row, column) - layout.first
        inside = np.broadcast_to((y >= 0) & (y < height) & (x >= 0) & (x < width), axes)
        source = np.broadcast_to((channel * height + y) * width + x, axes)
        target = np.broadcast_to(ciphertext * self.degree + place, axes)
        return source[inside], target[inside]

    def encode_input(self, values: np.ndarray) -> np.ndarray:
        """Residues modulo p, uint64 [C, H, W], as coefficients uint64 [input_ciphertexts, n]."""
        if values.shape != self.shape.input_shape:
            raise ValueError(f"layer {self.shape.name}: input {values.shape}, expected {self.shape.input_shape}")
        source, target = self._input_map
        polynomials = np.zeros((self.input_ciphertexts, self.degree), np.uint64)
        polynomials.reshape(-1)[target] = values.reshape(-1)[source]
        return polynomials

    def _offset(self, output: Any) -> Any:
        """Coefficient at which an output channel's pixel (0, 0) stands, less what leading padding takes."""
        return output % self.channels_per_output * self.layout.spacing + self.layout.last_tap

    def encode_weights(self, weight: np.ndarray) -> np.ndarray:
        """Weights int64 [O, C / groups, kernel height, kernel width] as coefficients int64 [weight_polynomials, n].

        The weight of a tap stands as far before its output as the tap's pixel stands after coefficient 0. No two
        weights share a coefficient.
        """
        shape, layout, stride = self.shape, self.layout, self.shape.stride
        output, member, row, column = np.ix_(*map(np.arange, weight.shape))
        outputs_per_group = shape.output_channels // shape.groups
        channel = output // outputs_per_group * (shape.input_shape[0] // shape.groups) + member
        part = (channel * layout.phases[0] + row % stride) * layout.phases[1] + column % stride
        tap = layout.index(part % self.channels_per_input, row // stride, column // stride)
        first, end = self._needed
        starts = np.cumsum(end - first) - end  # an input block's polynomial, less the block's own number
        polynomial = starts[output // self.channels_per_output] + part // self.channels_per_input
        polynomials = np.zeros((self.weight_polynomials, self.degree), np.int64)
        polynomials[polynomial, self._offset(output) - tap] = weight
        return polynomials

    def weight_norm(self, weight: np.ndarray) -> float:
        """What fresh noise grows by: the 2-norm of all weights that go into one reply ciphertext, of the largest.

        Pixels of other output channels' reach are zero, but their noise is not: an output collects noise times the
        weights of every output channel in its ciphertext, sqrt(channels_per_output) times what its own would give.
        """
        squares = (weight.astype(np.float64) ** 2).reshape(len(weight), -1).sum(1)
        starts = np.arange(0, len(weight), self.channels_per_output)
        return float(np.sqrt(np.add.reduceat(squares, starts).max()))

    def noise(self, weight: np.ndarray) -> LayerNoise:
        """What the layer does to fresh noise; every output depends on one coefficient."""
        return LayerNoise(self.weight_norm(weight))

    def noise_bound(self, weight: np.ndarray) -> NoiseBound:
        """What the layer does to bounds of noise: the 1-norm of all weights of one reply ciphertext, of the largest."""
        sums = np.abs(weight).astype(np.float64).reshape(len(weight), -1).sum(1)
        return NoiseBound(float(np.add.reduceat(sums, np.arange(0, len(weight), self.channels_per_output)).max()))

    def public_noise(self, norm_bound: float) -> LayerNoise:
        """All output channels of a reply at the bound."""
        return LayerNoise(norm_bound * math.sqrt(min(self.channels_per_output, self.shape.output_channels)))

    def public_noise_bound(self, norm_bound: float) -> NoiseBound:
        """The same, and the weights of an output all of one size, which makes their 1-norm largest."""
        weights = self.shape.input_shape[0] // self.shape.groups * math.prod(self.shape.kernel)
        channels = min(self.channels_per_output, self.shape.output_channels)
        return NoiseBound(norm_bound * math.sqrt(weights) * channels)

    def gather(self, ring: Ring, sums: np.ndarray, rotate: Rotate) -> np.ndarray:
        """The results from the sums of products: those are the results."""
        return sums

    @cached_property
    def output_positions(self) -> np.ndarray:
        """Where each output stands in [output_ciphertexts * n], int64 [O * H_out * W_out]."""
        output, row, column = np.ix_(*map(np.arange, self.shape.output_shape))
        band, row = row // self.rows_per_band, row % self.rows_per_band
        ciphertext = output // self.channels_per_output * self.bands + band
        place = self._offset(output) + self.layout.index(0, row, column) - self.layout.first
        return np.asarray(ciphertext * self.degree + place, np.int64).reshape(-1)

    @cached_property
    def reply_positions(self) -> np.ndarray:
        """Where the outputs stand in [output_ciphertexts * n], ascending, int64."""
        return np.sort(self.output_positions)

    @property
    def groups(self) -> np.ndarray:
        """Outputs that decrypt wrongly together have one number: each its own, int64 [O, H_out, W_out]."""
        return np.arange(len(self.output_positions)).reshape(self.shape.output_shape)

    def encode_output(self, places: np.ndarray) -> np.ndarray:
        """Residues in the places of results, uint64 [output_ciphertexts, n]: the places are coefficients."""
        return places

    def decode_output(self, polynomials: np.ndarray) -> np.ndarray:
        """The outputs [O, H_out, W_out] among the coefficients [output_ciphertexts, n]; keeps the dtype."""
        return polynomials.reshape(-1)[self.output_positions].reshape(self.shape.output_shape)


def channel_count(shape: LayerShape) -> int:
    """Input channels, or phases of input channels where the layer is strided."""
    rows, columns = Layout(shape, 1, 1).phases
    return shape.input_shape[0] * rows * columns


def _candidates(shape: LayerShape, degree: int) -> Iterator[CoefficientPlan]:
    """Tilings that fill their ciphertexts evenly: as few channels in each as give the same number of ciphertexts."""
    out_channels, rows, _ = shape.output_shape
    channels = channel_count(shape)
    heights = sorted({ceil_divide(rows, bands) for bands in range(1, rows + 1)}, reverse=True)
    fitting = [height for height in heights if Layout(shape, 1, height).spacing <= degree]
    for height in fitting[:BAND_HEIGHTS]:
        for per_input in sorted({ceil_divide(channels, blocks) for blocks in range(1, channels + 1)}):
            most = min(out_channels, degree // Layout(shape, per_input, height).spacing)
            if not most:
                break
            choices = {most}
            if shape.groups > 1:  # output blocks that end where input blocks end need fewer products
                choices.add(max(1, min(most, per_input * out_channels // channels)))
            for choice in choices:
                per_output = ceil_divide(out_channels, ceil_divide(out_channels, choice))
                yield CoefficientPlan(shape, degree, per_input, per_output, height)


def admissible_plans(shape: LayerShape, degree: int) -> list[CoefficientPlan]:
    """The tilings of a layer worth considering at n: none needs as much as another of everything.

    Empty where not even one row of one channel fits.
    """
    return cheapest_by_counts(
        _candidates(shape, degree),
        lambda plan: (plan.input_ciphertexts, plan.output_ciphertexts, plan.workload.products),
    )
