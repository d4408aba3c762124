"""The times of operations are what the clock says of calls of known size, shared out."""

from __future__ import annotations

import numpy as np
import pytest

from autoprivacy.he.profiling import operation_timing as timing
from autoprivacy.he.profiling.profile import OPERATIONS, ROTATION, admissible_parameters

PARAMETERS = admissible_parameters(2048, 1, 27)


def test_a_calls_own_cost_is_told_from_a_ciphertexts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a call of 7 and ciphertexts of 2 seconds, and weights of 3, the differences find just that."""
    assert PARAMETERS is not None
    timer = timing.LayerTimer(PARAMETERS, timing.Words())
    monkeypatch.setattr(timing._Layer, "times", lambda self: dict.fromkeys(CALLS, 7.0 + 2.0 * self._channels))
    costs = {"arrange": 0.5, "sum": 4.0, "product": 3.0}

    def seconds(self: timing._Products, inputs: int, outputs: int, products: int) -> float:
        return costs["arrange"] * inputs + costs["sum"] * outputs + costs["product"] * outputs * products

    monkeypatch.setattr(timing._Products, "_seconds", seconds)
    monkeypatch.setattr(timing, "warm_seconds", lambda operation: 32.0)
    times = timer.times()
    assert set(times) == set(OPERATIONS) - {ROTATION}
    assert {name: times[name] for name in CALLS} == dict.fromkeys(CALLS, 2.0)
    assert times["calls"] == 4 * 7.0
    assert {name: times[name] for name in costs} == pytest.approx(costs)
    assert times["encoding"] == times["wide_flood"] == 32.0 / timing.CIPHERTEXTS


CALLS = ("encrypt", "load", "reply", "decrypt")


@pytest.mark.parametrize("bits", [27, 60])
def test_sums_of_nothing_are_zero_and_sums_of_products_are_sums(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "WEIGHT_BYTES", 1 << 20)
    parameters = admissible_parameters(2048, 1, bits)
    assert parameters is not None
    client = timing.ClientCipher(parameters)
    products, results = timing._Products(client.ring, timing.Words()), []
    original = timing.Ring.multiply_accumulate
    monkeypatch.setattr(
        timing.Ring, "multiply_accumulate", lambda self, *rest: results.append(original(self, *rest)) or results[-1]
    )
    assert all(value >= 0 for value in products.times().values())
    nothing, zeros, sums = results
    assert len(nothing) == 0 and zeros.shape[0] == timing.INPUTS and not zeros.any()
    # all words are 1: a sum of so many products
    np.testing.assert_array_equal(sums, np.full_like(sums, timing.INPUTS))


def test_memory_is_shared_and_grows() -> None:
    words = timing.Words()
    few = words.take(np.dtype(np.uint32), 10)
    assert np.shares_memory(words.take(np.dtype(np.uint32), 5), few)
    assert len(words.take(np.dtype(np.uint32), 20)) == 20
    assert words.take(np.dtype(np.uint64), 3).dtype == np.uint64
