"""The square as an activation function, in the place of a ReLU: what DELPHI calls a quadratic approximation.

Mishra et al., DELPHI, USENIX Security 2020, section 5, which replaces ReLUs by polynomials of degree two. Any such
polynomial a2 x^2 + a1 x + a0 is a2 (x + a1 / (2 a2))^2 and a constant: the bias of the layer before takes up the shift,
the weights and the bias behind take up the factor and the constant. Where the layer behind pads with zeros, its border
misses the constant, so there only a polynomial with the constant a1^2 / (4 a2) is the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoprivacy.errors import UserError

MAXIMUM_BITS = 7  # 8-bit signed integers are squared


class Square(nn.Module):
    """(x + shift)^2. As an integer activation: requantised to [-2^b, 2^b - 1], then squared.

    Put a batch normalisation before it: it keeps what is squared in a narrow range, and training from diverging.

    Args:
        bits: b, 1 to 7. The layers behind read integers of up to 2^(2b), so a bit more here takes two more bits of
            their plaintext modulus, as far as they are the widest.
        shift: where not 0, quantisation needs a convolution or Linear, or its batch normalisation, right before.
            Around 0 a square tells no sign; behind a batch normalisation a shift of 1 or 2 makes it grow with x, as a
            ReLU does.

    Raises:
        UserError: bits out of range.
    """

    def __init__(self, bits: int = 4, shift: float = 0.0) -> None:
        super().__init__()
        if not 1 <= bits <= MAXIMUM_BITS:
            raise UserError(f"Square: bits {bits}; expected 1 to {MAXIMUM_BITS}")
        self.bits, self.shift = bits, shift

    def forward(self, x: Tensor) -> Tensor:
        """The square of x + shift, of the same shape."""
        return torch.square(x + self.shift)

    def extra_repr(self) -> str:
        """What torch prints in the brackets."""
        return f"bits={self.bits}, shift={self.shift}"
