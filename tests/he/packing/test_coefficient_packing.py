"""Coefficient packing against a direct integer convolution, with polynomial products computed independently."""

from __future__ import annotations

import numpy as np
import pytest
from support.convolutions import SHAPES, convolve, make_shape

from autoprivacy.errors import UserError
from autoprivacy.he.packing.coefficient import CoefficientPlan, admissible_plans
from autoprivacy.quantization.integer_network import LayerShape


def negacyclic(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left * right modulo X^n + 1 by schoolbook multiplication, exact in int64."""
    full = np.convolve(left, right)
    full = np.pad(full, (0, 2 * len(left) - len(full)))
    return full[: len(left)] - full[len(left) :]


def evaluate(plan: CoefficientPlan, values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The packed evaluation with plaintext polynomials; also the weight polynomials."""
    inputs = plan.encode_input(values.astype(np.uint64)).astype(np.int64)
    polynomials = plan.encode_weights(weight)
    result = np.zeros((plan.output_ciphertexts, plan.degree), np.int64)
    for polynomial, source, target in zip(polynomials, *plan.products, strict=True):
        for band in range(plan.bands):
            result[target * plan.bands + band] += negacyclic(inputs[source * plan.bands + band], polynomial)
    return plan.decode_output(result), polynomials


@pytest.mark.parametrize("name", SHAPES)
def test_every_plan_equals_direct_convolution(name: str) -> None:
    shape, degree = SHAPES[name]
    generator = np.random.default_rng(sum(name.encode()))
    values = generator.integers(0, 1 << 20, shape.input_shape)
    weight = generator.integers(-127, 128, (shape.output_channels, shape.input_shape[0] // shape.groups, *shape.kernel))
    expected = convolve(shape, values, weight)
    for size in (degree, 4 * degree):
        plans = admissible_plans(shape, size)
        assert plans
        for plan in plans:
            outputs, polynomials = evaluate(plan, values, weight)
            np.testing.assert_array_equal(outputs, expected)
            # every weight has a coefficient of its own, so the norm of weights is the norm of polynomials
            np.testing.assert_array_equal(np.sort(polynomials[polynomials != 0]), np.sort(weight[weight != 0]))
            norms = [(polynomials[plan.products[1] == block] ** 2).sum() for block in range(plan.output_blocks)]
            assert plan.weight_norm(weight) == pytest.approx(max(norms) ** 0.5)
            assert len(set(plan.output_positions.tolist())) == expected.size


@pytest.mark.parametrize("name", ["3x3 padded", "1x1", "depthwise", "bands", "stride 2"])
def test_any_tiling_that_fits_is_exact(name: str) -> None:
    """Not only the chosen ones: a policy file may hold any."""
    shape, degree = SHAPES[name]
    generator = np.random.default_rng(3)
    values = generator.integers(0, 1 << 20, shape.input_shape)
    weight = generator.integers(-127, 128, (shape.output_channels, shape.input_shape[0] // shape.groups, *shape.kernel))
    expected = convolve(shape, values, weight)
    tried = 0
    for tiling in np.ndindex(9, 9, shape.output_shape[1]):
        try:
            plan = CoefficientPlan(shape, 2 * degree, *(part + 1 for part in tiling))
        except UserError:
            continue
        if generator.random() < 0.3:
            np.testing.assert_array_equal(evaluate(plan, values, weight)[0], expected)
            tried += 1
    assert tried > 5


def test_image_of_a_32x32_network_at_n_1024_takes_row_bands() -> None:
    shape = make_shape(3, (32, 32), 2, (3, 3), padding=1)
    plan = admissible_plans(shape, 1024)[0]
    assert plan.bands == 2
    generator = np.random.default_rng(5)
    values, weight = generator.integers(0, 256, shape.input_shape), generator.integers(-9, 9, (2, 3, 3, 3))
    np.testing.assert_array_equal(evaluate(plan, values, weight)[0], convolve(shape, values, weight))


def test_padding_is_shared_between_rows_and_channels() -> None:
    """A 32x32 image with a border takes 33 * 33 coefficients, not 34 * 34; without a border it takes 32 * 32."""
    padded, plain = make_shape(64, (32, 32), 64, (3, 3), padding=1), make_shape(64, (32, 32), 64, (1, 1))
    assert CoefficientPlan(padded, 4096, 1, 3, 32).layout.spacing == 33 * 33
    assert CoefficientPlan(plain, 4096, 2, 2, 32).layout.spacing == 2 * 32 * 32


def test_counts_of_a_dense_layer() -> None:
    shape = make_shape(64, (32, 32), 64, (1, 1))
    plan = CoefficientPlan(shape, 4096, 2, 2, 32)
    assert (plan.input_ciphertexts, plan.output_ciphertexts, plan.workload.products) == (32, 32, 1024)


def test_depthwise_layer_needs_few_products() -> None:
    shape = make_shape(64, (8, 8), 64, (3, 3), padding=1, groups=64)
    assert min(plan.workload.products for plan in admissible_plans(shape, 4096)) <= 64 / 7 + 1


def test_fully_connected_layer_fits_one_ciphertext_each_way_when_small() -> None:
    shape = LayerShape("fc", "fully_connected", (64, 1, 1), 10, (1, 1))
    assert [(p.input_ciphertexts, p.output_ciphertexts) for p in admissible_plans(shape, 1024)] == [(1, 1)]


def test_admissible_plans_are_not_dominated() -> None:
    costs = [
        (plan.input_ciphertexts, plan.output_ciphertexts, plan.workload.products)
        for plan in admissible_plans(make_shape(64, (16, 16), 64, (3, 3), padding=1), 4096)
    ]
    assert len(set(costs)) == len(costs) > 3
    for cost in costs:
        assert not any(all(a <= b for a, b in zip(other, cost, strict=True)) for other in costs if other != cost)


def test_no_plan_where_a_row_does_not_fit() -> None:
    assert admissible_plans(make_shape(1, (8, 200), 1, (3, 3), padding=1), 256) == []


def test_tiling_round_trip_and_errors() -> None:
    shape = make_shape(3, (6, 6), 4, (3, 3), padding=1)
    plan = CoefficientPlan(shape, 256, 2, 2, 6)
    assert CoefficientPlan.from_tiling(shape, 256, plan.tiling) == plan
    with pytest.raises(UserError, match=r"takes .* coefficients, n = 256"):
        CoefficientPlan(shape, 256, 3, 4, 6)
    with pytest.raises(UserError, match="rows at most 6"):
        CoefficientPlan(shape, 256, 1, 1, 7)
    with pytest.raises(UserError, match="tiling"):
        CoefficientPlan.from_tiling(shape, 256, {"channels": 1})
    with pytest.raises(ValueError, match="expected"):
        plan.encode_input(np.zeros((3, 6, 5), np.uint64))
