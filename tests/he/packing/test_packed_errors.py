"""Simulated errors of slot packing: whole ciphertexts, at a ciphertext's rate, as the slots of sparse polynomials."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.packed_policies import DEGREE, P, slot_policy
from support.search_support import images_of, small_network

from autoprivacy.errors import UserError
from autoprivacy.he.packing.coefficient import CoefficientPlan
from autoprivacy.he.packing.coefficient import admissible_plans as coefficient_plans
from autoprivacy.he.packing.composite_modulus import composed
from autoprivacy.he.packing.slot import SlotPlan, admissible_plans
from autoprivacy.he.parameters.noise import decryption_error_rate
from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.quantization.integer_network import LayerShape, to_signed
from autoprivacy.search.decryption_errors import CoefficientErrors, PackedErrors, Perturbation, perturbation
from autoprivacy.search.finetuning import FinetuneSettings, finetune
from autoprivacy.search.problem import deployed_key

# 12 output channels of 100 pixels: several reply ciphertexts, and slots that are no output.
SHAPE = LayerShape("layer", "convolution", (3, 10, 10), 12, (3, 3), padding=1)
PLAN = admissible_plans(SHAPE, DEGREE, P)[0]


def tau_for(rate: float, plan: SlotPlan | CoefficientPlan = PLAN) -> float:
    """The tau at which that share of the plan's ciphertexts is wrong."""
    low, high = 0.02, 5.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if decryption_error_rate(1 / (2 * middle), plan.degree) < rate else (low, middle)
    return low


def added(errors: PackedErrors, accumulator: torch.Tensor, seed: int = 1) -> np.ndarray:
    perturbed = Perturbation({"layer": errors}, "evaluate", seed)("layer", accumulator)
    assert perturbed.dtype == accumulator.dtype
    return (perturbed.double() - accumulator.double()).numpy().astype(np.int64)


def polynomials_of(plan: SlotPlan, outputs: np.ndarray) -> np.ndarray:
    """The signed coefficients [output_ciphertexts, n] whose slots hold the outputs, which fill all slots."""
    slots = np.zeros(plan.output_ciphertexts * plan.degree, np.uint64)
    slots[plan.output_positions] = (outputs.reshape(-1) % plan.plaintext_modulus).astype(np.uint64)
    return to_signed(plan.encoding.encode(slots.reshape(-1, plan.degree)), plan.plaintext_modulus)


@pytest.mark.parametrize("rate", [2.0**-7, 0.25, 0.75])
def test_whole_ciphertexts_are_wrong_at_the_rate_of_a_ciphertext(rate: float) -> None:
    assert PLAN.output_ciphertexts > 1
    images = 600
    wrong = added(PackedErrors(tau_for(rate), PLAN, P), torch.zeros(images, *SHAPE.output_shape)) != 0
    numbers = PLAN.groups.reshape(-1)
    sizes = np.bincount(numbers)
    shares = np.stack([np.bincount(numbers, image) for image in wrong.reshape(images, -1)]) / sizes
    assert np.all((shares == 0) | (shares > 0.9))
    garbage = shares > 0.9
    assert abs(garbage.mean() - rate) < 5 * math.sqrt(rate * (1 - rate) / garbage.size)
    for column in garbage.T:  # every ciphertext of the layer, each independently of the others
        assert abs(column.mean() - rate) < 5 * math.sqrt(rate * (1 - rate) / images)
    both = (garbage[:, 0] & garbage[:, 1]).mean()
    assert abs(both - rate**2) < 5 * math.sqrt(rate**2 * (1 - rate**2) / images)


def test_composite_moduli_go_wrong_factor_by_factor_each_at_its_own_rate() -> None:
    """The smaller factor leaves noise more room; an output is wrong modulo the factors whose ciphertext is."""
    factors, images = (12289, 40961), 1500
    plan = composed(PLAN, factors)
    tau = tau_for(0.3)
    errors = PackedErrors(tau, plan, math.prod(factors), factors)
    outputs = added(errors, torch.zeros(images, *SHAPE.output_shape, dtype=torch.float64)).reshape(images, -1)
    assert np.abs(outputs).max() > 12289 * 8192  # residues modulo the product, not modulo a factor
    group = PLAN.groups.reshape(-1) == 0
    for factor in factors:
        wrong = (outputs[:, group] % factor != 0).any(1).mean()
        rate = decryption_error_rate(factors[-1] / (2 * tau * factor), DEGREE)
        assert abs(wrong - rate) < 5 * math.sqrt(rate * (1 - rate) / images) + 1e-9
    assert decryption_error_rate(factors[-1] / (2 * tau * factors[0]), DEGREE) < 0.01


