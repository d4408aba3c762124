"""The choice between lookups and circuits for activations, layer by layer, by predicted latency."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.policy import ActivationKind, Policy
from autoprivacy.he.profiling.profile import OperationProfile
from autoprivacy.link import Link
from autoprivacy.lookup.batch import Batch
from autoprivacy.lookup.rates import TRANSFERS
from autoprivacy.ot.transfers import TransferKind
from autoprivacy.quantization.architecture import Architecture, Node
from autoprivacy.quantization.residues import Residues, tied_layers
from autoprivacy.selection.garbled_costs import activation_cost
from autoprivacy.selection.lookup_costs import exchanges_seconds, lookup_cost, transfer_set_up_cost
from autoprivacy.selection.share_windows import without_share_windows

# What `selection.activation` of the config admits.
CHOICES: dict[str, tuple[ActivationKind, ...]] = {
    "auto": ("garbled", "lookup"),
    "garbled": ("garbled",),
    "lookup": ("lookup",),
}
# Predictions are right within a tenth or so: as much decides nothing between kinds of transfers.
INDIFFERENCE = 0.1


@dataclass(frozen=True)
class _Group:
    """Layers whose accumulators meet, and what their activations take either way.

    Attributes:
        layers: their names.
        garbled: seconds by circuits; inf where there are none.
        windowed: whether circuits take the policy's windows of shares.
        looked_up: seconds by lookups; inf where that is impossible or unmeasured.
        exchanges: seconds that a slow link adds once, for all lookups of an image.
        refusal: why there are no lookups.
    """

    layers: tuple[str, ...]
    garbled: float
    windowed: bool
    looked_up: float
    exchanges: float
    refusal: str = ""

    def reason(self, lookup: bool, free: bool) -> str:
        """What was compared, in words; `free` says whether both kinds were allowed."""
        if self.refusal:
            return f"garbled: {self.refusal}"
        took, other = (self.looked_up, self.garbled) if lookup else (self.garbled, self.looked_up)
        names = ("lookup", "garbled") if lookup else ("garbled", "lookup")
        if math.inf in (took, other):
            return f"lookup {1e3 * self.looked_up:.4g} ms: what is computed has no circuit"
        told = f"{names[0]} {1e3 * took:.4g} ms, {names[1]} {1e3 * other:.4g} ms"
        if not free:
            return f"{told}: the config's choice"
        return told if took <= other else f"{told}, and {1e3 * self.exchanges:.4g} ms once for the first lookup"


def squares_by_lookup(policy: Policy, choice: str = "auto") -> bool:
    """Whether squares are looked up, which takes no triples: where all moduli are powers of two, which triples are not.

    Args:
        policy: of the network, with the moduli of its layers.
        choice: `selection.activation` of the config.
    """
    moduli = (layer.parameters.plaintext_modulus for layer in policy.layers)
    return "lookup" in CHOICES[choice] and all(p & (p - 1) == 0 for p in moduli)


def with_needed_lookups(policy: Policy, architecture: Architecture, choice: str = "auto") -> Policy:
    """The policy with the activations by lookup of those layers that feed a table or a square without triples.

    Neither has a circuit.

    Args:
        policy: of the network.
        architecture: the network's.
        choice: `selection.activation` of the config.

    Raises:
        UserError: circuits are asked for, or one of these cannot be looked up.
    """
    where, feeding = f"{policy.scheme} of {policy.network}", set[str]()
    needed = (*architecture.tables, *(architecture.squares if policy.triples is None else ()))
    if not needed:
        return policy
    residues = policy.residues(architecture)
    for node in needed:
        function = f"{where}: {node.name}: a function of {len(node.outputs)} levels"
        if "lookup" not in CHOICES[choice]:
            raise UserError(
                f"{function} has no circuit, it is looked up; set selection.activation to auto or lookup, or train the "
                "network with ReLU in its place"
            )
        try:
            Batch.of(node, residues)
        except UserError as error:
            raise UserError(
                f"{function} is looked up, which takes coefficient packing, a scheme other than delphi and "
                f"selection.plaintext.kind power_of_two or cheapest: {error}"
            ) from None
        feeding |= set(architecture.feeders[node.inputs[0]])
    layers = (replace(layer, activation="lookup") if layer.name in feeding else layer for layer in policy.layers)
    return replace(policy, layers=tuple(layers))


def with_cheaper_activations(
    policy: Policy,
    architecture: Architecture,
    profile: OperationProfile,
    link: Link,
    kinds: Iterable[ActivationKind] = ("garbled", "lookup"),
) -> Policy:
    """The policy with the kind of activations of less predicted latency, layer by layer, and the kind of transfers.

    Layers whose accumulators meet are given one kind. Where lookups are impossible or unmeasured, circuits remain.
    Circuits read all bits where that is cheaper than the policy's windows of shares. Lookups that save less together
    than their exchanges' round trips take are not taken. Of transfers whose predictions differ by no more than
    `INDIFFERENCE` those of the fewest bytes are taken. Every layer has the reason in words.

    Args:
        policy: of one link.
        architecture: the network's.
        profile: seconds of circuits' and lookups' operations.
        link: the parties'.
        kinds: what may be chosen; where circuits are left out, they remain only where lookups are impossible.

    Raises:
        UserError: what has no circuit cannot be looked up, or is unmeasured.
    """
    allowed = set(kinds)
    candidates = [
        _chosen(policy, list(_groups(policy, architecture, profile, link, kind)), kind, once, allowed)
        for kind in TRANSFERS
        if (once := _set_up_seconds(kind, profile, link)) < math.inf
    ]
    enough = min(seconds for _, seconds in candidates) * (1 + INDIFFERENCE)
    return next(candidate for candidate, seconds in reversed(candidates) if seconds <= enough)


def _groups(
    policy: Policy, architecture: Architecture, profile: OperationProfile, link: Link, kind: TransferKind
) -> Iterator[_Group]:
    """The layers that activations follow, with such transfers."""
    residues, all_bits = policy.residues(architecture), without_share_windows(policy).residues(architecture)
    rates = {name: times["median"] for name, times in profile.garbling.items()}
    for group in tied_layers(architecture):
        nodes = [node for node in architecture.activations if architecture.deciding_layers(node) & set(group)]
        if not nodes:
            continue
        # neither has a circuit
        only = any(node.table or (node.squared and policy.triples is None) for node in nodes)
        narrow, wide = (
            math.inf if only else _garbled_seconds(nodes, read, rates, link) for read in (residues, all_bits)
        )
        circuits = min(narrow, wide), narrow < wide  # a bit less may take more gates, for the sign
        try:
            batches = [Batch.of(node, residues) for node in nodes]
            looked_up = sum(lookup_cost(batch, rates, link, kind)["lookup_seconds"] for batch in batches)
        except UserError as error:
            if only:
                raise
            yield _Group(group, *circuits, math.inf, 0.0, str(error))
        else:
            yield _Group(group, *circuits, looked_up, exchanges_seconds(batches, link))


def _set_up_seconds(kind: TransferKind, profile: OperationProfile, link: Link) -> float:
    """Of the set-up of such transfers, once a session; inf where they are unmeasured."""
    try:
        rates = {name: times["median"] for name, times in profile.garbling.items()}
        return transfer_set_up_cost(kind, rates, link)["transfer_set_up_seconds"]
    except UserError:
        return math.inf


def _chosen(
    policy: Policy, groups: list[_Group], transfers: TransferKind, set_up: float, kinds: set[ActivationKind]
) -> tuple[Policy, float]:
    """The policy of such transfers, and the seconds of its activations and of one set-up of silent transfers."""
    possible = [group for group in groups if "lookup" in kinds and group.looked_up < math.inf]
    better = [group for group in possible if "garbled" not in kinds or group.looked_up < group.garbled]
    once = set_up + max((group.exchanges for group in better), default=0.0)
    saved = sum(group.garbled - group.looked_up for group in better)
    if not better or "garbled" in kinds and saved <= once:
        better, once = [], 0.0
    total = once + sum(group.looked_up if group in better else group.garbled for group in groups)
    by_layer = {layer: group for group in groups for layer in group.layers}
    layers = []
    for layer, wide in zip(policy.layers, without_share_windows(policy).layers, strict=True):
        group = by_layer.get(layer.name)
        looked_up = group in better
        entry = layer if group is None or looked_up or group.windowed else wide
        reason = group.reason(looked_up, len(kinds) > 1) if group else ""
        layers.append(replace(entry, activation="lookup" if looked_up else "garbled", activation_reason=reason))
    if better:
        policy = replace(policy, tree_bits=transfers.tree_bits, silent_table_bits=transfers.table_bits)
    return replace(policy, layers=tuple(layers)), total


def _garbled_seconds(nodes: Iterable[Node], residues: Residues, rates: Mapping[str, float], link: Link) -> float:
    return sum(activation_cost(node, residues, rates, link)["garbled_seconds"] for node in nodes)
