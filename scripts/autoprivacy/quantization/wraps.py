"""What a plaintext modulus of few bits does to an integer network: how many accumulators wrap, and its accuracy.

Tests the paper's statement (section 4, HE and GC setting) that p of 14 bits suffices for 8-bit layers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from autoprivacy.data.dataset import Split
from autoprivacy.quantization.accuracy import interval_percent
from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.quantization.integer_network import IntegerNetwork

BITS = range(14, 23)  # the paper's 14; 22, DELPHI's, holds every network's accumulators


def wrap_rows(name: str, network: IntegerNetwork, split: Split, bits: Iterable[int] = BITS) -> list[dict[str, Any]]:
    """One row per number of bits of p = 2^bits, the same images under each.

    Returns:
        Rows with network, plaintext_bits, images, accumulators (how many values were read), wraps (how many left p's
        range), wrapped_percent, accuracy_percent and interval_percent (95%).
    """
    rows = []
    for width in bits:
        evaluator = Evaluator(network, 1 << width)
        accuracy = evaluator.accuracy(split)
        wraps, values = evaluator.wraps.total(), evaluator.counts.total()
        rows.append(
            {
                "network": name,
                "plaintext_bits": width,
                "images": len(split.labels),
                "accumulators": values,
                "wraps": wraps,
                "wrapped_percent": 100 * wraps / values,
                "accuracy_percent": round(accuracy, 4),
                "interval_percent": round(interval_percent(accuracy, len(split.labels)), 4),
            }
        )
        logging.info("%s, p of %d bits: %.3g%% wrap, accuracy %.2f%%", name, width, 100 * wraps / values, accuracy)
    return rows
