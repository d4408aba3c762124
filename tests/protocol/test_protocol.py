"""The protocol end to end: equal to the integer network, fresh every time, and strict about what it accepts."""

import json
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from support.made_up_profile import LINK, PROFILE
from support.protocol_sessions import (
    FLOODED,
    IMAGES,
    NETWORK,
    P_POWER,
    P_PRIME,
    POLICY,
    ROOT,
    SLOT_POLICY,
    ask_for,
    payload_lengths,
    session,
)
from support.reference import reference_forward

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.cipher import public_key_bytes
from autoprivacy.he.bfv.rotation import GaloisKeyMaker, galois_key_bytes
from autoprivacy.he.parameters.parameter_set import Flooding, Target
from autoprivacy.he.parameters.policy import EXACT_TARGET, Policy
from autoprivacy.he.parameters.security import InsecureParameters
from autoprivacy.protocol.bundles import NUMBER_BYTES, Pool
from autoprivacy.protocol.channel import HEADER, Channel, Message, ProtocolError
from autoprivacy.protocol.session import Agreement
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.plaintext_modulus import plaintext_modulus
from autoprivacy.selection.schemes import darl, delphi, delphi_worst_case, layerwise

P_WORST = plaintext_modulus(1 << 24, -(1 << 24), degree_for_batching=1 << 14)  # holds all that any image can give


@pytest.mark.parametrize("p", [P_PRIME, P_POWER])
@pytest.mark.parametrize("kind", ["statistical", "none"])
def test_outputs_equal_the_integer_network_bit_for_bit(p, kind):
    policy = darl(NETWORK, "residual", p, Selection(PROFILE, LINK, Flooding(kind)))
    with session(policy) as (client, _):
        for image in IMAGES:
            assert np.array_equal(client.infer(client.prepare(), image), reference_forward(NETWORK, image, p))


@pytest.mark.parametrize("kind", ["statistical", "none"])
@pytest.mark.parametrize("scheme", ["delphi", "delphi-worst-case", "darl", "layerwise"])
def test_slot_packing_gives_the_integer_network_too(scheme, kind):
    selection = Selection(PROFILE, LINK, Flooding(kind), "slot")
    targets = dict.fromkeys(NETWORK.layers, EXACT_TARGET)
    policy = {
        "delphi": lambda: delphi(NETWORK, "r", (-60_000, 60_000), selection),
        "delphi-worst-case": lambda: delphi_worst_case(NETWORK, "r", P_WORST, selection),
        "darl": lambda: darl(NETWORK, "r", P_PRIME, selection),
        "layerwise": lambda: layerwise(NETWORK, "r", P_PRIME, targets, selection),
    }[scheme]()
    with session(policy) as (client, _):
        outputs = client.infer(client.prepare(), IMAGES[0])
    assert np.array_equal(outputs, reference_forward(NETWORK, IMAGES[0], policy.plaintext_modulus))


@pytest.mark.parametrize("packing", ["coefficient", "slot"])
@pytest.mark.parametrize("scheme", ["delphi", "darl", "layerwise"])
def test_ciphertexts_take_the_predicted_bytes(scheme, packing):
    targets, selection = dict.fromkeys(NETWORK.layers, Target(2.0**-7)), replace(FLOODED, packing=packing)
    policy = {
        "delphi": lambda: delphi(NETWORK, "r", (-60_000, 60_000), selection),
        "darl": lambda: darl(NETWORK, "r", P_PRIME, selection),
        "layerwise": lambda: layerwise(NETWORK, "r", P_PRIME, targets, selection),
    }[scheme]()
    with session(policy) as (client, (up, down)):
        client.prepare()
        sent = {end: bytes(end.sent) for end in (up, down)}
    layers = policy.layers
    assert payload_lengths(sent[up], Message.ENCRYPTED_MASKS) == [layer.predicted["bytes_up"] for layer in layers]
    assert payload_lengths(sent[down], Message.ENCRYPTED_SHARES) == [layer.predicted["bytes_down"] for layer in layers]
    assert policy.predicted["bytes_down"] == sum(layer.predicted["bytes_down"] for layer in layers)


def test_reply_bits_are_agreed_and_have_a_default():
    value = POLICY.as_json()
    for layer in value["layers"]:
        del layer["reply_bits"]
    written = Policy.from_json(value, "by hand")
    agreement = Agreement(NETWORK.architecture, written)
    for layer in written.layers:
        assert layer.reply_bits is None and agreement.reply_bits(layer.name).c1 > agreement.reply_bits(layer.name).c0
    with session(written) as (client, _):
        outputs = client.infer(client.prepare(), IMAGES[0])
    assert np.array_equal(outputs, reference_forward(NETWORK, IMAGES[0], P_PRIME))
    with pytest.raises(ProtocolError, match="not the expected"), session(written, expected=POLICY):
        pass
    value["layers"][0]["reply_bits"] = {"c0": 30, "c1": 20}
    with pytest.raises(UserError, match="reply bits c0 = 30, c1 = 20"):
        Policy.from_json(value, "by hand")


