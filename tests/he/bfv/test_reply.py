"""Replies on the wire: exact switching and products, sizes, the noise model and error rates on real ciphertexts."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from support.real_noise import decrypt_with_noise

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.cipher import ClientCipher, ServerCipher
from autoprivacy.he.bfv.linear import ClientLinear, ServerComponent
from autoprivacy.he.bfv.reply import ReplyForm, ReplyPacker, ReplyReader
from autoprivacy.he.bfv.reply_bits import (
    MOST_SHARE,
    REPLY_SHARE,
    default_reply_bits,
    fewest_reply_bits,
    reply_bytes,
    rounding_shares,
    smallest_reply_bits,
)
from autoprivacy.he.packing.coefficient import CoefficientPlan
from autoprivacy.he.packing.plan import EvaluationPlan
from autoprivacy.he.packing.slot import SlotPlan
from autoprivacy.he.parameters.noise import (
    FRACTION_ERROR,
    ReplyNoise,
    rerandomisation_noise,
    switching_noise,
    weighted_noise,
    z_of,
)
from autoprivacy.he.parameters.parameter_set import (
    DEGREES,
    MAXIMUM_REPLY_BITS,
    Flooding,
    ParameterSet,
    ReplyBits,
    Target,
)
from autoprivacy.he.ring.primes import ntt_primes, primes_for
from autoprivacy.he.ring.ring import Ring
from autoprivacy.quantization.integer_network import LayerShape, LinearLayer
from autoprivacy.randomness.generator import SecureRandom

MODULI = {
    "small": ntt_primes(1 << 27, 256, 3),
    "large": ntt_primes(1 << 60, 256, 3),
    "one": ntt_primes(1 << 35, 256, 1),
}


def residues_of(values: list[int], ring: Ring) -> np.ndarray:
    return np.array([[value % prime for value in values] for prime in ring.primes], ring.dtype)


@pytest.mark.parametrize("primes", MODULI.values(), ids=MODULI)
def test_switching_is_rounding_to_within_the_bound(primes: tuple[int, ...]) -> None:
    """At random and next to where the rounding turns, for the fewest and the most bits."""
    ring, q, generator = Ring(256, primes), math.prod(primes), np.random.default_rng(0)
    packer = ReplyPacker(ring)
    for bits in (1, 20, 32, MAXIMUM_REPLY_BITS):
        values = [int(generator.integers(0, 1 << 62)) * int(generator.integers(0, 1 << 62)) ** 2 % q for _ in range(64)]
        steps = [int(generator.integers(0, 1 << bits)) for _ in range(63)]
        halves = [q * (2 * step + 1) // (2 << bits) for step in steps]  # half way between two results
        values += [0, q - 1, *halves, *(half + 1 for half in halves)]
        values += [q * step >> bits for step in range(256 - len(values))]
        switched = packer.switch(residues_of(values, ring), bits).tolist()
        bound = q * (1 << 63) + q * len(primes) * (1 << bits)  # 1/2 and a unit per prime, times 2^64 q
        for value, result in zip(values, switched, strict=True):
            distance = ((value << bits) - result * q + (q << bits - 1)) % (q << bits) - (q << bits - 1)
            assert 0 <= result < 1 << bits and abs(distance) << 64 <= bound
    assert len(primes) / 2.0**64 <= FRACTION_ERROR


def message_of(first: np.ndarray, second: np.ndarray, form: ReplyForm) -> bytes:
    """A reply of given numbers, c1's lanes packed by Python integers."""
    n, bits, lanes = form.degree, form.bits, form.degree // 64
    parts = []
    for row in second.tolist():
        columns = [sum(row[lane + lanes * j] << bits.c1 * j for j in range(64)) for lane in range(lanes)]
        for word in range(bits.c1):
            parts += [(column >> 64 * word & (1 << 64) - 1).to_bytes(8, "little") for column in columns]
    tail = sum(value << bits.c0 * j for j, value in enumerate(first.tolist()))
    return b"".join(parts) + tail.to_bytes(form.size - form.ciphertexts * n * bits.c1 // 8, "little")


@pytest.mark.parametrize("bits", [ReplyBits(9, 12), ReplyBits(22, 30), ReplyBits(43, 43)], ids=str)
@pytest.mark.parametrize("p", [2, 65537, (1 << 31) - 1])
def test_reading_is_exact(bits: ReplyBits, p: int) -> None:
    """Against Python integers, with the largest products a ternary secret can make, everything sent and a part."""
    degree, generator = 128, np.random.default_rng(2)
    for positions in (None, np.array([0, 5, 127, 128, 600, 639])):
        form = ReplyForm(degree, 5, bits, positions)
        secret = generator.integers(-1, 2, degree)
        first = generator.integers(0, 1 << bits.c0, form.coefficients)
        second = generator.integers(0, 1 << bits.c1, (5, degree))
        second[0], secret[:2] = (1 << bits.c1) - 1, -1
        message = message_of(first, second, form)
        assert len(message) == form.size
        reader, expected = ReplyReader(secret), []
        for place, value in zip(range(640) if positions is None else positions.tolist(), first.tolist(), strict=True):
            ciphertext, j = divmod(place, degree)
            row = second[ciphertext].tolist()
            terms = (s * row[j - i] * (1 if i <= j else -1) for i, s in enumerate(secret.tolist()))
            phase = (value << bits.c1 - bits.c0) + sum(terms)
            expected.append((2 * p * phase + (1 << bits.c1)) // (2 << bits.c1) % p)
        assert reader.read(message, form, p).tolist() == expected


def test_the_exact_product_holds_the_most_bits_at_every_degree() -> None:
    for degree, secret in itertools.product(DEGREES, (-1, 1)):
        form = ReplyForm(degree, 1, ReplyBits(1, MAXIMUM_REPLY_BITS), np.array([degree - 1]))
        reader = ReplyReader(np.full(degree, secret))
        # the last coefficient is the sum of all n products of 2^bits - 1: -n secret modulo 2^bits
        phase = -degree * secret % (1 << MAXIMUM_REPLY_BITS)
        expected = (2 * 1021 * phase + (1 << MAXIMUM_REPLY_BITS)) // (2 << MAXIMUM_REPLY_BITS) % 1021
        assert reader.read(b"\xff" * (form.size - 1) + b"\0", form, 1021).tolist() == [expected]


def test_malformed_replies_are_refused() -> None:
    form = ReplyForm(128, 2, ReplyBits(9, 12), np.array([3, 200, 201]))
    reader, message = ReplyReader(np.ones(128, np.int64)), bytes(form.size)
    assert form.size == 2 * 128 * 12 // 8 + 4 == reply_bytes(128, 2, 3, form.bits)
    assert reader.read(message, form, 17).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=f"reply of 2 ciphertexts: expected {form.size} bytes, got {form.size - 1}"):
        reader.read(message[:-1], form, 17)
    with pytest.raises(ValueError, match="the last 5 bits are not zero"):
        reader.read(message[:-1] + b"\x80", form, 17)
    for c0, c1 in ((0, 10), (11, 10), (10, MAXIMUM_REPLY_BITS + 1)):
        with pytest.raises(UserError, match=f"reply bits c0 = {c0}, c1 = {c1}: expected 1 <= c0 <= c1 <= 43"):
            ReplyBits(c0, c1)


P = ntt_primes(1 << 20, 8192, 1)[0]
SHAPE = LayerShape("layer", "convolution", (4, 16, 16), 6, (3, 3), padding=1)
WEIGHT = np.random.default_rng(3).integers(-127, 128, (6, 4, 3, 3))
PLANS: dict[str, EvaluationPlan] = {
    "coefficient": CoefficientPlan(SHAPE, 2048, 2, 3, 16),
    "slot": SlotPlan(SHAPE, 2048, P, 256, 1, 1),
}


@pytest.mark.parametrize("packing", PLANS)
@pytest.mark.parametrize("target", [Target(2.0**-5), Target(2.0**-40)], ids=str)
def test_bits_are_the_fewest_bytes_with_room(packing: str, target: Target) -> None:
    """Against all pairs; the room is what the other noise leaves, a share of it by default."""
    plan, noise = PLANS[packing], PLANS[packing].noise(WEIGHT)
    z = target.z if packing == "coefficient" else Target((target.decryption_error_rate or 0) / plan.degree).z
    allowed = 1 / (2 * P * z)
    parameters = ParameterSet(P, 2048, primes_for(52.5, 2048))
    others = math.hypot(weighted_noise(noise, parameters), rerandomisation_noise(2048)) / parameters.q
    slack = min(MOST_SHARE, max(REPLY_SHARE, 1 - (others / allowed) ** 2))
    pairs = [ReplyBits(c0, c1) for c1 in range(1, MAXIMUM_REPLY_BITS + 1) for c0 in range(1, c1 + 1)]
    for share, bits in {
        REPLY_SHARE: default_reply_bits(plan.workload, parameters, target),
        slack: smallest_reply_bits(plan.workload, parameters, target, noise, Flooding("none")),
        MOST_SHARE: fewest_reply_bits(plan.workload, P, target),
    }.items():
        fitting = [pair for pair in pairs if switching_noise(2048, pair) <= allowed * math.sqrt(share) * (1 + 1e-4)]
        sizes = [reply_bytes(2048, plan.output_ciphertexts, plan.workload.reply_coefficients, pair) for pair in fitting]
        assert bits in fitting
        assert reply_bytes(2048, plan.output_ciphertexts, plan.workload.reply_coefficients, bits) == min(sizes)
    shares = rounding_shares(plan.workload, P, target)
    assert shares == sorted(shares, reverse=True) and all(REPLY_SHARE < share <= MOST_SHARE for share in shares)
    assert smallest_reply_bits(plan.workload, parameters, target, noise, Flooding("paper")) == default_reply_bits(
        plan.workload, parameters, target
    )


def test_bits_that_no_reply_has_are_refused() -> None:
    parameters = ParameterSet((1 << 31) - 1, 2048, primes_for(52.5, 2048))
    with pytest.raises(UserError, match="43 bits a coefficient add more noise"):
        default_reply_bits(PLANS["coefficient"].workload, parameters, Target(tau=1e-6))


class Parties:
    """Client and server of the layer under fresh keys, with bits that share the noise with the flood."""

    def __init__(self, packing: str, bits: ReplyBits, total: float) -> None:
        plan = PLANS[packing]
        self.parameters = ParameterSet(P, 2048, primes_for(52.0, 2048, 27))
        layer = LinearLayer(SHAPE, WEIGHT, np.zeros(6, np.int64))
        self.client = ClientLinear(plan, ClientCipher(self.parameters), bits)
        self.server = ServerComponent(layer, plan, self.parameters, Flooding("none"), None, bits)
        parts = self.server.noise
        flood = math.sqrt(total**2 - parts.total**2)
        self.server.noise = replace(parts, flood=flood)
        assert self.server.noise.total == pytest.approx(total)
        self.cipher = ServerCipher(self.parameters, self.client.cipher.public_key())
        generator = np.random.default_rng()
        self.share = generator.integers(0, P, SHAPE.input_shape, dtype=np.uint64)
        self.mask = generator.integers(0, P, SHAPE.output_shape, dtype=np.uint64)

    def measure(self) -> tuple[np.ndarray, np.ndarray]:
        """The noise of every coefficient that is sent, and which of them decrypt wrongly, against a nearly exact reply.

        The reply with the most bits of the same sums and masks shows what should have come out.
        """
        plan, cipher, client = self.client.plan, self.cipher, self.client.cipher
        sums = self.server.multiply(cipher.load(self.client.encrypt(self.share), plan.input_ciphertexts))
        masks = self.server._masks(self.mask)
        form = replace(self.client.form, bits=ReplyBits(43, 43))
        exact = client.decrypt(cipher.reply(sums, masks, 0.0, form), form)
        message = cipher.reply(sums, masks, self.server.noise.flood, self.client.form)
        plain, noise = decrypt_with_noise(client, message, self.client.form)
        off = (plain.astype(np.int64) - exact.astype(np.int64) + P // 2) % P - P // 2
        noise = noise + off * (self.parameters.q / P)
        sent = slice(None) if self.client.form.positions is None else self.client.form.positions
        return noise.reshape(-1)[sent], off.reshape(-1)[sent] != 0


@pytest.mark.parametrize("packing", PLANS)
@pytest.mark.parametrize(("rounding", "fewest_errors"), [(0.1, 0.9), (0.9, 0.8)])
def test_noise_and_error_rate_of_real_replies(packing: str, rounding: float, fewest_errors: float) -> None:
    """At z = 2.154, an error rate of 2^-5, over many ciphertexts and keys, rounding being a little or most of it.

    c0's rounding is one uniform error, not a sum: where it is a large part there are fewer errors than predicted.
    """
    q, rate = math.prod(primes_for(52.0, 2048, 27)), 2.0**-5
    total = q / (2 * P * Target(rate).z)
    pairs = (ReplyBits(c0, c0 + 5) for c0 in range(10, 38))
    bits = next(pair for pair in pairs if (q * switching_noise(2048, pair)) ** 2 < rounding * total**2)
    assert (q * switching_noise(2048, bits)) ** 2 > rounding / 4 * total**2
    measured = [Parties(packing, bits, total).measure() for _ in range(40)]
    noise, wrong = (np.concatenate(parts) for parts in zip(*measured, strict=True))
    assert z_of(q, P, total) == pytest.approx(2.154, abs=1e-3) and noise.size >= 60_000
    assert noise.std() == pytest.approx(total, rel=0.05)
    assert fewest_errors * rate < wrong.mean() < 1.1 * rate


def test_small_noise_is_measured_too() -> None:
    """Where q is no larger than the bits carry, the noise of re-randomisation shows as it is."""
    parameters = ParameterSet(257, 2048, primes_for(36.0, 2048))
    client = ClientCipher(parameters, SecureRandom(bytes(32)))
    server, form = ServerCipher(parameters, client.public_key()), ReplyForm(2048, 16, ReplyBits(43, 43))
    masks = np.random.default_rng(5).integers(0, 257, (16, 2048), dtype=np.uint64)
    message = server.reply(np.zeros((16, 2, 1, 2048), server.ring.dtype), masks, 0.0, form)
    plain, noise = decrypt_with_noise(client, message, form)
    np.testing.assert_array_equal(plain, masks)
    switching = parameters.q * switching_noise(2048, form.bits)
    expected = ReplyNoise(0.0, rerandomisation_noise(2048), 0.0, switching).total
    assert switching < 1 and noise.std() == pytest.approx(expected, rel=0.06)
