"""Slot packing under a composite plaintext modulus: exact by the Chinese remainder theorem, chosen and checked."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from support.convolutions import convolve, make_shape
from support.made_up_profile import LINK, PROFILE
from support.protocol_sessions import IMAGES, NETWORK, session
from support.reference import reference_forward
from support.rotation_bound import rotation_bound
from support.selection_networks import NETWORK as SELECTION_NETWORK

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.chinese_remainder import combine, residues
from autoprivacy.he.bfv.cipher import ClientCipher, ServerCipher
from autoprivacy.he.bfv.linear import ClientLinear, ServerComponent, ServerLinear, no_rotation
from autoprivacy.he.bfv.reply_bits import default_reply_bits, smallest_reply_bits
from autoprivacy.he.bfv.rotation import GaloisKeyMaker, Rotator
from autoprivacy.he.packing import packing_named
from autoprivacy.he.packing.batching import batching_factors
from autoprivacy.he.packing.composite_modulus import CompositePlan, composed
from autoprivacy.he.packing.plan import Rotate
from autoprivacy.he.packing.slot import SlotPlan
from autoprivacy.he.parameters.noise import decryption_error_rate, required_z, z_of
from autoprivacy.he.parameters.noise_bounds import fresh_bound, reply_bound
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, Target
from autoprivacy.he.parameters.policy import EXACT_TARGET, Policy
from autoprivacy.he.ring.primes import is_prime, primes_for
from autoprivacy.protocol.channel import ProtocolError
from autoprivacy.protocol.client import Client
from autoprivacy.protocol.session import Agreement
from autoprivacy.quantization.integer_network import MAXIMUM_MODULUS_BITS, LayerShape, LinearLayer
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.latency import layer_cost, operation_counts
from autoprivacy.selection.layer_selection import predict
from autoprivacy.selection.plaintext_modulus import PlaintextRule
from autoprivacy.selection.schemes import darl, delphi_worst_case, layerwise
from autoprivacy.selection.secure_set import ROUNDING_SHARE, AverageCase, Setting, secure_set, worst_case_reply_bits

SLOT = packing_named("slot")
UNFLOODED, STATISTICAL = Flooding("none"), Flooding("statistical")
# The smallest primes == 1 mod 2n at n = 2048 and n = 4096.
SMALL, LARGE = (12289, 40961), (40961, 65537)
P_SMALL, P_LARGE = math.prod(SMALL), math.prod(LARGE)


def selection(flooding: Flooding, packing: str = "slot") -> Selection:
    return Selection(PROFILE, LINK, flooding, packing)


def test_factors_of_a_modulus_that_batches() -> None:
    primes = [value for value in range(257, 20_000, 256) if is_prime(value)]
    found = 0
    for factors in [*itertools.combinations(primes[:9], 2), *itertools.combinations(primes[:6], 3), *zip(primes)]:
        if math.prod(factors) >> MAXIMUM_MODULUS_BITS:
            continue
        found += len(factors) == 3
        assert batching_factors(math.prod(factors), 128) == factors
    assert found > 1
    strangers = (257**2, 257**2 * 769, 257 * 769**2, 257 * 263, 3 * 171, 263, 1, 256, 1 << 20, 257 * 258)
    assert all(batching_factors(p, 128) == () for p in strangers)
    assert batching_factors(65537 * 114689, 8192) == () == batching_factors(1 << 4000 | 1, 128)  # beyond 2^32
    assert batching_factors(P_SMALL, 2048) == SMALL and batching_factors(P_SMALL, 4096) == ()
    assert batching_factors(P_LARGE, 4096) == LARGE == batching_factors(P_LARGE, 1024)


@pytest.mark.parametrize("factors", [(12289,), SMALL, LARGE, (257, 769, 3329), (65537, 114689, 147457)])
def test_chinese_remainder_theorem_on_arrays(factors: tuple[int, ...]) -> None:
    p = math.prod(factors)
    edges = [0, 1, p - 1, p // 2, *factors[:-1], *(p - factor for factor in factors), *(p // f for f in factors)]
    values = np.concatenate([np.random.default_rng(1).integers(0, p, 1000), np.array(edges) % p]).astype(np.uint64)
    parts = residues(values.reshape(1, -1, 1), factors)
    for part, factor in zip(parts, factors, strict=True):
        assert [int(value) for value in part.reshape(-1)] == [int(value) % factor for value in values]
    np.testing.assert_array_equal(combine(parts, factors).reshape(-1), values)
    with pytest.raises(ValueError, match=f"residues modulo {p}: got {p}"):
        residues(np.array([p], np.uint64), factors)


def composite_set(primes: tuple[int, ...] = primes_for(50.0, 2048, 27), **changes: object) -> ParameterSet:
    settings = {"plaintext_modulus": P_SMALL, "polynomial_degree": 2048, "primes": primes, "plaintext_factors": SMALL}
    return ParameterSet(**{**settings, **changes})  # type: ignore[arg-type]


def test_a_composite_set_has_a_component_for_every_factor() -> None:
    parameters = composite_set()
    assert [component.plaintext_modulus for component in parameters.components] == list(SMALL)
    for component in parameters.components:
        assert replace(component, plaintext_modulus=P_SMALL, plaintext_factors=SMALL) == parameters
        assert component.components == (component,) and component.largest_factor == component.plaintext_modulus
    assert parameters.largest_factor == SMALL[-1]
    assert ParameterSet.from_json(json.loads(json.dumps(parameters.as_json()))) == parameters
    older = {name: value for name, value in parameters.components[1].as_json().items() if name != "plaintext_factors"}
    assert ParameterSet.from_json(older) == parameters.components[1]


@pytest.mark.parametrize(
    ("factors", "p", "message"),
    [
        ((12289, 40963), 12289 * 40963, r"plaintext factors \[40963\]: expected primes == 1 mod 4096"),
        ((12289, 4097), 12289 * 4097, r"plaintext factors \[4097\]: expected primes == 1 mod 4096"),  # 17 * 241
        ((12289, 12289), 12289**2, "expected two or more distinct primes, ascending"),
        ((40961, 12289), P_SMALL, "expected two or more distinct primes, ascending"),
        ((12289,), 12289, "expected two or more distinct primes"),
        (SMALL, P_SMALL + 4096, f"their product is {P_SMALL}; expected p = {P_SMALL + 4096}"),
    ],
)
def test_wrong_factors_are_refused(factors: tuple[int, ...], p: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        composite_set(plaintext_factors=factors, plaintext_modulus=p)
    value = {**composite_set().as_json(), "plaintext_factors": list(factors), "plaintext_modulus": p}
    with pytest.raises(UserError, match=message):
        ParameterSet.from_json(value)


def make_layer(shape: LayerShape, seed: int) -> LinearLayer:
    size = (shape.output_channels, shape.input_shape[0] // shape.groups, *shape.kernel)
    return LinearLayer(shape, np.random.default_rng(seed).integers(-127, 128, size), np.zeros(size[0], np.int64))


class Parties:
    """Client and server of one layer under the smallest set with these factors that meets a target."""

    def __init__(
        self,
        layer: LinearLayer,
        degree: int,
        factors: tuple[int, ...],
        tiling: tuple[int, int, int],
        flooding: Flooding = UNFLOODED,
        target: Target = EXACT_TARGET,
    ) -> None:
        shape, p = layer.shape, math.prod(factors)
        self.p, self.layer, self.target, self.flooding = p, layer, target, flooding
        self.plan = composed(SlotPlan(shape, degree, factors[-1], *tiling), factors)
        self.noise = self.plan.noise(layer.weight)
        parameters = secure_set(self.noise, AverageCase(target), Setting(degree, p, flooding, factors=factors))
        assert parameters is not None and len(parameters.components) == len(self.plan.components) == len(factors)
        self.parameters = parameters
        self.bits = smallest_reply_bits(self.plan.workload, parameters, target, self.noise, flooding)
        keys = ClientCipher(parameters)
        self.client = ClientLinear(self.plan, keys, self.bits)
        self.server = ServerLinear(layer, self.plan, parameters, flooding, target, self.bits)
        self.cipher = ServerCipher(parameters, keys.public_key())
        self.rotate: Rotate = no_rotation
        if elements := self.plan.galois_elements:
            self.rotate = Rotator(parameters, elements, GaloisKeyMaker(keys).keys(elements)).rotate
        generator = np.random.default_rng(5)
        self.share = generator.integers(0, p, shape.input_shape).astype(np.uint64)
        self.mask = generator.integers(0, p, shape.output_shape).astype(np.uint64)
        self.expected = (convolve(shape, self.share.astype(object), layer.weight.astype(object)) - self.mask) % p

    def reply(self) -> bytes:
        return self.server.evaluate(self.cipher, self.client.encrypt(self.share), self.mask, self.rotate)


LAYERS = {
    "3x3, rotated": (make_shape(6, (8, 8), 20, (3, 3), padding=1), 4096, LARGE, (64, 8, 8), UNFLOODED),
    "fully connected, folded": (
        LayerShape("fc", "fully_connected", (300, 1, 1), 10, (1, 1), input_maximum=1020),
        4096,
        LARGE,
        (1, 64, 16),
        UNFLOODED,
    ),
    "depthwise, strided": (
        make_shape(6, (16, 16), 6, (3, 3), stride=2, padding=1, groups=6),
        4096,
        LARGE,
        (64, 1, 1),
        STATISTICAL,
    ),
    "image larger than a ciphertext": (make_shape(2, (64, 48), 3, (1, 1)), 2048, SMALL, (2048, 1, 1), UNFLOODED),
    "two lanes of sparse weights": (make_shape(1, (32, 32), 2, (1, 1)), 2048, SMALL, (1024, 1, 1), UNFLOODED),
}


@pytest.fixture(scope="module", params=LAYERS)
def parties(request: pytest.FixtureRequest) -> Parties:
    shape, degree, factors, tiling, flooding = LAYERS[request.param]
    return Parties(make_layer(shape, 2), degree, factors, tiling, flooding)


def test_layers_are_exact_modulo_the_product(parties: Parties) -> None:
    assert parties.p >> 27 and not parties.parameters.insecure_for_test
    result = parties.client.decrypt(parties.reply())
    assert result.dtype == np.uint64
    np.testing.assert_array_equal(result, parties.expected.astype(np.uint64))


def test_messages_have_the_predicted_lengths(parties: Parties) -> None:
    cost = layer_cost(parties.plan.workload, parties.parameters, parties.bits, PROFILE, LINK)
    assert len(parties.client.encrypt(parties.share)) == cost["bytes_up"]
    assert len(parties.reply()) == cost["bytes_down"]
    single = SLOT.from_tiling(
        parties.layer.shape, parties.plan.degree, parties.parameters.largest_factor, parties.plan.tiling
    )
    alone = layer_cost(single.workload, parties.parameters.components[-1], parties.bits, PROFILE, LINK)
    for name in ("bytes_up", "bytes_down", *operation_counts(single.workload), "compute_seconds"):
        assert cost[name] == pytest.approx(2 * alone[name])
    assert parties.plan.galois_elements == single.galois_elements
    np.testing.assert_array_equal(parties.plan.groups, single.groups)


def test_no_component_is_noisier_than_predicted(parties: Parties) -> None:
    """A target met for the largest factor is met for each; with sparse weights a smaller factor can be the worst."""
    parameters, weight = parties.parameters, parties.layer.weight
    rule = selection(parties.flooding)
    predicted = predict(parties.layer, parties.target, parameters, parties.plan, parties.bits, rule)
    rates = []
    for component, plan in zip(parameters.components, parties.plan.components, strict=True):
        server = ServerComponent(parties.layer, plan, component, parties.flooding, None, parties.bits)
        z = z_of(parameters.q, component.plaintext_modulus, server.noise.total)
        rates.append(decryption_error_rate(z, plan.noise(weight).coefficients))
    assert 1 - math.prod(1 - rate for rate in rates) <= predicted["decryption_error_rate"] * (1 + 1e-9) <= 2.0**-39.99


def test_sparse_weights_of_a_smaller_factor_can_decide() -> None:
    """Two lanes: the polynomial of a 1x1 layer has two coefficients, anything modulo each factor."""
    shape, found = make_shape(1, (16, 16), 1, (1, 1)), 0
    for weight in np.arange(1, 128).reshape(-1, 1, 1, 1, 1):
        plans = composed(SlotPlan(shape, 1024, 18433, 512, 1, 1), (12289, 18433)).components
        products = [plan.noise(weight).norm * p for plan, p in zip(plans, (12289, 18433), strict=True)]
        noise = CompositePlan(plans).noise(weight)  # type: ignore[arg-type]
        assert noise.norm * 18433 == pytest.approx(max(products)) and noise.coefficients == 2048
        found += products[0] > products[1]
    assert found


def test_damaged_messages_are_refused(parties: Parties) -> None:
    message, reply = parties.client.encrypt(parties.share), parties.reply()
    for length in (0, len(message) - 1, len(message) - 2, len(message) // 2):
        with pytest.raises(ValueError, match=r"expected .*bytes, got"):
            parties.server.evaluate(parties.cipher, message[:length], parties.mask, parties.rotate)
    for length in (0, len(reply) - 1, len(reply) - 2):
        with pytest.raises(ValueError, match=r"expected .*bytes, got"):
            parties.client.decrypt(reply[:length])
    too_large = np.full_like(parties.mask, parties.p)
    with pytest.raises(ValueError, match="residues modulo"):
        parties.server.evaluate(parties.cipher, message, too_large, parties.rotate)


def test_outputs_are_wrong_at_the_rate_of_all_factors_together() -> None:
    target = Target(decryption_error_rate=0.3)
    parties = Parties(make_layer(make_shape(4, (16, 16), 128, (1, 1)), 2), 2048, SMALL, (256, 1, 1), target=target)
    servers = [
        ServerComponent(parties.layer, plan, component, UNFLOODED, None, parties.bits)
        for plan, component in zip(parties.plan.components, parties.parameters.components, strict=True)
    ]
    rates = [
        decryption_error_rate(z_of(parties.parameters.q, p, server.noise.total), 2048)
        for server, p in zip(servers, SMALL, strict=True)
    ]
    rate = 1 - math.prod(1 - each for each in rates)
    wrong = np.concatenate([_wrong_ciphertexts(parties) for _ in range(12)])
    assert set(np.unique(wrong > 0.9)) == {False, True} and not np.any((wrong > 0) & (wrong < 0.9))
    assert np.mean(wrong > 0) == pytest.approx(rate, abs=5 * math.sqrt(rate / wrong.size))
    assert 0.02 < rate < 0.3


def _wrong_ciphertexts(parties: Parties) -> np.ndarray:
    """The share of wrong outputs by ciphertext."""
    wrong = parties.client.decrypt(parties.reply()) != parties.expected.astype(np.uint64)
    numbers = parties.plan.groups.reshape(-1)
    return np.bincount(numbers, wrong.reshape(-1)) / np.bincount(numbers)


def test_the_papers_flood_leaves_room_for_every_factor() -> None:
    """It fills each component's budget, so the rates of the components add up to the target."""
    target, layer = Target(decryption_error_rate=2.0**-7), make_layer(make_shape(3, (8, 8), 4, (1, 1)), 1)
    parties = Parties(layer, 8192, (65537, 114689), (64, 1, 1), Flooding("paper"), target)
    rates = [
        decryption_error_rate(z_of(parties.parameters.q, part.parameters.plaintext_modulus, part.noise.total), 8192)
        for part in parties.server.parts
    ]
    assert rates[0] == pytest.approx(rates[1])
    assert 1 - math.prod(1 - rate for rate in rates) == pytest.approx(2.0**-7)
    predicted = predict(layer, target, parties.parameters, parties.plan, parties.bits, selection(Flooding("paper")))
    assert predicted["decryption_error_rate"] == pytest.approx(2.0**-7)


