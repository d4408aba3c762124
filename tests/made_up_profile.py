"""A hardware profile by rule and a link, so that what is selected in a test hangs on no machine."""

from __future__ import annotations

import math

from autoprivacy.he.latency import Link
from autoprivacy.he.profiling import OperationProfile

LINK = Link(1e9, 1e-3)


def made_up_profile(degrees: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384)) -> OperationProfile:
    """Times that grow as n log n and with the number of primes."""
    base = {
        "encrypt": 120e-9,
        "load": 20e-9,
        "product": 1.5e-9,
        "reply": 300e-9,
        "decrypt": 60e-9,
        "encoding": 10e-9,
        "rotation": 500e-9,
    }
    table = {
        (degree, count): {
            operation: dict.fromkeys(
                ("median", "lower_quartile", "upper_quartile"), seconds * degree * count * math.log2(degree) / 10
            )
            for operation, seconds in base.items()
        }
        for degree in degrees
        for count in range(1, 5)
    }
    return OperationProfile(table, {})


PROFILE = made_up_profile()