@pytest.mark.parametrize("kind", ["statistical", "none"])
def test_the_worst_case_rule_gives_the_integer_network_in_coefficient_packing(kind):
    policy = delphi_worst_case(NETWORK, "r", P_WORST, Selection(PROFILE, LINK, Flooding(kind)))
    with session(policy) as (client, _):
        outputs = client.infer(client.prepare(), IMAGES[0])
    assert np.array_equal(outputs, reference_forward(NETWORK, IMAGES[0], P_WORST))


def test_galois_keys_are_sent_where_layers_rotate_and_count_in_the_set_up():
    agreement = Agreement(NETWORK.architecture, SLOT_POLICY)
    (parameters,) = agreement.parameter_sets
    elements = agreement.galois_elements(parameters)
    assert elements and set(elements) == {
        e for la in SLOT_POLICY.layers for e in agreement.plan(la.name).galois_elements
    }
    with session(SLOT_POLICY) as (client, _):
        set_up = client.ledger.phases[0]["bytes_sent"]
    keys = public_key_bytes(parameters) + galois_key_bytes(parameters, len(elements))
    assert keys + 3 * HEADER.size < set_up < keys + 14_000  # the rest is the set-up of transfers
    (coefficient,) = Agreement(NETWORK.architecture, POLICY).parameter_sets
    assert Agreement(NETWORK.architecture, POLICY).galois_elements(coefficient) == ()


def test_missing_galois_keys_end_the_session(monkeypatch):
    monkeypatch.setattr(GaloisKeyMaker, "keys", lambda self, elements: b"none")
    with (
        pytest.raises(ProtocolError, match=r"GALOIS_KEYS: 4 bytes, expected \d+"),
        session(SLOT_POLICY),
    ):
        pass


def test_a_modulus_that_does_not_batch_and_an_unknown_packing_are_refused():
    with pytest.raises(UserError, match="packing 'sloth': expected one of coefficient, slot"):
        Agreement(NETWORK.architecture, replace(POLICY, packing="sloth"))
    layers = tuple(
        replace(layer, parameters=replace(layer.parameters, plaintext_modulus=P_POWER)) for layer in SLOT_POLICY.layers
    )
    agreement = Agreement(NETWORK.architecture, replace(SLOT_POLICY, layers=layers))
    with pytest.raises(UserError, match="plaintext modulus 1048576 does not batch"):
        agreement.plan("first")


def test_bundles_may_be_prepared_ahead_and_used_in_any_order():
    with session() as (client, _):
        bundles = [client.prepare() for _ in range(3)]
        for index in (2, 0, 1):
            outputs = client.infer(bundles[index], IMAGES[index])
            assert np.array_equal(outputs, reference_forward(NETWORK, IMAGES[index], P_PRIME))


def test_tolerated_errors_change_outputs_a_little():
    """At a rate of one half every accumulator is off by about one: far from exact, and far from garbage."""
    names = [layer.name for layer in POLICY.layers]
    policy = layerwise(NETWORK, "r", P_PRIME, dict.fromkeys(names, Target(0.5)), FLOODED)
    assert policy.approximate and not POLICY.approximate
    with session(policy) as (client, _):
        differences = np.concatenate(
            [client.infer(client.prepare(), image) - reference_forward(NETWORK, image, P_PRIME) for image in IMAGES]
        )
    assert np.any(differences) and np.abs(differences).max() < 20000


def test_a_bundle_is_used_once():
    with session() as (client, _):
        bundle = client.prepare()
        copies = replace(bundle, shares=dict(bundle.shares), activations=dict(bundle.activations))
        client.infer(bundle, IMAGES[0])
        sent = client.channel.bytes_sent
        with pytest.raises(ProtocolError, match=f"bundle {bundle.number} was used before"):
            client.infer(copies, IMAGES[1])
        assert client.channel.bytes_sent == sent


def test_the_server_refuses_a_bundle_that_was_used_and_one_of_before_a_restart():
    with session() as (client, _):
        bundle = client.prepare()
        client.infer(bundle, IMAGES[0])
        with pytest.raises(ProtocolError, match=f"bundle {bundle.number} was used before; prepare a new one"):
            ask_for(client, bundle.number)
    with session() as (client, _):  # a server that lost its memory
        client.prepare()
        with pytest.raises(ProtocolError, match=f"bundle {bundle.number} was never prepared in this session"):
            ask_for(client, bundle.number)


