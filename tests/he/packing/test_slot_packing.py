"""Slot packing against a direct integer convolution: on plaintexts, on real ciphertexts, and its noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.convolutions import SHAPES, convolve, make_shape
from support.real_noise import decrypt_with_noise

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.cipher import ClientCipher, ServerCipher, message_bytes
from autoprivacy.he.bfv.linear import ClientLinear, ServerLinear, no_rotation
from autoprivacy.he.bfv.reply_bits import reply_bytes, smallest_reply_bits
from autoprivacy.he.bfv.rotation import GaloisKeyMaker, Rotator
from autoprivacy.he.packing import PACKINGS, packing_named
from autoprivacy.he.packing.plan import Plan, Rotate
from autoprivacy.he.packing.slot import SlotPlan, admissible_plans
from autoprivacy.he.parameters.noise import decryption_error_rate, fresh_noise, z_of
from autoprivacy.he.parameters.parameter_set import Flooding, Target
from autoprivacy.he.ring.automorphisms import permutation
from autoprivacy.he.ring.ring import Ring, ntt_primes
from autoprivacy.he.ring.weight_products import WeightProducts
from autoprivacy.quantization.integer_network import LayerShape, LinearLayer
from autoprivacy.randomness.generator import SecureRandom
from autoprivacy.selection.secure_set import AverageCase, Setting, secure_set

UNFLOODED = Flooding("none")


def batching_prime(degree: int) -> int:
    return ntt_primes(1 << 20, degree, 1)[0]


def all_plans(shape: LayerShape, degree: int) -> list[SlotPlan]:
    """Every tiling there is."""
    sizes = [1 << j for j in range(degree.bit_length())]
    plans = []
    for pixels, features, diagonals in ((a, b, c) for a in sizes for b in sizes for c in sizes):
        try:
            plans.append(SlotPlan(shape, degree, batching_prime(degree), pixels, features, diagonals))
        except UserError:
            continue
    return plans


def evaluate(plan: Plan, ring: Ring, inputs: np.ndarray, weight: np.ndarray, rotate: Rotate) -> np.ndarray:
    """The packed evaluation of 'ciphertexts' that are one polynomial, int64 [input_ciphertexts, n]; as residues."""
    ciphertexts = ring.forward(ring.reduce(inputs))[:, None]
    products = WeightProducts(ring, *plan.products, plan.sum_count)
    products.put(0, ring.forward(ring.reduce(plan.encode_weights(weight))))
    sums = products.sums(ciphertexts.reshape(plan.input_blocks, plan.bands, *ciphertexts.shape[1:]))
    return ring.inverse(plan.gather(ring, sums, rotate).reshape(plan.output_ciphertexts, -1, plan.degree))


def rotation_of(ring: Ring, used: list[int]) -> Rotate:
    """Rotations of polynomials, recorded."""

    def rotate(ciphertexts: np.ndarray, element: int) -> np.ndarray:
        used.extend([element] * len(ciphertexts))
        return np.take_along_axis(ciphertexts, permutation(ring, element)[None, None], -1)

    return rotate


def check_plan(plan: SlotPlan, seed: int) -> None:
    """Exact modulo p, with the rotations, products and ciphertexts that the plan announces."""
    shape, p = plan.shape, plan.plaintext_modulus
    generator = np.random.default_rng(seed)
    values = generator.integers(0, p, shape.input_shape)
    weight = generator.integers(-127, 128, (shape.output_channels, shape.input_shape[0] // shape.groups, *shape.kernel))
    ring, used = Ring(plan.degree, (p,)), list[int]()
    inputs = plan.encode_input(values.astype(np.uint64)).astype(np.int64)
    assert len(inputs) == plan.input_ciphertexts
    assert len(plan.encode_weights(weight)) * plan.bands == plan.workload.products == len(plan.products[0]) * plan.bands
    result = evaluate(plan, ring, inputs, weight, rotation_of(ring, used))[:, 0]
    np.testing.assert_array_equal(plan.decode_output(result.astype(np.uint64)), convolve(shape, values, weight) % p)
    assert len(used) == plan.workload.rotations and tuple(sorted(set(used))) == plan.galois_elements
    assert len(set(plan.output_positions.tolist())) == np.prod(shape.output_shape)


@pytest.mark.parametrize("name", SHAPES)
def test_every_plan_equals_direct_convolution(name: str) -> None:
    shape, degree = SHAPES[name]
    for size in (16, degree, 4 * degree):
        plans = admissible_plans(shape, size, batching_prime(size))
        assert plans
        for plan in plans:
            check_plan(plan, sum(name.encode()))


@pytest.mark.parametrize("name", ["3x3 padded", "depthwise with multiplier", "stride 2", "2x2 image"])
def test_any_tiling_is_exact(name: str) -> None:
    """Not only the chosen ones: a policy file may hold any."""
    for plan in all_plans(SHAPES[name][0], 16):
        check_plan(plan, 1)


def test_random_layers_are_exact() -> None:
    generator = np.random.default_rng(4)
    for seed in range(30):
        groups, kernel = int(generator.choice([1, 1, 2, 3])), int(generator.integers(1, 4))
        channels, outputs = (groups * int(generator.integers(1, 6)) for _ in range(2))
        size = tuple(int(side) for side in generator.integers(kernel, 9, 2))
        more = {"stride": int(generator.integers(1, 4)), "padding": int(generator.integers(0, kernel))}
        shape = make_shape(channels, (size[0], size[1]), outputs, (kernel, kernel), groups=groups, **more)
        plans = admissible_plans(shape, 32, batching_prime(32))
        check_plan(plans[seed % len(plans)], seed)


@pytest.mark.parametrize("name", PACKINGS)
def test_outputs_that_fall_together_are_grouped(name: str) -> None:
    shape = make_shape(8, (8, 8), 8, (3, 3), padding=1)
    for plan in packing_named(name).plans(shape, 256, batching_prime(256)):
        groups = plan.groups
        assert groups.shape == shape.output_shape
        together = len(np.unique(groups))
        assert together == (plan.output_ciphertexts if name == "slot" else groups.size)
        assert name == "coefficient" or np.array_equal(groups.reshape(-1), plan.output_positions // plan.degree)


def test_layers_of_the_networks_fit() -> None:
    """Depthwise layers rotate nothing; a pointwise one with n = 8192 needs a reply per 8 images of 32x32."""
    depthwise = make_shape(96, (16, 16), 96, (3, 3), stride=2, padding=1, groups=96)
    (plan,) = admissible_plans(depthwise, 8192, batching_prime(8192))
    assert (plan.workload.rotations, plan.galois_elements) == (0, ())
    assert (plan.input_ciphertexts, plan.output_ciphertexts) == (9, 1)
    dense = make_shape(64, (32, 32), 64, (3, 3), padding=1)
    plans = admissible_plans(dense, 8192, batching_prime(8192))
    by_tiling = {(plan.features, plan.diagonals): plan for plan in plans}
    # GAZELLE's packing: 8 channels in each, 576 / 8 input ciphertexts, 8 replies, 7 rotations for each with two keys
    packed = by_tiling[8, 8]
    counts = (packed.input_ciphertexts, packed.output_ciphertexts, packed.workload.products, packed.workload.rotations)
    assert counts == (72, 8, 4608, 56) and len(packed.galois_elements) == 2
    assert by_tiling[1, 1].workload.rotations == 0 and by_tiling[1, 1].input_ciphertexts == 576


@pytest.mark.parametrize(
    ("shape", "degree", "tiling"),
    [
        (make_shape(6, (4, 4), 8, (3, 3), padding=1), 64, (4, 8, 8)),  # diagonals alone, in both rows
        (make_shape(6, (4, 4), 4, (1, 1)), 64, (8, 4, 2)),  # and folded
        (LayerShape("fc", "fully_connected", (40, 1, 1), 2, (1, 1)), 64, (1, 64, 2)),  # folded five times
        (make_shape(3, (8, 4), 3, (1, 1)), 32, (32, 1, 1)),  # one lane: weights are constants
        (make_shape(3, (4, 4), 4, (1, 1)), 32, (16, 2, 1)),  # two lanes, folded
        (make_shape(3, (4, 4), 4, (1, 1)), 32, (16, 1, 1)),
    ],
)
def test_noise_of_the_constant_coefficient_is_the_predicted_one(
    shape: LayerShape, degree: int, tiling: tuple[int, int, int]
) -> None:
    """Rotations leave it in place, so folding doubles its noise where that of others grows by the root of two."""
    plan = SlotPlan(shape, degree, batching_prime(degree), *tiling)
    ring = Ring(degree, ntt_primes(1 << 60, degree, 1))
    noise, ratios, averages = SecureRandom(bytes(32)), [], []
    for seed in range(60):
        size = (shape.output_channels, shape.input_shape[0] // shape.groups, *shape.kernel)
        weight = np.random.default_rng(seed).integers(-127, 128, size)
        errors = noise.centred_binomial((plan.input_ciphertexts, degree))
        residues = evaluate(plan, ring, errors, weight, rotation_of(ring, []))[:, 0].astype(np.int64)
        signed = np.where(residues > ring.primes[0] // 2, residues - ring.primes[0], residues).astype(float)
        expected = plan.noise(weight).norm * math.sqrt(10.5)
        blocks = np.sqrt((_squares(plan, weight) / plan.noise(weight).norm ** 2).repeat(plan.bands))
        ratios.append(signed[:, 0] / expected / blocks)
        averages.append((signed / expected / blocks[:, None]) ** 2)
    folded = plan.features // plan.diagonals
    spread = 1 / math.sqrt(2 * np.size(ratios))
    assert np.sqrt(np.mean(np.square(ratios))) == pytest.approx(1.0, abs=max(0.05, 4 * spread))
    if folded == 1:
        assert np.sqrt(np.mean(averages)) == pytest.approx(1.0, abs=0.05)
    else:
        assert np.sqrt(np.mean(averages)) < 1
    assert plan.noise(weight).coefficients == degree


def _squares(plan: SlotPlan, weight: np.ndarray) -> np.ndarray:
    """The squared norm of each output block, folding included, from the weights' polynomials themselves."""
    polynomials = plan.encode_weights(weight).astype(float).reshape(plan.output_blocks, -1)
    return (polynomials**2).sum(1) * (plan.features // plan.diagonals) ** 2


class Parties:
    """Client and server of one layer under the smallest set that meets a target."""

    def __init__(self, shape: LayerShape, degree: int, features: int, rate: float = 2.0**-40, diagonals: int = 0):
        self.p = batching_prime(8192)
        generator = np.random.default_rng(7)
        size = (shape.output_channels, shape.input_shape[0] // shape.groups, *shape.kernel)
        self.layer = LinearLayer(shape, generator.integers(-127, 128, size), np.zeros(size[0], np.int64))
        plans = admissible_plans(shape, degree, self.p)
        self.plan = next(
            plan for plan in plans if plan.features == features and plan.diagonals == (diagonals or plan.diagonals)
        )
        self.noise, self.target = self.plan.noise(self.layer.weight), Target(decryption_error_rate=rate)
        parameters = secure_set(self.noise, AverageCase(self.target), Setting(degree, self.p, UNFLOODED))
        assert parameters is not None
        self.parameters = parameters
        self.bits = smallest_reply_bits(self.plan.workload, parameters, self.target, self.noise, UNFLOODED)
        self.client = ClientLinear(self.plan, ClientCipher(parameters), self.bits)
        self.server = ServerLinear(self.layer, self.plan, parameters, UNFLOODED, self.target, self.bits)
        self.cipher = ServerCipher(parameters, self.client.cipher.public_key())
        self.rotate: Rotate = no_rotation
        if elements := self.plan.galois_elements:
            self.rotate = Rotator(parameters, elements, GaloisKeyMaker(self.client.cipher).keys(elements)).rotate
        self.share = generator.integers(0, self.p, shape.input_shape).astype(np.uint64)
        self.mask = generator.integers(0, self.p, shape.output_shape).astype(np.uint64)
        self.expected = (
            convolve(shape, self.share.astype(np.int64), self.layer.weight) - self.mask.astype(int)
        ) % self.p

    def reply(self) -> bytes:
        return self.server.evaluate(self.cipher, self.client.encrypt(self.share), self.mask, self.rotate)


LAYERS = {
    "3x3, rotated": (make_shape(6, (16, 16), 20, (3, 3), padding=1), 4096, 16, 16),
    "fully connected, folded": (LayerShape("fc", "fully_connected", (300, 1, 1), 10, (1, 1)), 8192, 64, 1),
    "depthwise, strided": (make_shape(6, (32, 32), 6, (3, 3), stride=2, padding=1, groups=6), 4096, 1, 1),
    "image larger than a ciphertext, small n": (make_shape(3, (64, 48), 3, (1, 1)), 2048, 1, 1),
}


@pytest.fixture(scope="module", params=LAYERS)
def parties(request: pytest.FixtureRequest) -> Parties:
    shape, degree, features, diagonals = LAYERS[request.param]
    return Parties(shape, degree, features, diagonals=diagonals)


def test_client_decrypts_the_masked_result(parties: Parties) -> None:
    reply = parties.reply()
    np.testing.assert_array_equal(parties.client.decrypt(reply), parties.expected)
    ciphertexts, n = parties.plan.output_ciphertexts, parties.plan.degree
    assert len(reply) == reply_bytes(n, ciphertexts, ciphertexts * n, parties.bits)
    message = parties.client.encrypt(parties.share)
    assert len(message) == message_bytes(parties.parameters, parties.plan.input_ciphertexts)
    assert (parties.parameters.key_switching_prime is None) == (not parties.plan.galois_elements)


def test_slots_that_are_no_output_are_uniform_and_fresh(parties: Parties) -> None:
    plan, message, slots = parties.plan, parties.client.encrypt(parties.share), []
    for _ in range(2):
        reply = parties.server.evaluate(parties.cipher, message, parties.mask, parties.rotate)
        plain = plan.encoding.decode(parties.client.cipher.decrypt(reply, parties.client.form))
        slots.append(np.delete(plain.reshape(-1).astype(float), plan.output_positions) / parties.p)
    if slots[0].size:
        deviation = 1 / math.sqrt(12 * slots[0].size)
        assert abs(slots[0].mean() - 0.5) < 6 * deviation
        assert abs(np.asarray(np.corrcoef(slots))[0, 1]) < 6 / math.sqrt(slots[0].size)


NOISY = make_shape(6, (16, 16), 16, (3, 3), padding=1)


@pytest.mark.parametrize(
    ("shape", "features", "diagonals"),
    [(NOISY, 1, 1), (NOISY, 16, 16), (NOISY, 8, 8), (LAYERS["fully connected, folded"][0], 16, 1)],
)
def test_noise_of_real_replies_is_the_predicted_one(shape: LayerShape, features: int, diagonals: int) -> None:
    """Averaged over coefficients, where folding in two doubles the variance."""
    parties = Parties(shape, 4096, features, diagonals=diagonals)
    squares = []
    for _ in range(5):
        plain, errors = decrypt_with_noise(parties.client.cipher, parties.reply(), parties.client.form)
        squares.append(np.mean(errors**2))
    weighted = fresh_noise() * parties.noise.norm / math.sqrt(features // diagonals)
    expected = math.hypot(weighted, parties.server.parts[0].noise.switching)
    assert math.sqrt(np.mean(squares)) == pytest.approx(expected, rel=0.05)
    assert weighted <= parties.server.parts[0].noise.weighted


def test_one_wrong_coefficient_spoils_its_ciphertext_at_the_predicted_rate() -> None:
    parties = Parties(make_shape(2, (32, 32), 32, (1, 1)), 4096, 1, rate=0.25)
    z = z_of(parties.parameters.q, parties.p, parties.server.parts[0].noise.total)
    rate = decryption_error_rate(z, parties.plan.degree)
    assert rate <= 0.25 * 1.0001 and parties.parameters.key_switching_prime is None
    shares = []
    for _ in range(30):
        wrong = parties.client.decrypt(parties.reply()) != parties.expected
        numbers = parties.plan.groups.reshape(-1)
        shares.append(np.bincount(numbers, wrong.reshape(-1)) / np.bincount(numbers))
    spoilt = np.concatenate(shares)
    assert set(np.unique(spoilt > 0.9)) == {False, True} and not np.any((spoilt > 0) & (spoilt < 0.9))
    assert np.mean(spoilt > 0) == pytest.approx(rate, abs=5 * math.sqrt(rate / spoilt.size))


def test_a_server_without_galois_keys_says_so(parties: Parties) -> None:
    if parties.plan.galois_elements:
        with pytest.raises(UserError, match="the client sent no Galois keys"):
            parties.server.evaluate(parties.cipher, parties.client.encrypt(parties.share), parties.mask)


def test_tiling_round_trip_and_errors() -> None:
    shape, p = make_shape(3, (6, 6), 4, (3, 3), padding=1), batching_prime(256)
    plan = SlotPlan(shape, 256, p, 64, 2, 1)
    assert SlotPlan.from_tiling(shape, 256, p, plan.tiling) == plan
    for tiling in ((64, 8, 1), (64, 2, 4), (48, 2, 1), (0, 1, 1)):
        with pytest.raises(UserError, match="expected powers of two"):
            SlotPlan(shape, 256, p, *tiling)
    with pytest.raises(UserError, match="1 for a grouped layer"):
        SlotPlan(make_shape(4, (6, 6), 4, (3, 3), groups=4), 256, p, 64, 2, 1)
    with pytest.raises(UserError, match="tiling"):
        SlotPlan.from_tiling(shape, 256, p, {"channels": 1})
    with pytest.raises(UserError, match="does not batch"):
        SlotPlan(shape, 256, 1 << 20, 64, 2, 1)
    with pytest.raises(ValueError, match="expected"):
        plan.encode_input(np.zeros((3, 6, 5), np.uint64))
    with pytest.raises(UserError, match="packing 'slots': expected one of coefficient, slot"):
        packing_named("slots")
