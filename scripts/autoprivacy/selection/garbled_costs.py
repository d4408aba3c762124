"""What garbled activations cost as a function of p, and a policy's totals with them.

Beside the homomorphic part, which `selection.latency` predicts: this module alone knows both, and neither knows the
other.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from autoprivacy.errors import UserError
from autoprivacy.gc.activation import Activation, ignorable_bits, modulus_bits
from autoprivacy.gc.circuit import Circuit
from autoprivacy.gc.garbling import table_bytes
from autoprivacy.gc.outputs import output_function
from autoprivacy.gc.rates import OPERATIONS
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.he.profiling.profile import OperationProfile
from autoprivacy.he.ring.bit_packing import packed_bytes
from autoprivacy.link import Link
from autoprivacy.lookup.batch import Batch
from autoprivacy.ot.extension import extension_bytes
from autoprivacy.ot.labels import LABEL_BYTES
from autoprivacy.ot.transfers import DEFAULT_TRANSFERS, TransferKind
from autoprivacy.ot.trees import DEFAULT_TREE_BITS
from autoprivacy.quantization.integer_network import Architecture, Node
from autoprivacy.quantization.outputs import Output
from autoprivacy.quantization.residues import Residues
from autoprivacy.selection.lookup_costs import LOOKUP_TOTALS, exchanges_seconds, lookup_cost, transfer_set_up_cost

logger = logging.getLogger(__name__)
LINEAR_ROUND_TRIPS = 2  # of an image's linear layers: all ciphertexts there and back offline, image and outputs online


def garbled_counts(circuit: Circuit, moduli: Sequence[int], instances: int) -> dict[str, int]:
    """How often each of `gc.rates.OPERATIONS` happens for so many activations projected into these moduli."""
    ands = circuit.and_count * instances
    return {
        "garble": ands,
        "evaluate": ands,
        "project": circuit.output_bits * len(moduli) * instances,
        "label": circuit.garbler_bits * instances,
        "transfer": circuit.evaluator_bits * instances,
    }


def garbled_bytes(circuit: Circuit, moduli: Sequence[int], instances: int, answers: int = 1) -> dict[str, int]:
    """What both parties send for so many activations: tables, transfers, labels of the garbler's input, answers.

    A squared activation has two answers; the bytes of its triples are those of a policy's `triples`.
    """
    return {
        "tables": sum(table_bytes(circuit, moduli, instances)),
        "transfers": extension_bytes(circuit.evaluator_bits * instances, DEFAULT_TREE_BITS),
        "labels": circuit.garbler_bits * instances * LABEL_BYTES,
        "outputs": sum(packed_bytes(answers * instances, modulus_bits(modulus)) for modulus in moduli),
    }


def activation_cost(node: Node, residues: Residues, rates: Mapping[str, float], link: Link) -> dict[str, float]:
    """What one activation of the graph takes.

    Args:
        node: the activation.
        residues: the moduli of the nodes' shares, and the share bits that activations ignore.
        rates: seconds by operation of `gc.rates`.
        link: what tables, transfers and labels go over; one round trip is online.

    Returns:
        and_gates; garbled_bytes of both parties; garbled_compute_seconds of both; garbled_seconds, the transfer
        included.

    Raises:
        UserError: there is no circuit for the activation or for p, or a rate is missing.
    """
    instances, moduli = math.prod(node.shape), residues.moduli[node.name]
    circuit = Activation.garbled(node, residues).circuit
    sent = sum(garbled_bytes(circuit, moduli, instances, 2 if node.squared else 1).values())
    cost = _cost(garbled_counts(circuit, moduli, instances), sent, rates, link)
    return {**cost, "garbled_seconds": cost["garbled_seconds"] + link.round_trip_seconds}


def output_cost(
    output: Output, architecture: Architecture, residues: Residues, rates: Mapping[str, float], link: Link
) -> dict[str, float] | None:
    """What the circuit of a policy's `output` takes, as `activation_cost`; None for logits, which take none.

    Its answer goes with the share that ends the protocol without it: it takes no round trip of its own.
    """
    last = architecture.nodes[-1]
    function = output_function(output, residues.read[last.name], math.prod(last.shape))
    if function is None:
        return None
    circuit, moduli, instances = function.circuit, (function.answer_modulus,), function.instances
    sent = sum(garbled_bytes(circuit, moduli, instances).values())
    return _cost(garbled_counts(circuit, moduli, instances), sent, rates, link)


def _cost(counts: Mapping[str, int], sent: int, rates: Mapping[str, float], link: Link) -> dict[str, float]:
    missing = set(OPERATIONS) - set(rates)
    if missing:
        raise UserError(f"profile: no measurement of {', '.join(sorted(missing))}; profile again")
    compute = sum(count * rates[operation] for operation, count in counts.items())
    return {
        "and_gates": counts["garble"],
        "garbled_bytes": sent,
        "garbled_compute_seconds": compute,
        "garbled_seconds": compute + link.seconds(sent),
    }


def garbling(
    architecture: Architecture,
    residues: Residues,
    profile: OperationProfile,
    link: Link,
    output: Output = "logits",
    looked_up: Collection[str] = (),
    transfers: TransferKind = DEFAULT_TRANSFERS,
) -> dict[str, dict[str, float]]:
    """`activation_cost` by linear layer, added up over the activations that follow it; arguments as there.

    The last layer has `output_cost` too. Activations that are looked up, by name, have `lookup_cost` instead. Layers
    that neither follows are left out.
    """
    costs: dict[str, dict[str, float]] = {}
    rates = {name: times["median"] for name, times in profile.garbling.items()}

    def add(node: Node, cost: Mapping[str, float]) -> None:
        layer = architecture.preceding_layer[node.name]
        before = costs.get(layer, {})
        costs[layer] = before | {name: value + before.get(name, 0) for name, value in cost.items()}

    for node in architecture.activations:
        if node.name in looked_up:
            add(node, lookup_cost(Batch.of(node, residues), rates, link, transfers))
        else:
            add(node, activation_cost(node, residues, rates, link))
    if at_last := output_cost(output, architecture, residues, rates, link):
        add(architecture.nodes[-1], at_last)
    return costs


def circuit_seconds(
    architecture: Architecture, modulus: int, profile: OperationProfile, link: Link
) -> dict[str, list[float]]:
    """garbled_seconds of every activation under one modulus, for 0, 1, ... ignored share bits.

    As many as there are circuits for: at most the activation's shift, and what p admits (`ignorable_bits`). Of a table,
    which has no circuit, lookup_seconds.

    Raises:
        UserError: there is no circuit for an activation or for p, or the profile lacks a rate.
    """
    rates = {name: times["median"] for name, times in profile.garbling.items()}
    residues = Residues.uniform(architecture, modulus)

    def seconds(node: Node, ignored: int) -> float:
        own = replace(residues, ignored_bits={node.name: ignored})
        if node.table:
            return lookup_cost(Batch.of(node, own), rates, link, DEFAULT_TRANSFERS)["lookup_seconds"]
        return activation_cost(node, own, rates, link)["garbled_seconds"]

    return {
        node.name: [seconds(node, t) for t in range(min(node.shift, ignorable_bits(modulus)) + 1)]
        for node in architecture.activations
    }


def with_garbling(policy: Policy, architecture: Architecture, profile: OperationProfile, link: Link) -> Policy:
    """The policy with `garbling` among its predictions: of every layer, and in its totals.

    total_seconds is the linear layers' latency_seconds, all garbled_seconds and all lookup_seconds. image_seconds is
    that but for the layers' round trips: alone each is charged one, together they take one offline and one online. What
    silent transfers take in the set-up, once a session, stands beside it. A network whose activations have no circuit
    cannot be served: its policy is returned as it is.
    """
    kinds, residues = policy.activation_kinds(architecture), policy.residues(architecture)
    looked_up = [node for node in architecture.activations if kinds[node.name] == "lookup"]
    transfers = TransferKind.of(policy.tree_bits, policy.silent_table_bits)
    try:
        names = [node.name for node in looked_up]
        costs = garbling(architecture, residues, profile, link, policy.output, names, transfers)
        rates = {name: times["median"] for name, times in profile.garbling.items()}
        set_up = transfer_set_up_cost(transfers, rates, link) if looked_up else {}
    except UserError as error:
        logger.warning("%s: no prediction of garbled activations: %s", policy.network, error)
        return policy
    layers = tuple(
        replace(layer, predicted={**layer.predicted, **costs.get(layer.name, {})}) for layer in policy.layers
    )
    totals = policy.predicted | set_up
    for name in ("and_gates", "garbled_bytes", "garbled_compute_seconds", "garbled_seconds"):
        totals[name] = sum(cost.get(name, 0) for cost in costs.values())
    for name in LOOKUP_TOTALS if looked_up else ():
        totals[name] = sum(cost.get(name, 0) for cost in costs.values())
    if looked_up:
        totals["lookup_seconds"] += exchanges_seconds([Batch.of(node, residues) for node in looked_up], link)
    spent = ("latency_seconds", "garbled_seconds", "lookup_seconds")
    shared = (LINEAR_ROUND_TRIPS - len(policy.evaluations)) * link.round_trip_seconds
    totals["total_seconds"] = sum(totals.get(name, 0) for name in spent)
    totals["image_seconds"] = totals["total_seconds"] + shared
    return replace(policy, layers=layers, predicted=totals)


def predicted_seconds(policy: Policy) -> float:
    """What a policy is chosen by: its whole latency, or that of its linear layers where no more is known."""
    return policy.predicted.get("total_seconds", policy.predicted["latency_seconds"])
