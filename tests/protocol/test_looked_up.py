"""Activations by lookup in the protocol: equal to the integer network, messages of the agreed lengths, one use."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from support.kept_sessions import GARBLED, LOOKED_UP, P, with_lookups
from support.protocol_sessions import FLOODED, IMAGES, NETWORK, POLICY, payload_lengths, session
from support.reference import reference_forward

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.policy import EXACT_TARGET, Policy
from autoprivacy.ot.silent_parameters import SILENT_PARAMETERS
from autoprivacy.ot.transfers import TransferKind
from autoprivacy.protocol.channel import HEADER
from autoprivacy.protocol.messages import Message
from autoprivacy.protocol.session import Agreement
from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.selection.schemes import darl, layerwise

SILENT = {bits: replace(LOOKED_UP, tree_bits=8, silent_table_bits=bits) for bits in SILENT_PARAMETERS}


@pytest.mark.parametrize("layers", [(), ("second",), ("first", "fc")])
def test_outputs_equal_the_integer_network_bit_for_bit(layers: tuple[str, ...]) -> None:
    with session(with_lookups(GARBLED, *layers)) as (client, _):
        for image in IMAGES:
            assert np.array_equal(client.infer(client.prepare(), image), reference_forward(NETWORK, image, P))


@pytest.mark.parametrize("bits", SILENT)
def test_silent_transfers_give_the_same_outputs(bits: int) -> None:
    mixed = replace(with_lookups(GARBLED, "second"), silent_table_bits=bits)
    for policy in (SILENT[bits], mixed):
        with session(policy) as (client, _):
            for image in IMAGES[:2]:
                assert np.array_equal(client.infer(client.prepare(), image), reference_forward(NETWORK, image, P))


def test_silent_transfers_take_fewer_bytes_after_the_set_up() -> None:
    moved = []
    for policy in (replace(LOOKED_UP, tree_bits=8), SILENT[18]):
        with session(policy) as (client, _):
            client.prepare()
            phases = {phase["phase"]: phase for phase in client.ledger.phases}
        moved.append([phases[name]["bytes_sent"] + phases[name]["bytes_received"] for name in ("set-up", "offline")])
    assert moved[1][1] < moved[0][1]
    told = len("18") - len("null")  # by the announcement
    assert moved[1][0] - moved[0][0] == TransferKind(8, 18).set_up_bytes + 2 * HEADER.size + told


def test_bundles_may_be_used_in_any_order() -> None:
    with session(LOOKED_UP) as (client, _):
        bundles = [client.prepare() for _ in IMAGES]
        for bundle, image in reversed(list(zip(bundles, IMAGES, strict=True))):
            assert np.array_equal(client.infer(bundle, image), reference_forward(NETWORK, image, P))


@pytest.mark.parametrize("policy", [LOOKED_UP, SILENT[16]], ids=["extended", "silent"])
def test_messages_have_the_agreed_lengths(policy: Policy) -> None:
    lengths = Agreement(NETWORK.architecture, policy).lengths
    with session(policy) as (client, (up, down)):
        client.infer(client.prepare(), IMAGES[0])
        sent = bytes(up.sent), bytes(down.sent)
    to_server = [*lengths.offline_to_server(), *lengths.online_to_server()]
    to_client = [*lengths.offline_to_client(), *lengths.online_to_client()]
    for stream, messages in zip(sent, (to_server, to_client), strict=True):
        for kind in (Message.LOOKUP_MAKING, Message.LOOKUP_QUESTION, Message.LOOKUP_ANSWER):
            assert payload_lengths(stream, kind) == [length for name, length in messages if name == kind]
        assert not payload_lengths(stream, Message.GARBLED_TABLES)
        assert payload_lengths(stream, Message.SILENT_ROUND) == [lengths.silent_round][: lengths.silent_round]
    set_up = [(Message[name], length) for name, length in client.ledger.phases[0]["messages"]["sent"].items()]
    counted = sum(length for kind, length in set_up if kind != Message.HELLO)
    assert counted == lengths.set_up_bytes + HEADER.size * len([*lengths.set_up_to_server()])


def test_lookups_take_fewer_bytes_than_circuits() -> None:
    sent = []
    for policy in (GARBLED, LOOKED_UP):
        with session(policy) as (client, _):
            client.infer(client.prepare(), IMAGES[0])
            phases = {phase["phase"]: phase for phase in client.ledger.phases}
        he = sum(layer.predicted["bytes_up"] + layer.predicted["bytes_down"] for layer in policy.layers)
        moved = {name: phase["bytes_sent"] + phase["bytes_received"] for name, phase in phases.items()}
        sent.append((moved["offline"] - he, moved["online"]))
    assert sent[1][0] < 0.7 * sent[0][0] and sent[1][1] < 0.2 * sent[0][1]


@pytest.mark.parametrize("bits", [17, 18])
def test_layers_may_have_moduli_of_their_own(bits: int) -> None:
    moduli = {"first": 1 << bits, "second": 1 << bits, "fc": 1 << 21}
    policy = layerwise(NETWORK, "r", moduli, dict.fromkeys(NETWORK.layers, EXACT_TARGET), FLOODED)
    residues = policy.residues(NETWORK.architecture)
    with session(with_lookups(policy)) as (client, _):
        outputs = client.infer(client.prepare(), IMAGES[0])
    assert np.array_equal(outputs, reference_forward(NETWORK, IMAGES[0], residues))


@pytest.mark.parametrize("lookups", [(), ("second",)], ids=["all looked up", "one garbled"])
@pytest.mark.parametrize("bits", [11, 13, 17])
def test_windows_of_shares_are_the_integer_network_s(bits: int, lookups: tuple[str, ...]) -> None:
    """Windows of few bits wrap; both parties' outputs and the evaluator's are the reference's."""
    policy = with_lookups(GARBLED, *lookups)
    windows = {"first": (-(3 << bits - 3), (5 << bits - 3) - 1), "second": (-(1 << bits - 4), (15 << bits - 4) - 1)}
    layers = tuple(replace(layer, share_window=windows.get(layer.name)) for layer in policy.layers)
    policy = replace(policy, layers=layers)
    residues = policy.residues(NETWORK.architecture)
    expected = [reference_forward(NETWORK, image, residues) for image in IMAGES]
    evaluator = Evaluator(NETWORK, residues)
    np.testing.assert_array_equal(evaluator.forward(IMAGES).numpy(), expected)
    assert evaluator.wraps.total() > 0 or bits == 17
    with session(policy) as (client, _):
        for image, outputs in zip(IMAGES, expected, strict=True):
            np.testing.assert_array_equal(client.infer(client.prepare(), image), outputs)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (POLICY, "relu1: lookup: output modulo 1032193; expected powers of two"),
        (darl(NETWORK, "residual", 1 << 20, FLOODED), "relu1: lookup: 13 high and 8 low bits to look up; at most 12"),
    ],
)
def test_what_cannot_be_looked_up_is_refused(policy: Policy, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Agreement(NETWORK.architecture, with_lookups(policy))


def test_a_table_of_equal_values() -> None:
    """Of a function that is constant over the levels that occur."""
    nodes = tuple(replace(n, table=(-7,) * 256) if n.name == "relu2" else n for n in NETWORK.architecture.nodes)
    network = replace(NETWORK, architecture=replace(NETWORK.architecture, nodes=nodes))
    policy = replace(LOOKED_UP, commitment=None)
    expected = reference_forward(network, IMAGES[0], policy.residues(network.architecture))
    with session(policy, network) as (client, _):
        np.testing.assert_array_equal(client.infer(client.prepare(), IMAGES[0]), expected)


def test_values_of_more_bits_than_their_shares_are_refused() -> None:
    """Messages would have fields of less than no bits."""
    told = json.loads(Agreement(NETWORK.architecture, LOOKED_UP).to_bytes())
    next(node for node in told["architecture"]["nodes"] if node["name"] == "relu2")["table"] = [-16384, *[16383] * 255]
    told["policy"]["layers"][-1]["parameters"]["plaintext_modulus"] = 1 << 8
    with pytest.raises(UserError, match=r"relu2: lookup: values of 15 bits modulo 2\^8; expected at most 8 bits"):
        Agreement.from_bytes(json.dumps(told).encode())


def test_tables_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UserError, match="silent transfers from a table of 19 bits: expected one of 16, 17, 18"):
        Agreement(NETWORK.architecture, replace(LOOKED_UP, silent_table_bits=19))