def test_a_bundle_is_gone_before_its_first_message_is_sent(monkeypatch):
    held = []
    take, send = Pool.take, Channel.send
    monkeypatch.setattr(Pool, "take", lambda pool, number: held.append(len(pool._ready)) or take(pool, number))

    def sending(channel, message, *parts):
        if message in (Message.INFER, Message.GARBLER_LABELS):
            held.append(message.name)
        send(channel, message, *parts)

    monkeypatch.setattr(Channel, "send", sending)
    with session() as (client, _):
        client.infer(client.prepare(), IMAGES[0])
        assert len(client._unused._ready) == 0
    assert held == [1, "INFER", 1, "GARBLER_LABELS", "GARBLER_LABELS"]  # each party had one, then took it, then sent


def test_a_client_holds_as_many_bundles_as_the_pool_allows_and_none_twice(monkeypatch):
    with session(pool=2) as (client, _):
        for _ in range(2):
            client.prepare()
        with pytest.raises(ProtocolError, match="the pool holds 2 bundles already; use one before"):
            client.prepare()
    with session() as (client, _):
        bundle = client.prepare()
        client.channel.send(Message.PREPARE, bundle.number.to_bytes(NUMBER_BYTES, "little"))
        with pytest.raises(ProtocolError, match=f"bundle {bundle.number} exists already in this session"):
            client.channel.receive(Message.ENCRYPTED_SHARES)


def test_another_policy_than_the_expected_is_refused():
    other = darl(NETWORK, "residual", P_POWER, FLOODED)
    difference = f"layers.0.parameters.plaintext_modulus: {P_POWER} expected, {P_PRIME} told"
    with pytest.raises(ProtocolError, match=f"policy is not the expected one: {difference}"), session(expected=other):
        pass
    with session(expected=POLICY) as (client, _):
        assert client.agreement.policy.essence() == POLICY.essence()


def test_the_client_refuses_insecure_parameters_on_its_own():
    value = json.loads(Agreement(NETWORK.architecture, POLICY).to_bytes())
    value["policy"]["layers"][0]["parameters"]["polynomial_degree"] = 2048
    with pytest.raises(InsecureParameters, match="n = 2048"):
        Agreement.from_bytes(json.dumps(value).encode())
    with pytest.raises(ProtocolError, match="announcement is damaged"):
        Agreement.from_bytes(b"{}")


def test_a_policy_of_other_layers_is_refused():
    with pytest.raises(UserError, match="the network has"):
        Agreement(NETWORK.architecture, replace(POLICY, layers=POLICY.layers[:2]))


def test_every_byte_and_second_is_accounted_for():
    with session() as (client, ends):
        client.infer(client.prepare(), IMAGES[0])
        phases = client.ledger.phases
    assert [phase["phase"] for phase in phases] == ["set-up", "offline", "online", "closing"]
    assert sum(phase["bytes_sent"] for phase in phases) == len(ends[0].sent)
    assert sum(phase["bytes_received"] for phase in phases) == len(ends[1].sent)
    for phase in phases:
        assert 0 < sum(part["seconds"] for part in phase["parts"]) <= phase["seconds"]
        for direction in ("sent", "received"):
            total = phase[f"bytes_{direction}"]
            assert sum(part[f"bytes_{direction}"] for part in phase["parts"]) == total
            assert sum(phase["messages"][direction].values()) == total


@pytest.mark.parametrize("message", [Message.ENCRYPTED_MASKS, Message.OT_EXTENSION])
def test_a_wrong_message_ends_the_session_with_an_error_on_both_sides(message, monkeypatch):
    with session() as (client, _):
        send = client.channel.send
        monkeypatch.setattr(
            client.channel, "send", lambda kind, *parts: send(kind, *(parts if kind != message else (b"short",)))
        )
        with pytest.raises(ProtocolError, match=f"the peer ended the session: {message.name}: 5 bytes, expected"):
            client.prepare()


def test_a_server_that_goes_away_is_noticed():
    with session() as (client, ends):
        ends[1].connection.shutdown(socket.SHUT_RDWR)
        with pytest.raises(ProtocolError, match="closed the connection|broke"):
            client.prepare()


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("server", ["--network", "none.npz", "--policy", "none.json"], "server: none.npz: no such file"),
        ("client", ["--connect", "127.0.0.1:1", "--dataset", "none.npz"], "client: none.npz: no such file"),
    ],
)
def test_the_programs_tell_mistakes_in_one_line(program, arguments, message, tmp_path):
    command = [sys.executable, "-m", f"autoprivacy.protocol.{program}", *arguments]
    environment = {"PYTHONPATH": str(ROOT / "scripts"), "PATH": "/usr/bin:/bin"}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.strip() == message
