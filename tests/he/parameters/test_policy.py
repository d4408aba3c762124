"""The policy file: its entries, what binds it to a network, and what a client is told of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.search_support import small_network

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.commitment import NetworkCommitment, check_norms, coarse_bound, norm_bounds
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, Target
from autoprivacy.he.parameters.policy import LayerPolicy, Policy
from autoprivacy.he.ring.primes import primes_for
from autoprivacy.quantization.integer_network import IntegerNetwork, LinearLayer
from autoprivacy.storage import write_json

NETWORK = small_network()
EXACT = Target(decryption_error_rate=2.0**-40)


def policy_for(target: Target = EXACT, **entries: Any) -> Policy:
    """A policy of the small network by hand."""
    parameters = ParameterSet(1 << 16, 2048, primes_for(50.0, 2048))
    bounds = norm_bounds(NETWORK)
    layers = tuple(LayerPolicy(name, target, parameters, bounds[name], {"z": 7.2}) for name in NETWORK.layers)
    flooding = Flooding("statistical")
    commitment = NetworkCommitment.of(NETWORK)
    return replace(Policy("small", "by hand", "coefficient", flooding, layers, commitment=commitment), **entries)


def with_one_weight_changed(network: IntegerNetwork) -> IntegerNetwork:
    name, layer = next(iter(network.layers.items()))
    weight = layer.weight.copy()
    weight.flat[0] += 1 if weight.flat[0] < 127 else -1
    return network.with_weights({**network.layers, name: LinearLayer(layer.shape, weight, layer.bias)})


def test_the_file_keeps_every_entry(tmp_path: Path) -> None:
    policy = policy_for(output="label")
    layers = (replace(policy.layers[0], activation="lookup", share_window=(-512, 1535)), *policy.layers[1:])
    policy = replace(policy, layers=layers)
    policy.save(tmp_path / "policy.json")
    assert Policy.load(tmp_path / "policy.json") == policy


@pytest.mark.parametrize(
    ("target", "approximate"),
    [
        (EXACT, False),
        (Target(decryption_error_rate=2.0**-39), True),
        (Target(decryption_error_rate=2.0**-50), False),
        (Target(tau=0.06), False),
        (Target(tau=1.0), True),
        (Target(decryption_error_rate=2.0**-40, ignored_share_bits=1), True),
    ],
)
def test_a_policy_states_whether_it_is_approximate(target: Target, approximate: bool) -> None:
    policy = policy_for(target)
    assert policy.approximate == approximate == policy.as_json()["approximate"]
    assert any("repeats queries learns weights" in sentence for sentence in policy.warnings) == approximate
    told = {**policy.as_json(), "approximate": not approximate}
    with pytest.raises(UserError, match="by its targets the policy is"):
        Policy.from_json(told, "policy.json")


def test_warnings_name_what_protects_no_weights() -> None:
    assert not policy_for().warnings
    for entries, told in (
        ({"flooding": Flooding("none")}, "floods nothing"),
        ({"flooding": Flooding("statistical", 20)}, "20 bits"),
        ({"commitment": None}, "bound to no network"),
    ):
        (sentence,) = policy_for(**entries).warnings
        assert told in sentence


def test_the_commitment_is_to_weights_and_graph_and_hides_which() -> None:
    one, other = NetworkCommitment.of(NETWORK), NetworkCommitment.of(NETWORK)
    assert one.matches(NETWORK) and other.matches(NETWORK)
    assert one.digest != other.digest  # by their salts
    assert not one.matches(with_one_weight_changed(NETWORK))
    nodes = tuple(replace(node, shift=node.shift + (node.shift > 0)) for node in NETWORK.architecture.nodes)
    assert nodes != NETWORK.architecture.nodes
    assert not one.matches(replace(NETWORK, architecture=replace(NETWORK.architecture, nodes=nodes)))


def test_a_policy_knows_its_network() -> None:
    policy, other = policy_for(), with_one_weight_changed(NETWORK)
    policy.check_network(NETWORK)
    with pytest.raises(UserError, match="policy by hand of small: made for another network"):
        policy.check_network(other)
    replace(policy, commitment=None).check_network(other)
    low = tuple(replace(layer, norm_bound=1.0) for layer in policy.layers)
    with pytest.raises(UserError, match="norm_bound is 1.0"):
        replace(policy, layers=low).check_network(NETWORK)
    with pytest.raises(UserError, match="the network has"):
        replace(policy, layers=policy.layers[1:]).check_network(NETWORK)


def test_networks_survive_their_file_with_their_commitment(tmp_path: Path) -> None:
    commitment = NetworkCommitment.of(NETWORK)
    NETWORK.save(tmp_path / "network.npz")
    assert commitment.matches(IntegerNetwork.load(tmp_path / "network.npz"))


def test_bounds_are_coarse_and_hold() -> None:
    for norm in (0.0, 1.0, 1.5, 700.0, 724.0773439350247, 724.1, 1024.0):
        bound = coarse_bound(norm)
        assert max(norm, 1.0) <= bound * (1 + 1e-9) and bound < max(norm, 1.0) * 2**0.5 * (1 + 1e-9)
        assert abs(2 * np.log2(bound) - round(2 * np.log2(bound))) < 1e-9
    bounds = norm_bounds(NETWORK)
    check_norms(NETWORK, bounds, "policy.json")
    name = next(iter(bounds))
    with pytest.raises(UserError, match=rf"policy\.json: layer {name}: weights of norm .* norm_bound is"):
        check_norms(NETWORK, {**bounds, name: bounds[name] / 2**0.5}, "policy.json")


def test_a_client_is_told_what_both_must_agree_on_and_no_more() -> None:
    policy = replace(policy_for(), predicted={"latency_seconds": 1.5}, provenance={"cpu": "a name"})
    told = policy.essence()
    assert Policy.from_json(told, "the server").essence() == told
    assert told["provenance"] == {} == told["predicted"] and told["commitment"] is None
    assert all(layer["predicted"] == {} for layer in told["layers"])
    assert policy_for(output="label").essence() != policy_for().essence()
    narrow = replace(policy, layers=tuple(replace(layer, share_window=(-512, 1535)) for layer in policy.layers))
    assert narrow.essence() != told


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("norm_bound", 0, "norm_bound 0.0; expected a positive number"),
        ("norm_bound", float("nan"), "norm_bound nan"),
        ("activation", "magic", "expected garbled or lookup"),
        ("share_window", [5, 5], r"share_window \[5, 5\]; expected 2.m integers"),
        ("share_window", [-512, 1024], r"share_window \[-512, 1024\]"),
        ("share_window", [-513, 1534], r"the smallest a multiple of 2.m / 32"),
        ("share_window", [-(1 << 16), (1 << 16) - 1], "share_window of 131072 integers modulo 65536"),
    ],
)
def test_mistakes_in_a_layer_are_named(entry: str, value: Any, message: str) -> None:
    told = policy_for().as_json()
    told["layers"][1][entry] = value
    with pytest.raises(UserError, match=message):
        Policy.from_json(told, "policy.json")


def test_other_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="output 'all'; expected one of logits, scores, label"):
        Policy.from_json({**policy_for().as_json(), "output": "all"}, "policy.json")
    with pytest.raises(UserError, match="not a policy"):
        Policy.from_json({**policy_for().as_json(), "commitment": {"salt": "x", "digest": "y"}}, "policy.json")
    write_json(tmp_path / "old.json", {**policy_for().as_json(), "format": 1})
    with pytest.raises(
        UserError, match=r"old\.json: policy format 1; expected 2.*choose the network's parameters again"
    ):
        Policy.load(tmp_path / "old.json")
