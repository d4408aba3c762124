"""The ring's automorphisms X -> X^g, which permute slots: their exponents, and what they do to transforms.

The slots of a plaintext form two rows of n/2 (Gentry, Halevi, Smart, Eurocrypt 2012): powers of 3 rotate both rows at
once, -1 swaps them.
"""

from __future__ import annotations

import numpy as np

from autoprivacy.he.ring.ring import Ring

ROTATION_GENERATOR = 3  # of the odd residues modulo 2n, together with -1; SEAL's choice (util/galois.h)


def rotation_element(steps: int, degree: int) -> int:
    """The exponent that brings every slot of a row `steps` places forward, cyclically: slot i gets slot i + steps."""
    return pow(ROTATION_GENERATOR, steps % (degree // 2), 2 * degree)


def swap_element(degree: int) -> int:
    """The exponent that swaps the two rows of slots."""
    return 2 * degree - 1


def permutation(ring: Ring, element: int) -> np.ndarray:
    """What X -> X^g does to a transform: np.take_along_axis(transform, permutation, -1), int64 [k, n].

    It is found from the transforms of X and X^g, so it holds in whatever order the ring transforms.

    Args:
        ring: the ring.
        element: g, odd.
    """
    if element % 2 == 0:
        raise ValueError(f"Galois element {element}: expected an odd number")
    places = ring.forward(ring.reduce(_monomial(1, ring.degree)))
    images = ring.forward(ring.reduce(_monomial(element, ring.degree)))
    order = np.argsort(places, axis=-1)
    sources = [row[np.searchsorted(p, i, sorter=row)] for p, i, row in zip(places, images, order, strict=True)]
    return np.stack(sources)


def _monomial(exponent: int, degree: int) -> np.ndarray:
    """X^exponent, int64 [n]."""
    coefficients = np.zeros(degree, np.int64)
    coefficients[exponent % degree] = 1 - 2 * (exponent // degree % 2)
    return coefficients
