"""The scheme autoprivacy+: exact, and a plaintext modulus per layer where that is cheaper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.made_up_profile import LINK, PROFILE, made_up_profile
from support.protocol_sessions import IMAGES, NETWORK, session
from support.reference import reference_forward
from support.squares import one_square

from autoprivacy.data.dataset import Split
from autoprivacy.errors import UserError
from autoprivacy.he.parameters.parameter_set import Flooding
from autoprivacy.he.parameters.policy import EXACT_TARGET
from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.quantization.outputs import Output, shown
from autoprivacy.quantization.residues import Residues, tied_layers
from autoprivacy.quantization.windows import Window
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.exact import EXACT_SCHEME, autoprivacy_plus, layer_moduli
from autoprivacy.selection.garbled_costs import predicted_seconds, with_garbling
from autoprivacy.selection.plaintext_modulus import PlaintextRule
from autoprivacy.selection.schemes import layerwise
from autoprivacy.selection.share_windows import share_windows, with_share_windows, without_share_windows
from autoprivacy.timing import quartiles

RATES = {"garble": 1e-8, "evaluate": 2e-8, "project": 4e-8, "label": 8e-9, "transfer": 6e-8}
RATED = replace(PROFILE, garbling={name: quartiles([value]) for name, value in RATES.items()})
SELECTION = Selection(RATED, LINK, Flooding("statistical"))
RANGES = {"first": (-60_000, 60_064), "second": (-100_000, 400_000), "fc": (-500_000, 500_000)}
NARROW = {"first": 1 << 17, "second": 1 << 19, "fc": 1 << 20}  # 500,001 numbers fit into a window of 2^19


def test_every_layer_has_the_fewest_bits_that_hold_its_range() -> None:
    moduli = layer_moduli(NETWORK.architecture, RANGES, SELECTION, PlaintextRule())
    assert moduli[-1] == NARROW
    assert all(len(set(other.values())) == 1 for other in moduli[:-1])
    for layer, window in {**share_windows(NETWORK.architecture, RANGES), "fc": Window.signed(1 << 20)}.items():
        assert window.size == NARROW[layer]
        assert window.interval[0] <= RANGES[layer][0] and RANGES[layer][1] <= window.interval[1]


def test_layers_whose_accumulators_meet_have_one_modulus() -> None:
    nodes = list(NETWORK.architecture.nodes)
    scaled = next(i for i, node in enumerate(nodes) if node.name == "scaled")
    nodes[scaled] = replace(nodes[scaled], inputs=("first",))  # the residual is now of accumulators
    architecture = replace(NETWORK.architecture, nodes=tuple(nodes))
    assert tied_layers(NETWORK.architecture) == [("first",), ("second",), ("fc",)]
    assert tied_layers(architecture) == [("first", "second"), ("fc",)]
    moduli = layer_moduli(architecture, RANGES, SELECTION, PlaintextRule())
    assert moduli[-1] == {"first": 1 << 19, "second": 1 << 19, "fc": 1 << 20}
    windows = share_windows(architecture, RANGES)
    assert windows["first"] == windows["second"] and "fc" not in windows


@pytest.mark.parametrize(
    ("packing", "rule"),
    [("slot", PlaintextRule()), ("coefficient", PlaintextRule(kind="prime")), ("coefficient", PlaintextRule(22))],
)
def test_one_modulus_where_no_power_of_two_will_do(packing: str, rule: PlaintextRule) -> None:
    moduli = layer_moduli(NETWORK.architecture, RANGES, replace(SELECTION, packing=packing), rule)
    assert all(len(set(own.values())) == 1 for own in moduli)


def test_squared_activations_keep_one_modulus_unless_they_are_looked_up() -> None:
    network = one_square()
    ranges = {"first": (-3_000, 3_000), "second": (-30_000, 30_000)}
    garbled = replace(SELECTION, activation="garbled")
    one, own = (layer_moduli(network.architecture, ranges, chosen, PlaintextRule()) for chosen in (garbled, SELECTION))
    assert all(len(set(moduli.values())) == 1 for moduli in one)
    assert own[:-1] == one and own[-1] == {"first": 1 << 13, "second": 1 << 16}


def test_the_policy_is_exact_and_the_fastest_of_the_candidates() -> None:
    policy = autoprivacy_plus(NETWORK, "residual", RANGES, SELECTION, PlaintextRule())
    assert policy.scheme == EXACT_SCHEME and not policy.approximate and not policy.warnings
    assert {layer.target for layer in policy.layers} == {EXACT_TARGET}
    windows = share_windows(NETWORK.architecture, RANGES)
    assert all(layer.predicted["decryption_error_rate"] <= 2.0**-40 * (1 + 1e-6) for layer in policy.layers)
    for moduli in layer_moduli(NETWORK.architecture, RANGES, SELECTION, PlaintextRule()):
        targets = dict.fromkeys(NETWORK.layers, EXACT_TARGET)
        other = with_share_windows(layerwise(NETWORK, "residual", moduli, targets, SELECTION), windows)
        other = with_garbling(other, NETWORK.architecture, RATED, LINK)
        assert predicted_seconds(policy) <= predicted_seconds(other)


def test_windows_hold_calibrated_ranges_in_the_fewest_bits() -> None:
    windows = share_windows(NETWORK.architecture, RANGES)
    policy = layerwise(
        NETWORK, "residual", dict.fromkeys(RANGES, 1 << 20), dict.fromkeys(RANGES, EXACT_TARGET), SELECTION
    )
    narrow = with_share_windows(policy, windows)
    assert [layer.window for layer in narrow.layers] == [windows["first"], windows["second"], None]
    residues = narrow.residues(NETWORK.architecture)
    assert residues.window("first") == windows["first"] and residues.window("sum") == windows["second"]
    assert without_share_windows(narrow) == policy
    own = with_share_windows(layerwise(NETWORK, "r", NARROW, dict.fromkeys(RANGES, EXACT_TARGET), SELECTION), windows)
    assert [layer.share_window for layer in own.layers] == [None, windows["second"].interval, None]
    assert without_share_windows(own) == own  # p itself holds the range in no other way
    gates = [with_garbling(p, NETWORK.architecture, RATED, LINK).predicted["and_gates"] for p in (policy, narrow)]
    assert gates[1] < gates[0]


def test_windows_are_of_powers_of_two_alone() -> None:
    policy = layerwise(NETWORK, "r", dict.fromkeys(RANGES, 1032193), dict.fromkeys(RANGES, EXACT_TARGET), SELECTION)
    assert with_share_windows(policy, share_windows(NETWORK.architecture, RANGES)) == policy
    assert share_windows(one_square().architecture, dict.fromkeys(one_square().layers, (-300, 300))) == {}


def test_secure_outputs_are_the_integer_network_s() -> None:
    policy = autoprivacy_plus(NETWORK, "residual", RANGES, SELECTION, PlaintextRule())
    residues = policy.residues(NETWORK.architecture)
    with session(policy) as (client, _):
        for image in IMAGES:
            expected = reference_forward(NETWORK, image, residues)
            np.testing.assert_array_equal(expected, reference_forward(NETWORK, image, None))  # nothing wraps
            np.testing.assert_array_equal(client.infer(client.prepare(), image), expected)


@pytest.mark.parametrize("output", ["scores", "label"])
def test_what_a_client_learns_is_part_of_the_integer_network(output: Output) -> None:
    residues = Residues.uniform(NETWORK.architecture, 1 << 20)
    for image in IMAGES:
        logits = reference_forward(NETWORK, image, residues)
        told = reference_forward(NETWORK, image, residues, output=output)
        np.testing.assert_array_equal(told, shown(logits, output, 1 << 20))
    images = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 3)).astype(np.uint8)
    split, evaluator = Split(images, np.zeros(20, np.int64)), Evaluator(NETWORK, residues)
    predictions = evaluator.predictions(split, output=output)
    if output == "label":
        np.testing.assert_array_equal(predictions, evaluator.predictions(split))


def test_nothing_that_serves_is_an_error_with_the_reason() -> None:
    bare = replace(SELECTION, profile=replace(RATED, table=made_up_profile((1024,)).table))
    with pytest.raises(UserError, match="no secure set with p = "):
        autoprivacy_plus(NETWORK, "residual", RANGES, bare, PlaintextRule(kind="power_of_two"))
