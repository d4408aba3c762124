"""Measures what the latency model predicts: both parties' CPU seconds for the linear layers of a policy.

Layers take turns as in an inference: the client encrypts for all of them, the server evaluates one after the other, the
client decrypts. So each finds the caches as the others leave them.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from autoprivacy.he.bfv.cipher import ClientCipher, ServerCipher
from autoprivacy.he.bfv.linear import ClientLinear, ServerLinear, no_rotation
from autoprivacy.he.bfv.reply_bits import default_reply_bits
from autoprivacy.he.bfv.rotation import GaloisKeyMaker, Rotator
from autoprivacy.he.packing import packing_named
from autoprivacy.he.packing.plan import Plan, Rotate
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet
from autoprivacy.he.parameters.policy import LayerPolicy, Policy
from autoprivacy.quantization.integer_network import IntegerNetwork, LinearLayer
from autoprivacy.timing import quartiles, thread_seconds

TOLERANCE = 0.1  # how far a prediction may be from what is measured

logger = logging.getLogger(__name__)


@dataclass
class _Keys:
    """Both parties' ciphers under one set, and the server's rotations."""

    client: ClientCipher
    server: ServerCipher
    rotate: Rotate

    @classmethod
    def make(cls, parameters: ParameterSet, elements: tuple[int, ...]) -> _Keys:
        """Fresh keys, Galois keys for these automorphisms among them."""
        client = ClientCipher(parameters)
        server, rotate = ServerCipher(parameters, client.public_key()), no_rotation
        if elements:
            rotate = Rotator(parameters, elements, GaloisKeyMaker(client).keys(elements)).rotate
        return cls(client, server, rotate)


class _Layer:
    """One layer between both parties."""

    def __init__(self, layer: LinearLayer, plan: Plan, chosen: LayerPolicy, flooding: Flooding, keys: _Keys) -> None:
        parameters, shape = chosen.parameters, layer.shape
        bits = chosen.reply_bits or default_reply_bits(plan.workload, parameters, chosen.target)
        self._client = ClientLinear(plan, keys.client, bits)
        self._server = ServerLinear(layer, plan, parameters, flooding, chosen.target, bits)
        self._keys = keys
        generator = np.random.default_rng(0)  # values that exist for their timing alone
        self._share, self._mask = (
            generator.integers(0, parameters.plaintext_modulus, size, np.uint64)
            for size in (shape.input_shape, shape.output_shape)
        )
        self._message, self._reply = b"", b""

    def encrypt(self) -> None:
        """The client's first part."""
        self._message = self._client.encrypt(self._share)

    def evaluate(self) -> None:
        """The server's part."""
        self._reply = self._server.evaluate(self._keys.server, self._message, self._mask, self._keys.rotate)

    def decrypt(self) -> None:
        """The client's second part."""
        self._client.decrypt(self._reply)


def work(layer: LinearLayer, chosen: LayerPolicy) -> Hashable:
    """What determines a layer's latency: layers of equal work take equal time, whatever their names and weights are."""
    return replace(layer.shape, name="", input_maximum=0), chosen.parameters, tuple(sorted(chosen.tiling.items()))


def time_layers(network: IntegerNetwork, policy: Policy, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of every layer, both parties together, `repeats` times after once that does not count.

    Of layers of equal `work` one is measured for all. Of the weights nothing matters but how wide a flood hides them.

    Args:
        network: with its weights.
        policy: sets, tilings, packing and flooding.
        repeats: timings of each.
    """
    works = {layer.name: work(network.layers[layer.name], layer) for layer in policy.layers}
    first = {value: name for name, value in reversed(works.items())}
    layers = _set_up(network, policy, set(first.values()))
    logger.info("%s, %s packing: %d different layers of %d", policy.network, policy.packing, len(layers), len(works))
    passes = []
    for number in range(repeats + 1):
        passes.append(_pass(layers))
        logger.info("%s, %s packing: timing %d of %d", policy.network, policy.packing, number, repeats)
    return {name: [times[first[value]] for times in passes[1:]] for name, value in works.items()}


def _set_up(network: IntegerNetwork, policy: Policy, names: set[str]) -> dict[str, _Layer]:
    chosen = [layer for layer in policy.layers if layer.name in names]
    packing, plans, elements = packing_named(policy.packing), {}, defaultdict[ParameterSet, set[int]](set)
    for layer in chosen:
        shape, p = network.layers[layer.name].shape, layer.parameters.plaintext_modulus
        plans[layer.name] = packing.from_tiling(shape, layer.parameters.polynomial_degree, p, layer.tiling)
        elements[layer.parameters].update(plans[layer.name].galois_elements)
    keys = {parameters: _Keys.make(parameters, tuple(sorted(own))) for parameters, own in elements.items()}
    return {
        layer.name: _Layer(
            network.layers[layer.name], plans[layer.name], layer, policy.flooding, keys[layer.parameters]
        )
        for layer in chosen
    }


def _pass(layers: Mapping[str, _Layer]) -> dict[str, float]:
    """Seconds of every layer, once."""
    total = dict.fromkeys(layers, 0.0)
    for step in (_Layer.encrypt, _Layer.evaluate, _Layer.decrypt):
        for name, layer in layers.items():
            total[name] += thread_seconds(partial(step, layer))
    return total


def comparison_rows(policy: Policy, times: Mapping[str, list[float]], **facts: Any) -> list[dict[str, Any]]:
    """One row per layer: predicted CPU seconds of both parties beside those of `time_layers`.

    Args:
        policy: with its predictions.
        times: by layer.
        facts: more columns, the same in every row.
    """
    rows = []
    for layer in policy.layers:
        measured = quartiles(times[layer.name])
        predicted = layer.predicted["compute_seconds"]
        rows.append(
            {
                "network": policy.network,
                "packing": policy.packing,
                "layer": layer.name,
                "polynomial_degree": layer.parameters.polynomial_degree,
                "primes": len(layer.parameters.primes),
                "predicted_seconds": predicted,
                "measured_seconds": measured["median"],
                "lower_quartile": measured["lower_quartile"],
                "upper_quartile": measured["upper_quartile"],
                "ratio": predicted / measured["median"],
                **facts,
            }
        )
    return rows


def summary_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per network and packing, and one for all: how many layers are predicted within TOLERANCE."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["network"], row["packing"]].append(row)
    groups["all", "all"] = list(rows)
    return [
        {
            "network": network,
            "packing": packing,
            "layers": len(own),
            "share_within_tolerance": float(np.mean([abs(row["ratio"] - 1) <= TOLERANCE for row in own])),
            "tolerance": TOLERANCE,
            "median_ratio": float(np.median([row["ratio"] for row in own])),
            "predicted_seconds": sum(row["predicted_seconds"] for row in own),
            "measured_seconds": sum(row["measured_seconds"] for row in own),
        }
        for (network, packing), own in groups.items()
    ]
