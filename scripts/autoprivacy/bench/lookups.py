"""Benchmarks of lookups: random transfers, making and reading, time of one party."""

from __future__ import annotations

import statistics

from autoprivacy.bench.timing import REPEATS, Result
from autoprivacy.lookup.rates import TRANSFERS, LookupTimer
from autoprivacy.ot.silent_parameters import SILENT_PARAMETERS
from autoprivacy.ot.transfers import TransferKind

INDEX_WORDS = 16  # of the one-hot vector of an index of 10 bits
# Nanoseconds that are aimed at, of one party.
TARGETS = {
    "random-transfer-4": 8.0,
    "random-transfer-8": 68.0,
    "silent-transfer": 90.0,
    "lookup-make-index": 500.0,
    "lookup-read": 40.0,
}


def lookups() -> dict[str, Result]:
    """Nanoseconds of a random transfer from trees of 4 and 8 bits and of a silent one of the table with the fewest
    bytes, of making an index of 10 bits, of reading a lookup: the mean of both parties.
    """
    timer = LookupTimer()
    passes = [timer.times() for _ in range(REPEATS + 1)][1:]
    median = {name: statistics.median(times[name] for times in passes) * 1e9 / 2 for name in passes[0]}
    values = {
        "random-transfer-4": median[TRANSFERS[TransferKind(4)]],
        "random-transfer-8": median[TRANSFERS[TransferKind(8)]],
        "silent-transfer": median[TRANSFERS[TransferKind(8, max(SILENT_PARAMETERS))]],
        "lookup-make-index": median["lookup"] + INDEX_WORDS * median["lookup_word"],
        "lookup-read": median["lookup_read"],
    }
    return {name: Result(value, "ns", TARGETS[name]) for name, value in values.items()}
