"""How many bits a reply's polynomials are sent in: the fewest bytes whose rounding noise the target has room for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from autoprivacy.errors import UserError
from autoprivacy.he.packing.plan import Workload
from autoprivacy.he.parameters.noise import (
    SECRET_VARIANCE,
    LayerNoise,
    reply_noise,
    required_z,
    rounding_noise,
    switching_noise,
    weighted_noise,
)
from autoprivacy.he.parameters.parameter_set import MAXIMUM_REPLY_BITS, Flooding, ParameterSet, ReplyBits, Target
from autoprivacy.he.ring.bit_packing import packed_bytes

# The share of the noise variance that a target allows which is kept for the rounding of replies where q is chosen as
# small as may be: it costs 0.05 bits of q, and half as much would cost half a bit of every coefficient. The most that
# rounding takes where q leaves room for more.
REPLY_SHARE, MOST_SHARE = 1 / 16, 15 / 16
ROUNDING_MARGIN = 1e-9  # separates one share from the next in floating point


def reply_bytes(degree: int, ciphertexts: int, coefficients: int, bits: ReplyBits) -> int:
    """Bytes of a reply: every c1 of n coefficients, then so many coefficients of all c0, as `reply` packs them."""
    return ciphertexts * packed_bytes(degree, bits.c1) + packed_bytes(coefficients, bits.c0)


@dataclass(frozen=True)
class _Reply:
    """What determines the bits of a layer's reply.

    Attributes:
        degree, ciphertexts, coefficients: as in `reply_bytes`.
        allowed: the standard deviation of noise that meets the target, in units of q.
    """

    degree: int
    ciphertexts: int
    coefficients: int
    allowed: float

    @classmethod
    def of(cls, workload: Workload, plaintext_modulus: int, target: Target) -> _Reply:
        """The layer's under a plaintext modulus, of a composite one the largest factor, and a target."""
        z = required_z(target, LayerNoise(0.0, coefficients=workload.coefficients_per_output))
        return cls(
            workload.degree, workload.output_ciphertexts, workload.reply_coefficients, 1 / (2 * plaintext_modulus * z)
        )

    def cost(self, bits: ReplyBits) -> tuple[int, float]:
        """Its bytes, then the noise that it adds."""
        return reply_bytes(self.degree, self.ciphertexts, self.coefficients, bits), switching_noise(self.degree, bits)


@cache
def _fewest_bytes(reply: _Reply, share: float) -> ReplyBits:
    """The bits of the smallest reply, of these the most accurate, whose rounding takes at most a share of the variance.

    c0 takes what c1 leaves: for every number of bits of c1 the fewest of c0.
    """
    room = share * reply.allowed**2
    choices = []
    for c1 in range(1, MAXIMUM_REPLY_BITS + 1):
        left = room - SECRET_VARIANCE * reply.degree * rounding_noise(c1) ** 2
        c0 = next((bits for bits in range(1, c1 + 1) if rounding_noise(bits) ** 2 <= left), None)
        if c0 is not None:
            choices.append(ReplyBits(c0, c1))
    if not choices:
        raise UserError(
            f"replies at n = {reply.degree}: {MAXIMUM_REPLY_BITS} bits a coefficient add more noise than the target "
            f"has room for, 2^{math.log2(room) / 2:.1f} q; tolerate more errors, or take a smaller plaintext modulus"
        )
    return min(choices, key=reply.cost)


def default_reply_bits(workload: Workload, parameters: ParameterSet, target: Target) -> ReplyBits:
    """What both parties take where a policy does not say: rounding takes REPLY_SHARE of the target's variance.

    It follows from public facts alone: the packing plan, p and the target. Replies under every factor of a composite p
    are sent in the same bits, those of the largest.

    Raises:
        UserError: the target leaves no room for any rounding, or does not suit the packing.
    """
    return _fewest_bytes(_Reply.of(workload, parameters.largest_factor, target), REPLY_SHARE)


def fewest_reply_bits(workload: Workload, plaintext_modulus: int, target: Target) -> ReplyBits:
    """The bits of a reply under a q that leaves room for MOST_SHARE; the modulus is `_Reply.of`'s, errors as above."""
    return _fewest_bytes(_Reply.of(workload, plaintext_modulus, target), MOST_SHARE)


def smallest_reply_bits(
    workload: Workload, parameters: ParameterSet, target: Target, noise: LayerNoise, flooding: Flooding
) -> ReplyBits:
    """The bits of the smallest reply that meets the target.

    Rounding takes what the other parts of the noise leave of the variance that the target allows, up to MOST_SHARE.
    Under flooding `paper`, whose flood would take all of it, and in a set too small for its target, it takes
    REPLY_SHARE.

    Args:
        workload, parameters: how the layer is evaluated.
        target: what the reply is to meet.
        noise: what the evaluation does to noise (`noise` of the plan).
        flooding: how the reply hides the weights.

    Raises:
        UserError: as for `default_reply_bits`.
    """
    reply, share = _Reply.of(workload, parameters.largest_factor, target), REPLY_SHARE
    if flooding.kind != "paper":
        others = reply_noise(parameters.polynomial_degree, weighted_noise(noise, parameters), flooding).total
        left = 1 - (others / parameters.q / reply.allowed) ** 2
        share = min(max(share, left), MOST_SHARE)
    return _fewest_bytes(reply, share)


def rounding_shares(workload: Workload, plaintext_modulus: int, target: Target) -> list[float]:
    """The shares of the target's variance that rounding takes in the replies from `fewest_reply_bits` on upwards.

    One for every reply that is smaller than the default and than all others that add as little noise, largest first.
    """
    reply, shares, room = _Reply.of(workload, plaintext_modulus, target), [], MOST_SHARE
    while room > REPLY_SHARE:
        share = (switching_noise(reply.degree, _fewest_bytes(reply, room)) / reply.allowed) ** 2
        shares.append(share)
        room = share * (1 - ROUNDING_MARGIN)
    return [share for share in shares if share > REPLY_SHARE]
