"""Accuracy rows: top-1 accuracy of a network at one stage, with its 95% interval and the accumulators that wrapped."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from autoprivacy.data import Dataset
from autoprivacy.quantization.evaluation import Evaluator, Perturbation
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.training import accuracy


def interval_percent(accuracy_percent: float, images: int) -> float:
    """Half the width of the 95% normal interval of an accuracy in percent."""
    share = accuracy_percent / 100
    return 100 * 1.96 * math.sqrt(share * (1 - share) / images)


def _row(network: str, scheme: str, stage: str, percent: float, images: int, wraps: int | None) -> dict[str, Any]:
    return {
        "network": network,
        "scheme": scheme,
        "stage": stage,
        "accuracy_percent": round(percent, 4),
        "interval_percent": round(interval_percent(percent, images), 4),
        "images": images,
        "wraps": "" if wraps is None else wraps,
    }


def float_row(network: str, model: nn.Module, dataset: Dataset) -> dict[str, Any]:
    """The float network on the test split."""
    return _row(network, "", "float", accuracy(model, dataset, dataset.test), len(dataset.test.labels), None)


def integer_row(
    name: str,
    scheme: str,
    stage: str,
    network: IntegerNetwork,
    modulus: int | None,
    dataset: Dataset,
    errors: Perturbation | None = None,
) -> dict[str, Any]:
    """The integer network modulo `modulus` (None: without) on the test split, with `errors` added to accumulators."""
    evaluator = Evaluator(network, modulus)
    percent = evaluator.accuracy(dataset.test, errors)
    wraps = None if modulus is None else sum(evaluator.wraps.values())
    return _row(name, scheme, stage, percent, len(dataset.test.labels), wraps)
