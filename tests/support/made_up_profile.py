"""A hardware profile by rule and a link, so that what is selected in a test hangs on no machine."""

from __future__ import annotations

import math

from autoprivacy.he.profiling.profile import OperationProfile
from autoprivacy.he.ring.primes import PRIME_SIZES
from autoprivacy.link import Link

LINK = Link(1e9, 1e-3)


def made_up_profile(
    degrees: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384), small_cost: float = 0.25
) -> OperationProfile:
    """Times that grow as n log n and with the number of primes, `small_cost` times as long where these are small."""
    base = {
        "calls": 300e-9,
        "encrypt": 120e-9,
        "load": 20e-9,
        "arrange": 10e-9,
        "product": 1.5e-9,
        "sum": 5e-9,
        "reply": 300e-9,
        "wide_flood": 100e-9,
        "decrypt": 60e-9,
        "encoding": 10e-9,
        "rotation": 500e-9,
    }
    table = {
        (degree, count, size): {
            operation: dict.fromkeys(
                ("median", "lower_quartile", "upper_quartile"),
                share * seconds * degree * count * math.log2(degree) / 10,
            )
            for operation, seconds in base.items()
        }
        for degree in degrees
        for count in range(1, 5)
        for size, share in zip(PRIME_SIZES, (small_cost, 1.0), strict=True)
    }
    return OperationProfile(table, {})


PROFILE = made_up_profile()