def test_q_shrinks_with_the_square_of_the_largest_factor() -> None:
    """Half the distance between plaintexts grows as the factor shrinks, and the weights' polynomials shrink with it."""
    layer, tiling = SELECTION_NETWORK.layers["conv20"], {"lane_pixels": 256, "features": 8, "diagonals": 8}
    bits = {}
    for p in (163841, P_LARGE):
        noise = SLOT.from_tiling(layer.shape, 4096, p, tiling).noise(layer.weight)
        parameters = secure_set(
            noise, AverageCase(EXACT_TARGET), Setting(4096, p, UNFLOODED, factors=SLOT.plaintext_factors(p, 4096))
        )
        assert parameters is not None and math.gcd(parameters.q, p) == 1
        bits[p] = math.log2(parameters.q)
    assert bits[163841] - bits[P_LARGE] == pytest.approx(2 * math.log2(163841 / 65537), abs=0.1)


def test_selection_takes_composite_moduli() -> None:
    policy = darl(SELECTION_NETWORK, "net", P_LARGE, selection(STATISTICAL))
    assert {layer.parameters.plaintext_factors for layer in policy.layers} == {LARGE}
    assert policy.plaintext_modulus == P_LARGE and not policy.approximate
    for layer in policy.layers:
        parameters = layer.parameters
        shape = SELECTION_NETWORK.layers[layer.name].shape
        plan = SLOT.from_tiling(shape, parameters.polynomial_degree, P_LARGE, layer.tiling)
        noise = plan.noise(SELECTION_NETWORK.layers[layer.name].weight)
        assert noise.coefficients == 2 * parameters.polynomial_degree
        assert layer.predicted["z"] >= required_z(EXACT_TARGET, noise) * (1 - 1e-9)
        assert layer.predicted["decryption_error_rate"] <= 2.0**-40 * (1 + 1e-6)
        assert layer.predicted["security_bits"] >= 128
    assert min(layer.predicted["z"] for layer in policy.layers) < 1.1 * required_z(EXACT_TARGET, noise)


