"""Timed layers do the whole work of both parties, once for all layers of equal work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.made_up_profile import LINK, PROFILE
from torch import nn

from autoprivacy import timing
from autoprivacy.he.bfv.linear import ClientLinear, ServerLinear
from autoprivacy.he.parameters.parameter_set import Flooding
from autoprivacy.he.profiling.layer_timing import comparison_rows, summary_rows, time_layers, work
from autoprivacy.quantization.integer_network import Architecture, IntegerNetwork, LayerShape, LinearLayer
from autoprivacy.quantization.untrained import untrained_network
from autoprivacy.report.figures import latency_figure, save
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.schemes import darl

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
    policy = darl(net, "net", P, Selection(PROFILE, LINK, Flooding("none"), packing))
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
    policy = darl(net, "net", P, Selection(PROFILE, LINK, Flooding("none")))
    clock = iter(range(1000))
    monkeypatch.setattr(timing.time, "thread_time", lambda: float(next(clock)))
    assert time_layers(net, policy, 1) == {"first": [3.0], "second": [3.0], "last": [3.0]}


def test_equal_work_is_equal_shape_set_and_tiling() -> None:
    net = network()
    policy = darl(net, "net", P, Selection(PROFILE, LINK, Flooding("none")))
    first, second, last = policy.layers
    assert work(net.layers["first"], first) == work(net.layers["second"], second)
    assert work(net.layers["first"], first) != work(net.layers["last"], last)
    other = replace(second, tiling={**second.tiling, "channels_per_input": 1})
    assert work(net.layers["second"], other) != work(net.layers["first"], first)
    strided = replace(net.layers["first"].shape, stride=2)
    assert work(replace(net.layers["first"], shape=strided), first) != work(net.layers["first"], first)


def test_rows_and_summary_of_a_comparison() -> None:
    policy = darl(network(), "net", P, Selection(PROFILE, LINK, Flooding("none")))
    predicted = {layer.name: layer.predicted["compute_seconds"] for layer in policy.layers}
    factors = {"first": 1.0, "second": 1.05, "last": 2.0}
    times = {name: [factors[name] * value * share for share in (0.5, 1.0, 3.0)] for name, value in predicted.items()}
    rows = comparison_rows(policy, times, weights="random")
    assert [row["ratio"] for row in rows] == pytest.approx([1 / factors[row["layer"]] for row in rows])
    assert rows[0]["measured_seconds"] == pytest.approx(predicted["first"]) and rows[0]["weights"] == "random"
    assert rows[0]["lower_quartile"] == pytest.approx(0.75 * predicted["first"])
    own, everything = summary_rows(rows)
    assert own["network"] == "net" and own["packing"] == "coefficient" and everything["network"] == "all"
    assert own["layers"] == 3 and own["share_within_tolerance"] == pytest.approx(2 / 3)
    assert own["predicted_seconds"] == pytest.approx(sum(predicted.values()))


def test_random_networks_have_the_modules_shapes() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 7))
    made = untrained_network(module, (3, 12, 12))
    shapes = made.architecture.layers
    assert [shape.output_shape for shape in shapes] == [(4, 6, 6), (7, 1, 1)]
    assert shapes[0].stride == 2 and all(np.abs(layer.weight).max() <= 127 for layer in made.layers.values())
    assert np.abs(made.layers[shapes[1].name].weight).max() > 100


@pytest.mark.parametrize("packings", [("coefficient",), ("coefficient", "slot")])
def test_the_figure_has_a_panel_per_packing(packings: tuple[str, ...], tmp_path: Path) -> None:
    rows = [
        {"network": name, "packing": packing, "measured_seconds": time, "predicted_seconds": 1.1 * time}
        for packing in packings
        for name in ("a", "b")
        for time in (1e-3, 1e-2)
    ]
    figure = latency_figure(rows, 0.1)
    assert [axis.get_title() for axis in figure.axes] == [f"{packing} packing" for packing in packings]
    save(figure, tmp_path / "latency")
    assert (tmp_path / "latency.svg").stat().st_size > 1000 and (tmp_path / "latency.png").stat().st_size > 1000
