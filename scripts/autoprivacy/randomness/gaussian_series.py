"""Series that turn uniform words into Gaussians with additions and multiplications alone, the same bits everywhere.

The functions of numpy and of numba's mathematical library differ in their last bits; these do not. Terms stand from
the highest power down, for Horner's scheme in the square of the argument, and reach the precision of a double.
"""

from __future__ import annotations

import math

MANTISSA_BITS = 53  # of a double, the hidden one included
EXPONENT_BIAS = 1023
QUADRANT_BITS = MANTISSA_BITS - 2  # of an angle, below the two that tell the quadrant
SQUARE_ROOT_OF_TWO = math.sqrt(2.0)
# log m = 2 artanh s = 2 (s + s^3 / 3 + s^5 / 5 + ...) for s = (m - 1) / (m + 1), |s| <= 0.172.
LOGARITHM_TERMS = tuple(2.0 / power for power in range(21, 0, -2))
# sin x / x and cos x for |x| <= pi / 4, in the square of x.
SINE_TERMS = tuple((-1.0) ** (power // 2) / math.factorial(power) for power in range(17, 0, -2))
COSINE_TERMS = tuple((-1.0) ** (power // 2) / math.factorial(power) for power in range(18, -1, -2))
