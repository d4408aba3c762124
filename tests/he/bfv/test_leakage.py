"""How well flooding hides the weights: the closed form against sums and against sampled noise."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from support.protocol_sessions import NETWORK, POLICY, SLOT_POLICY

from autoprivacy.he.bfv.leakage import DIFFERENCE, LayerFlood, hidden_bits, layer_floods, main
from autoprivacy.he.parameters.parameter_set import Flooding
from autoprivacy.protocol.server import Model


@pytest.mark.parametrize("policy", [POLICY, SLOT_POLICY], ids=["coefficient", "slot"])
def test_coefficients_and_ratios_are_those_that_the_server_floods(policy):
    model = Model(NETWORK, policy)
    floods = layer_floods(NETWORK.architecture, policy)
    assert [flood.name for flood in floods] == list(NETWORK.layers)
    for flood in floods:
        (linear,) = model.linear[flood.name].parts
        assert flood.coefficients == linear.plan.workload.reply_coefficients
        assert flood.ratio == pytest.approx(2.0**-40)


def test_one_coefficient_is_the_distance_of_two_gaussians():
    """The overlap of two densities, summed on a grid."""
    ratio = 0.2
    x = np.linspace(-12, 12, 400_001)
    gap = np.abs(stats.norm.pdf(x) - stats.norm.pdf(x - DIFFERENCE * ratio)).sum() * (x[1] - x[0]) / 2
    assert hidden_bits([LayerFlood("one", 1, ratio)], 1) == pytest.approx(-math.log2(gap), abs=1e-6)


def test_many_coefficients_are_told_apart_as_often_as_the_best_test_does():
    """The likelihood-ratio test between shifted and unshifted Gaussian vectors, sampled."""
    rng, count, ratio = np.random.default_rng(1), 400, 0.03
    shift = rng.normal(0, DIFFERENCE * ratio, count)
    shift *= DIFFERENCE * ratio * math.sqrt(count) / np.linalg.norm(shift)
    threshold = shift @ shift / 2
    views = rng.normal(size=(40_000, count)) @ shift
    advantage = np.mean(views + shift @ shift > threshold) - np.mean(views > threshold)
    assert 2.0 ** -hidden_bits([LayerFlood("all", count, ratio)], 1) == pytest.approx(advantage, abs=0.01)


def test_bits_fall_by_half_a_bit_for_twice_the_images_and_without_a_flood_there_are_none():
    floods = layer_floods(NETWORK.architecture, POLICY)
    bits = [hidden_bits(floods, count) for count in (1, 2, 1 << 20)]
    coefficients = sum(flood.coefficients for flood in floods)
    # erf(x) is 2 x / sqrt(pi) for small x
    assert bits[0] == pytest.approx(40 - math.log2(DIFFERENCE * math.sqrt(coefficients / (2 * math.pi))), abs=1e-3)
    assert bits[0] - bits[1] == pytest.approx(0.5, abs=1e-3) and bits[0] - bits[2] == pytest.approx(10, abs=1e-3)
    assert hidden_bits(layer_floods(NETWORK.architecture, replace(POLICY, flooding=Flooding("none"))), 1) == 0


def test_the_program_prints_the_table(tmp_path, capsys):
    NETWORK.save(tmp_path / "network.npz")
    POLICY.save(tmp_path / "policy.json")
    assert main(["--network", str(tmp_path / "network.npz"), "--policy", str(tmp_path / "policy.json")]) == 0
    out = capsys.readouterr().out
    assert (
        f"| 1 | {hidden_bits(layer_floods(NETWORK.architecture, POLICY), 1):.1f} |" in out and "| 1073741824 |" in out
    )
    assert main(["--network", str(tmp_path / "none.npz"), "--policy", str(tmp_path / "policy.json")]) == 1
    assert capsys.readouterr().err.startswith("leakage: ")
