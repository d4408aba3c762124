"""The experiments behind Figures 3 and 4, Table 1 and the claim on p: what they vary does what mathematics says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.search_support import small_network

from autoprivacy.data.dataset import Split
from autoprivacy.errors import UserError
from autoprivacy.he.parameters.parameter_set import Flooding
from autoprivacy.he.profiling.multiplication import OURS, SEAL, multiplication_rows, ring_multiplication
from autoprivacy.he.profiling.profile import OPERATIONS, OperationProfile
from autoprivacy.he.ring.primes import PRIME_SIZES, ntt_primes
from autoprivacy.link import Link
from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.quantization.integer_network import LayerShape, LinearLayer
from autoprivacy.quantization.wraps import wrap_rows
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.published_sets import READINGS, PublishedSet, error_rows, security_rows
from autoprivacy.selection.sensitivity import (
    KERNEL,
    KERNELS,
    RATE,
    WIDTH,
    middle_convolution,
    sensitivity_rows,
    variants,
)
from autoprivacy.timing import QUARTILES

ROWS = {(row["system"], row["reading"]): row for row in security_rows([PublishedSet("delphi", 22, 13, 180)])}


def layer(name: str = "conv", kernel: int = 3, stride: int = 1, groups: int = 1) -> LinearLayer:
    """A convolution of random 8-bit weights."""
    shape = LayerShape(name, "convolution", (8, 8, 8), 8, (kernel, kernel), stride, kernel // 2, groups)
    weight = np.random.default_rng(3).integers(-127, 128, (8, 8 // groups, kernel, kernel))
    return LinearLayer(shape, weight, np.zeros(8, np.int64))


def selection(packing: str, flooding: str = "none") -> Selection:
    """Conditions with a profile in which every operation takes as many seconds as n has terms and q primes."""
    table = {
        (degree, count, size): {name: dict.fromkeys(QUARTILES, degree * count * 1e-9) for name in OPERATIONS}
        for degree in (2048, 4096, 8192)
        for count in range(1, 5)
        for size in PRIME_SIZES
    }
    return Selection(OperationProfile(table, {}), Link(1e9, 1e-3), Flooding(flooding), packing)


def test_our_multiplication_is_the_product_in_the_ring() -> None:
    degree, primes = 1024, ntt_primes(1 << 60, 1024, 2)
    product = np.asarray(ring_multiplication(degree, primes)())
    generator = np.random.default_rng(0)
    rows = [generator.integers(0, prime, (3, degree), dtype=np.uint64) for prime in primes]
    # X^n = -1: coefficient 0 of the first polynomial's product, by its sum
    for number, (prime, (first, _, plain)) in enumerate(zip(primes, rows, strict=True)):
        own = int(first[0]) * int(plain[0]) - sum(int(first[i]) * int(plain[degree - i]) for i in range(1, degree))
        assert int(product[0, number, 0]) == own % prime


def test_multiplications_are_timed_at_every_point() -> None:
    rows = multiplication_rows([1024, 2048], [1, 2], repeats=3)
    assert {(row["implementation"], row["polynomial_degree"], row["log2_q"]) for row in rows} >= {
        (name, degree, 60 * count) for name in (OURS, SEAL) for degree in (1024, 2048) for count in (1, 2)
    }
    assert all(0 < row["seconds_lower_quartile"] <= row["seconds_upper_quartile"] for row in rows)
    assert not any(row["secure"] for row in rows)  # the paper's base point among them


@pytest.mark.parametrize("packing", ["coefficient", "slot"])
def test_bits_of_q_follow_what_is_varied(packing: str) -> None:
    rows = sensitivity_rows(variants(layer(), (-30_000, 30_000), 1), [selection(packing)])
    found = {
        kind: {row["level"]: row for row in rows if row["kind"] == kind and not row["note"]}
        for kind in (KERNEL, WIDTH, RATE)
    }
    assert set(found[KERNEL]) == set(KERNELS)
    for kind, own in found.items():
        bits = [row["accumulator_bits"] for row in own.values()]
        assert bits == sorted(bits), kind
    # one bit more of weights and inputs: two of p, from where batching does not set p
    wide = found[WIDTH]
    assert wide[11]["plaintext_bits"] - wide[10]["plaintext_bits"] == 2
    # from 2^-40 to 2^-5 by the quantiles of a Gaussian, less where errors are ciphertexts'
    saved = found[RATE][-40]["log2_q"] - found[RATE][-5]["log2_q"]
    assert 0.5 < saved < math.log2(7.144 / 2.154) + 0.6  # another tiling may come with it


def test_the_layer_studied_is_the_middle_plain_convolution() -> None:
    layers = [layer("a"), layer("b", stride=2), layer("c"), layer("d", groups=8), layer("e"), layer("f", kernel=1)]
    assert middle_convolution(layers).shape.name == "c"
    with pytest.raises(UserError, match="no plain 3x3 convolution"):
        middle_convolution(layers[3:4])


def test_security_of_the_published_sets() -> None:
    assert {reading for _, reading in ROWS} == set(READINGS)
    printed = ROWS["delphi", "as printed"]
    assert (printed["polynomial_degree"], printed["log2_q"], printed["secure"]) == (8192, 180, True)
    assert printed["security_bits"] == pytest.approx(154, abs=1)  # the lattice estimator's
    before = ROWS["delphi", "before flooding (n / 4, log q / 3)"]
    assert (before["polynomial_degree"], before["log2_q"], before["secure"]) == (2048, 60, False)


def test_error_rates_of_the_published_sets() -> None:
    network = small_network()
    rows = error_rows(ROWS.values(), "small", network, selection("coefficient"))
    printed = next(row for row in rows if row["reading"] == "as printed")
    assert printed["rate_per_value"] == 0 and printed["layer"] in network.layers
    darl = security_rows([PublishedSet("darl", 14, 13, 165)])
    slots = error_rows(darl, "small", network, selection("slot"))
    # no prime of 14 bits is 1 mod 2^14
    assert next(row for row in slots if row["reading"] == "as printed")["note"]


def test_a_narrow_p_wraps_and_a_wide_one_does_not() -> None:
    network = small_network()
    channels, height, width = network.architecture.nodes[0].shape
    generator = np.random.default_rng(5)
    images = generator.integers(0, 256, (20, height, width, channels), dtype=np.uint8)
    split = Split(images, generator.integers(0, network.architecture.nodes[-1].shape[0], 20))
    narrow, wide = wrap_rows("small", network, split, (4, 24))
    assert narrow["wraps"] > 0 and wide["wraps"] == 0 and narrow["accumulators"] == wide["accumulators"]
    assert wide["accuracy_percent"] == pytest.approx(Evaluator(network, None).accuracy(split))
