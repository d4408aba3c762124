"""Linear layers through real ciphertexts: what the client decrypts is (M r - s) mod p."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.real_noise import decrypt_with_noise

from autoprivacy.he.bfv.cipher import ClientCipher, ServerCipher, message_bytes
from autoprivacy.he.bfv.flood import WIDEST_GAUSSIAN, wide_flood
from autoprivacy.he.bfv.linear import ClientLinear, ServerComponent
from autoprivacy.he.bfv.reply_bits import reply_bytes, smallest_reply_bits
from autoprivacy.he.packing.coefficient import CoefficientPlan, admissible_plans
from autoprivacy.he.packing.public_noise import layer_noise
from autoprivacy.he.parameters.noise import fresh_noise, rounding_noise
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, ReplyBits, Target
from autoprivacy.he.ring.ring import Ring, ntt_primes, primes_for
from autoprivacy.quantization.integer_network import LayerShape, LinearLayer
from autoprivacy.randomness.generator import SecureRandom

DRAWS = 60  # replies whose noise is averaged
PRIME = ntt_primes(1 << 20, 8192, 1)[0]


def make_layer(channels: int, size: int, outputs: int, kernel: int, seed: int = 0, **more: int) -> LinearLayer:
    shape = LayerShape("layer", "convolution", (channels, size, size), outputs, (kernel, kernel), **more)
    members = channels // shape.groups
    weight = np.random.default_rng(seed).integers(-127, 128, (outputs, members, kernel, kernel))
    return LinearLayer(shape, weight, np.zeros(outputs, np.int64))


def direct(layer: LinearLayer, values: np.ndarray) -> np.ndarray:
    """The convolution without bias over the integers, as sums of shifted images."""
    shape = layer.shape
    _, rows, columns = shape.output_shape
    padded = np.pad(values.astype(np.int64), ((0, 0), (shape.padding,) * 2, (shape.padding,) * 2))
    members, per_group = layer.weight.shape[1], shape.output_channels // shape.groups
    out = np.zeros(shape.output_shape, np.int64)
    for o, c, i, j in np.ndindex(*layer.weight.shape):
        image = padded[o // per_group * members + c, i :: shape.stride, j :: shape.stride]
        out[o] += layer.weight[o, c, i, j] * image[:rows, :columns]
    return out


class Parties:
    """Client and server of one layer."""

    def __init__(
        self, layer: LinearLayer, plan: CoefficientPlan, parameters: ParameterSet, flooding: Flooding, target: Target
    ) -> None:
        self.layer, self.p, self.flooding = layer, parameters.plaintext_modulus, flooding
        self.bits = smallest_reply_bits(plan.workload, parameters, target, layer_noise(layer, plan, flooding), flooding)
        self.client = ClientLinear(plan, ClientCipher(parameters), self.bits)
        self.server = ServerComponent(layer, plan, parameters, flooding, target, self.bits)
        self.cipher = ServerCipher(parameters, self.client.cipher.public_key())
        generator = np.random.default_rng(7)
        self.share = generator.integers(0, self.p, layer.shape.input_shape).astype(np.uint64)
        self.mask = generator.integers(0, self.p, layer.shape.output_shape).astype(np.uint64)

    def reply(self) -> bytes:
        return self.server.evaluate(self.cipher, self.client.encrypt(self.share), self.mask)

    @property
    def expected(self) -> np.ndarray:
        return (direct(self.layer, self.share) - self.mask.astype(np.int64)) % self.p


EXACT = Target(decryption_error_rate=2.0**-40)
LAYERS = {
    "3x3, statistical flood": (
        make_layer(10, 16, 7, 3, padding=1),
        (PRIME, 4096, primes_for(76.0, 4096)),
        Flooding("statistical"),
    ),
    "3x3 in bands, statistical flood, two small primes": (
        make_layer(6, 32, 5, 3, padding=1),
        (PRIME, 2048, primes_for(52.0, 2048, 27)),
        Flooding("statistical", 12),
    ),
    "1x1, statistical flood, three small primes": (
        make_layer(40, 8, 24, 1),
        (1 << 17, 4096, primes_for(75.0, 4096, 27)),
        Flooding("statistical"),
    ),
    "fully connected, no flood, p = 2^17": (
        make_layer(300, 1, 10, 1),
        (1 << 17, 2048, primes_for(40.0, 2048)),
        Flooding("none"),
    ),
    "depthwise in row bands, small n": (
        make_layer(3, 32, 3, 3, padding=1, groups=3),
        (257, 1024, primes_for(25.5, 1024)),
        Flooding("none"),
    ),
    "strided, paper's flood, three primes": (
        make_layer(4, 16, 5, 3, stride=2, padding=1),
        (PRIME, 8192, ntt_primes(1 << 60, 8192, 3)),
        Flooding("paper"),
    ),
}


@pytest.fixture(scope="module", params=LAYERS)
def parties(request: pytest.FixtureRequest) -> Parties:
    layer, (p, degree, primes), flooding = LAYERS[request.param]
    plans = admissible_plans(layer.shape, degree)
    return Parties(layer, plans[len(plans) // 2], ParameterSet(p, degree, primes), flooding, EXACT)


def test_client_decrypts_the_masked_result(parties: Parties) -> None:
    result = parties.client.decrypt(parties.reply())
    assert result.dtype == np.uint64
    np.testing.assert_array_equal(result, parties.expected)


def test_messages_have_the_predicted_lengths(parties: Parties) -> None:
    plan, parameters = parties.client.plan, parties.server.parameters
    assert len(parties.client.encrypt(parties.share)) == message_bytes(parameters, plan.input_ciphertexts)
    outputs = parties.layer.shape.output_shape
    expected = reply_bytes(plan.degree, plan.output_ciphertexts, math.prod(outputs), parties.bits)
    assert len(parties.reply()) == expected


def test_noise_of_the_reply_is_the_predicted_one(parties: Parties) -> None:
    """Every output collects the noise of all output channels that share its ciphertext."""
    plan, server, weight = parties.client.plan, parties.server, parties.layer.weight.astype(float)
    squares = (weight**2).reshape(len(weight), -1).sum(1)
    blocks = np.arange(len(weight)) // plan.channels_per_output
    weighted = fresh_noise() * np.sqrt(np.array([squares[blocks == block].sum() for block in blocks]))
    # a flood is sized by the public bound of the weights, which the noise of these weights stays within
    largest = np.max(weighted)
    assert largest <= server.noise.weighted * (1 + 1e-9)
    assert parties.flooding.kind != "none" or largest == pytest.approx(server.noise.weighted)
    roundings = rounding_noise(parties.bits.c0), rounding_noise(parties.bits.c1)
    terms = np.count_nonzero(parties.client.cipher._ternary_secret())  # the model's 2n/3 is off by percents at small n
    switching = server.parameters.q * math.hypot(roundings[0], math.sqrt(terms) * roundings[1])
    assert switching == pytest.approx(server.noise.switching, rel=0.1)
    variances = weighted**2 + server.noise.rerandomisation**2 + server.noise.flood**2 + switching**2
    ratios = []
    for _ in range(DRAWS):
        _, errors = decrypt_with_noise(parties.client.cipher, parties.reply(), parties.client.form)
        ratios.append(np.mean(plan.decode_output(errors).reshape(len(weight), -1) ** 2 / variances[:, None]))
    # the noises of one reply hang together, so it is replies that count
    error = np.std(ratios) / math.sqrt(DRAWS)
    assert abs(np.mean(ratios) - 1) < max(5 * error, 0.02)
    assert error < 0.15


def test_coefficients_that_are_no_output_are_not_sent(parties: Parties) -> None:
    plan, form = parties.client.plan, parties.client.form
    assert form.positions is not None and form.coefficients == len(set(plan.output_positions)) == len(form.positions)
    plain = parties.client.cipher.decrypt(parties.reply(), form).reshape(-1)
    assert not np.any(np.delete(plain, plan.output_positions))
    assert np.any(plain[plan.output_positions])


def test_two_replies_share_no_ciphertext_block(parties: Parties) -> None:
    message = parties.client.encrypt(parties.share)
    first, second = (parties.server.evaluate(parties.cipher, message, parties.mask) for _ in range(2))
    blocks = [{reply[i : i + 16] for i in range(0, len(reply), 16)} for reply in (first, second)]
    assert not blocks[0] & blocks[1]


def test_wrong_messages_and_masks_are_refused(parties: Parties) -> None:
    with pytest.raises(ValueError, match="bytes"):
        parties.server.evaluate(parties.cipher, parties.client.encrypt(parties.share)[:-1], parties.mask)
    with pytest.raises(ValueError, match="bytes"):
        parties.client.decrypt(parties.reply() + b"0")
    sums = np.zeros((1, 2, 1, 1), np.uint64)
    with pytest.raises(ValueError, match="mask"):
        parties.server.finish(parties.cipher, sums, parties.mask + np.uint64(parties.p))


def test_a_plan_of_another_degree_is_refused() -> None:
    layer = make_layer(2, 4, 2, 1)
    parameters = ParameterSet(1 << 10, 2048, primes_for(40.0, 2048))
    with pytest.raises(ValueError, match="n = 1024"):
        ServerComponent(
            layer, admissible_plans(layer.shape, 1024)[0], parameters, Flooding("none"), EXACT, ReplyBits(20, 30)
        )


@pytest.mark.parametrize(("bits", "prime_bits"), [(30, 60), (58, 60), (75, 60), (154, 60), (75, 27)])
def test_wide_floods_have_their_width(bits: int, prime_bits: int) -> None:
    ring = Ring(1024, ntt_primes(1 << prime_bits, 1024, 3))
    assert (2.0**bits > WIDEST_GAUSSIAN) == (bits > 58)
    residues = wide_flood(ring, 4, 2.0**bits, SecureRandom(bytes(32)))
    q = math.prod(ring.primes)
    factors = [q // prime * pow(q // prime, -1, prime) for prime in ring.primes]
    values = [
        sum(int(r) * f for r, f in zip(row, factors, strict=True)) % q
        for row in residues.transpose(0, 2, 1).reshape(-1, 3)
    ]
    signed = np.array([value - q if value > q // 2 else value for value in values], object)
    assert float(np.std((signed / 2**bits).astype(float))) == pytest.approx(1.0, rel=0.05)
    # every bit below the width is used: low bits of a flood must not be constant
    assert {int(value) & 3 for value in signed} == {0, 1, 2, 3}
