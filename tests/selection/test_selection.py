"""Parameter selection: sets are secure, meet their targets and are no larger than they need be."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.made_up_profile import LINK, PROFILE, made_up_profile
from support.selection_networks import LAYERS, NETWORK

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.reply_bits import smallest_reply_bits
from autoprivacy.he.packing import PACKINGS
from autoprivacy.he.packing.coefficient import CoefficientPlan, admissible_plans
from autoprivacy.he.packing.plan import Plan
from autoprivacy.he.packing.public_noise import layer_noise
from autoprivacy.he.parameters.noise import (
    LayerNoise,
    decryption_error_rate,
    deployed_noise,
    fresh_noise,
    required_z,
    rotation_noise,
    z_of,
)
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, ReplyBits, Target
from autoprivacy.he.parameters.policy import EXACT_TARGET, Policy
from autoprivacy.he.parameters.security import max_log2_q, security_bits
from autoprivacy.he.profiling.profile import OPERATIONS, ROTATION, OperationProfile, admissible_parameters, profile
from autoprivacy.he.ring.primes import PRIME_SIZES, WORD32_PRIME_BITS, is_prime, ntt_primes, prime_size, primes_for
from autoprivacy.link import Link
from autoprivacy.quantization.integer_network import (
    LayerShape,
    LinearLayer,
    to_signed,
)
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.latency import layer_cost, operation_counts
from autoprivacy.selection.layer_selection import layer_policy, predict, select_layer
from autoprivacy.selection.plaintext_modulus import plaintext_modulus
from autoprivacy.selection.schemes import darl, delphi, layerwise
from autoprivacy.selection.secure_set import ROTATION_SHARE, AverageCase, Setting, secure_set

P = plaintext_modulus(60_000, -60_000, degree_for_batching=1)
P_SLOT = plaintext_modulus(60_000, -60_000, degree_for_batching=16384)
STATISTICAL, UNFLOODED, PAPER = Flooding("statistical"), Flooding("none"), Flooding("paper")
RATES = [Target(decryption_error_rate=2.0**-exponent) for exponent in (5, 15, 40)]


def under(flooding: Flooding, measured: OperationProfile = PROFILE, **more: Any) -> Selection:
    return Selection(measured, LINK, flooding, **more)


def bits_deployed(
    layer: LinearLayer, parameters: ParameterSet, plan: Plan, target: Target, flooding: Flooding
) -> ReplyBits:
    return smallest_reply_bits(plan.workload, parameters, target, layer_noise(layer, plan, flooding), flooding)


def selected(
    layer: LinearLayer, target: Target, p: int, selection: Selection
) -> tuple[ParameterSet, Plan, dict[str, float]]:
    """What is selected for a layer, and predicted for it; the replies are the smallest that meet the target."""
    choice, bits = select_layer(layer, target, p, selection)
    parameters, plan = choice.parameters, choice.plan
    assert bits == bits_deployed(layer, parameters, plan, target, selection.flooding)
    return parameters, plan, predict(layer, target, parameters, plan, bits, selection)


def z_deployed(layer: LinearLayer, parameters: ParameterSet, plan: Plan, flooding: Flooding, bits: ReplyBits) -> float:
    deployed = deployed_noise(layer_noise(layer, plan, flooding), parameters, flooding, None, bits)
    return z_of(parameters.q, parameters.plaintext_modulus, deployed.total)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.shape.name)
@pytest.mark.parametrize("flooding", [STATISTICAL, UNFLOODED], ids=lambda flooding: flooding.kind)
@pytest.mark.parametrize("target", [*RATES, Target(tau=32.0)], ids=str)
def test_set_meets_the_target_and_a_smaller_q_does_not(layer: LinearLayer, flooding: Flooding, target: Target) -> None:
    parameters, plan, predicted = selected(layer, target, P, under(flooding))
    bits = bits_deployed(layer, parameters, plan, target, flooding)
    z = z_deployed(layer, parameters, plan, flooding, bits)
    assert z >= target.z * (1 - 1e-9)
    assert predicted["z"] == pytest.approx(z) and predicted["tau"] == pytest.approx(1 / (2 * z))
    assert predicted["decryption_error_rate"] == pytest.approx(decryption_error_rate(z))
    assert predicted["security_bits"] == security_bits(parameters.polynomial_degree, parameters.log2_q) >= 128
    if parameters.primes[-1] >> 24:  # smaller primes for the transform lie further apart
        smaller = ParameterSet(P, parameters.polynomial_degree, primes_for(parameters.log2_q - 0.15, plan.degree))
        assert smaller.q < parameters.q
        assert z_deployed(layer, smaller, plan, flooding, bits) < target.z


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.shape.name)
def test_no_other_secure_set_and_tiling_is_cheaper(layer: LinearLayer) -> None:
    chosen = selected(layer, RATES[1], P, under(STATISTICAL))[2]["latency_seconds"]
    others = []
    for degree in PROFILE.degrees:
        for plan in admissible_plans(layer.shape, degree):
            for size, log2_q in itertools.product(PRIME_SIZES, range(20, max_log2_q(degree) + 1)):
                try:
                    parameters = ParameterSet(P, degree, primes_for(log2_q, degree, size))
                except UserError:
                    continue
                bits = bits_deployed(layer, parameters, plan, RATES[1], STATISTICAL)
                z = z_deployed(layer, parameters, plan, STATISTICAL, bits)
                if z >= RATES[1].z and PROFILE.covers(parameters, OPERATIONS):
                    others.append(layer_cost(plan.workload, parameters, bits, PROFILE, LINK)["latency_seconds"])
    assert len(others) >= 3 and chosen <= min(others) * 1.0001


def test_tolerance_never_costs() -> None:
    for flooding in (STATISTICAL, UNFLOODED, PAPER):
        latencies = [
            selected(LAYERS[1], target, P, under(flooding))[2]["latency_seconds"]
            for target in (*RATES[::-1], Target(tau=32.0))
        ]
        assert latencies == sorted(latencies, reverse=True)


def test_paper_flooding_quadruples_n_and_triples_log_q() -> None:
    unflooded = secure_set(LayerNoise(1000.0), AverageCase(RATES[0]), Setting(2048, P, UNFLOODED))
    flooded = secure_set(LayerNoise(1000.0), AverageCase(RATES[0]), Setting(8192, P, PAPER))
    assert unflooded is not None and flooded is not None
    assert flooded.log2_q == pytest.approx(3 * unflooded.log2_q, abs=0.1)
    assert secure_set(LayerNoise(1000.0), AverageCase(RATES[0]), Setting(1024, P, PAPER)) is None  # n / 4 would be 256
    parameters, _, predicted = selected(LAYERS[0], RATES[0], P, under(PAPER))
    assert predicted["decryption_error_rate"] == pytest.approx(2.0**-5)
    assert parameters.polynomial_degree >= 4096


def test_no_prime_of_the_modulus_is_the_plaintext_modulus() -> None:
    """Without a flood primes come down to the size of p, and an NTT prime is a usual p."""
    p, norms = 114689, range(20, 4000, 60)
    assert p in primes_for(34, 8192, WORD32_PRIME_BITS)
    for degree, norm in itertools.product((2048, 4096, 8192), norms):
        parameters = secure_set(
            LayerNoise(float(norm)), AverageCase(RATES[0]), Setting(degree, p, UNFLOODED, WORD32_PRIME_BITS)
        )
        assert parameters is not None and p not in parameters.primes


@pytest.mark.parametrize(("small_cost", "size", "count"), [(0.25, 27, 3), (4.0, 60, 2)])
def test_the_size_of_primes_that_is_faster_is_chosen(small_cost: float, size: int, count: int) -> None:
    """Under a flood of 2^40 an error rate of 2^-40 takes about 73 bits of q."""
    measured = made_up_profile(small_cost=small_cost)
    parameters, _, predicted = selected(LAYERS[1], RATES[2], P, under(STATISTICAL, measured))
    assert parameters.polynomial_degree == 4096 and 70 < parameters.log2_q < 78
    assert prime_size(parameters.primes) == size and len(parameters.primes) == count
    policy = darl(NETWORK, "net", P, under(STATISTICAL, measured))
    assert {prime_size(layer.parameters.primes) for layer in policy.layers} == {size}
    assert delphi(NETWORK, "net", (-60_000, 60_000), under(STATISTICAL, measured)).layers[0].parameters.primes == (
        ntt_primes(1 << 60, 8192, 3)
    )


def test_only_profiled_sets_are_considered() -> None:
    parameters, _, _ = selected(LAYERS[0], RATES[0], P, under(STATISTICAL, made_up_profile((8192,))))
    assert parameters.polynomial_degree == 8192
    with pytest.raises(UserError, match=r"layer conv1: no secure set .* 2\^-5 under flooding statistical"):
        selected(LAYERS[0], RATES[0], P, under(STATISTICAL, made_up_profile((1024,))))
    with pytest.raises(UserError, match=r"gives tau 0\.1 under"):
        selected(LAYERS[0], Target(tau=0.1), P, under(STATISTICAL, made_up_profile((1024,))))
    with pytest.raises(UserError, match="network net: no secure set"):
        darl(NETWORK, "net", P, under(STATISTICAL, made_up_profile((1024,))))


def test_delphi_is_the_published_set() -> None:
    policy = delphi(NETWORK, "net", (-60_000, 60_000), under(STATISTICAL))
    for layer in policy.layers:
        parameters = layer.parameters
        assert parameters.plaintext_modulus.bit_length() == 22 and parameters.plaintext_modulus % (1 << 14) == 1
        assert parameters.polynomial_degree == 1 << 13 and len(parameters.primes) == 3
        assert parameters.log2_q == pytest.approx(180, abs=0.01)
        assert layer.target == Target(decryption_error_rate=2.0**-40) and layer.predicted["z"] >= EXACT_TARGET.z
    assert not policy.approximate


def test_delphi_in_slots_keeps_its_last_prime_for_key_switching() -> None:
    policy = delphi(NETWORK, "net", (-60_000, 60_000), under(STATISTICAL, packing="slot"))
    coefficient = delphi(NETWORK, "net", (-60_000, 60_000), under(STATISTICAL))
    assert policy.packing == "slot" and coefficient.packing == "coefficient"
    for layer in policy.layers:
        assert layer.parameters.deployed_primes == coefficient.layers[0].parameters.primes
        assert layer.parameters.primes == coefficient.layers[0].parameters.primes[:2]
        assert 0 < layer.predicted["decryption_error_rate"] <= 2.0**-40 * (1 + 1e-6)
    assert any(layer.predicted["rotation"] for layer in policy.layers)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.shape.name)
@pytest.mark.parametrize("flooding", [STATISTICAL, UNFLOODED], ids=lambda flooding: flooding.kind)
def test_slot_set_meets_the_rate_per_ciphertext_and_a_smaller_q_does_not(
    layer: LinearLayer, flooding: Flooding
) -> None:
    for target in RATES:
        parameters, plan, predicted = selected(layer, target, P_SLOT, under(flooding, packing="slot"))
        noise = layer_noise(layer, plan, flooding)
        bits = bits_deployed(layer, parameters, plan, target, flooding)
        rate = decryption_error_rate(z_deployed(layer, parameters, plan, flooding, bits), plan.degree)
        assert target.decryption_error_rate is not None
        assert rate <= target.decryption_error_rate * (1 + 1e-6)
        assert predicted["decryption_error_rate"] == pytest.approx(rate) and "tau" not in predicted
        assert predicted["security_bits"] == security_bits(plan.degree, parameters.log2_q) >= 128
        assert (parameters.key_switching_prime is None) == (plan.workload.rotations == 0) == (noise.rotations == 0)
        smaller = replace(parameters, primes=primes_for(math.log2(parameters.q) - 0.5, plan.degree))
        assert z_deployed(layer, smaller, plan, flooding, bits) < required_z(target, noise)


def test_key_switching_primes_are_as_small_as_the_noise_of_rotations_allows() -> None:
    noise = LayerNoise(2.0**30, 7.0, 8192)
    parameters = secure_set(noise, AverageCase(RATES[2]), Setting(8192, P_SLOT, UNFLOODED))
    assert parameters is not None and parameters.key_switching_prime is not None
    products = fresh_noise() * noise.norm
    share = 7 * rotation_noise(parameters) ** 2 / products**2
    assert 0.9 * ROTATION_SHARE < share <= ROTATION_SHARE
    halved = replace(parameters, key_switching_prime=ntt_primes(parameters.key_switching_prime // 2, 8192, 1)[0])
    assert 7 * rotation_noise(halved) ** 2 > ROTATION_SHARE * products**2
    assert secure_set(LayerNoise(1.0, 7.0, 8192), AverageCase(RATES[2]), Setting(8192, P_SLOT, UNFLOODED)) is None


def test_darl_and_layerwise_in_slots() -> None:
    policy = darl(NETWORK, "net", P_SLOT, under(STATISTICAL, packing="slot"))
    assert policy.packing == "slot" and len({layer.parameters for layer in policy.layers}) == 1
    worst = max(layer.predicted["decryption_error_rate"] for layer in policy.layers)
    assert 2.0**-46 < worst <= 2.0**-40 * (1 + 1e-6) and not policy.approximate
    targets = dict.fromkeys(NETWORK.layers, RATES[2])
    per_layer = layerwise(NETWORK, "net", P_SLOT, targets, under(STATISTICAL, packing="slot"))
    assert per_layer.predicted["latency_seconds"] <= policy.predicted["latency_seconds"]
    for layer in per_layer.layers:
        parameters, shape = layer.parameters, NETWORK.layers[layer.name].shape
        plan = PACKINGS["slot"].from_tiling(shape, parameters.polynomial_degree, P_SLOT, layer.tiling)
        noise = plan.public_noise(layer.norm_bound)
        assert layer.reply_bits is not None
        flood = deployed_noise(noise, parameters, STATISTICAL, layer.target, layer.reply_bits).flood
        assert operation_counts(plan.workload, flood) == {name: layer.predicted[name] for name in OPERATIONS}
        assert layer.predicted["wide_flood"] == plan.output_ciphertexts  # 2^40 times the noise is beyond 64 bits


def test_slot_packing_refuses_what_it_cannot_use() -> None:
    with pytest.raises(UserError, match=r"plaintext modulus 131072 does not batch at any n of .* prime == 1 mod 2n"):
        selected(LAYERS[0], RATES[0], 1 << 17, under(STATISTICAL, packing="slot"))
    with pytest.raises(UserError, match=r"layer conv1: target tau 4\.0 in slot packing, whose errors spoil whole"):
        selected(LAYERS[0], Target(tau=4.0), P_SLOT, under(STATISTICAL, packing="slot"))
    with pytest.raises(UserError, match="packing 'slots'"):
        darl(NETWORK, "net", P_SLOT, under(STATISTICAL, packing="slots"))


def test_delphi_refuses_a_network_that_its_p_does_not_hold() -> None:
    with pytest.raises(UserError, match="plaintext modulus of 22 bits.*does not hold -10 to 3000000"):
        delphi(NETWORK, "net", (-10, 3_000_000), under(STATISTICAL))


def test_darl_has_one_set_that_serves_the_worst_layer() -> None:
    policy = darl(NETWORK, "net", P, under(STATISTICAL))
    assert len({layer.parameters for layer in policy.layers}) == 1
    worst = min(layer.predicted["z"] for layer in policy.layers)
    assert RATES[2].z * (1 - 1e-9) <= worst <= RATES[2].z * 1.1
    per_layer = layerwise(NETWORK, "net", P, dict.fromkeys(NETWORK.layers, RATES[2]), under(STATISTICAL))
    assert per_layer.predicted["latency_seconds"] <= policy.predicted["latency_seconds"]
    assert not policy.approximate and not per_layer.approximate


@pytest.mark.parametrize("flooding", [STATISTICAL, UNFLOODED], ids=lambda flooding: flooding.kind)
@pytest.mark.parametrize("shift", [4, 9, 12])
def test_noise_sizes_from_exactness_to_sixteen_steps_are_accepted(flooding: Flooding, shift: int) -> None:
    """From what 2^-40 comes to, up to 2^(f + 4) accumulator LSBs for an activation that shifts by f."""
    taus, latency = [1 / (2 * RATES[2].z), 1.0, 2.0**shift, 2.0 ** (shift + 4)], math.inf
    for tau in taus:
        policy = layerwise(NETWORK, "net", P, dict.fromkeys(NETWORK.layers, Target(tau=tau)), under(flooding))
        assert (not policy.approximate) == (tau == taus[0])
        assert Policy.from_json(policy.as_json(), "policy") == policy
        for layer in policy.layers:
            assert 0 < layer.predicted["tau"] <= tau * (1 + 1e-9) and layer.parameters.q > P
        assert policy.predicted["latency_seconds"] <= latency
        latency = policy.predicted["latency_seconds"]


def test_every_layer_may_have_its_own_plaintext_modulus() -> None:
    moduli = {"conv1": P, "conv20": 1 << 20, "fc": 12289}
    targets = dict.fromkeys(NETWORK.layers, RATES[2])
    policy = layerwise(NETWORK, "net", moduli, targets, under(STATISTICAL))
    assert {layer.name: layer.parameters.plaintext_modulus for layer in policy.layers} == moduli
    one = layerwise(NETWORK, "net", 12289, targets, under(STATISTICAL))
    assert policy.layer("fc") == one.layer("fc") and Policy.from_json(policy.as_json(), "policy") == policy
    with pytest.raises(UserError, match=r"plaintext moduli \[12289, .*works modulo one"):
        _ = policy.plaintext_modulus
    with pytest.raises(UserError, match=r"plaintext moduli for \['conv1'\]; the network has"):
        layerwise(NETWORK, "net", {"conv1": P}, targets, under(STATISTICAL))


def test_layerwise_takes_each_layer_for_itself() -> None:
    targets = dict(zip(NETWORK.layers, RATES, strict=True))
    policy = layerwise(NETWORK, "net", P, targets, under(STATISTICAL), scheme="autoprivacy")
    assert policy.scheme == "autoprivacy" and policy.approximate
    for layer in policy.layers:
        assert layer == layer_policy(NETWORK.layers[layer.name], targets[layer.name], P, under(STATISTICAL))
    total = sum(layer.predicted["latency_seconds"] for layer in policy.layers)
    assert policy.predicted["latency_seconds"] == pytest.approx(total)
    with pytest.raises(UserError, match="targets for"):
        layerwise(NETWORK, "net", P, {"conv1": RATES[0]}, under(STATISTICAL))


@pytest.mark.parametrize("scheme", ["delphi", "darl", "layerwise"])
def test_policies_survive_the_file(scheme: str, tmp_path: Path) -> None:
    targets = dict.fromkeys(NETWORK.layers, Target(tau=4.0, ignored_share_bits=2))
    policy = {
        "delphi": lambda: delphi(NETWORK, "net", (-60_000, 60_000), under(PAPER)),
        "darl": lambda: darl(NETWORK, "net", P, under(STATISTICAL)),
        "layerwise": lambda: layerwise(NETWORK, "net", P, targets, under(UNFLOODED)),
    }[scheme]()
    policy.save(tmp_path / "policy.json")
    loaded = Policy.load(tmp_path / "policy.json")
    assert loaded == policy
    for layer in loaded.layers:
        shape, degree = NETWORK.layers[layer.name].shape, layer.parameters.polynomial_degree
        plan = CoefficientPlan.from_tiling(shape, degree, layer.tiling)
        noise = layer_noise(NETWORK.layers[layer.name], plan, loaded.flooding, layer.norm_bound)
        assert layer.reply_bits is not None
        flood = deployed_noise(noise, layer.parameters, loaded.flooding, layer.target, layer.reply_bits).flood
        assert operation_counts(plan.workload, flood) == {name: layer.predicted[name] for name in OPERATIONS}
    assert loaded.essence() == replace(policy, provenance={}, predicted={}).essence()
    assert "latency_seconds" not in str(loaded.essence())


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("primes", [1152921504606830593, 1152921504606748673, 1152921504606683137, 1152921504606601217], "needed 128"),
        ("polynomial_degree", 3000, "polynomial degree"),
    ],
)
def test_hand_written_policies_are_checked(tmp_path: Path, part: str, value: object, message: str) -> None:
    policy = delphi(NETWORK, "net", (-60_000, 60_000), under(STATISTICAL))
    as_json = policy.as_json()
    as_json["layers"][0]["parameters"][part] = value
    with pytest.raises(UserError, match=message):
        Policy.from_json(as_json, "policy.json")
    del as_json["layers"][0]["tiling"]
    with pytest.raises(UserError, match=r"policy\.json"):
        Policy.from_json({**as_json, "format": 0}, "policy.json")


@pytest.mark.parametrize(("maximum", "minimum"), [(65535, -60000), (32767, -32768), (100, -100), (3_000_000, -1)])
@pytest.mark.parametrize("degree", [1, 4096, 8192])
def test_prime_plaintext_modulus_holds_the_range(maximum: int, minimum: int, degree: int) -> None:
    p = plaintext_modulus(maximum, minimum, degree_for_batching=degree)
    assert is_prime(p) and p % (2 * degree) == 1
    np.testing.assert_array_equal(to_signed(np.array([maximum, minimum, 0]), p), [maximum, minimum, 0])
    fewer = p.bit_length() - 1
    with pytest.raises(UserError, match="does not hold"):
        plaintext_modulus(maximum, minimum, bits=fewer, degree_for_batching=degree)


def test_power_of_two_plaintext_modulus() -> None:
    assert plaintext_modulus(32767, -32768, power_of_two=True) == 1 << 16
    assert plaintext_modulus(32768, 0, power_of_two=True) == 1 << 17
    assert plaintext_modulus(0, -1, bits=10, power_of_two=True) == 1 << 10
    with pytest.raises(UserError, match="power of two"):
        plaintext_modulus(1 << 30, 0, power_of_two=True)


def test_layer_cost_counts_and_adds_up() -> None:
    shape = LayerShape("layer", "convolution", (64, 32, 32), 64, (1, 1))
    plan = CoefficientPlan(shape, 4096, 2, 2, 32)
    parameters = ParameterSet(P, 4096, primes_for(70.0, 4096))
    table = {name: dict.fromkeys(("median", "lower_quartile", "upper_quartile"), 1.0) for name in OPERATIONS}
    profile, link, reply_bits = OperationProfile({(4096, 2, 60): table}, {}), Link(8e6, 0.5), ReplyBits(21, 27)
    cost = layer_cost(plan.workload, parameters, reply_bits, profile, link)
    assert cost["compute_seconds"] == 1 + 3 * 32 + 1024 + 32 + 2 * 32
    flooded = layer_cost(plan.workload, parameters, reply_bits, profile, link, 2.0**60)
    assert flooded["compute_seconds"] == cost["compute_seconds"] + 32
    bits = sum(prime.bit_length() for prime in parameters.primes)
    assert cost["bytes_up"] == 32 + 32 * 4096 * bits // 8
    assert cost["bytes_down"] == (32 * 4096 * 27 + 64 * 32 * 32 * 21) // 8
    assert cost["transfer_seconds"] == pytest.approx((cost["bytes_up"] + cost["bytes_down"]) / 1e6 + 0.5)
    assert cost["latency_seconds"] == pytest.approx(cost["compute_seconds"] + cost["transfer_seconds"])
    with pytest.raises(UserError, match="no measurement at n = 4096 with 2 primes of at most 60 bits"):
        layer_cost(plan.workload, parameters, reply_bits, OperationProfile({}, {}), LINK)
    with pytest.raises(UserError, match="link"):
        Link(0.0, 0.0)


def test_profile_measures_admissible_sets_and_survives_the_file(tmp_path: Path) -> None:
    result = profile([1024, 2048], [1, 2, 3], repeats=1)
    assert sorted(result.table) == [(1024, 1, 27), (2048, 1, 27), (2048, 1, 60), (2048, 2, 27)]
    assert [key for key in sorted(result.table) if ROTATION in result.table[key]] == [(2048, 1, 27)]
    for times in result.table.values():
        assert set(OPERATIONS) - {ROTATION} <= set(times) <= set(OPERATIONS)
        assert all(0 <= t["lower_quartile"] <= t["median"] <= t["upper_quartile"] < 1 for t in times.values())
        # differences of two calls may come out as nothing; what a whole ciphertext takes does not
        assert all(times[name]["lower_quartile"] > 0 for name in ("product", "arrange", "encoding", "wide_flood"))
    assert result.provenance["cpu"]
    result.save(tmp_path / "profile.json")
    assert OperationProfile.load(tmp_path / "profile.json") == result
    (tmp_path / "profile.json").write_text('{"format": 1, "operations": [{}]}')
    with pytest.raises(UserError, match="profile format 1; expected 3; profile again"):
        OperationProfile.load(tmp_path / "profile.json")
    (tmp_path / "profile.json").write_text('{"format": 3, "operations": [{}]}')
    with pytest.raises(UserError, match="not a profile"):
        OperationProfile.load(tmp_path / "profile.json")


def test_profiled_sets_are_the_widest_secure_ones() -> None:
    widest = admissible_parameters(2048, 2, 27)
    assert widest is not None and 51 < widest.log2_q <= 53
    assert admissible_parameters(1024, 2, 27) is None
    assert admissible_parameters(2048, 2, 60) is None  # its primes would be small ones
    large = admissible_parameters(8192, 3, 60)
    assert large is not None and large.primes == ntt_primes(1 << 60, 8192, 3)
