"""Timed layers do the whole work of both parties, once for all layers of equal work."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_up_profile import LINK, PROFILE

from autoprivacy.he import operation_timing
from autoprivacy.he.layer_timing import time_layers, work
from autoprivacy.he.linear import ClientLinear, ServerLinear
from autoprivacy.he.parameters import Flooding
from autoprivacy.he.selection import darl
from autoprivacy.quantization.integer_network import Architecture, IntegerNetwork, LayerShape, LinearLayer

P = 114689


def network() -> IntegerNetwork:
    """Three layers, the first two alike but for name and weights."""
    generator = np.random.default_rng(1)
    shape = LayerShape("first", "convolution", (4, 8, 8), 4, (3, 3), padding=1)
    shapes = (shape, replace(shape, name="second"), LayerShape("last", "fully_connected", (256, 1, 1), 10, (1, 1)))
    layers = {}
    for own in shapes:
        weight = generator.integers(-127, 128, (own.output_channels, own.input_shape[0], *own.kernel))
        layers[own.name] = LinearLayer(own, weight, np.zeros(len(weight), np.int64))
    return IntegerNetwork(Architecture((), shapes, (0.5,), (0.25,), 0.02), layers, 1.0)


@pytest.mark.parametrize("packing", ["coefficient", "slot"])
def test_every_layer_is_encrypted_evaluated_and_decrypted(packing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, calls = network(), []
    policy = darl(net, "net", P, Flooding("none"), PROFILE, LINK, packing=packing)
    for owner, name in ((ClientLinear, "encrypt"), (ServerLinear, "evaluate"), (ClientLinear, "decrypt")):
        original = getattr(owner, name)

        def recorded(self, *arguments, name=name, original=original):  # type: ignore[no-untyped-def]
            calls.append((name, self.plan.shape.name))
            return original(self, *arguments)

        monkeypatch.setattr(owner, name, recorded)
    times = time_layers(net, policy, 2)
    names = ["first", "last"]
    assert calls == 3 * [(step, name) for step in ("encrypt", "evaluate", "decrypt") for name in names]
    assert list(times) == [layer.name for layer in policy.layers] and times["first"] == times["second"]
    assert all(len(own) == 2 and min(own) > 0 for own in times.values())


def test_the_clock_covers_all_three_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    policy = darl(net, "net", P, Flooding("none"), PROFILE, LINK)
    clock = iter(range(1000))
    monkeypatch.setattr(operation_timing.time, "thread_time", lambda: float(next(clock)))
    assert time_layers(net, policy, 1) == {"first": [3.0], "second": [3.0], "last": [3.0]}


def test_equal_work_is_equal_shape_set_and_tiling() -> None:
    net = network()
    policy = darl(net, "net", P, Flooding("none"), PROFILE, LINK)
    first, second, last = policy.layers
    assert work(net.layers["first"], first) == work(net.layers["second"], second)
    assert work(net.layers["first"], first) != work(net.layers["last"], last)
    other = replace(second, tiling={**second.tiling, "channels_per_input": 1})
    assert work(net.layers["second"], other) != work(net.layers["first"], first)
    strided = replace(net.layers["first"].shape, stride=2)
    assert work(replace(net.layers["first"], shape=strided), first) != work(net.layers["first"], first)