def test_errors_are_the_slots_of_sparse_polynomials_with_rounded_gaussian_coefficients() -> None:
    shape = LayerShape("layer", "convolution", (2, 16, 16), 4, (1, 1))
    plan = SlotPlan(shape, DEGREE, P, 256, 1, 1)  # its 1024 outputs fill the slots
    tau, images = 0.2, 300
    outputs = added(PackedErrors(tau, plan, P), torch.zeros(images, *shape.output_shape))
    polynomials = np.stack([polynomials_of(plan, image) for image in outputs])
    rate = decryption_error_rate(1 / (2 * tau))
    assert set(np.unique(polynomials)) == {-1, 0, 1}
    for value in (-1, 1):
        count = int((polynomials == value).sum())
        assert abs(count - polynomials.size * rate / 2) < 5 * math.sqrt(polynomials.size * rate / 2)
    counts = (polynomials != 0).sum((1, 2))
    assert abs(counts.var() / (DEGREE * rate * (1 - rate)) - 1) < 5 * math.sqrt(2 / images)  # binomial


def test_values_of_a_garbage_ciphertext_are_uniform_residues_with_the_accumulator_added() -> None:
    accumulator = torch.randint(-3000, 3000, (200, *SHAPE.output_shape)).float()
    perturbed = accumulator + torch.from_numpy(added(PackedErrors(3.0, PLAN, P), accumulator))
    values = perturbed.double().numpy()
    low = to_signed(np.arange(P), P).min()
    assert values.min() >= low and values.max() < low + P and np.array_equal(values, np.rint(values))
    histogram = np.histogram(values, 16, (low, low + P))[0]
    assert np.all(np.abs(histogram - values.size / 16) < 5 * math.sqrt(values.size / 16))


def test_in_coefficient_packing_it_is_the_rounded_gaussian_on_every_output() -> None:
    plan = coefficient_plans(SHAPE, DEGREE)[0]
    zeros = torch.zeros(400, *SHAPE.output_shape)
    general = added(PackedErrors(0.4, plan, P), zeros)
    direct = Perturbation({"layer": CoefficientErrors(0.4)}, "evaluate", 2)("layer", zeros).numpy()
    for value in (-1, 0, 1):
        difference = int((general == value).sum()) - int((direct == value).sum())
        assert abs(difference) < 5 * math.sqrt(2 * int((direct == value).sum()))


def test_outputs_without_errors_and_the_given_tensor_stay_as_they_are() -> None:
    accumulator = torch.randint(-(2**20), 2**20, (50, *SHAPE.output_shape)).float()  # beyond p: only garbage is reduced
    before = accumulator.clone()
    errors = PackedErrors(tau_for(0.1), PLAN, P)
    changed = added(errors, accumulator) != 0
    assert torch.equal(accumulator, before) and 0 < changed.mean() < 0.5
    assert not added(PackedErrors(0.0, PLAN, P), accumulator).any()
    assert np.array_equal(added(errors, accumulator), added(errors, accumulator.to(memory_format=torch.channels_last)))
    assert not np.array_equal(added(errors, accumulator), added(errors, accumulator, seed=2))
    with pytest.raises(ValueError, match="expected"):
        added(errors, torch.zeros(1, 12, 10, 11))
    with pytest.raises(UserError, match="expected 0 or more"):
        PackedErrors(-1.0, PLAN, P)


def test_a_slot_policy_spoils_images_at_the_predicted_rate_in_evaluation() -> None:
    network, z = small_network(), 3.8
    policy, images = slot_policy(z), images_of(400)
    architecture = network.architecture
    ciphertexts = sum(
        SlotPlan.from_tiling(shape, DEGREE, P, policy.layer(shape.name).tiling).output_ciphertexts
        for shape in architecture.layers
    )
    evaluator, integers = Evaluator(network, P), architecture.quantize_images(images.images)
    errors = perturbation(policy, architecture, "evaluate", 1)
    changed = (evaluator.forward(integers) != evaluator.forward(integers, errors)).any(1).numpy()
    rate = 1 - (1 - decryption_error_rate(z, DEGREE)) ** ciphertexts
    assert abs(changed.mean() - rate) < 5 * math.sqrt(rate * (1 - rate) / len(changed))


def test_the_search_tells_slot_policies_apart_and_finetunes_under_their_errors() -> None:
    network, policy = small_network(), slot_policy(3.8)
    assert deployed_key(policy) == deployed_key(slot_policy(3.8)) != deployed_key(slot_policy(3.9))
    errors = perturbation(policy, network.architecture, "finetune", 1)
    tuned = finetune(network, images_of(64), errors, FinetuneSettings(1, 32, 3e-3, crop_padding=0), 1)
    pairs = [(tuned.layers[name], layer) for name, layer in network.layers.items()]
    assert any((new.weight != old.weight).any() or (new.bias != old.bias).any() for new, old in pairs)
    other = perturbation(slot_policy(3.9), network.architecture, "finetune", 1)
    assert repr(errors.layers) != repr(other.layers)
