"""The small network with squares beside the one with ReLUs: built alike, trained, served, and what each costs."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from support.made_up_profile import LINK, PROFILE
from support.protocol_sessions import session
from support.reference import reference_forward
from torch import nn

from autoprivacy.data.dataset import load
from autoprivacy.data.origins import prepare
from autoprivacy.gc.activation import Activation
from autoprivacy.he.parameters.parameter_set import Flooding
from autoprivacy.networks.small_squares import SHIFT, small_relus, small_squares
from autoprivacy.networks.square import Square
from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.quantization.quantize import QuantizationSettings, quantize, required_ranges
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.plaintext_modulus import PlaintextRule
from autoprivacy.selection.schemes import darl
from autoprivacy.training.settings import TrainingSettings
from autoprivacy.training.trainer import Trainer
from autoprivacy.workflow.config import complete

CONFIG = Path(__file__).parents[2] / "config"
SAMPLE = Path(__file__).parents[2] / "data"
IMAGES = 20


def test_both_networks_are_the_same_but_for_their_activations():
    counts = {}
    for build, kind in ((small_relus, nn.ReLU), (small_squares, Square)):
        network, values = build(10).eval(), []
        activations = [module for module in network.modules() if isinstance(module, kind)]
        for module in activations:
            module.register_forward_hook(lambda m, i, out, values=values: values.append(out[0].numel()))
        with torch.no_grad():
            assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
        counts[kind] = (values, sum(parameter.numel() for parameter in network.parameters()))
    assert counts[nn.ReLU] == counts[Square] == ([4096, 2048, 2048], counts[Square][1])
    assert all(module.shift == SHIFT for module in small_squares(10) if isinstance(module, Square))


def test_the_study_of_squares_is_valid_and_trains_both_alike():
    files = [CONFIG / "config.yaml", CONFIG / "squares.yaml"]
    base, more = (yaml.safe_load(file.read_text()) for file in files)
    networks = {**base["networks"], **more["networks"]}
    config = complete({**base, **more, "networks": networks}, files)
    relus, squares = (config["networks"][name] for name in config["run"]["networks"])
    assert relus["training"] == squares["training"] and relus["dataset"] == squares["dataset"]
    assert relus["model"].endswith(":small_relus") and squares["model"].endswith(":small_squares")


@pytest.mark.slow
def test_trained_squares_are_served_exactly_and_cost_triples_and_fewer_gates(tmp_path):
    prepare("cifar10-sample", tmp_path / "sample.npz", None, None, SAMPLE, tmp_path)
    dataset = load(tmp_path / "sample.npz")
    gates, bytes_sent = {}, {}
    for build in (small_relus, small_squares):
        settings = TrainingSettings(epochs=8, batch_size=64, learning_rate=0.05, label_smoothing=0.0, ema_decay=0.9)
        module = Trainer(build(10), dataset, settings, tmp_path / build.__name__).run()
        network, rows = quantize(module.eval(), dataset, QuantizationSettings())
        squares = bool(network.architecture.squares)
        ranges, degrees = required_ranges(rows), PROFILE.degrees
        p = PlaintextRule(kind="prime").modulus(ranges, "coefficient", degrees, squares=True)
        policy = darl(network, build.__name__, p, Selection(PROFILE, LINK, Flooding("statistical")))
        assert (policy.triples is not None) == squares
        assert Evaluator(network, p).accuracy(dataset.test) > 20  # of 10 classes
        with session(policy, network) as (client, _):
            for image in network.architecture.quantize_images(dataset.test.images[:IMAGES]):
                outputs = client.infer(client.prepare(), image)
                assert np.array_equal(outputs, reference_forward(network, image, p))
            bytes_sent[squares] = client.channel.sent + client.channel.received
        nodes = client.agreement.activation_nodes()
        gates[squares] = sum(gates_of(Activation(p, n.shift, n.minimum, n.maximum), n.shape) for n in nodes)
    assert gates[True] < gates[False]
    assert bytes_sent[True]["GARBLED_TABLES"] < bytes_sent[False]["GARBLED_TABLES"]
    assert bytes_sent[False]["TRIPLE_PRODUCTS"] == 0 < bytes_sent[True]["TRIPLE_PRODUCTS"]


def gates_of(activation, shape):
    return activation.circuit.and_count * int(np.prod(shape))
