"""The scheme `autoprivacy+`: exact outputs, a set and where possible a plaintext modulus for every layer, by predicted
latency alone. No search, no finetuning, no image is looked at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from autoprivacy.errors import UserError
from autoprivacy.he.packing import packing_named
from autoprivacy.he.parameters.policy import EXACT_TARGET, LayerPolicy, Policy
from autoprivacy.quantization.integer_network import Architecture, IntegerNetwork, Interval
from autoprivacy.quantization.residues import tied_layers
from autoprivacy.selection.activation_choice import CHOICES, with_cheaper_activations
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.garbled_costs import predicted_seconds, with_garbling
from autoprivacy.selection.layer_selection import layer_policy
from autoprivacy.selection.plaintext_modulus import PlaintextRule
from autoprivacy.selection.schemes import of_layers
from autoprivacy.selection.share_windows import share_windows

logger = logging.getLogger(__name__)
EXACT_SCHEME = "autoprivacy+"
Moduli = TypeVar("Moduli")


def autoprivacy_plus(
    network: IntegerNetwork, name: str, ranges: Mapping[str, Interval], selection: Selection, rule: PlaintextRule
) -> Policy:
    """A set per layer at an error rate of 2^-40, the plaintext moduli of least predicted latency, circuits included.

    Args:
        network, name: the network, and what the policy calls it.
        ranges: by layer, what its plaintext modulus has to hold.
        selection: what all layers have in common.
        rule: what plaintext moduli may be.

    Raises:
        UserError: no secure set that the profile covers serves a layer under any of the moduli.
    """
    names = [shape.name for shape in network.architecture.layers]
    known: dict[tuple[str, int], LayerPolicy] = {}
    windows = share_windows(network.architecture, ranges)

    def chosen(moduli: Mapping[str, int]) -> Policy:
        for layer, p in moduli.items():
            if (layer, p) not in known:
                known[layer, p] = layer_policy(network.layers[layer], EXACT_TARGET, p, selection)
        layers = [known[layer, moduli[layer]] for layer in names]
        policy = of_layers(EXACT_SCHEME, network, name, layers, selection, windows)
        kinds = CHOICES[selection.activation]
        return with_cheaper_activations(policy, network.architecture, selection.profile, selection.link, kinds)

    return fastest(network, layer_moduli(network.architecture, ranges, selection, rule), selection, chosen)


def layer_moduli(
    architecture: Architecture, ranges: Mapping[str, Interval], selection: Selection, rule: PlaintextRule
) -> list[dict[str, int]]:
    """The plaintext moduli by layer that are worth comparing.

    One for all layers, as `rule` lists them; and where a power of two will do, the smallest for every layer, of layers
    whose accumulators meet the one that holds them all: narrower moduli need less of q and shorter circuits. Where
    activations alone read accumulators, a window holds them in as few bits as their range has, wherever 0 lies in it.
    """
    names = [shape.name for shape in architecture.layers]
    triples = bool(architecture.squares) and selection.activation == "garbled"
    uniform = rule.candidates(ranges, selection.packing, selection.profile.degrees, bool(architecture.squares))
    moduli = [dict.fromkeys(names, p) for p in uniform]
    powers = rule.kind in ("cheapest", "power_of_two") and rule.bits is None
    if powers and not triples and not packing_named(selection.packing).in_slots:
        own = PlaintextRule(kind="power_of_two")
        narrow: dict[str, int] = {}
        reads = [node.inputs[0] for node in architecture.activations if not node.modulus_bits]
        reads.append(architecture.nodes[-1].name)
        # what comes from no layer is read modulo the largest modulus, as a signed residue
        windows = share_windows(architecture, ranges) if all(architecture.feeders[read] for read in reads) else {}
        for group in tied_layers(architecture):
            held = {layer: ranges[layer] for layer in group}
            signed = own.modulus(held, selection.packing, selection.profile.degrees)
            window = windows.get(group[0])
            narrow |= dict.fromkeys(group, min(signed, window.size) if window else signed)
        moduli.append({layer: narrow[layer] for layer in names})
    return moduli


def fastest(
    network: IntegerNetwork, moduli: Iterable[Moduli], selection: Selection, chosen: Callable[[Moduli], Policy]
) -> Policy:
    """Of the policies under some plaintext moduli that of least predicted latency, garbled circuits included.

    Raises:
        UserError: none of them serves; the first one's reason.
    """
    policies: list[Policy] = []
    refusals: list[UserError] = []
    for p in moduli:
        try:
            policy = chosen(p)
        except UserError as error:  # no matter where another p serves
            logger.info("%s", error)
            refusals.append(error)
            continue
        policies.append(with_garbling(policy, network.architecture, selection.profile, selection.link))
        used = sorted({layer.parameters.plaintext_modulus for layer in policies[-1].layers})
        logger.info("p of %s: %.3f s predicted", " and ".join(map(str, used)), predicted_seconds(policies[-1]))
    if not policies:
        raise refusals[0]
    return min(policies, key=predicted_seconds)
