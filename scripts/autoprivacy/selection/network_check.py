"""Whether a network can be made private at all, found out before it is trained: import, scales, ranges."""

from __future__ import annotations

import logging

from autoprivacy.data.dataset import Dataset
from autoprivacy.errors import UserError
from autoprivacy.networks import build_for
from autoprivacy.quantization.architecture import MAXIMUM_PLAINTEXT_BITS
from autoprivacy.quantization.float_graph import requantized
from autoprivacy.quantization.importer import import_module
from autoprivacy.quantization.quantize import QuantizationSettings, quantize
from autoprivacy.quantization.random_weights import random_network
from autoprivacy.quantization.scales import scale_classes

IMAGES = 16  # that the ranges of random weights are measured with


def check_network(model: str, classes: int, dataset: Dataset, seed: int) -> None:
    """Do with random weights what is done with trained ones later.

    Args:
        model, classes: as in `networks.build_for`.
        dataset: that it will be trained on.
        seed: of the weights.

    Raises:
        UserError: it does not fit the data set, an operation has no integer form, or a layer's values need more bits
            than a plaintext modulus has.
    """
    graph = requantized(import_module(build_for(model, classes, dataset).eval(), dataset.image_shape))
    scale_classes(graph)
    network = random_network(model, classes, dataset, seed)
    _, rows = quantize(network, dataset, QuantizationSettings(calibration_images=IMAGES))
    for row in rows:
        if row["plaintext_bits"] > MAXIMUM_PLAINTEXT_BITS:
            raise UserError(
                f'network model: "{model}": layer {row["name"]}: its values take {row["plaintext_bits"]} bits with '
                f"random weights; allowed {MAXIMUM_PLAINTEXT_BITS}: put an activation or a pooling before it"
            )
    logging.info(
        "the network can be made private: %d linear layers, %d to %d bits with random weights",
        len(rows),
        min(row["plaintext_bits"] for row in rows),
        max(row["plaintext_bits"] for row in rows),
    )
