"""Which moduli the values of a network are kept under where its layers have moduli of their own, and what activations
do to values whose shares lose their low bits before they meet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.quantization.integer_network import Architecture, Node, rounding_constant
from autoprivacy.quantization.windows import Window


@dataclass(frozen=True)
class Residues:
    """What a policy means for the nodes of a graph.

    A linear layer reads and gives residues modulo its own p, and local operations keep the modulus of what they read.
    The image and the outputs of activations are known as integers, so they exist modulo every p that a later layer
    them reads them in.

    Attributes:
        moduli: per node those that its value is needed in, ascending.
        read: per node the one that an activation (or the user) reads its value in: the p of the layers it comes from,
            and the largest p of all layers where it comes from activations alone, or the activation's own modulus.
        ignored_bits: per activation how many low share bits it ignores: the fewest of the layers that feed it,
            none where no layer does.
        windows: per node whose value activations read in a window of its own, that of the layers that feed it. Where
            they have several, or one has none, all bits are read.
    """

    moduli: dict[str, tuple[int, ...]]
    read: dict[str, int]
    ignored_bits: dict[str, int]
    windows: dict[str, Window] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        architecture: Architecture,
        layer_moduli: Mapping[str, int],
        layer_ignored_bits: Mapping[str, int],
        layer_windows: Mapping[str, Window] | None = None,
    ) -> Residues:
        """From every layer's modulus and ignored share bits, and the windows of those that have one.

        Raises:
            UserError: layers whose moduli differ meet in an addition, or one reads another's accumulators.
        """
        feeders = architecture.feeders
        for name, layers in _meeting(architecture).items():
            tied = {layer: layer_moduli[layer] for layer in sorted(layers)}
            if len(set(tied.values())) > 1:
                named = ", ".join(f"{layer} modulo {p}" for layer, p in tied.items())
                raise UserError(
                    f"node {name}: layers {named} meet without an activation between; give them one plaintext modulus"
                )
        largest = max(layer_moduli.values())
        read = {name: max((layer_moduli[layer] for layer in feeders[name]), default=largest) for name in feeders}
        read |= _own_moduli(architecture)
        wanted = _wanted(architecture, layer_moduli, read)
        ignored = {
            node.name: min((layer_ignored_bits[layer] for layer in feeders[node.inputs[0]]), default=0)
            for node in architecture.activations
        }
        windows = _common_windows(architecture, layer_windows or {})
        return cls({name: tuple(sorted(moduli)) for name, moduli in wanted.items()}, read, ignored, windows)

    def window(self, name: str) -> Window:
        """As which integers a node's residues are read."""
        return self.windows.get(name) or Window.signed(self.read[name])

    @classmethod
    def uniform(cls, architecture: Architecture, modulus: int) -> Residues:
        """One modulus for all layers, no share bits ignored."""
        if _own_moduli(architecture):
            layers = [layer.name for layer in architecture.layers]
            return cls.of(architecture, dict.fromkeys(layers, modulus), dict.fromkeys(layers, 0))
        names = [node.name for node in architecture.nodes]
        activations = [node.name for node in architecture.activations]
        return cls(dict.fromkeys(names, (modulus,)), dict.fromkeys(names, modulus), dict.fromkeys(activations, 0))


def _common_windows(architecture: Architecture, layer_windows: Mapping[str, Window]) -> dict[str, Window]:
    """By node that activations read the window of all the layers that feed it."""
    found: dict[str, Window] = {}
    for name in dict.fromkeys(node.inputs[0] for node in architecture.activations):
        windows = {layer_windows.get(layer) for layer in architecture.feeders[name]}
        window = windows.pop() if len(windows) == 1 else None
        if window is not None:
            found[name] = window
    return found


def _own_moduli(architecture: Architecture) -> dict[str, int]:
    """Of the values that activations read modulo a power of two of their own."""
    return {node.inputs[0]: 1 << node.modulus_bits for node in architecture.activations if node.modulus_bits}


def _meeting(architecture: Architecture) -> dict[str, set[str]]:
    """Per node that holds accumulators the layers that must have one modulus there: its feeders and its readers."""
    readers = architecture.reading_layers
    return {name: {*layers, *readers[name]} for name, layers in architecture.feeders.items() if layers}


def tied_layers(architecture: Architecture) -> list[tuple[str, ...]]:
    """The linear layers in groups that must have one plaintext modulus, in network order; most groups are one layer."""
    group = {layer.name: {layer.name} for layer in architecture.layers}
    for layers in _meeting(architecture).values():
        joined = set[str]().union(*(group[name] for name in layers))
        group |= dict.fromkeys(joined, joined)
    names = [layer.name for layer in architecture.layers]
    ordered = (tuple(name for name in names if name in group[first]) for first in names)
    return list(dict.fromkeys(ordered))


def _wanted(
    architecture: Architecture, layer_moduli: Mapping[str, int], read: Mapping[str, int]
) -> dict[str, set[int]]:
    """The moduli in which every node's value is read later; its own where nothing reads it."""
    wanted: dict[str, set[int]] = {node.name: set() for node in architecture.nodes}
    wanted[architecture.nodes[-1].name].add(read[architecture.nodes[-1].name])
    for node in reversed(architecture.nodes):
        wanted[node.name] = wanted[node.name] or {read[node.name]}
        for name in node.inputs:
            if node.operation == "linear":
                wanted[name].add(layer_moduli[node.name])
            elif node.operation == "activation":
                wanted[name].add(read[name])
            else:
                wanted[name] |= wanted[node.name]
    return wanted


def low_share_bits(shares: np.random.Generator, ignored_bits: int, shape: tuple[int, ...]) -> np.ndarray:
    """The low bits of fresh uniform shares modulo 2^k: int16 or int32 of that shape; simulation only.

    Args:
        shares: with 64 bits to a raw draw, as all of numpy's have but MT19937.
        ignored_bits: t, at most 31.
        shape: of the values.
    """
    kind, count = np.dtype(np.int16 if ignored_bits < 16 else np.int32), math.prod(shape)
    words = shares.bit_generator.random_raw(-(-count * kind.itemsize // 8))
    return words.view(kind)[:count].reshape(shape) & kind.type((1 << ignored_bits) - 1)


def truncated_activation(value: Any, share: Any, node: Node, window: Window, ignored_bits: int) -> Any:
    """An activation whose two parties drop the low bits of their shares; the reason is in `gc.activation.Activation`.

    Args:
        value: x, the integers or residues that it reads: an int64 array or tensor.
        share: c, the client's share of x: uniform residues modulo p of the same form.
        node: the activation.
        window: as which integers z is read; its size is p, or 2^m where high share bits are dropped.
        ignored_bits: t, at least 1.

    Returns:
        clip((z - e) >> f, minimum, maximum), or what the node makes of it; of the same form. Here z = x +
        constant mod p; for p = 2^k, e = lo(c); for other p, e = lo(d) + [d < z] with d = c - 1 mod p. Where z - e
        reaches the window's threshold it stands for z - e less p, or p - 1, a multiple of 2^t.
    """
    modulus, odd = window.size, window.size % 2
    z = (value + rounding_constant(node.shift, ignored_bits)) % modulus
    d = (share - odd) % modulus
    less = z - d % (1 << ignored_bits)
    if odd:
        less = less - (d < z) * 1
    signed = less - (less >= window.threshold) * (modulus - odd)
    return node.activated((signed >> node.shift).clip(node.minimum, node.maximum))
