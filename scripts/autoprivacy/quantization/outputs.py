"""What a client learns of an image: all outputs, outputs rounded coarsely, or the class alone; exact semantics."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.quantization.integer_network import rounding_constant, sign_threshold, to_signed

Output = Literal["logits", "scores", "label"]
# Bits of a score, the sign included: a score is the top bits of its output modulo p, rounded. p has room for a margin
# over the outputs that calibration saw, so these take fewer than the 2^7 steps.
SCORE_BITS = 7


def check_output(output: str) -> None:
    """UserError unless it is one of `Output`."""
    if output not in get_args(Output):
        raise UserError(f"policy: output {output!r}; expected one of {', '.join(get_args(Output))}")


def score_shift(modulus: int) -> int:
    """f: a score is the output plus 2^(f-1), signed modulo p, shifted right by f; 0 where p has few bits."""
    return max((modulus - 1).bit_length() - SCORE_BITS, 0)


def score_range(modulus: int) -> tuple[int, int]:
    """The smallest and the largest score modulo p."""
    bound = sign_threshold(modulus) >> score_shift(modulus)
    return -bound, bound - 1


def shown(logits: np.ndarray, output: str, modulus: int) -> np.ndarray:
    """What a client learns, from the outputs of the integer network.

    Args:
        logits: signed modulo p, int64 [..., outputs].
        output: one of `Output`.
        modulus: p, the modulus that the outputs are read in.

    Returns:
        int64: `logits` as they are, scores [..., outputs], or [..., 1] the class: the first of the largest outputs.
    """
    check_output(output)
    if output == "scores":
        shift = score_shift(modulus)
        return np.clip(to_signed(logits + rounding_constant(shift), modulus) >> shift, *score_range(modulus))
    if output == "label":
        return np.argmax(logits, -1)[..., None].astype(np.int64)
    return logits


def predicted_class(values: np.ndarray, output: str) -> np.ndarray:
    """The predicted class from what a client learns, int64 [...]; of equal scores the first."""
    return values[..., 0] if output == "label" else np.argmax(values, -1)
