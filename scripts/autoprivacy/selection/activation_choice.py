"""The choice between lookups and circuits for activations, layer by layer, by predicted latency."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import replace

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.policy import ActivationKind, Policy
from autoprivacy.he.profiling.profile import OperationProfile
from autoprivacy.link import Link
from autoprivacy.lookup.batch import Batch
from autoprivacy.lookup.rates import TREE_BITS
from autoprivacy.quantization.architecture import Architecture
from autoprivacy.quantization.residues import tied_layers
from autoprivacy.selection.garbled_costs import activation_cost
from autoprivacy.selection.lookup_costs import lookup_cost

logger = logging.getLogger(__name__)
# What `selection.activation` of the config admits.
CHOICES: dict[str, tuple[ActivationKind, ...]] = {
    "auto": ("garbled", "lookup"),
    "garbled": ("garbled",),
    "lookup": ("lookup",),
}


def with_cheaper_activations(
    policy: Policy,
    architecture: Architecture,
    profile: OperationProfile,
    link: Link,
    kinds: Iterable[ActivationKind] = ("garbled", "lookup"),
) -> Policy:
    """The policy with the kind of activations of less predicted latency, layer by layer, and the trees of transfers.

    Layers whose accumulators meet are given one kind. Where lookups are impossible or unmeasured, circuits remain.

    Args:
        policy: of one link.
        architecture: the network's.
        profile: seconds of circuits' and lookups' operations.
        link: the parties'.
        kinds: what may be chosen; where circuits are left out, they remain only where lookups are impossible.
    """
    best, least = policy, math.inf
    for bits in TREE_BITS if "lookup" in kinds else ():
        chosen, seconds = _under_trees(policy, architecture, profile, link, bits, set(kinds))
        if seconds < least:
            best, least = chosen, seconds
    return best


def _under_trees(
    policy: Policy,
    architecture: Architecture,
    profile: OperationProfile,
    link: Link,
    tree_bits: int,
    kinds: set[ActivationKind],
) -> tuple[Policy, float]:
    """The policy of transfers from such trees, and the seconds of its activations."""
    residues = policy.residues(architecture)
    rates = {name: times["median"] for name, times in profile.garbling.items()}
    total, lookups = 0.0, set[str]()
    for group in tied_layers(architecture):
        nodes = [node for node in architecture.activations if architecture.feeders[node.inputs[0]].keys() & set(group)]
        garbled = sum(activation_cost(node, residues, rates, link)["garbled_seconds"] for node in nodes)
        try:
            batches = [Batch.of(node, residues) for node in nodes]
            looked_up = sum(lookup_cost(batch, rates, link, tree_bits)["lookup_seconds"] for batch in batches)
        except UserError as error:
            logger.info("%s: circuits: %s", ", ".join(group), error)
            looked_up = math.inf
        if nodes and looked_up < (garbled if "garbled" in kinds else math.inf):
            lookups |= set(group)
        total += looked_up if set(group) <= lookups else garbled
    layers = tuple(
        replace(layer, activation="lookup" if layer.name in lookups else "garbled") for layer in policy.layers
    )
    return replace(policy, layers=layers, tree_bits=tree_bits if lookups else policy.tree_bits), total
