"""The parameters table and the ablation: rows agree with the schemes, tables and figure with the rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.float_networks import smooth_dataset
from support.made_up_profile import LINK, PROFILE, made_up_profile

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.noise import decryption_error_rate
from autoprivacy.he.parameters.parameter_set import Flooding, Target
from autoprivacy.he.parameters.policy import EXACT_TARGET
from autoprivacy.quantization.integer_network import Architecture, IntegerNetwork, LayerShape, LinearLayer
from autoprivacy.quantization.quantize import QuantizationSettings, quantize
from autoprivacy.quantization.random_weights import random_network
from autoprivacy.report import parameter_tables as report
from autoprivacy.report.ablation_figure import ablation_figure
from autoprivacy.report.figures import save
from autoprivacy.selection import ablation as steps
from autoprivacy.selection.ablation import KEYS, NUMBERS, Subject, Tolerances, parameter_rows
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.plaintext_modulus import PlaintextRule
from autoprivacy.selection.schemes import darl, layerwise
from autoprivacy.storage import write_rows
from autoprivacy.workflow.config import load_schema

SHAPES = (
    LayerShape("conv1", "convolution", (3, 16, 16), 16, (3, 3), padding=1, input_maximum=128),
    LayerShape("conv2", "convolution", (16, 16, 16), 32, (3, 3), stride=2, padding=1),
    LayerShape("fc", "fully_connected", (64, 1, 1), 10, (1, 1)),
)


def made_up_subject() -> Subject:
    rng, layers = np.random.default_rng(1), {}
    for shape in SHAPES:
        size = (shape.output_channels, shape.input_shape[0], *shape.kernel)
        weight = np.rint(rng.normal(0, 30, size)).clip(-127, 127).astype(np.int64)
        layers[shape.name] = LinearLayer(shape, weight, np.zeros(shape.output_channels, np.int64))
    network = IntegerNetwork(Architecture((), SHAPES, (0.5,), (0.25,), 0.02), layers, 1.0)
    calibrated = {"conv1": (-9_000, 8_000), "conv2": (-60_000, 60_000), "fc": (-20_000, 30_000)}
    possible = {name: (-layer.worst_case, layer.worst_case) for name, layer in layers.items()}
    return Subject("net", "random", network, calibrated, possible, {"conv1": 6, "conv2": 9, "fc": 0})


SUBJECT = made_up_subject()
SELECTIONS = [
    Selection(PROFILE, LINK, Flooding(kind), packing)  # type: ignore[arg-type]
    for packing in ("slot", "coefficient")
    for kind in ("statistical", "none")
]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return parameter_rows(SUBJECT, SELECTIONS, steps.STEPS, PlaintextRule(), Tolerances())


@pytest.fixture
def choices(rows: list[dict[str, Any]], tmp_path: Path) -> list[dict[str, Any]]:
    write_rows(tmp_path / "net.csv", rows)
    return report.read_choices(tmp_path / "net.csv")


def of(rows: list[dict[str, Any]], packing: str, flooding: str, step: str) -> list[dict[str, Any]]:
    wanted = (packing, flooding, step)
    return [row for row in rows if (row["packing"], row["flooding"], row["step"]) == wanted]


def test_every_combination_has_its_layers_or_says_why_not(rows: list[dict[str, Any]]) -> None:
    for selection in SELECTIONS:
        for step in steps.STEPS:
            own = of(rows, selection.packing, selection.flooding.kind, step)
            if (selection.packing, step) == ("slot", "tolerated-noise"):
                (only,) = own
                assert "spoil whole ciphertexts" in only["note"] and only["log2_q"] is None
                continue
            assert [row["layer"] for row in own] == [shape.name for shape in SHAPES]
            assert all(row["note"] is None and row["security_bits"] >= 128 for row in own)
    assert all(list(row) == [*KEYS, "layer", *NUMBERS, "note"] for row in rows)


def test_rows_are_what_the_schemes_choose(rows: list[dict[str, Any]]) -> None:
    selection = SELECTIONS[2]
    p = PlaintextRule().modulus(SUBJECT.calibrated, "coefficient", PROFILE.degrees)
    targets = {name: Target(tau=2.0**shift) for name, shift in SUBJECT.shifts.items()}
    policies = {
        "calibrated-p": darl(SUBJECT.network, "net", p, selection),
        "layer-wise": layerwise(SUBJECT.network, "net", p, dict.fromkeys(SUBJECT.shifts, EXACT_TARGET), selection),
        "tolerated-noise": layerwise(SUBJECT.network, "net", p, targets, selection),
    }
    for step, policy in policies.items():
        for row, layer, shape in zip(of(rows, "coefficient", "statistical", step), policy.layers, SHAPES, strict=True):
            parameters, predicted = layer.parameters, layer.predicted
            assert row["plaintext_modulus"] == p and row["plaintext_bits"] == p.bit_length()
            assert (row["polynomial_degree"], row["log2_q"]) == (parameters.polynomial_degree, parameters.log2_q)
            assert row["latency_seconds"] == predicted["latency_seconds"] and row["tau"] == predicted["tau"]
            rate = decryption_error_rate(predicted["z"])
            assert row["error_rate_per_coefficient"] == rate
            assert row["failures_per_image"] == pytest.approx(rate * math.prod(shape.output_shape))


def test_failures_in_slots_are_ciphertexts(rows: list[dict[str, Any]]) -> None:
    for row in of(rows, "slot", "none", "tolerated-errors"):
        assert row["target_decryption_error_rate"] == 2.0**-7 and row["tau"] is None
        assert 2.0**-8 < row["error_rate_per_ciphertext"] <= 2.0**-7 * (1 + 1e-6)
        per_coefficient = -math.expm1(math.log1p(-row["error_rate_per_ciphertext"]) / row["polynomial_degree"])
        assert row["error_rate_per_coefficient"] == pytest.approx(per_coefficient)
        assert row["failures_per_image"] == row["error_rate_per_ciphertext"] * row["reply"]


def test_every_step_takes_less_time_than_the_one_before(rows: list[dict[str, Any]]) -> None:
    for selection in SELECTIONS:
        own = [of(rows, selection.packing, selection.flooding.kind, step) for step in list(steps.STEPS)[1:]]
        seconds = [sum(row["latency_seconds"] for row in layers) for layers in own if not layers[0]["note"]]
        assert seconds == sorted(seconds, reverse=True) and seconds[-1] < seconds[0]


def test_what_has_no_admissible_set_is_a_note() -> None:
    selection = Selection(made_up_profile((1024,)), LINK, Flooding("statistical"))
    found = parameter_rows(SUBJECT, [selection], ["layer-wise", "calibrated-p"], PlaintextRule(), Tolerances())
    assert [row["step"] for row in found] == ["layer-wise", "calibrated-p"]
    assert all("no secure set" in row["note"] for row in found)


def test_the_ablation_adds_layers_up(choices: list[dict[str, Any]]) -> None:
    ablation = report.ablation_rows(choices)
    assert len(ablation) == len(SELECTIONS) * len(steps.STEPS)
    for row in ablation:
        layers = of(choices, row["packing"], row["flooding"], row["step"])
        if row["note"]:
            assert row["latency_seconds"] is None and row["saved_bits"] is None
            continue
        bits = [layer["log2_q"] for layer in layers]
        assert row["log2_q_mean"] == pytest.approx(np.mean(bits)) and row["log2_q_max"] == max(bits)
        assert row["primes"] == sum(layer["primes"] for layer in layers)
        assert row["latency_seconds"] == pytest.approx(sum(layer["latency_seconds"] for layer in layers))
        assert (row["saved_bits"] is None) == (row["step"] == "published")
    first, second = ablation[:2]
    assert second["saved_bits"] == pytest.approx(first["log2_q_mean"] - second["log2_q_mean"])


def test_tables_for_people_hold_every_choice(choices: list[dict[str, Any]]) -> None:
    ablation = report.ablation_rows(choices)
    text = report.ablation_markdown(ablation)
    assert text.count("\n## net (random weights), ") == len(SELECTIONS)
    assert "## net (random weights), slot packing, flooding statistical, 40 bits\n" in text
    assert text.count("No tolerated-noise: layer conv1") == 2 and "tolerated-noise" in report.STEPS
    tables = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert set(tables) == {11} and len(tables) == len(SELECTIONS) * (2 + len(steps.STEPS))
    page = report.choices_markdown(choices)
    assert page.count("\n## ") == len(SELECTIONS) * len(steps.STEPS)
    assert sum(line.startswith("| conv2 |") for line in page.splitlines()) == len(SELECTIONS) * len(steps.STEPS) - 2
    assert set(report.STEPS) == set(steps.STEPS)


def test_the_figure_has_a_bar_for_every_choice(choices: list[dict[str, Any]], tmp_path: Path) -> None:
    ablation = report.ablation_rows(choices)
    figure = ablation_figure(ablation)
    bars = [len(axis.patches) for axis in figure.axes]
    assert bars == [2 * len(steps.STEPS) - 1] * 4  # slot packing has no tolerated-noise
    highest = max(patch.get_height() for patch in figure.axes[0].patches)  # type: ignore[attr-defined]
    assert highest == max(
        row["log2_q_mean"] for row in ablation if row["flooding"] == "statistical" and not row["note"]
    )
    save(figure, tmp_path / "ablation")
    assert (tmp_path / "ablation.svg").stat().st_size > 1000 and (tmp_path / "ablation.png").stat().st_size > 1000


def test_a_damaged_file_is_told(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    write_rows(tmp_path / "net.csv", [{**rows[0], "log2_q": "many"}])
    with pytest.raises(UserError, match=r"net\.csv: line 2: log2_q: got 'many'; expected a finite number"):
        report.read_choices(tmp_path / "net.csv")
    write_rows(tmp_path / "net.csv", [{"network": "net"}])
    with pytest.raises(UserError, match="no columns weights, packing"):
        report.read_choices(tmp_path / "net.csv")


def test_the_schema_knows_the_steps_and_the_defaults() -> None:
    table = load_schema()["properties"]["parameters_table"]["properties"]
    assert table["steps"]["items"]["enum"] == table["steps"]["default"] == list(steps.STEPS)
    defaults = {name: entry["default"] for name, entry in table["tolerances"]["properties"].items()}
    assert Tolerances(**defaults) == Tolerances()


def test_random_weights_are_a_function_of_the_seed_and_can_be_chosen_for() -> None:
    dataset = smooth_dataset((32, 32))
    model = "autoprivacy.networks.seven_cnet:seven_cnet"
    one, again, other = (random_network(model, 6, dataset, seed) for seed in (1, 1, 2))
    first, second, third = (next(network.parameters()) for network in (one, again, other))
    assert first.equal(second) and not first.equal(third) and not one.training
    network, rows = quantize(one, dataset, QuantizationSettings(calibration_images=50))
    assert {row["name"] for row in rows} == set(network.layers)
    assert all(8 < row["plaintext_bits"] <= row["worst_case_bits"] < 31 for row in rows)
