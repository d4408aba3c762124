"""The tolerance study: what is disturbed and by how much, intervals of differences, resumption, the figure."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.packed_policies import DEGREE, P, slot_policy
from support.search_support import darl_policy, images_of, small_network

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.noise import decryption_error_rate
from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.quantization.integer_network import Node
from autoprivacy.report.studies import tolerance_figure
from autoprivacy.search.decryption_errors import Perturbation, simulated_shares
from autoprivacy.search.tolerance import (
    IGNORED,
    LAYER_RATES,
    LAYER_STEPS,
    RATES,
    STEPS,
    TAUS,
    Disturbance,
    disturbances,
    harmless_level,
    ignored_bits,
    paired_interval,
    study_rows,
    study_split,
)


def taus(disturbance: Disturbance) -> dict[str, float]:
    perturb = disturbance.perturb()
    assert isinstance(perturb, Perturbation)
    return {name: errors.tau for name, errors in perturb.layers.items()}  # type: ignore[attr-defined]


def test_steps_are_those_of_the_next_activation() -> None:
    """body.second is added to something before an activation of shift 7; the first layer is read at once."""
    assert small_network().architecture.layer_steps() == {"first": 64.0, "body.second": 128.0}


def test_scales_on_the_way_count_and_the_finest_reader_decides() -> None:
    architecture = small_network().architecture
    nodes = list(architecture.nodes)
    position = [node.name for node in nodes].index("sum")
    nodes[position] = replace(nodes[position], inputs=("louder", "scaled"))
    nodes.insert(position, Node("louder", "scale", ("body.second",), (6, 8, 8), factor=4))
    assert replace(architecture, nodes=tuple(nodes)).layer_steps()["body.second"] == 128 / 4
    nodes.insert(position, Node("aside", "activation", ("body.second",), (6, 8, 8), shift=3))
    assert replace(architecture, nodes=tuple(nodes)).layer_steps()["body.second"] == 8


def test_coefficient_packing_is_disturbed_by_rates_sizes_and_steps() -> None:
    network = small_network()
    studied = disturbances(network, darl_policy(network), 1)
    bits = [one for one in studied if one.kind == IGNORED]
    studied = [one for one in studied if one.kind != IGNORED]
    assert len(studied) == len(RATES) + len(TAUS) + len(STEPS) + 3 * len(LAYER_STEPS)
    # 257 is 2^8 + 1, which no bits can be ignored modulo
    assert [(one.level, one.layer) for one in bits] == [(0, "")]
    by_key = {(one.kind, one.level, one.layer): one for one in studied}
    assert len(by_key) == len(studied)
    assert (min(RATES), max(RATES)) == (-15, -1) and (min(TAUS), max(TAUS)) == (-3, 12)  # 1/8 to 4096
    for level in (-15, -7, -1):
        rates = [decryption_error_rate(1 / (2 * tau)) for tau in taus(by_key["rate", level, ""]).values()]
        assert rates == pytest.approx([2.0**level] * 3, rel=1e-6)
    assert taus(by_key["tau", 5, ""]) == {"first": 32.0, "body.second": 32.0, "fc": 32.0}
    assert taus(by_key["step", 1, ""]) == {"first": 128.0, "body.second": 256.0, "fc": 2.0}
    assert taus(by_key["step", 3, "body.second"]) == {"first": 0.0, "body.second": 1024.0, "fc": 0.0}


def test_slot_packing_is_disturbed_by_rates_of_ciphertexts() -> None:
    studied = disturbances(small_network(), slot_policy(3.0), 1)
    assert len(studied) == len(RATES) + 3 * len(LAYER_RATES) and {one.kind for one in studied} == {"rate"}
    for one in studied:
        rates = {name: decryption_error_rate(1 / (2 * tau), DEGREE) if tau else 0.0 for name, tau in taus(one).items()}
        for name, rate in rates.items():
            assert rate == pytest.approx(2.0**one.level if one.layer in ("", name) else 0.0, rel=1e-6)


@pytest.mark.parametrize(("p", "first", "second"), [(1 << 22, 6, 7), (786433, 6, 7), (1032193, 6, 7), (524309, 2, 2)])
def test_ignored_share_bits_are_studied_as_circuits_round(p: int, first: int, second: int) -> None:
    network, darl = small_network(), darl_policy(small_network())
    layers = tuple(replace(own, parameters=replace(own.parameters, plaintext_modulus=p)) for own in darl.layers)
    studied = ignored_bits(network, replace(darl, layers=layers), 1)
    everywhere = [(t, "") for t in range(max(first, second) + 1)]
    assert [(one.level, one.layer) for one in studied] == [*everywhere, (first, "first"), (second, "body.second")]
    split = images_of(60)
    clean = Evaluator(network, p)
    rows = study_rows(clean, split, studied)
    assert rows[0]["difference_points"] == 0.0 and {row["kind"] for row in rows} == {IGNORED}
    for one, bits in ((studied[-1], (0, second)), (studied[-3], (first, second))):
        policy = replace(
            darl,
            layers=tuple(
                replace(own, target=replace(own.target, ignored_share_bits=t))
                for own, t in zip(layers, (*bits, 0), strict=True)
            ),
        )
        residues = policy.residues(network.architecture)
        expected = Evaluator(network, residues, simulated_shares("evaluate", 1)).predictions(split)
        assert one.evaluator is not None
        images = network.architecture.quantize_images(split.images[:20])
        outputs = one.evaluator().forward(images)
        assert np.array_equal(one.evaluator().predictions(split), expected)
        assert not torch.equal(outputs, clean.forward(images))


def test_every_layer_of_a_policy_has_to_be_the_networks() -> None:
    policy = darl_policy(small_network())
    with pytest.raises(UserError, match="the network has"):
        disturbances(small_network(), replace(policy, layers=policy.layers[1:]), 1)


def test_intervals_cover_the_true_difference_as_often_as_they_say() -> None:
    generator = np.random.default_rng(1)
    for lost, won in ((0.02, 0.01), (0.3, 0.05), (0.001, 0.001)):
        covered = 0
        for fate in generator.choice(4, (1000, 500), p=[lost, won, 0.6 - lost, 0.4 - won]):
            before, after = np.isin(fate, (0, 2)), np.isin(fate, (1, 2))
            difference, low, high = paired_interval(before, after)
            assert low <= difference <= high and difference == pytest.approx(after.mean() - before.mean())
            covered += low <= won - lost <= high
        assert covered >= 930  # of 1,000, five deviations below 95%


def test_equal_answers_leave_room_for_what_was_not_seen() -> None:
    right = np.ones(1000, bool)
    difference, low, high = paired_interval(right, right)
    assert difference == 0 and low == -high and 2 / 1000 < high < 4 / 1000
    assert paired_interval(right, ~right)[1] == -1.0


def test_the_study_measures_paired_differences_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    network, split = small_network(), images_of(40)
    evaluator = Evaluator(network, P)
    garbage = [one for one in disturbances(network, slot_policy(3.0), 1) if one.level in (-15, -1)]
    state = tmp_path / "state.pt"
    rows = study_rows(evaluator, split, garbage, state)
    clean = evaluator.predictions(split) == split.labels
    for row, one in zip(rows, garbage, strict=True):
        right = evaluator.predictions(split, one.perturb()) == split.labels
        assert row["accuracy_percent"] == pytest.approx(100 * right.mean(), abs=1e-3)
        assert row["difference_points"] == pytest.approx(100 * (right.mean() - clean.mean()), abs=1e-3)
        assert row["loss"] == (row["high_points"] < 0)
    calls = 0

    def broken() -> Perturbation:
        nonlocal calls
        calls += 1
        raise KeyboardInterrupt

    killed = [*garbage[:2], replace(garbage[2], perturb=broken), *garbage[3:]]
    state.unlink()
    with pytest.raises(KeyboardInterrupt):
        study_rows(evaluator, split, killed, state)
    done_before = [replace(one, perturb=broken) for one in garbage[:2]]
    assert study_rows(evaluator, split, [*done_before, *garbage[2:]], state) == rows and calls == 1


def test_other_kinds_of_disturbance_are_studied_alike() -> None:
    network, split = small_network(), images_of(60)

    def all_zero(name: str, accumulator: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(accumulator)

    rows = study_rows(Evaluator(network, None), split, [Disturbance("ignored bits", 4, "", lambda: all_zero)])
    assert rows[0]["kind"] == "ignored bits" and rows[0]["images"] == 60
    assert rows[0]["accuracy_percent"] == pytest.approx(100 * float(np.mean(split.labels == 0)), abs=1e-3)
    axes = tolerance_figure(rows, "an output").axes
    assert len(axes) == 1 and "ignored bits" in axes[0].get_xlabel()


def test_the_harmless_rate_is_the_largest_without_a_loss() -> None:
    def row(level: int, loss: bool, kind: str = "rate", layer: str = "") -> dict[str, object]:
        return {"kind": kind, "level": level, "layer": layer, "loss": loss}

    rows = [row(-7, False), row(-5, False), row(-3, True), row(-1, False, layer="fc"), row(4, False, kind="tau")]
    assert (harmless_level(rows, "rate"), harmless_level(rows, "tau")) == (-5, 4)
    assert harmless_level([row(-7, True)], "rate") is None


def test_images_are_random_ones_of_the_test_split() -> None:
    test = images_of(50)
    split = study_split(test, 20, 1)
    assert len(split.labels) == 20 and not np.array_equal(split.images, test.images[:20])
    assert np.array_equal(split.images, study_split(test, 20, 1).images)
    for images in (0, 51):
        with pytest.raises(UserError, match="1 to the 50"):
            study_split(test, images, 1)


def test_the_figure_has_a_panel_for_each_kind_and_one_for_the_layers() -> None:
    network = small_network()
    rows = study_rows(Evaluator(network, P), images_of(20), disturbances(network, darl_policy(network), 1))
    axes = tolerance_figure(rows, "an output").axes
    assert "of an output" in axes[0].get_xlabel()
    assert len(axes) == 5 and math.isfinite(axes[0].get_ylim()[0])
    assert [label.get_text() for label in axes[4].get_xticklabels()] == ["first", "body.second", "fc"]
