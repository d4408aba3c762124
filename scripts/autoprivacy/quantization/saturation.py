"""Channels whose bias dwarfs their weights: a ReLU cuts them off whatever the image, so a smaller bias does as well.

A batch normalisation over a channel that hardly varies leaves such biases. They would widen the plaintext modulus of
the whole layer, or make it impossible.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autoprivacy.quantization.evaluation import value_ranges
from autoprivacy.quantization.integer_network import IntegerNetwork, Interval, LinearLayer, Node, rounding_constant


def saturated(network: IntegerNetwork) -> IntegerNetwork:
    """The same function with the smallest bias wherever an activation gives one value for every image.

    Only layers are changed whose outputs nothing but activations reads. A channel that never reaches the activation's
    lowest step gets the largest bias with which it still does not, one that is always above its highest the smallest.

    Args:
        network: with weights; its outputs stay equal bit for bit.
    """
    layers = dict(network.layers)
    # what layers read comes from activations and the image, so other layers' biases do not matter, however large
    unbiased = {name: replace(layer, bias=np.zeros_like(layer.bias)) for name, layer in layers.items()}
    ranges = value_ranges(network.with_weights(unbiased))
    for name, layer in network.layers.items():
        activations = _activations(network, name)
        if activations:
            source = next(node for node in network.architecture.nodes if node.name == name).inputs[0]
            layers[name] = _clipped(layer, ranges[source], activations)
    return network.with_weights(layers)


def _activations(network: IntegerNetwork, layer: str) -> list[Node]:
    """The activations that read a layer's outputs as they are; none where something else reads them."""
    nodes, found, waiting = network.architecture.nodes, [], [layer]
    while waiting:
        name = waiting.pop()
        readers = [node for node in nodes if name in node.inputs]
        if not readers:
            return []
        for node in readers:
            if node.operation == "activation":
                found.append(node)
            elif node.operation in ("subsample", "flatten"):
                waiting.append(node.name)
            else:
                return []
    return found


def _clipped(layer: LinearLayer, interval: Interval, activations: list[Node]) -> LinearLayer:
    low, high = min(interval[0], 0), max(interval[1], 0)  # of inputs; zero padding counts
    weight = layer.weight.reshape(len(layer.weight), -1)
    positive, negative = np.maximum(weight, 0).sum(1), np.minimum(weight, 0).sum(1)
    highest, lowest = positive * high + negative * low, positive * low + negative * high
    # an activation gives its minimum up to the first number, its maximum from the second on
    below = min(((node.minimum + 1) << node.shift) - rounding_constant(node.shift) - 1 for node in activations)
    above = max((node.maximum << node.shift) - rounding_constant(node.shift) for node in activations)
    bias = layer.bias.copy()
    bias = np.where(bias + highest <= below, np.maximum(bias, below - highest), bias)
    bias = np.where(bias + lowest >= above, np.minimum(bias, above - lowest), bias)
    return replace(layer, bias=bias)
