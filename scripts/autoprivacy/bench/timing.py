"""How benchmarks measure: the median of repeats, in CPU time of the one thread that works."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

REPEATS = 7
# A timing shorter than this is of several calls, so that the clock's resolution does not show.
SHORTEST_SECONDS = 2e-3


@dataclass(frozen=True)
class Result:
    """One measured number.

    Attributes:
        value: what was measured, in `unit`; less is better.
        unit: e.g. us.
        target: what it should not exceed; None where nothing is aimed at.
        yardstick: the same by the yardstick's library in the same run; None where it has no such operation or is not
            installed.
    """

    value: float
    unit: str
    target: float | None = None
    yardstick: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The result as it stands in bench.json."""
        return asdict(self)


def cpu_seconds(operation: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median CPU seconds of a call in this thread, after one that may compile kernels and one that tells how long."""
    operation()
    start = time.thread_time()
    operation()
    calls = max(1, round(SHORTEST_SECONDS / max(time.thread_time() - start, 1e-6)))
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        for _ in range(calls):
            operation()
        times.append((time.thread_time() - start) / calls)
    return statistics.median(times)
