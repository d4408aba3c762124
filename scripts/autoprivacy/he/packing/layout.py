"""Where the pixels of a convolution stand among the coefficients of a polynomial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autoprivacy.quantization.integer_network import LayerShape


def ceil_divide(dividend: int, divisor: int) -> int:
    """The quotient of positive integers, rounded up."""
    return -(-dividend // divisor)


@dataclass(frozen=True)
class Layout:
    """The grid of one ciphertext: channels one after the other, each a band of rows of the padded image.

    For a strided layer a channel is one phase of an input channel: the pixels that are `stride` apart and meet the same
    taps of the kernel. Phases turn it into an ordinary convolution with more, smaller channels.

    Attributes:
        shape: the layer.
        channels: input channels in one ciphertext.
        output_rows: output rows that one ciphertext covers.
    """

    shape: LayerShape
    channels: int
    output_rows: int

    @property
    def phases(self) -> tuple[int, int]:
        """Rows and columns of phases."""
        return min(self.shape.stride, self.shape.kernel[0]), min(self.shape.stride, self.shape.kernel[1])

    @property
    def taps(self) -> tuple[int, int]:
        """Height and width of the kernel of one phase."""
        stride, kernel = self.shape.stride, self.shape.kernel
        return ceil_divide(kernel[0], stride), ceil_divide(kernel[1], stride)

    @property
    def bands(self) -> int:
        """Into how many bands of rows the image is cut."""
        return ceil_divide(self.shape.output_shape[1], self.output_rows)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of one channel of one band, padding included."""
        return self.output_rows + self.taps[0] - 1, self.shape.output_shape[2] + self.taps[1] - 1

    @property
    def shared(self) -> tuple[int, int]:
        """Rows and columns of zero padding that neighbours share: one's trailing padding is the next one's leading.

        Inner bands begin and end with pixels, so only a whole image shares rows. Where an image is smaller than the
        kernel nothing is shared: two taps would fall on one coefficient and the noise outgrow the weights' norm.
        """
        shape, padding = self.shape, self.shape.padding
        smallest = min(shape.input_shape[1] - shape.kernel[0], shape.input_shape[2] - shape.kernel[1]) + padding
        if shape.stride > 1 or padding >= min(shape.kernel) or smallest < 0:
            return 0, 0
        return (padding if self.bands == 1 else 0), padding

    def index(self, channel: Any, row: Any, column: Any) -> Any:
        """Distance of two pixels in coefficients, integers or arrays of them; rows and columns of the grid."""
        pitch = self.grid[1] - self.shared[1]
        return (channel * (self.grid[0] - self.shared[0]) + row) * pitch + column

    @property
    def first(self) -> int:
        """Leading padding that need not be stored: coefficient 0 is the first that can hold a pixel."""
        return int(self.index(0, *self.shared))

    @property
    def last_tap(self) -> int:
        """Distance from the first tap of the first channel to the last tap of the last."""
        return int(self.index(self.channels - 1, self.taps[0] - 1, self.taps[1] - 1))

    @property
    def spacing(self) -> int:
        """Coefficients from one output channel to the next, wide enough that none meets another's products.

        Pixels stand on coefficients 0 to stored - 1. An output channel reads coefficients -first to reach, counted from
        its own place. Shifted by any multiple of the spacing, up to n less the spacing, that range meets only zeros,
        wrapped around or not; so no product of one output channel falls on an output of another.
        """
        (rows, columns), shared, last = self.grid, self.shared, self.channels - 1
        stored = self.index(last, rows - 1 - shared[0], columns - 1 - shared[1]) - self.first + 1
        reach = self.index(last, rows - 1, columns - 1) - self.first
        return int(max(stored + self.first, reach + 1))
