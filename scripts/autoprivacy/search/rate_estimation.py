"""How many samples of the noise it takes to know a small decryption error rate: four ways, compared.

- exact: the tail of the predicted Gaussian, which needs no sample; the reference of the others.
- gaussian fit: the tail of a Gaussian with the samples' standard deviation.
- brute force: the share of samples beyond half the distance between plaintexts.
- sigma-scaled: brute force on noise whose standard deviation is scaled by s > 1, and from there back to s = 1 by the
  model log P(s) = alpha + beta log s + gamma / s^2 (Sun, Li, Liu, Luo, Gu, IEEE TCAD 34, 2015; the paper's section
  3.1, Reward, and its reference 22).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from scipy import fft
from scipy.special import erfc

from autoprivacy.errors import UserError
from autoprivacy.he.packing import packing_named
from autoprivacy.he.parameters.noise import LayerNoise, decryption_error_rate, reply_noise, weighted_noise
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, Target
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.randomness.gaussian_numba import centred_binomial
from autoprivacy.randomness.generator import CENTRED_BINOMIAL_PAIRS

# The scales between which log P is fitted: below, too few samples are beyond the bound, above, the model's neglected
# terms show (measured: scales up to 3 bias 2^-15 by -5% to -8%).
SCALES = np.linspace(1.2, 2.2, 11)
# A scale takes part in the fit from so many samples beyond the bound; the logarithm of fewer is biased.
FEWEST_HITS = 10
PARAMETERS = 3  # alpha, beta, gamma: as many scales are needed at least
TARGETS = (15, 20, 40)  # rates 2^-x: the paper's smallest action, its neighbour, and what prior systems are built for
FIRST_CHECKPOINT = 10**5  # estimates are taken after so many samples and each tenfold of it
EXACT, FIT, BRUTE_FORCE, SCALED = "exact", "gaussian fit", "brute force", "sigma-scaled"


class Noise(Protocol):
    """Samples of a noise, in units of its predicted standard deviation."""

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """A block of fresh samples, float32 [any]."""


@dataclass(frozen=True)
class GaussianNoise:
    """A Gaussian; the noise of replies that are flooded, whose flood is one.

    Attributes:
        block: samples in a block.
    """

    block: int = 1 << 14

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """See Noise."""
        return generator.standard_normal(self.block, np.float32)


class UnfloodedNoise:
    """The noise of a reply without flood, from the distributions that keys and ciphertexts are drawn from.

    Products of fresh noise (the centred binomial and the rounding of q m / p) with one reply ciphertext's weight
    polynomials, and the encryption of zero e u + e1 + e2 s under a public key, every block under a key of its own.

    Args:
        weights: the weight polynomials that go into the ciphertext, int64 [inputs, n].
        parameters: the parameter set; what is predicted follows from it.
        ciphertexts: how many ciphertexts make a block.
    """

    def __init__(self, weights: np.ndarray, parameters: ParameterSet, ciphertexts: int = 4) -> None:
        self.degree, self.ciphertexts = weights.shape[1], ciphertexts
        norm = math.sqrt(float((weights.astype(np.float64) ** 2).sum()))
        weighted = weighted_noise(LayerNoise(norm), parameters)
        self.standard_deviation = reply_noise(self.degree, weighted, Flooding("none")).total
        self._weights = self._transform(weights)

    def _transform(self, polynomials: np.ndarray) -> np.ndarray:
        return fft.rfft(polynomials.astype(np.float32), 2 * self.degree)

    def _binomial(self, generator: np.random.Generator, *shape: int) -> np.ndarray:
        out = np.empty((*shape, self.degree), np.int64)
        centred_binomial(generator.bit_generator.random_raw(out.size), CENTRED_BINOMIAL_PAIRS, out.reshape(-1))
        return out.astype(np.float32)

    def _ternary(self, generator: np.random.Generator, *shape: int) -> np.ndarray:
        return generator.integers(-1, 2, (*shape, self.degree), np.int8)

    def _rounding(self, generator: np.random.Generator, *shape: int) -> np.ndarray:
        return generator.random((*shape, self.degree), np.float32) - np.float32(0.5)

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """See Noise."""
        count, inputs = self.ciphertexts, len(self._weights)
        fresh = self._binomial(generator, count, inputs) + self._rounding(generator, count, inputs)
        key_error, secret = self._binomial(generator), self._ternary(generator)
        spectrum = (self._transform(fresh) * self._weights).sum(1)
        spectrum += self._transform(key_error) * self._transform(self._ternary(generator, count))
        spectrum += self._transform(secret) * self._transform(self._binomial(generator, count))
        product = fft.irfft(spectrum, 2 * self.degree)
        total = product[:, : self.degree] - product[:, self.degree :]  # X^n = -1
        total += self._binomial(generator, count) + self._rounding(generator, count)
        return (total / np.float32(self.standard_deviation)).reshape(-1)


def sigma_scaled_estimate(hits: np.ndarray, counts: np.ndarray) -> float:
    """P at s = 1 from the hits among the samples at each of SCALES.

    A weighted least-squares fit: the variance of log P is about 1 / hits. nan where too few scales have enough hits,
    and where the fit is no probability.
    """
    enough = hits >= FEWEST_HITS
    if enough.sum() < PARAMETERS:
        return math.nan
    scales, weights = SCALES[enough], np.sqrt(hits[enough])
    columns = np.stack([np.ones_like(scales), np.log(scales), scales**-2.0], axis=1)
    logarithms = np.log(hits[enough] / counts[enough])
    (alpha, _, gamma), *_ = np.linalg.lstsq(columns * weights[:, None], logarithms * weights, rcond=None)
    return math.exp(alpha + gamma) if alpha + gamma <= 0 else math.nan


@dataclass
class Tally:
    """What is kept of the samples of one repetition.

    Attributes:
        bounds: half the distance between plaintexts in standard deviations (z), one per target rate.
    """

    bounds: np.ndarray
    count: int = 0
    squares: float = 0.0
    hits: np.ndarray = field(init=False)
    scaled_counts: np.ndarray = field(init=False)
    scaled_hits: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.hits = np.zeros(len(self.bounds), np.int64)
        self.scaled_counts = np.zeros(len(SCALES), np.int64)
        self.scaled_hits = np.zeros((len(SCALES), len(self.bounds)), np.int64)

    def add(self, samples: np.ndarray) -> None:
        """Count samples as they are, and each scaled by one of SCALES in turn; noise is linear in what is scaled."""
        magnitudes = np.abs(samples)
        self.count += samples.size
        self.squares += float(np.dot(samples, samples))
        self.hits += [np.count_nonzero(magnitudes > bound) for bound in self.bounds]
        for number, scale in enumerate(SCALES):
            own = magnitudes[number :: len(SCALES)]
            self.scaled_counts[number] += own.size
            self.scaled_hits[number] += [np.count_nonzero(own > bound / scale) for bound in self.bounds]

    def estimates(self, target: int) -> dict[str, float]:
        """Each method's estimate of a target's rate from the samples so far."""
        deviation = math.sqrt(self.squares / self.count)
        return {
            FIT: float(erfc(self.bounds[target] / (math.sqrt(2) * deviation))),
            BRUTE_FORCE: self.hits[target] / self.count,
            SCALED: sigma_scaled_estimate(self.scaled_hits[:, target], self.scaled_counts),
        }


def checkpoints(samples: int) -> list[int]:
    """The numbers of samples after which estimates are taken; UserError where there are too few."""
    if samples < FIRST_CHECKPOINT:
        raise UserError(f"sampling samples: got {samples}; expected at least {FIRST_CHECKPOINT}")
    tenfold = [FIRST_CHECKPOINT * 10**k for k in range(int(math.log10(samples / FIRST_CHECKPOINT)) + 1)]
    return tenfold if tenfold[-1] == samples else [*tenfold, samples]


def repetition(noise: Noise, generator: np.random.Generator, samples: int) -> dict[tuple[str, int, int], float]:
    """One repetition: estimates by (method, exponent of the target rate, samples as asked for)."""
    tally = Tally(np.array([Target(decryption_error_rate=2.0**-exponent).z for exponent in TARGETS]))
    found: dict[tuple[str, int, int], float] = {}
    for checkpoint in checkpoints(samples):
        while tally.count < checkpoint:
            tally.add(noise.draw(generator)[: checkpoint - tally.count])
        for target, exponent in enumerate(TARGETS):
            estimates = tally.estimates(target)
            found.update({(method, exponent, checkpoint): value for method, value in estimates.items()})
    return found


def study_rows(name: str, noise: Noise, samples: int, repetitions: int, seed: int) -> list[dict[str, Any]]:
    """The table of one noise: every method's error over repetitions, for every target and number of samples.

    Args:
        name: of the noise.
        noise: what is sampled; repetition k draws with the generator (seed, k).
        samples: of one repetition, at most; smaller numbers are looked at on the way.
        repetitions: how often each estimate is made.
        seed: the config's.

    Returns:
        Rows with noise, method, target (the rate 2^-x as x), samples, repetitions, exact (the predicted rate), estimate
        (the mean of those there are), relative_error (root-mean-square, against exact), without_estimate (how many
        repetitions had none). Numbers that do not exist are empty.
    """
    found = []
    for number in range(repetitions):
        found.append(repetition(noise, np.random.Generator(np.random.SFC64([seed, number])), samples))
        logging.info("sampling, %s noise: repetition %d of %d", name, number + 1, repetitions)
    rows = [_row(name, (EXACT, exponent, 0), []) for exponent in TARGETS]
    return rows + [_row(name, key, [estimates[key] for estimates in found]) for key in found[0]]


def _row(name: str, key: tuple[str, int, int], estimates: Sequence[float]) -> dict[str, Any]:
    method, exponent, samples = key
    exact = decryption_error_rate(Target(decryption_error_rate=2.0**-exponent).z)
    given = np.array([exact] if method == EXACT else [value for value in estimates if not math.isnan(value)])
    return {
        "noise": name,
        "method": method,
        "target": exponent,
        "samples": samples,
        "repetitions": len(estimates),
        "exact": exact,
        "estimate": float(given.mean()) if given.size else "",
        "relative_error": float(np.sqrt(np.mean((given / exact - 1) ** 2))) if given.size else "",
        "without_estimate": len(estimates) - len(given) if estimates else 0,
    }


def noisiest_reply(network: IntegerNetwork, policy: Policy) -> UnfloodedNoise:
    """The noise, were it not flooded, of the noisiest reply ciphertext of a policy in coefficient packing."""
    if packing_named(policy.packing).in_slots:
        raise UserError(f"sampling: policy in {policy.packing} packing; the noise is sampled in coefficient packing")
    best: tuple[float, np.ndarray, ParameterSet] | None = None
    for layer in policy.layers:
        parameters, linear = layer.parameters, network.layers[layer.name]
        plan = (
            packing_named(policy.packing)
            .from_tiling(linear.shape, parameters.polynomial_degree, parameters.plaintext_modulus, layer.tiling)
            .components[0]
        )
        polynomials, sums = plan.encode_weights(linear.weight), plan.products[1]
        squares = np.bincount(sums, (polynomials.astype(np.float64) ** 2).sum(1))
        if best is None or squares.max() > best[0]:
            best = (squares.max(), polynomials[sums == squares.argmax()], parameters)
    assert best is not None  # a policy has the network's layers, and a network has one
    return UnfloodedNoise(best[1], best[2])
