"""Costs of garbled activations against counts by hand and against what garbling really sends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.made_up_profile import LINK, PROFILE

from autoprivacy.errors import UserError
from autoprivacy.gc import rates
from autoprivacy.gc.activation import Activation
from autoprivacy.gc.garbling import garble
from autoprivacy.gc.outputs import Label, Scores
from autoprivacy.he.parameters.parameter_set import Flooding
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.link import Link
from autoprivacy.ot.extension import extension_bytes
from autoprivacy.ot.labels import random_delta, zero_labels
from autoprivacy.ot.trees import DEFAULT_TREE_BITS
from autoprivacy.quantization.integer_network import Architecture, IntegerNetwork, LayerShape, LinearLayer, Node
from autoprivacy.quantization.residues import Residues
from autoprivacy.randomness.generator import SecureRandom
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.garbled_costs import (
    activation_cost,
    garbled_bytes,
    garbled_counts,
    garbling,
    output_cost,
    predicted_seconds,
    with_garbling,
)
from autoprivacy.selection.schemes import darl
from autoprivacy.timing import quartiles

RATES = {"garble": 1e-8, "evaluate": 2e-8, "project": 4e-8, "label": 8e-9, "transfer": 6e-8}
RATED = replace(PROFILE, garbling={name: quartiles([value]) for name, value in RATES.items()})
P = 114689
SHAPES = (
    LayerShape("conv", "convolution", (2, 4, 4), 3, (3, 3), padding=1),
    LayerShape("fc", "fully_connected", (48, 1, 1), 10, (1, 1)),
)
NODES = (
    Node("image", "input", (), (2, 4, 4)),
    Node("conv", "linear", ("image",), (3, 4, 4)),
    Node("relu", "activation", ("conv",), (3, 4, 4), shift=8),
    Node("again", "activation", ("relu",), (3, 4, 4), shift=0),
    Node("flat", "flatten", ("again",), (48, 1, 1)),
    Node("fc", "linear", ("flat",), (10, 1, 1)),
)
ARCHITECTURE = Architecture(NODES, SHAPES, (0.5,), (0.25,), 0.02)


def modulo(modulus: int) -> Residues:
    """Everything shared modulo one p, no bits ignored."""
    return Residues.uniform(ARCHITECTURE, modulus)


def policy() -> Policy:
    weights = [np.ones((shape.output_channels, shape.input_shape[0], *shape.kernel), np.int64) for shape in SHAPES]
    layers = {
        shape.name: LinearLayer(shape, weight, np.zeros(len(weight), np.int64))
        for shape, weight in zip(SHAPES, weights, strict=True)
    }
    return darl(IntegerNetwork(ARCHITECTURE, layers, 1.0), "net", P, Selection(PROFILE, LINK, Flooding("none")))


@pytest.mark.parametrize("modulus", [P, 1 << 17])
def test_bytes_are_those_that_garbling_makes(modulus: int) -> None:
    circuit, random, count = Activation(modulus, 8, 0, 255).circuit, SecureRandom(bytes(32)), 5000
    zeros = [zero_labels(bytes(32), circuit.evaluator_bits, count) for _ in range(2)]
    garbled = garble(circuit, count, random_delta(random), zeros[0], (modulus,), random)
    sent = garbled_bytes(circuit, (modulus,), count)
    assert sent["tables"] == sum(table.nbytes for table in garbled.tables)
    assert sent["labels"] == garbled.garbler_zero.nbytes
    assert sent["transfers"] == (17 * count + -(17 * count) % 128) * 4  # in whole groups of 128, 4 bytes each
    assert sent["outputs"] == -(-17 * count // 8)


def test_counts_are_those_of_the_circuit() -> None:
    circuit = Activation(P, 8, 0, 255).circuit
    ands = circuit.and_count
    assert garbled_counts(circuit, (P,), 10) == {
        "garble": 10 * ands,
        "evaluate": 10 * ands,
        "project": 80,
        "label": 170,
        "transfer": 170,
    }


def test_an_activations_cost_is_counts_times_rates_and_bytes_over_the_link() -> None:
    circuit, link = Activation(P, 8, 0, 255).circuit, Link(8e6, 0.25)
    cost = activation_cost(NODES[2], modulo(P), RATES, link)
    expected = 48 * (circuit.and_count * 3e-8 + 8 * 4e-8 + 17 * 8e-9 + 17 * 6e-8)
    assert cost["and_gates"] == 48 * circuit.and_count
    assert cost["garbled_compute_seconds"] == pytest.approx(expected)
    assert cost["garbled_seconds"] == pytest.approx(expected + cost["garbled_bytes"] / 1e6 + 0.25)
    with pytest.raises(UserError, match="no measurement of evaluate, transfer; profile again"):
        activation_cost(NODES[2], modulo(P), {name: RATES[name] for name in ("garble", "project", "label")}, link)


def test_a_power_of_two_costs_less_than_a_prime_and_a_bit_more() -> None:
    prime, power, longer = (
        activation_cost(NODES[2], modulo(modulus), RATES, LINK)["garbled_seconds"] for modulus in (P, 1 << 17, 1 << 18)
    )
    assert power < prime and power < longer


def test_layers_have_the_cost_of_the_activations_behind_them() -> None:
    costs = garbling(ARCHITECTURE, modulo(P), RATED, LINK)
    assert list(costs) == ["conv"]
    both = [activation_cost(node, modulo(P), RATES, LINK) for node in NODES[2:4]]
    assert costs["conv"] == pytest.approx({name: both[0][name] + both[1][name] for name in both[0]})


def test_a_policy_has_them_in_its_layers_and_totals() -> None:
    plain = policy()
    whole = with_garbling(plain, ARCHITECTURE, RATED, LINK)
    cost = garbling(ARCHITECTURE, modulo(P), RATED, LINK)["conv"]
    assert {name: whole.layer("conv").predicted[name] for name in cost} == cost
    assert whole.layer("fc").predicted == plain.layer("fc").predicted
    assert {name: whole.predicted[name] for name in cost} == cost
    total = plain.predicted["latency_seconds"] + cost["garbled_seconds"]
    assert predicted_seconds(whole) == whole.predicted["total_seconds"] == pytest.approx(total)
    assert predicted_seconds(plain) == plain.predicted["latency_seconds"]
    assert whole.essence() == plain.essence()


def test_the_output_s_circuit_is_counted_with_the_last_layer() -> None:
    label, link = Label(P, 10), Link(8e6, 0.25)
    cost = output_cost("label", ARCHITECTURE, modulo(P), RATES, link)
    assert cost is not None and cost["and_gates"] == label.circuit.and_count
    # tables and their seed, transfers and labels of both inputs, 4 bits of mask
    sent = label.circuit.and_count * 32 + 16 + 4 * 4 / 8 + extension_bytes(170, DEFAULT_TREE_BITS) + 170 * 16 + 1
    assert cost["garbled_bytes"] == pytest.approx(sent, abs=8)
    expected = label.circuit.and_count * 3e-8 + 4 * 4e-8 + 170 * 8e-9 + 170 * 6e-8
    assert cost["garbled_compute_seconds"] == pytest.approx(expected)
    assert cost["garbled_seconds"] == pytest.approx(expected + cost["garbled_bytes"] / 1e6)
    assert output_cost("logits", ARCHITECTURE, modulo(P), RATES, link) is None
    scores = output_cost("scores", ARCHITECTURE, modulo(P), RATES, link)
    assert scores is not None and scores["and_gates"] == 10 * Scores(P, 10).circuit.and_count
    plain, whole = (with_garbling(replace(policy(), output=o), ARCHITECTURE, RATED, LINK) for o in ("logits", "label"))
    more = label.circuit.and_count
    assert (
        whole.layer("fc").predicted["and_gates"] == more == whole.predicted["and_gates"] - plain.predicted["and_gates"]
    )


def test_a_network_that_cannot_be_served_keeps_its_policy(caplog: pytest.LogCaptureFixture) -> None:
    """A shift beyond what p has room for has no circuit."""
    nodes = tuple(replace(node, shift=30) if node.name == "relu" else node for node in NODES)
    plain = policy()
    assert with_garbling(plain, replace(ARCHITECTURE, nodes=nodes), RATED, LINK) == plain
    assert "no prediction of garbled activations" in caplog.text


def test_rates_are_measured_by_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock on which a circuit takes 1 s a gate and 2 s an output of each instance, that is what comes out."""
    monkeypatch.setattr(rates, "INSTANCES", 8)
    monkeypatch.setattr(rates, "TRANSFERS", 1 << 8)
    timer = rates.GarblingTimer()

    def seconds(operation: object) -> float:
        own = getattr(operation, "__self__", None)
        return (own.circuit.and_count + 2.0 * 8) * 8 if isinstance(own, rates._Garbled) else 1.0

    with monkeypatch.context() as patched:
        patched.setattr(rates, "thread_seconds", seconds)
        times = timer.times()
    assert times["garble"] == times["evaluate"] == 1.0
    assert times["project"] == 2 * 2.0  # once for either party
    assert set(times) == set(rates.OPERATIONS)
    measured = rates.garbling_times(2)
    assert all(len(own) == 2 and min(own) >= 0 for own in measured.values())
    with pytest.raises(UserError, match="0 repeats"):
        rates.garbling_times(0)
