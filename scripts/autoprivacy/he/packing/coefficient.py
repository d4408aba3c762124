"""Coefficient packing: a convolution as a few polynomial products, with no rotations and any plaintext modulus.

After Cheetah (Huang, Lu, Hong, Ding, USENIX Security 2022, section 3): pixels are coefficients, a filter's weights are
laid out backwards, and the product's coefficients are the outputs. Here besides: zero padding is shared between
neighbouring rows and channels, strided layers are split into their stride x stride phases (each an ordinary
convolution of its own, smaller channel), grouped layers skip the products that no output needs, and images larger
than a ciphertext are cut into bands of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.quantization.integer_network import LayerShape

# How many band heights are tried below the largest that fits; smaller ones only repeat more rows.
BAND_HEIGHTS = 4


def _ceil_divide(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)


@dataclass(frozen=True)
class CoefficientPlan:
    """How one layer is laid out in polynomials of n coefficients.

    A ciphertext is numbered block * bands + band. 'Channel' is, for a strided layer, one phase of an input channel.

    Attributes:
        shape: the layer.
        degree: n.
        channels_per_input: input channels in one ciphertext.
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
        tiling = (self.channels_per_input, self.channels_per_output, self.rows_per_band)
        if min(tiling) < 1 or self.channels_per_output * self.spacing > self.degree:
            raise UserError(
                f"layer {self.shape.name}: {tiling[0]} input channels x {tiling[1]} output channels of {tiling[2]} "
                f"rows take {self.spacing * tiling[1]} coefficients; n = {self.degree} holds no more than that many: "
                "take fewer channels or rows, or a larger n"
            )

    @classmethod
    def from_tiling(cls, shape: LayerShape, degree: int, tiling: dict[str, int]) -> CoefficientPlan:
        """The plan that `tiling` describes, as a policy file holds it; UserError when it does not fit or is damaged."""
        try:
            return cls(shape, degree, **{name: int(value) for name, value in tiling.items()})
        except (TypeError, ValueError) as error:
            raise UserError(f"layer {shape.name}: tiling {tiling}: {error}") from None

    @property
    def tiling(self) -> dict[str, int]:
        """What distinguishes this plan from others of the same layer and n."""
        return {
            "channels_per_input": self.channels_per_input,
            "channels_per_output": self.channels_per_output,
            "rows_per_band": self.rows_per_band,
        }

    # The grid: what each channel looks like as coefficients.

    @property
    def phases(self) -> tuple[int, int]:
        """Rows and columns of phases: pixels of one phase are `stride` apart and meet the same taps of the kernel."""
        return min(self.shape.stride, self.shape.kernel[0]), min(self.shape.stride, self.shape.kernel[1])

    @property
    def taps(self) -> tuple[int, int]:
        """Height and width of the kernel of one phase."""
        stride, kernel = self.shape.stride, self.shape.kernel
        return _ceil_divide(kernel[0], stride), _ceil_divide(kernel[1], stride)

    @property
    def bands(self) -> int:
        """Into how many bands of rows the image is cut."""
        return _ceil_divide(self.shape.output_shape[1], self.rows_per_band)

    @property
    def _grid(self) -> tuple[int, int]:
        """Rows and columns of one channel of one band, padding included."""
        return self.rows_per_band + self.taps[0] - 1, self.shape.output_shape[2] + self.taps[1] - 1

    @property
    def _shared(self) -> tuple[int, int]:
        """Rows and columns of zero padding that neighbours share: one's trailing padding is the next one's leading.

        Inner bands begin and end with pixels, so only a whole image shares rows. Every tap must keep a coefficient of
        its own, or noise would grow beyond the norm of the weights.
        """
        shape, padding = self.shape, self.shape.padding
        smallest = min(shape.input_shape[1] - shape.kernel[0], shape.input_shape[2] - shape.kernel[1]) + padding
        if shape.stride > 1 or padding >= min(shape.kernel) or smallest < 0:
            return 0, 0
        return (padding if self.bands == 1 else 0), padding

    @property
    def _row_pitch(self) -> int:
        return self._grid[1] - self._shared[1]

    @property
    def _channel_pitch(self) -> int:
        return (self._grid[0] - self._shared[0]) * self._row_pitch

    @property
    def _first(self) -> int:
        """Coefficients of leading padding that need not be stored: positions count from the first pixel."""
        return self._shared[0] * self._row_pitch + self._shared[1]

    def _index(self, channel: Any, row: Any, column: Any) -> Any:
        return channel * self._channel_pitch + row * self._row_pitch + column

    @property
    def spacing(self) -> int:
        """Coefficients between output channels, wide enough that no output meets another's products.

        Output o reads coefficients -first .. reach relative to its own place, and coefficients 0 .. stored - 1 hold
        pixels. Shifted by any non-zero multiple of the spacing below n, the read range meets zeros only, also where it
        wraps around; so neither do other channels' products reach this output.
        """
        (rows, columns), shared, last = self._grid, self._shared, self.channels_per_input - 1
        stored = self._index(last, rows - 1 - shared[0], columns - 1 - shared[1]) - self._first + 1
        reach = self._index(last, rows - 1, columns - 1) - self._first
        return int(max(stored + self._first, reach + 1))

    # The blocks: which ciphertexts there are and which products they need.

    @property
    def _channels(self) -> int:
        return self.shape.input_shape[0] * self.phases[0] * self.phases[1]

    @property
    def input_blocks(self) -> int:
        """Ciphertexts per band that the client sends."""
        return _ceil_divide(self._channels, self.channels_per_input)

    @property
    def output_blocks(self) -> int:
        """Ciphertexts per band that the server replies with."""
        return _ceil_divide(self.shape.output_channels, self.channels_per_output)

    @property
    def input_ciphertexts(self) -> int:
        """How many ciphertexts the client sends."""
        return self.input_blocks * self.bands

    @property
    def output_ciphertexts(self) -> int:
        """How many ciphertexts the server replies with."""
        return self.output_blocks * self.bands

    @cached_property
    def _needed(self) -> tuple[np.ndarray, np.ndarray]:
        """For each output block the first input block that it needs, and the one after the last."""
        outputs_per_group = self.shape.output_channels // self.shape.groups
        channels_per_group = self._channels // self.shape.groups
        start = np.arange(self.output_blocks) * self.channels_per_output
        end = np.minimum(start + self.channels_per_output, self.shape.output_channels)
        first = start // outputs_per_group * channels_per_group
        last = ((end - 1) // outputs_per_group + 1) * channels_per_group - 1
        return first // self.channels_per_input, last // self.channels_per_input + 1

    @property
    def weight_polynomials(self) -> int:
        """How many polynomials hold the weights; all bands use the same."""
        first, end = self._needed
        return int((end - first).sum())

    @property
    def product_count(self) -> int:
        """Products of a ciphertext with a weight polynomial, over all bands."""
        return self.weight_polynomials * self.bands

    @cached_property
    def products(self) -> tuple[np.ndarray, np.ndarray]:
        """Input block and output block of each weight polynomial, int64 [weight_polynomials] each, by output block."""
        first, end = self._needed
        inputs = np.concatenate([np.arange(a, b) for a, b in zip(first, end, strict=True)])
        return inputs, np.repeat(np.arange(self.output_blocks), end - first)

    # Encoding and decoding.

    @cached_property
    def _input_map(self) -> tuple[np.ndarray, np.ndarray]:
        """Flat positions of pixels in [C, H, W], and where they go in [input_ciphertexts, n]; halos go twice."""
        shape, (rows, columns) = self.shape, self._grid
        channel, phase_row, phase_column, band, row, column = np.ix_(
            *map(np.arange, (shape.input_shape[0], *self.phases, self.bands, rows, columns))
        )
        y = (band * self.rows_per_band + row) * shape.stride + phase_row - shape.padding
        x = column * shape.stride + phase_column - shape.padding
        part = (channel * self.phases[0] + phase_row) * self.phases[1] + phase_column
        ciphertext = part // self.channels_per_input * self.bands + band
        place = self._index(part % self.channels_per_input, row, column) - self._first
        _, height, width = shape.input_shape
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        # Rows below the last output's reach share no band layout with padding, so they need no rule of their own.
        source = np.broadcast_to((channel * height + y) * width + x, np.broadcast_shapes(inside.shape, place.shape))
        inside = np.broadcast_to(inside, source.shape)
        target = np.broadcast_to(ciphertext * self.degree + place, source.shape)
        return source[inside], target[inside]

    def encode_input(self, values: np.ndarray) -> np.ndarray:
        """Residues modulo p, uint64 [C, H, W], as coefficients uint64 [input_ciphertexts, n]."""
        if values.shape != self.shape.input_shape:
            raise ValueError(f"layer {self.shape.name}: input {values.shape}, expected {self.shape.input_shape}")
        source, target = self._input_map
        polynomials = np.zeros((self.input_ciphertexts, self.degree), np.uint64)
        polynomials.reshape(-1)[target] = values.reshape(-1)[source]
        return polynomials

    def _output_offset(self, output: Any) -> Any:
        """The exponent of output channel `output`'s first tap of its ciphertext's last input channel."""
        last_tap = self._index(self.channels_per_input - 1, self.taps[0] - 1, self.taps[1] - 1)
        return output % self.channels_per_output * self.spacing + last_tap

    def encode_weights(self, weight: np.ndarray) -> np.ndarray:
        """Weights int64 [O, C / groups, kernel height, kernel width] as coefficients int64 [weight_polynomials, n]."""
        shape, stride = self.shape, self.shape.stride
        output, member, row, column = np.ix_(*map(np.arange, weight.shape))
        outputs_per_group = shape.output_channels // shape.groups
        channel = output // outputs_per_group * (shape.input_shape[0] // shape.groups) + member
        part = (channel * self.phases[0] + row % stride) * self.phases[1] + column % stride
        tap = self._index(part % self.channels_per_input, row // stride, column // stride)
        exponent = self._output_offset(output) - tap
        first, end = self._needed
        starts = np.cumsum(end - first) - end + first  # of each output block's polynomials
        block = output // self.channels_per_output
        polynomial = starts[block] + part // self.channels_per_input - first[block]
        polynomials = np.zeros((self.weight_polynomials, self.degree), np.int64)
        signs = 1 - 2 * (exponent // self.degree % 2)  # X^n = -1
        polynomials[polynomial, exponent % self.degree] = signs * weight
        return polynomials

    @cached_property
    def output_positions(self) -> np.ndarray:
        """Where each output stands in [output_ciphertexts * n], int64 [O * H_out * W_out]."""
        output, row, column = np.ix_(*map(np.arange, self.shape.output_shape))
        band, row = row // self.rows_per_band, row % self.rows_per_band
        ciphertext = output // self.channels_per_output * self.bands + band
        place = self._output_offset(output) + self._index(0, row, column) - self._first
        return np.asarray(ciphertext * self.degree + place, np.int64).reshape(-1)

    def decode_output(self, polynomials: np.ndarray) -> np.ndarray:
        """The outputs [O, H_out, W_out] among the coefficients [output_ciphertexts, n]; keeps the dtype."""
        return polynomials.reshape(-1)[self.output_positions].reshape(self.shape.output_shape)


def _candidates(shape: LayerShape, degree: int) -> Iterator[CoefficientPlan]:
    """Tilings with ciphertexts filled evenly: the fewest channels that give the same number of ciphertexts."""
    out_channels, rows, _ = shape.output_shape
    heights = sorted({_ceil_divide(rows, bands) for bands in range(1, rows + 1)}, reverse=True)
    fitting = [height for height in heights if _spacing(shape, degree, 1, height) <= degree]
    for height in fitting[:BAND_HEIGHTS]:
        channels = CoefficientPlan(shape, degree, 1, 1, height)._channels
        for per_input in sorted({_ceil_divide(channels, blocks) for blocks in range(1, channels + 1)}):
            most = degree // _spacing(shape, degree, per_input, height)
            if not most:
                break
            choices = {min(most, out_channels)}
            if shape.groups > 1:  # output blocks that end where input blocks end
                choices.add(max(1, min(most, per_input * out_channels // channels)))
            for per_output in choices:
                even = _ceil_divide(out_channels, _ceil_divide(out_channels, per_output))
                yield CoefficientPlan(shape, degree, per_input, even, height)


def _spacing(shape: LayerShape, degree: int, per_input: int, height: int) -> int:
    """The spacing of a tiling that may not fit."""
    plan = object.__new__(CoefficientPlan)
    plan.__dict__.update(
        shape=shape, degree=degree, channels_per_input=per_input, channels_per_output=1, rows_per_band=height
    )
    return plan.spacing


def admissible_plans(shape: LayerShape, degree: int) -> list[CoefficientPlan]:
    """The tilings of a layer worth considering at n, none of which needs more of everything than another.

    Empty where not even one row of one channel fits.
    """
    costs = {}
    for plan in _candidates(shape, degree):
        costs.setdefault((plan.input_ciphertexts, plan.output_ciphertexts, plan.product_count), plan)
    return [
        plan
        for cost, plan in costs.items()
        if not any(other != cost and all(a <= b for a, b in zip(other, cost, strict=True)) for other in costs)
    ]
