"""The noise of BFV ciphertexts: standard deviations, decryption error rates, the q they need.

Noise is the integer e in c0 + c1 s = round(q m / p) + e. Average-case standard deviations throughout: every term below
is a sum of many independent draws, so the sum is close to a Gaussian.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import erfc, erfcinv

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, ReplyBits, Target

# The centred binomial that keys and ciphertexts are drawn with (randomness.generator.CENTRED_BINOMIAL_PAIRS): 21 / 2.
SIGMA_NOISE = math.sqrt(10.5)
# round(q m / p) is off by a uniform error of [-1/2, 1/2].
ROUNDING_VARIANCE = 1 / 12
# The variance of a coefficient of the secret, uniform over -1, 0, 1.
SECRET_VARIANCE = 2 / 3
# A reply's coefficients are known modulo q as 64-bit fractions that are at most one unit per prime off; no secure set
# has as many primes as this counts.
FRACTION_ERROR = 64 / 2.0**64


@dataclass(frozen=True)
class LayerNoise:
    """What the evaluation of a layer does to the noise of fresh ciphertexts, as its packing plan knows it.

    Attributes:
        norm: fresh noise grows by this factor: the 2-norm of all weight coefficients that go into one reply ciphertext,
            of the largest; where coefficients differ that of the noisiest.
        rotations: variance of the noise that rotations add to it, in units of one rotation's.
        coefficients: how many coefficients must decrypt rightly for an output to be right.
    """

    norm: float
    rotations: float = 0.0
    coefficients: int = 1


def fresh_noise() -> float:
    """Standard deviation of a fresh symmetric encryption, the rounding of q m / p included."""
    return math.sqrt(SIGMA_NOISE**2 + ROUNDING_VARIANCE)


def rerandomisation_noise(polynomial_degree: int) -> float:
    """Standard deviation of the encryption under the public key that carries the mask.

    Its noise is e u + e1 + e2 s with u and s ternary.
    """
    return math.sqrt(SIGMA_NOISE**2 * (4 * polynomial_degree / 3 + 1) + ROUNDING_VARIANCE)


def rotation_noise(parameters: ParameterSet) -> float:
    """Standard deviation of what one rotation adds; UserError where the set has no key-switching prime.

    Key switching adds the sum of d_i e_i / P with d_i uniform modulo a prime of q and centred, and rounds by P.
    """
    special = parameters.key_switching_prime
    if special is None:
        raise UserError(f"rotations under the primes {parameters.primes}: the set has no key-switching prime; add one")
    n = parameters.polynomial_degree
    digits = sum((prime / special) ** 2 for prime in parameters.primes) / 12
    return math.sqrt(SIGMA_NOISE**2 * n * digits + ROUNDING_VARIANCE * (1 + SECRET_VARIANCE * n))


def weighted_noise(layer: LayerNoise, parameters: ParameterSet) -> float:
    """sigma_v, the standard deviation that depends on the weights.

    Each coefficient of a reply is a sum of fresh noise times weights, over all its input ciphertexts, and of the noise
    of rotations, which see the weights too.
    """
    rotations = math.sqrt(layer.rotations) * rotation_noise(parameters) if layer.rotations else 0.0
    return math.hypot(fresh_noise() * layer.norm, rotations)


@dataclass(frozen=True)
class ReplyNoise:
    """The standard deviations of what adds up in a reply's noise.

    Attributes:
        weighted: the part that depends on the weights (sigma_v).
        rerandomisation: the fresh encryption under the public key.
        flood: the Gaussian that hides the weighted part.
        switching: the rounding of the reply to the bits that it is sent in.
    """

    weighted: float
    rerandomisation: float
    flood: float = 0.0
    switching: float = 0.0

    @property
    def total(self) -> float:
        """Standard deviation of the sum."""
        return math.hypot(self.weighted, self.rerandomisation, self.flood, self.switching)


def switching_noise(polynomial_degree: int, bits: ReplyBits) -> float:
    """Standard deviation of what rounding a reply to fewer bits adds, in units of q.

    c0 is off by one rounding, c1 by one that decryption multiplies with the secret. These are sums of uniform errors:
    beyond two standard deviations, where decryption errors are, a Gaussian of that width is the more frequent.
    """
    secret = math.sqrt(SECRET_VARIANCE * polynomial_degree)
    return math.hypot(rounding_noise(bits.c0), secret * rounding_noise(bits.c1))


def rounding_noise(bits: int) -> float:
    """Standard deviation of one coefficient's rounding to `bits` bits, in units of q, at most.

    To a uniform rounding error comes that of the fraction that is rounded (`reply.ReplyPacker`).
    """
    return math.sqrt(ROUNDING_VARIANCE) / 2.0**bits + FRACTION_ERROR


def reply_noise(
    polynomial_degree: int, weighted: float, flooding: Flooding, budget: float = 0.0, switching: float = 0.0
) -> ReplyNoise:
    """The noise of a layer's reply.

    Args:
        polynomial_degree: n.
        weighted: standard deviation of the part that depends on the weights (`weighted_noise`).
        flooding: how the weighted part is hidden. statistical: a Gaussian 2^kappa times as wide. paper: as wide as
            `budget` leaves room for. none: no flood.
        budget: for `paper`, the standard deviation that the whole noise is to have, q / (2 p z).
        switching: the standard deviation that the reply's rounding adds.
    """
    rerandomisation = rerandomisation_noise(polynomial_degree)
    flood = 0.0  # none
    if flooding.kind == "statistical":
        flood = 2.0**flooding.kappa * weighted
    elif flooding.kind == "paper":
        flood = math.sqrt(max(0.0, budget**2 - weighted**2 - rerandomisation**2 - switching**2))
    return ReplyNoise(weighted, rerandomisation, flood, switching)


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


def decryption_error_rate(z: float, coefficients: int = 1) -> float:
    """The probability that one of so many coefficients decrypts wrongly; 0 where a double cannot hold it.

    One coefficient does with erfc(z / sqrt 2).
    """
    rate = float(erfc(z / math.sqrt(2)))
    return rate if coefficients == 1 or rate == 1 else -math.expm1(coefficients * math.log1p(-rate))


def required_z(target: Target, layer: LayerNoise) -> float:
    """The z at which an output is wrong as often as the target tolerates.

    Raises:
        UserError: the target is a noise size and an output depends on more than its own coefficient.
    """
    if layer.coefficients == 1:
        return target.z
    if target.decryption_error_rate is None:
        raise UserError(
            f"target: tau {target.tau} in a packing whose errors spoil whole ciphertexts; give a decryption error rate"
        )
    rate = -math.expm1(math.log1p(-target.decryption_error_rate) / layer.coefficients)
    return math.sqrt(2) * float(erfcinv(rate))


def deployed_noise(
    layer: LayerNoise, parameters: ParameterSet, flooding: Flooding, target: Target | None, bits: ReplyBits
) -> ReplyNoise:
    """The noise of a layer's reply as deployed.

    Args:
        layer: what its evaluation does to noise (`noise` of its packing plan).
        parameters: the layer's set.
        flooding: how the reply hides the weights.
        target: what the flood `paper` is sized by (UserError without one); the others do not ask.
        bits: what the reply is sent in.
    """
    budget = 0.0
    if flooding.kind == "paper":
        if target is None:
            raise UserError("flooding paper: its width follows from the layer's target; give one")
        budget = noise_budget(parameters.q, parameters.largest_factor, required_z(target, layer))
    switching = parameters.q * switching_noise(parameters.polynomial_degree, bits)
    return reply_noise(parameters.polynomial_degree, weighted_noise(layer, parameters), flooding, budget, switching)