@pytest.mark.parametrize(("limit", "composite"), [(60_000, False), (100_000_000, True)])
def test_a_composite_modulus_pays_where_a_single_prime_is_large(limit: int, composite: bool) -> None:
    """Under 40 bits of flooding 28-bit primes need n = 8192; two of 16 and 17 bits get by with 4096.

    That is less than twice as expensive at the made-up profile's prices for large primes.
    """
    moduli = PlaintextRule().candidates({"all": (-limit, limit)}, "slot", PROFILE.degrees)
    made, refused = [], []
    for p in moduli:
        try:
            made.append(darl(SELECTION_NETWORK, "net", p, selection(STATISTICAL)))
        except UserError as error:
            refused.append(str(error))
    assert len(made) >= 2 and any(f"no secure set with p = {P_SMALL}" in error for error in refused)  # at n = 2048
    chosen = min(made, key=lambda policy: policy.predicted["latency_seconds"])
    assert bool(chosen.layers[0].parameters.plaintext_factors) == composite


@pytest.mark.parametrize("flooding", [UNFLOODED, STATISTICAL], ids=lambda flooding: flooding.kind)
def test_the_worst_case_set_has_room_for_the_largest_factor(flooding: Flooding) -> None:
    policy = delphi_worst_case(SELECTION_NETWORK, "net", P_LARGE, selection(flooding))
    (parameters,) = {layer.parameters for layer in policy.layers}
    assert parameters.plaintext_factors == LARGE
    for layer in policy.layers:
        own = SELECTION_NETWORK.layers[layer.name]
        plan = SLOT.from_tiling(own.shape, parameters.polynomial_degree, P_LARGE, layer.tiling)
        bound = plan.noise_bound(own.weight)
        bounds = [part.noise_bound(own.weight) for part in plan.components]
        assert bound == max(bounds, key=lambda each: each.norm)
        bits = worst_case_reply_bits(parameters.polynomial_degree, LARGE[-1])
        assert layer.reply_bits == bits and 2.0 ** -(bits.c0 + 1) < 1 / (2 * LARGE[-1])
        weighted = fresh_bound() * bound.norm
        if bound.rotations:
            assert parameters.key_switching_prime is not None
            weighted += bound.rotations * rotation_bound(
                parameters.polynomial_degree, parameters.primes, parameters.key_switching_prime
            )
        total = reply_bound(parameters.polynomial_degree, weighted, flooding) / (1 - ROUNDING_SHARE)
        assert 2 * LARGE[-1] * total <= parameters.q


