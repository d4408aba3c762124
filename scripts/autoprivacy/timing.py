"""How times are taken and summed up: CPU seconds of the thread that works; median and quartiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

QUARTILES = ("median", "lower_quartile", "upper_quartile")


def thread_seconds(operation: Callable[[], object]) -> float:
    """CPU seconds of one call in this thread.

    For an operation that runs in one thread this is wall time on an idle machine; on a busy one it is disturbed less.
    """
    start = time.thread_time()
    operation()
    return time.thread_time() - start


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles, by the names of QUARTILES."""
    lower, median, upper = np.percentile(np.asarray(values, np.float64), (25, 50, 75))
    return dict(zip(QUARTILES, (float(median), float(lower), float(upper)), strict=True))
