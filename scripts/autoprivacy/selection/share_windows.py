"""Windows of shares: how many bits activations read of a layer's accumulators where p = 2^k, from calibrated ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from autoprivacy.he.parameters.policy import Policy
from autoprivacy.quantization.integer_network import Architecture, Interval
from autoprivacy.quantization.residues import tied_layers
from autoprivacy.quantization.windows import Window, smallest_window
from autoprivacy.selection.plaintext_modulus import union


def share_windows(architecture: Architecture, ranges: Mapping[str, Interval]) -> dict[str, Window]:
    """By layer the window of fewest bits that holds its range; of layers whose accumulators meet, all their ranges.

    Layers whose accumulators no activation reads, or the user or a squared activation as well, have none.

    Args:
        architecture: the network's.
        ranges: by layer, what its plaintext modulus has to hold, the margin and the constant that rounds included.
    """
    outputs = architecture.feeders[architecture.nodes[-1].name].keys()
    found: dict[str, Window] = {}
    for group in tied_layers(architecture):
        nodes = {node for layer in group for node in architecture.activations_of[layer]}
        if nodes and not outputs & set(group) and not any(node.squared for node in nodes):
            held = union({layer: ranges[layer] for layer in group})
            window = smallest_window(held, max(node.shift for node in nodes))
            found |= dict.fromkeys(group, window)
    return found


def with_share_windows(policy: Policy, windows: Mapping[str, Window]) -> Policy:
    """The policy whose layers have these windows where p = 2^k is as large, and the window is not p's own."""
    layers = []
    for layer in policy.layers:
        window, p = windows.get(layer.name), layer.parameters.plaintext_modulus
        fits = window is not None and p & (p - 1) == 0 and window.size <= p and window != Window.signed(p)
        layers.append(replace(layer, share_window=window.interval if window and fits else None))
    return replace(policy, layers=tuple(layers))


def without_share_windows(policy: Policy) -> Policy:
    """The policy whose activations read all bits of the shares wherever p has more than the window."""
    layers = (
        replace(layer, share_window=None)
        if layer.window and layer.window.size < layer.parameters.plaintext_modulus
        else layer
        for layer in policy.layers
    )
    return replace(policy, layers=tuple(layers))