def test_default_reply_bits_are_those_of_the_largest_factor() -> None:
    """Half the rate for each of two evaluations, and the larger factor's distance between plaintexts."""
    tiling = {"lane_pixels": 64, "features": 1, "diagonals": 1}
    shape, rate = make_shape(3, (8, 8), 4, (1, 1)), EXACT_TARGET.decryption_error_rate
    assert rate is not None
    parameters = ParameterSet(P_LARGE, 4096, primes_for(80.0, 4096), plaintext_factors=LARGE)
    plan, single = (SLOT.from_tiling(shape, 4096, p, tiling) for p in (P_LARGE, LARGE[-1]))
    got = default_reply_bits(plan.workload, parameters, EXACT_TARGET)
    halved = Target(decryption_error_rate=-math.expm1(math.log1p(-rate) / 2))
    assert got == default_reply_bits(single.workload, parameters.components[-1], halved)
    assert (
        plan.workload.coefficients_per_output == 2 * 4096
        and plan.workload.reply_coefficients == 2 * single.workload.reply_coefficients
    )


def composite_policy(flooding: Flooding) -> Policy:
    p = P_SMALL if flooding.kind == "none" else P_LARGE
    return darl(NETWORK, "residual", p, selection(flooding))


@pytest.mark.parametrize("flooding", [UNFLOODED, STATISTICAL], ids=lambda flooding: flooding.kind)
def test_the_protocol_gives_the_integer_network_modulo_the_product(flooding: Flooding) -> None:
    policy = composite_policy(flooding)
    policy = Policy.from_json(json.loads(json.dumps(policy.as_json())), "file")
    with session(policy, expected=policy) as (client, _):
        assert isinstance(client, Client) and client.agreement.modulus("first") == policy.plaintext_modulus
        assert len(client.agreement.parameter_sets) == 1  # one pair of keys for both factors
        for image in IMAGES[:2]:
            outputs = client.infer(client.prepare(), image)
            np.testing.assert_array_equal(outputs, reference_forward(NETWORK, image, policy.plaintext_modulus))
        parts = client.ledger.phases[1]["bytes_sent"]
    assert parts > sum(layer.predicted["bytes_up"] for layer in policy.layers)


