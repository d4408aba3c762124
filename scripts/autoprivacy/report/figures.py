"""The figures of the report, in the shape of the paper's Figures 1(a) and 6, and the history of the search.

Each function returns a matplotlib figure, readable at 1000 pixels of width; `save` writes it as PDF, PNG and SVG.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from autoprivacy.errors import UserError
from autoprivacy.report.results import ResultFile, scheme
from autoprivacy.report.tables import contenders, cpu_seconds_by_kind
from autoprivacy.report.text import significant
from autoprivacy.storage import atomic_write

WIDTH = 10.0  # inches; at DPI this is 1000 pixels
DPI = 100
STYLE: Any = {  # mypy: matplotlib types the keys one by one
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures look the same everywhere
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.titlesize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "autoprivacy",  # the same results give the same bytes
}

# Kinds of work in the order in which bars stack them: label, colour (palette of Okabe and Ito, and greys).
KINDS = {
    "he": ("HE", "#0072B2"),
    "garbling": ("garbling and evaluating", "#E69F00"),
    "lookup": ("lookups", "#F0E442"),
    "ot": ("oblivious transfer", "#009E73"),
    "linear": ("linear layers in clear", "#CC79A7"),
    "waiting": ("waiting and receiving", "#666666"),
    "shares": ("shares", "#56B4E9"),
    "session": ("session", "#BBBBBB"),
}
_PHASES = ("offline", "online")
_MARKER_FILLS = {"slot": "#BBBBBB"}  # of packings whose markers are not hollow: a scheme keeps colour and shape
_NETWORK_LOOKS = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"))  # Okabe and Ito
_CROWDED = 12  # more layer names than these do not fit side by side
_NAME_INCHES = 0.075  # height that a letter of a turned layer name takes


def save(figure: Figure, path: Path) -> None:
    """Write `path`.svg, `path`.png and `path`.pdf; dates and versions stay out, so equal results make equal files."""
    FigureCanvasAgg(figure)
    with mpl.rc_context(STYLE):  # the SVG writer reads its settings when it writes
        with atomic_write(path.with_suffix(".svg")) as stream:
            empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            figure.savefig(stream, format="svg", metadata=empty)
        with atomic_write(path.with_suffix(".png")) as stream:
            figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
        with atomic_write(path.with_suffix(".pdf")) as stream:
            undated = dict.fromkeys(("CreationDate", "Creator", "Producer"))
            figure.savefig(stream, format="pdf", metadata=undated)


def panels(rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of the report's width and so many inches of height, and its axes row by row."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, [axis for line in axes for axis in line]


@dataclass(frozen=True)
class LayerKind:
    """What a figure marks of a layer: the block it is in, the size of its output, whether it is depthwise."""

    block: str
    size: int
    depthwise: bool


def parameters_figure(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, LayerKind] | None = None) -> Figure:
    """Polynomial degree and ciphertext modulus per layer under each scheme (the shape of the paper's Figure 6).

    A pair of panels per packing. Below, where a scheme has any, the share bits that activations ignore;
    0 is an exact rounding.

    Args:
        rows: those of `tables.parameters_rows` that belong to one network.
        kinds: by layer, to mark blocks and depthwise layers; None marks nothing.
    """
    by_contender: dict[str, list[Mapping[str, Any]]] = {}
    for row, name in zip(rows, contenders(rows), strict=True):
        by_contender.setdefault(name, []).append(row)
    layers = [row["layer"] for row in next(iter(by_contender.values()))]
    for name, own in by_contender.items():
        if [row["layer"] for row in own] != layers:
            raise UserError(f"policy {name} of {rows[0]['network']}: layers differ from the first policy's {layers}")
    turned = max(len(layer) for layer in layers) * _NAME_INCHES if len(layers) > _CROWDED else 0.0
    with mpl.rc_context(STYLE):
        ignoring = any(row["ignored_share_bits"] for row in rows)
        packings = sorted({str(row["packing"]) for row in rows}, reverse=True)  # slot, the paper's, above
        figure, axes = panels(2 * len(packings) + ignoring, 1, 1.2 + 2.0 * (2 * len(packings) + ignoring) + turned)
        for place, packing in enumerate(packings):
            degree, modulus = axes[2 * place : 2 * place + 2]
            degree.set_title(f"{packing} packing")
            for own in (own for own in by_contender.values() if own[0]["packing"] == packing):
                name = own[0]["scheme"]
                _draw_contender(degree, name, own[0], [math.log2(row["polynomial_degree"]) for row in own])
                _draw_contender(modulus, name, own[0], [row["log2_q"] for row in own])
                if any(row["ignored_share_bits"] for row in own):
                    _draw_contender(axes[-1], name, own[0], [row["ignored_share_bits"] for row in own])
            _label_parameters(degree, modulus)
        if ignoring:
            axes[-1].set_ylabel("share bits ignored,\nt (0: exact)")
            axes[-1].yaxis.set_major_locator(MaxNLocator(integer=True))
        _label_layers(axes, layers)
        marks = _mark_layers(axes, [kinds[layer] for layer in layers]) if kinds else {}
        found = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        found |= marks
        figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=4)
    return figure


def _mark_layers(axes: Sequence[Axes], kinds: Sequence[LayerKind]) -> dict[str, Any]:
    """Bands behind depthwise layers, thin lines between blocks, thick ones where the feature maps change their size."""
    looks: dict[str, Any] = {}
    for axis in axes:
        for place, kind in enumerate(kinds):
            if kind.depthwise:
                band = axis.axvspan(place - 0.5, place + 0.5, color="#F0E442", alpha=0.35, linewidth=0, zorder=0)
                looks["depthwise layer"] = band
            if place and kind.block != kinds[place - 1].block:
                line = axis.axvline(place - 0.5, color="#aaaaaa", linewidth=0.6, zorder=0)
                looks["between blocks"] = line
            if place and kind.size != kinds[place - 1].size:
                thick = axis.axvline(place - 0.5, color="#555555", linewidth=1.2, linestyle=(0, (4, 2)), zorder=0)
                looks["feature maps change size"] = thick
    return looks


def _draw_contender(axis: Axes, name: str, row: Mapping[str, Any], values: Sequence[float]) -> None:
    look = scheme(row["scheme"])
    axis.plot(
        range(len(values)),
        values,
        label=name,
        color=look.colour,
        linestyle=look.line,
        linewidth=1.4,
        drawstyle="steps-mid",
        marker=look.marker,
        markersize=look.size * min(1.0, 2 * _CROWDED / len(values)),
        markerfacecolor=_MARKER_FILLS.get(row["packing"], "none"),
    )


def _label_parameters(degree: Axes, modulus: Axes) -> None:
    degree.set_ylabel("polynomial degree,\nlog2 n")
    degree.yaxis.set_major_locator(MultipleLocator(1))
    bottom, top = degree.get_ylim()
    degree.set_ylim(bottom - 0.3, top + 0.3)
    modulus.set_ylabel("ciphertext modulus,\nlog2 q (bits)")
    modulus.set_ylim(0, modulus.get_ylim()[1] * 1.05)


def _label_layers(axes: Sequence[Axes], layers: Sequence[str]) -> None:
    axes[-1].set_xlabel("linear layer")
    for axis in axes:
        axis.set_xticks(range(len(layers)), [""] * len(layers))
        axis.tick_params(axis="x", length=2)
        axis.grid(axis="y")
        axis.set_xlim(-0.6, len(layers) - 0.4)
    axes[-1].set_xticks(range(len(layers)), layers, rotation=90 if len(layers) > _CROWDED else 0)


def breakdown_figure(measurements: Sequence[ResultFile]) -> Figure:
    """CPU seconds of both parties per image by kind of work, offline and online (the shape of Figure 1(a))."""
    files = [
        {"scheme": file.scheme, "packing": file.get("packing"), "network_setting": file.get("network_setting")}
        for file in measurements
    ]
    names = [f"{file.network}, {name}" for file, name in zip(measurements, contenders(files), strict=True)]
    with mpl.rc_context(STYLE):
        figure, axes = panels(1, 2, 1.6 + 0.32 * len(names), sharey=True)
        for axis, phase in zip(axes, _PHASES, strict=True):
            _draw_breakdown(axis, [cpu_seconds_by_kind(measurement, phase) for measurement in measurements])
            axis.set_title(phase)
            axis.set_xlabel("CPU seconds per image, both parties")
        axes[0].set_yticks(range(len(names)), names)
        axes[0].invert_yaxis()
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=(len(KINDS) + 1) // 2)
    return figure


def _draw_breakdown(axis: Axes, breakdowns: Sequence[Mapping[str, float]]) -> None:
    unknown = {kind for breakdown in breakdowns for kind in breakdown} - set(KINDS)
    if unknown:
        raise UserError(f"measurement: kinds of work {sorted(unknown)}; expected {', '.join(KINDS)}")
    left = [0.0] * len(breakdowns)
    for kind, (label, colour) in KINDS.items():
        widths = [breakdown.get(kind, 0.0) for breakdown in breakdowns]
        axis.barh(range(len(widths)), widths, left=left, height=0.68, label=label, color=colour)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for position, total in enumerate(left):
        axis.annotate(significant(total), (total, position), (4, 0), textcoords="offset points", va="center", size=9)
    axis.set_xlim(0, max(left) * 1.12)  # room for the totals
    axis.grid(axis="x")
    axis.tick_params(axis="y", length=0)


def search_figure(episodes: Sequence[Mapping[str, Any]], searched: str) -> Figure:
    """Reward of each episode's policy and of the best so far; below, their predicted latency.

    Args:
        episodes: the rows of a search's CSV file.
        searched: the scheme.
    """
    numbers = [row["episode"] for row in episodes]
    colour = scheme(searched).colour
    with mpl.rc_context(STYLE):
        figure, (reward, latency) = panels(2, 1, 5.2, sharex=True)
        dots: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 3.5, "color": "#0072B2"}
        reward.plot(numbers, [row["reward"] for row in episodes], label="one episode's policy", **dots)
        latency.plot(numbers, [row["latency_seconds"] for row in episodes], **dots)
        for axis, column in ((reward, "best_reward"), (latency, "best_latency_seconds")):
            best = [row[column] for row in episodes]
            axis.plot(numbers, best, label="best so far", color=colour, linewidth=1.4, drawstyle="steps-post")
        reward.set_ylabel("reward\n(\N{MINUS SIGN}error, as a fraction)")
        latency.set_ylabel(f"predicted latency (s)\nof {scheme(searched).searched}")
        latency.set_xlabel("episode")
        latency.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axis in (reward, latency):
            axis.grid(axis="y")
        figure.legend(*reward.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def latency_figure(rows: Sequence[Mapping[str, Any]], tolerance: float) -> Figure:
    """Predicted against measured CPU seconds of every layer, one panel per packing, and the band of the tolerance.

    Args:
        rows: of `he.profiling.layer_timing.comparison_rows`.
        tolerance: half the band's width, as a share of the measured time.
    """
    packings = list(dict.fromkeys(row["packing"] for row in rows))
    networks = list(dict.fromkeys(row["network"] for row in rows))
    ends = [min(row["measured_seconds"] for row in rows) / 1.5, max(row["measured_seconds"] for row in rows) * 1.5]
    with mpl.rc_context(STYLE):
        figure, axes = panels(1, len(packings), 5.0, sharey=True, sharex=True)
        for axis, packing in zip(axes, packings, strict=True):
            band = f"\N{PLUS-MINUS SIGN}{tolerance:.0%}"
            axis.fill_between(
                ends,
                [end * (1 - tolerance) for end in ends],
                [end * (1 + tolerance) for end in ends],
                color="#dddddd",
                label=band,
                linewidth=0,
            )
            axis.plot(ends, ends, color="#666666", linewidth=0.8)
            for network, (colour, marker) in zip(networks, itertools.cycle(_NETWORK_LOOKS), strict=False):
                own = [row for row in rows if row["network"] == network and row["packing"] == packing]
                x, y = ([row[key] for row in own] for key in ("measured_seconds", "predicted_seconds"))
                axis.plot(
                    x,
                    y,
                    linestyle="none",
                    marker=marker,
                    markersize=5,
                    color=colour,
                    label=network,
                    markerfacecolor="none",
                )
            axis.set(xscale="log", yscale="log", xlim=ends, title=f"{packing} packing", aspect="equal")
            axis.set_xlabel("measured CPU seconds, both parties")
            axis.grid()
        axes[0].set_ylabel("predicted CPU seconds")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(networks) + 1)
    return figure
