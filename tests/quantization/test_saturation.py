"""Channels whose bias dwarfs their weights take no bits of p, and every output stays what it was."""

import numpy as np
import pytest
import torch
from support.float_networks import randomised, smooth_dataset
from torch import nn

from autoprivacy.quantization.builder import build_network
from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.quantization.quantize import QuantizationSettings, quantize
from autoprivacy.quantization.saturation import saturated


def network():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(6 * 16, 6),
    )


@pytest.mark.parametrize("bias", [-1e4, 1e5])
@pytest.mark.parametrize("weights", ["per_tensor", "per_channel"])
def test_a_bias_that_dwarfs_its_weights(bias, weights, monkeypatch):
    built = []

    def recorded(*arguments):
        built.append(build_network(*arguments))
        return built[-1]

    monkeypatch.setattr("autoprivacy.quantization.quantize.build_network", recorded)
    module = randomised(network())
    module[1].bias.data[2] = bias
    dataset = smooth_dataset()
    if bias > 0:  # a ReLU6 saturates at its bound, a plain one where the scale puts it
        module[2] = nn.ReLU6()
    settings = QuantizationSettings(calibration_images=40, weights=weights)
    own, rows = quantize(module.eval(), dataset, settings)
    assert max(row["plaintext_bits"] for row in rows) <= 24
    if weights == "per_channel":
        return
    before = built[-1]
    assert abs(int(before.layers["conv1"].bias[2])) > 20 * abs(int(own.layers["conv1"].bias[2]))
    kept = [0, 1, 3, 4, 5]
    assert np.array_equal(before.layers["conv1"].bias[kept], own.layers["conv1"].bias[kept])
    images = own.architecture.quantize_images(dataset.test.images)
    assert torch.equal(Evaluator(before, None).forward(images), Evaluator(own, None).forward(images))
    extreme = np.where(np.arange(3 * 256).reshape(1, 3, 16, 16) % 2, 127, -128)
    assert torch.equal(Evaluator(before, None).forward(extreme), Evaluator(own, None).forward(extreme))


def test_biases_within_reach_are_left_alone():
    module = randomised(network()).eval()
    own, _ = quantize(module, smooth_dataset(), QuantizationSettings(calibration_images=40))
    assert saturated(own).layers["conv1"].bias.tolist() == own.layers["conv1"].bias.tolist()


def test_what_an_addition_reads_is_left_alone():
    class Added(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.other, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Linear(4, 6)

        def forward(self, x):
            return self.fc(torch.relu(self.conv(x) + self.other(x)).mean((2, 3)))

    module = randomised(Added()).eval()
    module.conv.bias.data[0] = -1e3
    own, _ = quantize(module, smooth_dataset(), QuantizationSettings(calibration_images=40))
    assert int(own.layers["conv"].bias.min()) < -10000
