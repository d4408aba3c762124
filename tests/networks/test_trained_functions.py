"""A network of SiLUs and a max pooling, trained on real images: as good in 8 bits, finetuned, served exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.protocol_sessions import FLOODED, session
from support.reference import reference_forward
from torch import nn

from autoprivacy.data.dataset import load
from autoprivacy.data.origins import prepare
from autoprivacy.he.parameters.policy import EXACT_TARGET
from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.quantization.quantize import QuantizationSettings, quantize, required_ranges
from autoprivacy.search.finetuning import FinetuneSettings, finetune
from autoprivacy.selection.exact import layer_moduli
from autoprivacy.selection.plaintext_modulus import PlaintextRule
from autoprivacy.selection.schemes import layerwise
from autoprivacy.selection.share_windows import share_windows, with_share_windows
from autoprivacy.training.batches import accuracy
from autoprivacy.training.settings import TrainingSettings
from autoprivacy.training.trainer import Trainer

SAMPLE = Path(__file__).parents[2] / "data"
TOLERANCE = 2.0  # percent of the test images, of which there are 1,000: one standard error is 1.5
SETTINGS = TrainingSettings(epochs=8, batch_size=64, learning_rate=0.05, label_smoothing=0.0, ema_decay=0.9)


def small_silus() -> nn.Module:
    """`networks.small_squares` with SiLUs, and a max pooling in place of a stride."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.SiLU()),
        *(nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.SiLU(), nn.MaxPool2d(3, 2, 1)),
        *(nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.Hardswish()),
        *(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32 * 4 * 4, 10)),
    )


@pytest.mark.slow
def test_a_trained_network_of_silus_keeps_its_accuracy_in_8_bits(tmp_path: Path) -> None:
    prepare("cifar10-sample", tmp_path / "sample.npz", None, None, SAMPLE, tmp_path)
    dataset = load(tmp_path / "sample.npz")
    module = Trainer(small_silus(), dataset, SETTINGS, tmp_path / "silus").run().eval()
    network, rows = quantize(module, dataset, QuantizationSettings())
    wanted, got = accuracy(module, dataset, dataset.test), Evaluator(network, None).accuracy(dataset.test)
    print(f"float {wanted:.2f}%, 8 bits {got:.2f}%")
    assert wanted > 35 and abs(wanted - got) < TOLERANCE

    # weights that coarse rounding spoiled are trained back through the tables
    spoiled = network.with_weights(
        {name: replace(layer, weight=(layer.weight + 20) // 40 * 40) for name, layer in network.layers.items()}
    )
    tuned = finetune(spoiled, dataset.train, None, FinetuneSettings(1, 64, 5e-3), seed=1)
    before, after = (Evaluator(one, None).accuracy(dataset.test) for one in (spoiled, tuned))
    print(f"spoiled {before:.2f}%, finetuned {after:.2f}%")
    assert after > before + 1

    moduli = layer_moduli(network.architecture, required_ranges(rows), FLOODED, PlaintextRule())[-1]
    policy = layerwise(network, "silus", moduli, dict.fromkeys(network.layers, EXACT_TARGET), FLOODED)
    policy = with_share_windows(policy, share_windows(network.architecture, required_ranges(rows)))
    residues = policy.residues(network.architecture)
    with session(policy, network) as (client, _):
        for image in network.architecture.quantize_images(dataset.test.images[:3]):
            outputs = client.infer(client.prepare(), image)
            assert np.array_equal(outputs, reference_forward(network, image, residues))
