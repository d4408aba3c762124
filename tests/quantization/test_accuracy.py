"""Accuracy rows of a network before any scheme: each against a count of its own."""

import numpy as np
import pytest
import torch
from support.float_networks import NETWORKS, randomised, smooth_dataset
from support.reference import reference_forward

from autoprivacy.quantization.accuracy import COLUMNS, confusion_rows, evaluation_rows, interval_percent
from autoprivacy.quantization.evaluation import wrap_rate_bound
from autoprivacy.quantization.quantize import QuantizationSettings, quantize
from autoprivacy.training.batches import normalise

COUNT = 24


@pytest.fixture(scope="module")
def case():
    """(module, data set with labels that the module gets right now and then, integer network)."""
    build, size = NETWORKS["bottlenecks"]
    module, dataset = randomised(build()).eval(), smooth_dataset(size, test=COUNT)
    network, _ = quantize(module, dataset, QuantizationSettings(20))
    with torch.no_grad():
        images = normalise(torch.from_numpy(dataset.test.images), dataset.mean, dataset.std)
        predicted = module(images).argmax(1).numpy()
    dataset.test.labels[:] = np.where(np.arange(COUNT) % 4, predicted, (predicted + 1) % 6)
    return module, dataset, network


@pytest.mark.parametrize("modulus", [1 << 12, 1 << 20])
def test_rows_count_what_each_stage_gets_right(case, modulus):
    module, dataset, network = case
    rows, confusion = evaluation_rows("small", module, network, modulus, dataset)
    images = network.architecture.quantize_images(dataset.test.images)
    right = {
        p: [reference_forward(network, image, p).argmax() for image in images] == dataset.test.labels
        for p in (None, modulus)
    }
    assert [row["stage"] for row in rows] == ["float", "folded", "integer", "integer_modulo_p"]
    shares = [0.75, 0.75, right[None].mean(), right[modulus].mean()]
    assert [row["accuracy_percent"] for row in rows] == pytest.approx([100 * share for share in shares], abs=1e-4)
    assert all(row["images"] == COUNT and row["network"] == "small" and row["scheme"] == "" for row in rows)
    assert rows[0]["interval_percent"] == pytest.approx(interval_percent(75.0, COUNT), abs=1e-4)
    assert all(tuple(row)[: len(COLUMNS)] == COLUMNS for row in rows)
    assert [row["wraps"] for row in rows[:3]] == ["", "", ""]
    assert (rows[3]["wraps"] > 0) == (modulus == 1 << 12) and rows[3]["modulus"] == modulus
    assert rows[3]["wrap_rate_bound"] == wrap_rate_bound(rows[3]["wraps"], rows[3]["accumulators"])
    assert np.trace(confusion) == right[modulus].sum()


def test_the_confusion_matrix_counts_images_by_true_and_predicted_class(case):
    module, dataset, network = case
    _, confusion = evaluation_rows("small", module, network, 1 << 20, dataset)
    expected = np.zeros((6, 6), int)
    images = network.architecture.quantize_images(dataset.test.images)
    for image, label in zip(images, dataset.test.labels, strict=True):
        expected[label, reference_forward(network, image, None).argmax()] += 1
    assert np.array_equal(confusion, expected)
    rows = confusion_rows(confusion)
    assert [row["class"] for row in rows] == list(range(6))
    assert rows[2] == {"class": 2, **{f"predicted_{i}": expected[2, i] for i in range(6)}}
