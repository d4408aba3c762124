"""How numbers are written for people: significant digits, units, changes."""

from __future__ import annotations

import math

MINUS = "\N{MINUS SIGN}"


def significant(value: float, digits: int = 3) -> str:
    """`value` rounded to so many significant digits, never in exponent form, whole digits kept: 0.0123, 41.8, 1234."""
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    decimals = max(0, digits - 1 - magnitude)
    rounded = f"{abs(value):.{decimals}f}"
    if decimals and math.floor(math.log10(float(rounded))) > magnitude:  # 0.9996 has become 1.000, one digit too many
        rounded = f"{abs(value):.{decimals - 1}f}"
    return (MINUS if value < 0 else "") + rounded


def megabytes(count: float) -> str:
    """Bytes as megabytes of 10^6 bytes."""
    return significant(count / 1e6)


def change(new: float, old: float) -> str:
    """How far `new` is from `old`, in percent of `old`, with its sign."""
    percent = 100 * (new - old) / old
    if percent == 0:
        return "0%"
    sign = MINUS if percent < 0 else "+"
    return f"{sign}{significant(abs(percent), 2 if abs(percent) < 100 else 3)}%"


def fixed(value: float, form: str) -> str:
    """`value` in a format of fixed decimals, such as `.4f`, with a real minus sign."""
    return format(value, form).replace("-", MINUS)


def points(difference: float) -> str:
    """A difference of two percentages, in percentage points with its sign."""
    return fixed(round(difference, 2) + 0.0, "+.2f")  # a negative zero becomes zero


def less(percent: float) -> str:
    """A cut in percent, which is a rise where it is negative."""
    return f"{abs(percent):.0f}% {'more' if percent < 0 else 'less'}"


def extent(low: str, high: str) -> str:
    """A range of written numbers; one number where both are written alike."""
    return low if low == high else f"{low} to {high}"


def spread(median: float, lower: float, upper: float) -> str:
    """A median with its quartiles."""
    return f"{significant(median)} [{significant(lower)}, {significant(upper)}]"


def power_of_two(value: float) -> str:
    """A rate as a power of two with one decimal at most: 2^-40, 2^-7.3; 0 where it is too small to represent."""
    if value <= 0:
        return "0"
    exponent = round(math.log2(value), 1)
    return f"2^{exponent:g}".replace("-", MINUS)
