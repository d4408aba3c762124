"""Random draws that the simulation of decryption errors is made of: which coefficients are wrong, and by how much.

A coefficient is off by its noise in plaintext units, a Gaussian of standard deviation tau, rounded to an integer.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache

import numpy as np
import torch
from scipy.special import erfc, ndtri
from torch import Tensor

# Above this rate a value per coefficient is cheaper to draw than the gaps between errors and their sizes.
DENSE_RATE = 0.25


def error_rate(tau: float) -> float:
    """The probability that one coefficient decrypts wrongly, erfc(z / sqrt 2) with z = 1 / (2 tau); 0 for tau 0."""
    return float(erfc(1 / (2 * math.sqrt(2) * tau))) if tau else 0.0


def magnitude_tail(tau: float) -> np.ndarray:
    """P(|error| >= k | error) for k = 2, 3, ... while a double distinguishes it from 0, decreasing; float64."""
    rate = error_rate(tau)
    tail: list[float] = []
    while (above := float(erfc((len(tail) + 1.5) / (math.sqrt(2) * tau))) / rate) > 2.0**-53:
        tail.append(above)
    return np.array(tail)


@cache
def _normal_quantiles() -> np.ndarray:
    """The middle quantiles of 2^16 equal shares of the standard normal distribution."""
    return ndtri((np.arange(1 << 16) + 0.5) / (1 << 16))


@lru_cache(maxsize=128)  # a network's layers, 256 kB each; making one takes as long as the draws of a small layer
def _rounded_quantiles(tau: float) -> Tensor:
    """round(Gaussian * tau) at those quantiles, float32."""
    return torch.from_numpy(np.rint(_normal_quantiles() * tau).astype(np.float32))


def dense_errors(generator: np.random.Generator, tau: float, count: int) -> np.ndarray:
    """`count` draws of round(Gaussian * tau), float32.

    The Gaussian is one of 2^16 quantiles, a quarter of the time of a true one: its standard deviation is right to 2e-5,
    and it ends at 4.3 standard deviations.
    """
    words = generator.bit_generator.random_raw((count + 3) // 4)
    draws = torch.from_numpy(words.view(np.uint16)[:count].astype(np.int32))
    return torch.index_select(_rounded_quantiles(tau), 0, draws).numpy()  # in half the time of numpy's


def error_positions(generator: np.random.Generator, rate: float, count: int) -> np.ndarray:
    """Which of `count` values are wrong, each independently with probability `rate` < 1: sorted indices, int64.

    The gaps between such positions are geometric, so the work is proportional to the errors, not to the values.
    """
    expected = count * rate
    positions = np.empty(0, np.int64)
    last = -1
    while last < count:
        draws = int(expected + 6 * math.sqrt(expected)) + 16
        gaps = np.minimum(generator.standard_exponential(draws) / -math.log1p(-rate), count)
        found = last + np.cumsum(gaps.astype(np.int64) + 1)
        positions = np.concatenate([positions, found])
        last = int(found[-1])
    return positions[positions < count]


def error_values(generator: np.random.Generator, tau: float, count: int) -> np.ndarray:
    """`count` draws of round(Gaussian * tau) given that it is not zero, float64."""
    uniform = generator.uniform(-1.0, 1.0, count)
    tail = magnitude_tail(tau)[::-1]
    magnitude = 1 + len(tail) - np.searchsorted(tail, np.abs(uniform), side="right")
    return np.where(uniform < 0, -magnitude, magnitude).astype(np.float64)


def wrong_values(generator: np.random.Generator, tau: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The errors among `count` values: where, sorted int64, and integers as floats; zeros may stand among them."""
    rate = error_rate(tau)
    if rate > DENSE_RATE:
        return np.arange(count), dense_errors(generator, tau, count)
    if rate == 0.0:
        return np.empty(0, np.int64), np.empty(0)
    positions = error_positions(generator, rate, count)
    return positions, error_values(generator, tau, len(positions))
