"""Accuracy rows: top-1 accuracy of a network at one stage, with its 95% interval and the accumulators that wrapped."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprivacy.data.dataset import Dataset
from autoprivacy.quantization.evaluation import Evaluator, Perturbation, wrap_rate_bound
from autoprivacy.quantization.importer import import_module
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.residues import Residues
from autoprivacy.training.batches import accuracy, batches, normalise

COLUMNS = ("network", "scheme", "stage", "accuracy_percent", "interval_percent", "images", "wraps")


def interval_percent(accuracy_percent: float, images: int) -> float:
    """Half the width of the 95% normal interval of an accuracy in percent."""
    share = accuracy_percent / 100
    return 100 * 1.96 * math.sqrt(share * (1 - share) / images)


def _row(network: str, scheme: str, stage: str, percent: float, images: int, wraps: int | None) -> dict[str, Any]:
    interval = interval_percent(percent, images)
    values = (network, scheme, stage, round(percent, 4), round(interval, 4), images, "" if wraps is None else wraps)
    return dict(zip(COLUMNS, values, strict=True))


def float_row(network: str, model: nn.Module, dataset: Dataset) -> dict[str, Any]:
    """The float network on the test split."""
    return _row(network, "", "float", accuracy(model, dataset, dataset.test), len(dataset.test.labels), None)


def folded_row(network: str, model: nn.Module, dataset: Dataset) -> dict[str, Any]:
    """The float network with its batch normalisation folded into the weights, as quantisation reads it."""
    graph = import_module(model, dataset.image_shape)
    right = 0
    for images, labels in batches(dataset.test, size=50):
        logits = graph.outputs(normalise(torch.from_numpy(images), dataset.mean, dataset.std))
        right += int((logits.argmax(1).numpy() == labels).sum())
    count = len(dataset.test.labels)
    return _row(network, "", "folded", 100.0 * right / count, count, None)


def integer_row(
    name: str,
    scheme: str,
    stage: str,
    network: IntegerNetwork,
    modulus: int | Residues | None,
    dataset: Dataset,
    errors: Perturbation | None = None,
    shares: np.random.Generator | None = None,
) -> dict[str, Any]:
    """The integer network modulo `modulus` on the test split, with `errors` added to accumulators.

    `modulus` and `shares` are the evaluator's: None is without a modulus, and without ignored share bits.
    """
    evaluator = Evaluator(network, modulus, shares)
    percent = evaluator.accuracy(dataset.test, errors)
    wraps = None if modulus is None else evaluator.wraps.total()
    return _row(name, scheme, stage, percent, len(dataset.test.labels), wraps)


def evaluation_rows(
    name: str, model: nn.Module, network: IntegerNetwork, modulus: int, dataset: Dataset
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """What quantisation does to a network, before any scheme: float, folded, integer, and integer modulo p.

    Args:
        name: of the network.
        model: the float network.
        network: the integer network.
        modulus: p, as the calibrated range of accumulators proposes it.
        dataset: its test split is what accuracy is measured on.

    Returns:
        One row each, with the columns COLUMNS, the modulus, how many accumulators were read and the bound on the
        rate at which they wrap (`wrap_rate_bound`); the last is the row of stage `integer_modulo_p`. And the confusion
        matrix of the integer network modulo p: int64 [true class, predicted class], counts of images.
    """
    rows = [
        float_row(name, model, dataset),
        folded_row(name, model, dataset),
        integer_row(name, "", "integer", network, None, dataset),
    ]
    evaluator, labels = Evaluator(network, modulus), dataset.test.labels
    predicted = evaluator.predictions(dataset.test)
    wraps, count = evaluator.wraps.total(), evaluator.counts.total()
    percent = 100.0 * float(np.mean(predicted == labels))
    plain = {"modulus": "", "accumulators": "", "wrap_rate_bound": ""}
    modulo = {"modulus": modulus, "accumulators": count, "wrap_rate_bound": wrap_rate_bound(wraps, count)}
    rows = [row | plain for row in rows]
    rows.append(_row(name, "", "integer_modulo_p", percent, len(labels), wraps) | modulo)
    classes = network.architecture.nodes[-1].shape[0]
    return rows, np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def confusion_rows(confusion: np.ndarray) -> list[dict[str, Any]]:
    """A confusion matrix as rows for a CSV file: one per true class, one column per predicted class."""
    return [
        {"class": label, **{f"predicted_{other}": int(count) for other, count in enumerate(row)}}
        for label, row in enumerate(confusion)
    ]
