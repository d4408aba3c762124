"""Benchmarks of lookups: random transfers, making and reading, time of one party."""

from __future__ import annotations

import statistics

from autoprivacy.bench.timing import REPEATS, Result
from autoprivacy.lookup.rates import TRANSFERS, LookupTimer

INDEX_WORDS = 16  # of the one-hot vector of an index of 10 bits
# Nanoseconds that are aimed at, of one party.
TARGETS = {"random-transfer-4": 8.0, "random-transfer-8": 68.0, "lookup-make-index": 500.0, "lookup-read": 40.0}


def lookups() -> dict[str, Result]:
    """Nanoseconds of a random transfer from trees of 4 and 8 bits, of making an index of 10 bits, of reading a lookup.

    The mean of both parties.
    """
    timer = LookupTimer()
    passes = [timer.times() for _ in range(REPEATS + 1)][1:]
    median = {name: statistics.median(times[name] for times in passes) * 1e9 / 2 for name in passes[0]}
    values = {
        "random-transfer-4": median[TRANSFERS[4]],
        "random-transfer-8": median[TRANSFERS[8]],
        "lookup-make-index": median["lookup"] + INDEX_WORDS * median["lookup_word"],
        "lookup-read": median["lookup_read"],
    }
    return {name: Result(value, "ns", TARGETS[name]) for name, value in values.items()}
