"""The noise of BFV ciphertexts in coefficient packing: standard deviations, decryption error rates, the q they need.

Noise is the integer e in c0 + c1 s = round(q m / p) + e. Average-case standard deviations throughout: every term below
is a sum of many independent draws, so the sum is close to a Gaussian.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import erfc

from autoprivacy.errors import UserError
from autoprivacy.he.parameters import Flooding, ParameterSet, Target

# The centred binomial that keys and ciphertexts are drawn with (secure_random.CENTRED_BINOMIAL_PAIRS): 21 / 2.
SIGMA_NOISE = math.sqrt(10.5)
# round(q m / p) is off by a uniform error of [-1/2, 1/2].
ROUNDING_VARIANCE = 1 / 12


def fresh_noise() -> float:
    """Standard deviation of a fresh symmetric encryption, the rounding of q m / p included."""
    return math.sqrt(SIGMA_NOISE**2 + ROUNDING_VARIANCE)


def rerandomisation_noise(polynomial_degree: int) -> float:
    """Standard deviation of the encryption under the public key that carries the mask.

    Its noise is e u + e1 + e2 s with u and s ternary.
    """
    return math.sqrt(SIGMA_NOISE**2 * (4 * polynomial_degree / 3 + 1) + ROUNDING_VARIANCE)


def weighted_noise(weight_norm: float) -> float:
    """sigma_v, the standard deviation that depends on the weights.

    Each coefficient of a reply is a sum of fresh noise times weights, over all its input ciphertexts.

    Args:
        weight_norm: 2-norm of the weights that go into one reply ciphertext (CoefficientPlan.weight_norm).
    """
    return fresh_noise() * weight_norm


@dataclass(frozen=True)
class ReplyNoise:
    """The standard deviations of what adds up in a reply's noise.

    Attributes:
        weighted: the part that depends on the weights (sigma_v).
        rerandomisation: the fresh encryption under the public key.
        flood: the Gaussian that hides the weighted part.
    """

    weighted: float
    rerandomisation: float
    flood: float = 0.0

    @property
    def total(self) -> float:
        """Standard deviation of the sum."""
        return math.hypot(self.weighted, self.rerandomisation, self.flood)


def reply_noise(polynomial_degree: int, weight_norm: float, flooding: Flooding, budget: float = 0.0) -> ReplyNoise:
    """The noise of a layer's reply.

    Args:
        polynomial_degree: n.
        weight_norm: 2-norm of the weights that go into one reply ciphertext (CoefficientPlan.weight_norm).
        flooding: how the weighted part is hidden. statistical: a Gaussian 2^kappa times as wide. paper: as wide as
            `budget` leaves room for. none: no flood.
        budget: for `paper`, the standard deviation that the whole noise is to have, q / (2 p z).
    """
    weighted, rerandomisation = weighted_noise(weight_norm), rerandomisation_noise(polynomial_degree)
    flood = 0.0  # none
    if flooding.kind == "statistical":
        flood = 2.0**flooding.kappa * weighted
    elif flooding.kind == "paper":
        flood = math.sqrt(max(0.0, budget**2 - weighted**2 - rerandomisation**2))
    return ReplyNoise(weighted, rerandomisation, flood)


def required_log2_q(z: float, plaintext_modulus: int, total: float) -> float:
    """Bits of q for which half the distance between plaintexts is z standard deviations: log2(2 p z sigma)."""
    return math.log2(2 * plaintext_modulus * z * total)


def noise_budget(q: int, plaintext_modulus: int, z: float) -> float:
    """The standard deviation that is 1 / z of half the distance between plaintexts: q / (2 p z)."""
    return q / (2 * plaintext_modulus) / z


def z_of(q: int, plaintext_modulus: int, total: float) -> float:
    """Half the distance between plaintexts in standard deviations of the noise: q / (2 p sigma)."""
    return q / (2 * plaintext_modulus) / total


def tau_of(q: int, plaintext_modulus: int, total: float) -> float:
    """The noise in least significant bits of the accumulator: sigma p / q = 1 / (2 z)."""
    return 1 / (2 * z_of(q, plaintext_modulus, total))


def decryption_error_rate(z: float) -> float:
    """The probability that one coefficient decrypts wrongly, erfc(z / sqrt 2); 0 where a double cannot hold it."""
    return float(erfc(z / math.sqrt(2)))


def deployed_noise(
    weight_norm: float, parameters: ParameterSet, flooding: Flooding, target: Target | None = None
) -> ReplyNoise:
    """The noise of a layer's reply as deployed.

    Args:
        weight_norm: 2-norm of the weights that go into one reply ciphertext (CoefficientPlan.weight_norm).
        parameters: the layer's set.
        flooding: how the reply hides the weights.
        target: what the flood `paper` is sized by (UserError without one); the others do not ask.
    """
    budget = 0.0
    if flooding.kind == "paper":
        if target is None:
            raise UserError("flooding paper: its width follows from the layer's target; give one")
        budget = noise_budget(parameters.q, parameters.plaintext_modulus, target.z)
    return reply_noise(parameters.polynomial_degree, weight_norm, flooding, budget)
