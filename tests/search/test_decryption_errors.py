"""Simulated decryption errors follow the model, and their two halves are separate."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import erfc
from support.search_support import darl_policy, small_network

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.parameter_set import Target
from autoprivacy.he.parameters.policy import LayerPolicy
from autoprivacy.search.decryption_errors import HALVES, CoefficientErrors, Perturbation, perturbation
from autoprivacy.search.error_draws import DENSE_RATE, error_positions, error_rate, error_values, magnitude_tail

SHAPE = (4, 8, 64, 64)


def errors_of(tau: float, seed: int = 1, half: str = "finetune", block: int = 0) -> np.ndarray:
    accumulator = torch.full(SHAPE, 1000.0)
    perturbed = Perturbation({"layer": CoefficientErrors(tau)}, half, seed, block)("layer", accumulator)  # type: ignore[arg-type]
    assert bool((accumulator == 1000.0).all())
    return (perturbed - accumulator).numpy()


@pytest.mark.parametrize("exponent", [2, 5, 7, 10, 13])
def test_rate_of_a_target_is_met(exponent: int) -> None:
    tau = 1 / (2 * Target(decryption_error_rate=2.0**-exponent).z)
    rate = 2.0**-exponent
    assert error_rate(tau) == pytest.approx(rate, rel=1e-9)
    errors = np.concatenate([errors_of(tau, seed) for seed in range(8)])
    count = int((errors != 0).sum())
    deviation = math.sqrt(errors.size * rate * (1 - rate))
    assert abs(count - errors.size * rate) < 5 * deviation


@pytest.mark.parametrize("tau", [0.2, 0.35, 0.43, 0.44, 1.0, 40.0])
def test_sizes_follow_the_rounded_gaussian_on_both_sides_of_the_dense_rate(tau: float) -> None:
    errors = np.concatenate([errors_of(tau, seed) for seed in range(8)]).ravel()
    assert np.array_equal(errors, np.rint(errors))
    for size in (0, 1, -1, 2, -2, 3, 40, -80):
        low, high = (size - 0.5) / tau, (size + 0.5) / tau
        probability = 0.5 * float(erfc(low / math.sqrt(2)) - erfc(high / math.sqrt(2)))
        deviation = math.sqrt(errors.size * probability) + 1
        assert abs(int((errors == size).sum()) - errors.size * probability) < 5 * deviation
    assert abs(errors.mean()) < 5 * math.sqrt((tau**2 + 1 / 12) / errors.size)


def test_the_sparse_and_the_dense_way_meet_at_the_dense_rate() -> None:
    assert error_rate(0.43) < DENSE_RATE < error_rate(0.44)


def test_gaps_between_errors_are_geometric() -> None:
    rate = 1 / 16
    positions = error_positions(np.random.default_rng(1), rate, 1 << 20)
    gaps = np.diff(positions)
    assert gaps.min() == 1 and positions[0] >= 0 and positions[-1] < 1 << 20
    for gap in (1, 2, 10):
        expected = len(gaps) * rate * (1 - rate) ** (gap - 1)
        assert abs(int((gaps == gap).sum()) - expected) < 5 * math.sqrt(expected)


@pytest.mark.parametrize("rate", [1e-300, 1e-12])
def test_tiny_rates_give_no_position(rate: float) -> None:
    assert len(error_positions(np.random.default_rng(1), rate, 1000)) == 0


def test_a_value_that_is_wrong_is_never_zero() -> None:
    values = error_values(np.random.default_rng(1), 0.4, 100_000)
    assert set(np.unique(values)) == {-2.0, -1.0, 1.0, 2.0}
    tail = magnitude_tail(0.4)
    assert tail[0] == pytest.approx(float(erfc(1.5 / 0.4 / math.sqrt(2)) / erfc(0.5 / 0.4 / math.sqrt(2))))
    assert np.all(np.diff(tail) < 0)


@pytest.mark.parametrize("tau", [0.0, 1e-6, 0.012])
def test_a_layer_without_errors_is_unchanged(tau: float) -> None:
    assert not errors_of(tau).any()


@pytest.mark.parametrize("tau", [0.25, 3.0])
def test_errors_are_a_function_of_seed_half_and_block(tau: float) -> None:
    first = errors_of(tau)
    assert np.array_equal(first, errors_of(tau))
    for other in (errors_of(tau, seed=2), errors_of(tau, half="evaluate"), errors_of(tau, block=1)):
        rate = error_rate(tau)
        both = float(np.mean((first != 0) & (other != 0)))
        assert both == pytest.approx(rate**2, rel=0.2)
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 5 / math.sqrt(first.size)


def test_the_halves_read_disjoint_stretches_of_one_stream() -> None:
    """Same key, counters half the period apart: no number of blocks that a run can use brings them together."""
    halves = [Perturbation({"layer": CoefficientErrors(1.0)}, half, 7) for half in HALVES]
    states = [half._generators["layer"].bit_generator.state for half in halves]
    keys = [state["state"]["key"].tolist() for state in states]
    counters = [sum(int(word) << (64 * i) for i, word in enumerate(state["state"]["counter"])) for state in states]
    assert keys[0] == keys[1]
    assert counters[1] - counters[0] == 1 << 255
    finetune, evaluate = (
        np.random.Philox(key=np.array(keys[0], np.uint64), counter=counter).random_raw(100_000) for counter in counters
    )
    assert len(np.intersect1d(finetune, evaluate)) == 0


def test_layers_have_their_own_errors_and_calls_go_on_in_the_stream() -> None:
    perturb = Perturbation({"a": CoefficientErrors(2.0), "b": CoefficientErrors(2.0)}, "finetune", 1)
    zero = torch.zeros(1, 4, 8, 8)
    a, b, again = perturb("a", zero), perturb("b", zero), perturb("a", zero)
    assert not torch.equal(a, b) and not torch.equal(a, again)
    assert torch.equal(perturb.at(0)("a", zero), a) and torch.equal(perturb.at(3)("a", zero), perturb.at(3)("a", zero))


@pytest.mark.parametrize("tau", [0.25, 3.0])
def test_memory_layout_and_type_do_not_matter(tau: float) -> None:
    accumulator = torch.randint(-1000, 1000, (2, 6, 16, 16)).float()
    results = [
        Perturbation({"layer": CoefficientErrors(tau)}, "evaluate", 5)("layer", value)
        for value in (accumulator, accumulator.to(memory_format=torch.channels_last), accumulator.double())
    ]
    assert torch.equal(results[0], results[1]) and torch.equal(results[0].double(), results[2])
    assert results[2].dtype == torch.float64


def test_the_deployed_tau_counts_and_not_the_target() -> None:
    policy = darl_policy(small_network())
    layers = tuple(replace(layer, target=Target(2.0**-5), predicted={"tau": 3.0}) for layer in policy.layers)
    perturb = perturbation(replace(policy, layers=layers), small_network().architecture, "finetune", 1)
    errors = perturb("fc", torch.zeros(64, 4, 16, 16))
    assert float(errors.std()) == pytest.approx(math.sqrt(9 + 1 / 12), rel=0.02)


def test_mistakes_are_named() -> None:
    policy, architecture = darl_policy(small_network()), small_network().architecture
    bare = LayerPolicy("fc", Target(2.0**-5), policy.layers[0].parameters, 1024.0)
    with pytest.raises(UserError, match="no predicted tau for layer fc"):
        perturbation(replace(policy, layers=(*policy.layers[:2], bare)), architecture, "finetune", 1)
    with pytest.raises(UserError, match="no predicted z for layer first"):
        perturbation(replace(policy, packing="slot"), architecture, "finetune", 1)
    with pytest.raises(UserError, match=r"layers \['first', 'body.second'\]; the network has"):
        perturbation(replace(policy, layers=policy.layers[:2]), architecture, "finetune", 1)
    with pytest.raises(UserError, match="layer other is not in the policy"):
        perturbation(policy, architecture, "finetune", 1)("other", torch.zeros(1, 1, 1, 1))
    with pytest.raises(UserError, match="expected 0 or more"):
        CoefficientErrors(math.nan)
    with pytest.raises(ValueError, match="expected one of"):
        Perturbation({"layer": CoefficientErrors(1.0)}, "test", 1)  # type: ignore[arg-type]