def test_layers_with_sets_of_their_own_and_tolerated_errors() -> None:
    targets = dict.fromkeys(NETWORK.layers, EXACT_TARGET)
    policy = layerwise(NETWORK, "r", P_LARGE, targets, selection(UNFLOODED))
    assert len({layer.parameters for layer in policy.layers}) > 1
    with session(policy) as (client, _):
        outputs = client.infer(client.prepare(), IMAGES[0])
    np.testing.assert_array_equal(outputs, reference_forward(NETWORK, IMAGES[0], P_LARGE))
    with pytest.raises(UserError, match="whole ciphertexts"):
        layerwise(NETWORK, "r", P_LARGE, dict.fromkeys(targets, Target(tau=4.0)), selection(UNFLOODED))


def changed(policy: Policy, packing: str, **changes: object) -> Policy:
    layers = tuple(replace(layer, parameters=replace(layer.parameters, **changes)) for layer in policy.layers)  # type: ignore[arg-type]
    return replace(policy, packing=packing, layers=layers)


def test_a_policy_by_hand_is_checked_against_its_packing() -> None:
    policy = composite_policy(UNFLOODED)
    with pytest.raises(
        UserError, match=r"layer first: plaintext factors \(12289, 40961\) in coefficient packing: only"
    ):
        Agreement(NETWORK.architecture, replace(policy, packing="coefficient"))
    without = changed(policy, "slot", plaintext_factors=())
    with pytest.raises(UserError, match=r"plaintext factors none of p = \d+; expected \(12289, 40961\)"):
        Agreement(NETWORK.architecture, without)
    # the client checks what the server announces, too
    told = json.loads(Agreement(NETWORK.architecture, policy).to_bytes())
    told["policy"]["layers"][0]["parameters"]["plaintext_factors"] = [12289]
    with pytest.raises(UserError, match="expected two or more distinct primes"):
        Agreement.from_bytes(json.dumps(told).encode())
    told["policy"]["layers"][0]["parameters"]["plaintext_factors"] = "many"
    with pytest.raises(UserError):
        Agreement.from_bytes(json.dumps(told).encode())
    # coefficient packing takes the same p as it is
    whole = darl(NETWORK, "r", P_SMALL, selection(UNFLOODED, "coefficient"))
    assert whole.layers[0].parameters.plaintext_factors == ()
    Agreement(NETWORK.architecture, whole)


def test_parties_with_other_factors_do_not_start() -> None:
    policy = composite_policy(UNFLOODED)
    other = darl(NETWORK, "residual", 12289 * 61441, selection(UNFLOODED))
    with pytest.raises(ProtocolError, match="not the expected"), session(policy, expected=other):
        pass


def test_workloads_add_up_at_one_degree() -> None:
    factors = (40961, 65537)
    plan = composed(SlotPlan(make_shape(4, (16, 16), 8, (1, 1)), 4096, factors[-1], 256, 4, 2), factors)
    one, both = plan.components[0].workload, plan.workload
    assert both == one + one and both.evaluations == 2 and both.rotations == 2 * one.rotations
    with pytest.raises(ValueError, match="n = 4096 and n = 2048"):
        _ = one + replace(one, degree=2048)
