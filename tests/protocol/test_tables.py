"""Networks whose activations are functions of any form, in the protocol: equal to the integer network, or refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from support.function_networks import SETTINGS, data, images_of, integer_network
from support.made_up_profile import LINK, PROFILE
from support.protocol_sessions import FLOODED, FLOODED_SLOTS, payload_lengths, session
from support.reference import reference_forward

from autoprivacy.errors import UserError
from autoprivacy.gc import rates as gc_rates
from autoprivacy.he.parameters.parameter_set import Flooding
from autoprivacy.he.parameters.policy import EXACT_TARGET, Policy
from autoprivacy.link import Link
from autoprivacy.lookup import rates as lookup_rates
from autoprivacy.protocol.messages import Message
from autoprivacy.protocol.session import Agreement
from autoprivacy.quantization.quantize import measured_rows, required_ranges
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.exact import autoprivacy_plus, layer_moduli
from autoprivacy.selection.plaintext_modulus import PlaintextRule
from autoprivacy.selection.schemes import delphi, layerwise
from autoprivacy.selection.share_windows import share_windows, with_share_windows

CASES = [("silu", 1), ("hardswish", 8), ("gelu", 2), ("sigmoid", 1), ("tanh", 4), ("leaky_relu", 1)]


@cache
def ranges_of(name: str, groups: int = 1) -> dict[str, tuple[int, int]]:
    return required_ranges(measured_rows(integer_network(name, groups), data(), SETTINGS))


def exact_policy(name: str, groups: int = 1, ignored: int = 0) -> Policy:
    """A modulus for every layer, as few bits as it needs."""
    network = integer_network(name, groups)
    moduli = layer_moduli(network.architecture, ranges_of(name, groups), FLOODED, PlaintextRule())[-1]
    target = replace(EXACT_TARGET, ignored_share_bits=ignored)
    policy = layerwise(network, name, moduli, dict.fromkeys(network.layers, target), FLOODED)
    return with_share_windows(policy, share_windows(network.architecture, ranges_of(name, groups)))


@pytest.mark.parametrize(("name", "groups"), CASES)
def test_outputs_equal_the_integer_network_bit_for_bit(name: str, groups: int) -> None:
    network, policy = integer_network(name, groups), exact_policy(name, groups)
    residues = policy.residues(network.architecture)
    with session(policy, network) as (client, (up, _)):
        for image in images_of(network, 2).numpy():
            assert (client.infer(client.prepare(), image) == reference_forward(network, image, residues)).all()
        assert len(payload_lengths(bytes(up.sent), Message.LOOKUP_ANSWER)) == 2 * 3


def test_layers_that_feed_a_table_are_looked_up_whatever_is_cheaper() -> None:
    policy = exact_policy("silu")
    assert [layer.activation for layer in policy.layers] == ["lookup"] * 3 + ["garbled"]


def test_the_exact_scheme_takes_them() -> None:
    times = dict.fromkeys(("median", "lower_quartile", "upper_quartile"), 1e-9)

    profile = replace(PROFILE, garbling=dict.fromkeys((*gc_rates.OPERATIONS, *lookup_rates.OPERATIONS), times))
    selection = Selection(profile, Link(1e8, 0.04), Flooding("statistical"))
    network = integer_network("silu")
    policy = autoprivacy_plus(network, "silu", ranges_of("silu"), selection, PlaintextRule())
    assert policy.predicted["lookup_bytes"] > 0
    residues, image = policy.residues(network.architecture), images_of(network, 1).numpy()[0]
    with session(policy, network) as (client, _):
        assert (client.infer(client.prepare(), image) == reference_forward(network, image, residues)).all()


def test_shares_that_lose_bits_round_as_the_reference_with_the_clients_share() -> None:
    network, policy = integer_network("silu"), exact_policy("silu", ignored=2)
    residues = policy.residues(network.architecture)
    image = images_of(network, 1).numpy()[0]
    with session(policy, network) as (client, _):
        client._settle = lambda bundle: None  # type: ignore[method-assign]  # it keeps shares that a client forgets
        bundle = client.prepare()
        shares = {
            node.name: bundle.shares[node.inputs[0]][residues.read[node.inputs[0]]]
            for node in network.architecture.activations
        }
        assert (client.infer(bundle, image) == reference_forward(network, image, residues, shares)).all()


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (
            lambda network, ranges: layerwise(
                network, "n", 1032193, dict.fromkeys(network.layers, EXACT_TARGET), FLOODED
            ),
            "autoprivacy of n: silu1: a function of 512 levels is looked up, which takes coefficient packing, a scheme "
            "other than delphi and selection.plaintext.kind power_of_two or cheapest: lookup: ",
        ),
        (
            lambda network, ranges: delphi(network, "n", (-60_000, 60_000), FLOODED_SLOTS),
            "delphi of n: silu1: a function of 512 levels is looked up, which takes coefficient packing, a scheme ",
        ),
        (
            lambda network, ranges: layerwise(
                network,
                "n",
                layer_moduli(network.architecture, ranges, FLOODED, PlaintextRule())[-1],
                dict.fromkeys(network.layers, EXACT_TARGET),
                Selection(PROFILE, LINK, Flooding("statistical"), activation="garbled"),
            ),
            "silu1: a function of 512 levels has no circuit, it is looked up; set selection.activation to auto or",
        ),
    ],
)
def test_circuits_are_refused_in_a_line_that_says_what_to_do(scheme, message: str) -> None:
    with pytest.raises(UserError, match=message):
        scheme(integer_network("silu"), ranges_of("silu"))


def test_a_policy_that_garbles_a_table_is_refused_by_both_sides() -> None:
    network, policy = integer_network("silu"), exact_policy("silu")
    garbled = replace(policy, layers=tuple(replace(layer, activation="garbled") for layer in policy.layers))
    with pytest.raises(UserError, match="silu1: a function of 512 levels has no circuit; expected activation lookup"):
        Agreement(network.architecture, garbled)


def test_an_announced_table_of_another_length_is_refused() -> None:
    network, policy = integer_network("silu"), exact_policy("silu")
    nodes = tuple(replace(node, table=node.table[1:]) for node in network.architecture.nodes)
    with pytest.raises(UserError, match="node 'silu1': a table of 511 values; expected one for each of 512 levels"):
        Agreement(replace(network.architecture, nodes=nodes), policy)
