"""The choice between lookups and circuits by predicted latency, and that predicted bytes are what the parties send."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from support.protocol_sessions import FLOODED, IMAGES, NETWORK, P_PRIME, session

from autoprivacy.gc.activation import Activation
from autoprivacy.gc.rates import OPERATIONS as CIRCUIT_OPERATIONS
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.link import Link
from autoprivacy.lookup.batch import Batch
from autoprivacy.lookup.rates import OPERATIONS, TRANSFERS
from autoprivacy.lookup.table import LookupTable
from autoprivacy.ot.silent_parameters import SILENT_PARAMETERS
from autoprivacy.ot.transfers import TransferKind
from autoprivacy.selection.activation_choice import CHOICES, with_cheaper_activations
from autoprivacy.selection.garbled_costs import with_garbling
from autoprivacy.selection.lookup_costs import lookup_cost, transfer_set_up_cost
from autoprivacy.selection.schemes import darl
from autoprivacy.timing import quartiles

P = 1 << 18
FAST, SLOW = Link(1e12, 0.0), Link(1e7, 0.04)
# As measured in kind: an AND gate in nanoseconds, a lookup in microseconds; trees of more bits take more work.
RATES = {
    **dict.fromkeys(CIRCUIT_OPERATIONS, 1e-8),
    **dict.fromkeys(OPERATIONS, 1e-6),
    **{TRANSFERS[TransferKind(bits)]: rate for bits, rate in ((4, 2e-8), (6, 4e-8), (8, 1e-7))},
    **{TRANSFERS[TransferKind(8, bits)]: rate for bits, rate in ((16, 8e-8), (17, 1e-7), (18, 1.4e-7))},
}
RATED = replace(FLOODED.profile, garbling={name: quartiles([rate] * 3) for name, rate in RATES.items()})
ARCHITECTURE = NETWORK.architecture


def chosen(policy: Policy, link: Link, choice: str = "auto", rated=RATED) -> Policy:
    return with_cheaper_activations(policy, ARCHITECTURE, rated, link, CHOICES[choice])


def kinds(policy: Policy) -> set[str]:
    return set(policy.activation_kinds(ARCHITECTURE).values())


def test_slow_links_take_lookups_with_the_fewest_bytes_and_fast_ones_circuits() -> None:
    policy = darl(NETWORK, "residual", P, FLOODED)
    slow, fast = chosen(policy, SLOW), chosen(policy, FAST)
    assert kinds(slow) == {"lookup"} and slow.tree_bits == 8
    assert slow.silent_table_bits is None  # for 256 activations their set-up does not pay
    assert kinds(fast) == {"garbled"} and fast.tree_bits is None
    for link, best in ((SLOW, slow), (FAST, fast)):
        others = [chosen(policy, link, choice) for choice in ("garbled", "lookup")]
        seconds = [with_garbling(p, ARCHITECTURE, RATED, link).predicted["total_seconds"] for p in (best, *others)]
        assert seconds[0] == min(seconds)
    assert kinds(chosen(policy, FAST, "lookup")) == {"lookup"}
    assert chosen(policy, FAST, "lookup").tree_bits == 6  # a twentieth slower than 4, with two thirds of the bytes
    assert kinds(chosen(policy, SLOW, "garbled")) == {"garbled"}


def test_every_layer_says_what_was_compared() -> None:
    policy = darl(NETWORK, "residual", P, FLOODED)
    reasons = [[layer.activation_reason for layer in chosen(policy, link).layers] for link in (SLOW, FAST)]
    for slow, fast in zip(*(own[:2] for own in reasons), strict=True):
        assert re.fullmatch(r"lookup [0-9.e-]+ ms, garbled [0-9.e+]+ ms", slow)
        assert re.fullmatch(r"garbled [0-9.e-]+ ms, lookup [0-9.e+-]+ ms", fast)
    assert all(own[2] == "" for own in reasons)  # no activation follows
    assert chosen(policy, FAST, "lookup").layers[0].activation_reason.endswith("the config's choice")
    refused = chosen(darl(NETWORK, "residual", 1 << 20, FLOODED), SLOW).layers[0].activation_reason
    assert (
        refused == "garbled: lookup: 13 high and 8 low bits to look up; at most 12: take a smaller modulus, or circuits"
    )
    told = chosen(policy, SLOW)
    assert all(layer["activation_reason"] == "" for layer in told.essence()["layers"])
    assert Policy.from_json(told.as_json(), "policy.json") == told


def test_lookups_that_save_less_than_their_exchanges_take_are_not_taken() -> None:
    policy, far = darl(NETWORK, "residual", P, FLOODED), Link(1e7, 100.0)
    best = chosen(policy, far)
    assert kinds(best) == {"garbled"}
    assert "once for the first lookup" in best.layers[0].activation_reason
    lookups = with_garbling(chosen(policy, far, "lookup"), ARCHITECTURE, RATED, far)
    by_layer = sum(layer.predicted.get("lookup_seconds", 0) for layer in lookups.layers)
    exchanges = max(Batch.of(node, policy.residues(ARCHITECTURE)).shape.exchanges for node in ARCHITECTURE.activations)
    assert lookups.predicted["lookup_seconds"] == pytest.approx(by_layer + exchanges * 50.0)
    without_delay = with_garbling(lookups, ARCHITECTURE, RATED, Link(1e7, 0.0)).predicted
    delays = lookups.predicted["image_seconds"] - without_delay["image_seconds"]
    # of two activations one each, of the exchanges half of one; of three layers two in place of three
    assert delays == pytest.approx(100.0 * (2 + exchanges / 2 + 2 - 3))


def test_silent_transfers_pay_for_many_lookups_over_a_slow_link() -> None:
    batch = Batch(LookupTable(Activation(1 << 19, 9, 0, 255)), 20, 170_000)
    least = {}
    for name, link in (("slow", SLOW), ("fast", FAST)):
        seconds = {
            kind: lookup_cost(batch, RATES, link, kind)["lookup_seconds"]
            + transfer_set_up_cost(kind, RATES, link)["transfer_set_up_seconds"]
            for kind in TRANSFERS
        }
        least[name] = min(seconds, key=lambda kind: seconds[kind])
    assert least["slow"].table_bits is not None and least["fast"] == TransferKind(4)
    sent = {kind: lookup_cost(batch, RATES, SLOW, kind)["lookup_bytes"] for kind in TRANSFERS}
    assert sorted(sent, key=lambda kind: -sent[kind]) == list(TRANSFERS)
    silent = TransferKind(8, 18)
    assert transfer_set_up_cost(silent, RATES, SLOW)["transfer_set_up_bytes"] == silent.set_up_bytes


def test_a_network_with_many_activations_takes_silent_transfers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoprivacy.selection.activation_choice.lookup_cost", thousandfold)
    slow = chosen(darl(NETWORK, "residual", P, FLOODED), SLOW, "lookup")
    assert kinds(slow) == {"lookup"} and slow.tree_bits == 8 and slow.silent_table_bits in SILENT_PARAMETERS
    predicted = with_garbling(slow, ARCHITECTURE, RATED, SLOW).predicted
    assert predicted["transfer_set_up_bytes"] == TransferKind(8, slow.silent_table_bits).set_up_bytes


def thousandfold(batch: Batch, *rest) -> dict[str, float]:
    return lookup_cost(replace(batch, count=1000 * batch.count), *rest)


def test_circuits_remain_where_lookups_are_impossible_or_unmeasured() -> None:
    for p in (P_PRIME, 1 << 20):
        assert kinds(chosen(darl(NETWORK, "residual", p, FLOODED), SLOW)) == {"garbled"}
    rated = replace(RATED, garbling={name: times for name, times in RATED.garbling.items() if name != "lookup"})
    assert kinds(chosen(darl(NETWORK, "residual", P, FLOODED), SLOW, rated=rated)) == {"garbled"}


@pytest.mark.parametrize("choice", ["lookup", "garbled"])
def test_predicted_bytes_are_sent(choice: str) -> None:
    policy = with_garbling(chosen(darl(NETWORK, "residual", P, FLOODED), SLOW, choice), ARCHITECTURE, RATED, SLOW)
    kinds_of_messages = ("LOOKUP_", "GARBLED_TABLES", "OT_EXTENSION", "GARBLER_LABELS", "MASKED_ACTIVATION")
    with session(policy) as (client, _):
        client.infer(client.prepare(), IMAGES[0])
        phases = [phase for phase in client.ledger.phases if phase["phase"] in ("offline", "online")]
    sent = {
        phase["phase"]: sum(
            count
            for way in ("sent", "received")
            for name, count in phase["messages"][way].items()
            if name.startswith(kinds_of_messages)
        )
        for phase in phases
    }
    predicted = policy.predicted["garbled_bytes"] + policy.predicted.get("lookup_bytes", 0)
    assert sum(sent.values()) == pytest.approx(predicted, rel=0.02)  # headers, and waves of several layers together
    if choice == "lookup":
        assert sent["online"] == pytest.approx(policy.predicted["lookup_online_bytes"], rel=0.02)
