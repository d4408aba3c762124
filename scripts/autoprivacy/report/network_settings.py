"""Measurements under several network settings, and many images in a row: what the report shows of them."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autoprivacy.report.figures import STYLE, panels
from autoprivacy.report.results import ResultFile
from autoprivacy.report.tables import QUARTILES, contenders
from autoprivacy.report.text import significant, spread

NONE_OF_THEM = "\N{EN DASH}"
_PHASES = (("pre", "offline", "#0072B2"), ("on", "online", "#E69F00"))  # palette of Okabe and Ito
_MEGABIT, _MEGABYTE, _MILLISECOND = 1e6, 1e6, 1e-3

THROUGHPUT_NOTE = (
    "All images are asked for at once. Those with a bundle from the pool wait for the online phase alone; once the "
    "pool is dry, they wait for their offline phase too. Seconds on the client's clock, medians with quartiles."
)


def by_setting(measurements: Sequence[ResultFile]) -> dict[str, list[ResultFile]]:
    """The measurements by network setting, in the order in which these first appear."""
    groups: dict[str, list[ResultFile]] = {}
    for measurement in measurements:
        groups.setdefault(str(measurement.get("network_setting")), []).append(measurement)
    return groups


def under_every_setting(measurements: Sequence[ResultFile]) -> list[ResultFile]:
    """The measurements of networks, schemes and packings that every network setting has."""
    groups = by_setting(measurements).values()
    common = set.intersection(*({_contender(file) for file in own} for own in groups))
    return [file for file in measurements if _contender(file) in common]


def _contender(measurement: ResultFile) -> tuple[str, ...]:
    return measurement.network, *(str(measurement.get(key)) for key in ("scheme", "packing"))


def setting_text(measurement: ResultFile) -> str:
    """A network setting with what its connection is like."""
    name = str(measurement.get("network_setting"))
    if measurement.get("link", "bits_per_second") is None:
        return f"{name} (both parties on one machine)"
    rate = significant(measurement.number("link", "bits_per_second") / _MEGABIT)
    trip = significant(measurement.number("link", "round_trip_seconds") / _MILLISECOND)
    return f"{name} ({rate} Mbit/s each way, round trip {trip} ms)"


def names(measurements: Sequence[ResultFile]) -> list[str]:
    """What to call each measurement: network, scheme, and what else tells them apart."""
    keys = ("scheme", "packing", "network_setting")
    rows = [{key: measurement.get(key) for key in keys} for measurement in measurements]
    return [f"{file.network}, {name}" for file, name in zip(measurements, contenders(rows), strict=True)]


def settings_figure(measurements: Sequence[ResultFile]) -> Figure:
    """Seconds per image, offline and online, a panel per network setting with a scale of its own; last, the bytes.

    Of what was measured under every setting.
    """
    groups = by_setting(under_every_setting(measurements))
    longest = max(len(own) for own in groups.values())
    with mpl.rc_context(STYLE):
        figure, axes = panels(1, len(groups) + 1, 1.6 + 0.32 * longest, sharey=True)
        for axis, (setting, own) in zip(axes, groups.items(), strict=False):
            _draw_setting(axis, own, "t")
            axis.set_title(setting)
            axis.set_xlabel("seconds per image")
        _draw_setting(axes[-1], next(iter(groups.values())), "m")
        axes[-1].set_title("traffic, the same under each")
        axes[-1].set_xlabel("MB per image, both directions")
        own = next(iter(groups.values()))
        axes[0].set_yticks(range(len(own)), names(own))
        axes[0].invert_yaxis()
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(_PHASES))
    return figure


def _draw_setting(axis: Axes, measurements: Sequence[ResultFile], of: str) -> None:
    """Stacked bars of seconds (`t`) or of megabytes (`m`)."""
    left, unit = [0.0] * len(measurements), _MEGABYTE if of == "m" else 1.0
    for phase, label, colour in _PHASES:
        widths = [measurement.number("summary", f"{of}_{phase}", "median") / unit for measurement in measurements]
        axis.barh(range(len(widths)), widths, left=left, height=0.68, label=label, color=colour)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for position, (end, measurement) in enumerate(zip(left, measurements, strict=True)):
        # Table 2's median of the sums, which is not quite the sum of the medians
        total = significant(measurement.number("summary", "t_total", "median") if of == "t" else end)
        axis.annotate(total, (end, position), (4, 0), textcoords="offset points", va="center", size=9)
    axis.set_xlim(0, max(left) * 1.2)  # room for the totals
    axis.grid(axis="x")
    axis.tick_params(axis="y", length=0)


def throughput_cells(measurements: Sequence[ResultFile]) -> tuple[list[str], list[list[str]]]:
    """Many images at once on a pool that runs dry: header and a row per measurement that has them."""
    header = ["network, scheme", "images", "from the pool", "images per second", "seconds from the pool"]
    header += ["seconds, pool dry", "images differing"]
    measured = [
        (name, measurement)
        for name, measurement in zip(names(measurements), measurements, strict=True)
        if measurement.get("throughput") is not None
    ]
    return header, [
        [
            name,
            str(file.get("throughput", "images")),
            str(min(file.get("throughput", "pool"), file.get("throughput", "images"))),
            significant(file.number("throughput", "images_per_second")),
            _seconds(file, "seconds_from_pool"),
            _seconds(file, "seconds_pool_dry"),
            str(file.get("throughput", "images_differing")),
        ]
        for name, file in measured
    ]


def _seconds(measurement: ResultFile, key: str) -> str:
    if measurement.get("throughput", key) is None:
        return NONE_OF_THEM
    return spread(*(measurement.number("throughput", key, part) for part in ("median", *QUARTILES)))
