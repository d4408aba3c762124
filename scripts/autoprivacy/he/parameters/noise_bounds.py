"""Worst-case bounds on the noise of BFV ciphertexts, beside the standard deviations of noise.py.

The largest that any draw of keys, noise and images can give: every coefficient of the noise at its bound, all signs
adverse. GAZELLE (Juvekar, Vaikuntanathan, Chandrakasan, USENIX Security 2018, section 3) and DELPHI (Mishra et al.,
USENIX Security 2020) choose parameters by such bounds. Bounds add up where standard deviations add in squares.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoprivacy.he.parameters.parameter_set import Flooding
from autoprivacy.randomness.generator import CENTRED_BINOMIAL_PAIRS

# The centred binomial is a difference of two sums of so many bits, so its size has a bound.
NOISE_BOUND = CENTRED_BINOMIAL_PAIRS
ROUNDING_BOUND = 1 / 2  # of round(q m / p), and of a division by the key-switching prime


@dataclass(frozen=True)
class NoiseBound:
    """What the evaluation of a layer does to bounds of noise, as its packing plan knows it.

    Attributes:
        norm: the bound of fresh noise grows by this factor: the 1-norm of all weight coefficients that go into one
            reply ciphertext, of the largest, or a bound of it.
        rotations: how many times one rotation's bound is added, folding counted.
    """

    norm: float
    rotations: float = 0.0


def fresh_bound() -> float:
    """Of a fresh symmetric encryption, the rounding of q m / p included."""
    return NOISE_BOUND + ROUNDING_BOUND


def rerandomisation_bound(polynomial_degree: int) -> float:
    """Of e u + e1 + e2 s: a product with a ternary polynomial is a sum of n coefficients."""
    return NOISE_BOUND * (2 * polynomial_degree + 1) + ROUNDING_BOUND


def reply_bound(polynomial_degree: int, weighted: float, flooding: Flooding) -> float:
    """Of a reply's whole noise.

    A flood is counted as noise that hides a bound needs it by the smudging lemma: as large as 2^kappa times the bound
    of what depends on the weights. (The flood that is deployed goes by standard deviations in every scheme.)

    Args:
        polynomial_degree: n.
        weighted: the bound of the part that depends on the weights.
        flooding: how it is hidden; `paper` adds its flood to a larger set, so nothing is counted here.
    """
    flood = 2.0**flooding.kappa * weighted if flooding.kind == "statistical" else 0.0
    return weighted + rerandomisation_bound(polynomial_degree) + flood
