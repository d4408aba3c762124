"""The paper's Figures 3 and 4 from the experiments of the same names, and what its Figure 6 marks of a network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from autoprivacy.report.figures import STYLE, LayerKind, panels
from autoprivacy.report.results import scheme

Rows = Sequence[Mapping[str, Any]]

BASE = (11, 120)  # log n and log q that the paper normalises to (Figure 3)
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito
_MARKERS = ("o", "s", "^", "D")
_PACKINGS = {"slot": "#D55E00", "coefficient": "#0072B2"}
_FLOODINGS = {"none": ("--", "none"), "statistical": ("-", None)}
# The kinds of selection.sensitivity: axis label and the paper's panel.
_KINDS = {
    "kernel size": ("(a) kernel size k of a k x k convolution", "kernel size"),
    "bit width": ("(b) bits of weights and activations", "bit width"),
    "error rate": ("(c) decryption error rate, log2", "error rate"),
}
# What the paper calls the schemes in Figures 4(d) and 6.
_NAMES = {"delphi": "net", "darl": "net-L", "autoprivacy": "layer"}


def layer_kinds(quantization: Rows) -> dict[str, LayerKind]:
    """By layer what a figure marks.

    A block is what the names of its layers share, as `blocks.3` of `blocks.3.conv2`.

    Args:
        quantization: the rows of a network's quantization table.
    """
    return {
        row["name"]: LayerKind(
            block=row["name"].rpartition(".")[0] or row["name"],
            size=_output_side(row),
            depthwise=int(row["groups"]) > 1,
        )
        for row in quantization
    }


def _output_side(row: Mapping[str, Any]) -> int:
    return -(-int(row["x_h"]) // max(1, int(row["s_s"])))


def multiplication_figure(rows: Rows) -> Figure:
    """Latency of a multiplication over n and q, normalised as in the paper's Figure 3, a panel per implementation.

    Hollow markers have less than 128 bits of security.

    Args:
        rows: of the experiment `multiplication`.
    """
    names = list(dict.fromkeys(row["implementation"] for row in rows))
    with mpl.rc_context(STYLE):
        figure, axes = panels(1, len(names), 4.4, sharey=True)
        for axis, name in zip(axes, names, strict=True):
            own = [row for row in rows if row["implementation"] == name]
            _draw_multiplications(axis, own)
            axis.set_title(name)
            axis.set_xlabel("ciphertext modulus, log2 q (bits)")
        axes[0].set_ylabel(f"latency of a multiplication,\nnormalised to log n = {BASE[0]}, log q = {BASE[1]}")
        handles, labels = axes[0].get_legend_handles_labels()
        marker: dict[str, Any] = {"linestyle": "none", "marker": "o", "color": "#444444"}
        (hollow,) = axes[0].plot([], [], markerfacecolor="white", **marker)
        figure.legend(
            [*handles, hollow], [*labels, "hollow: below 128 bits of security"], loc="outside upper center", ncols=5
        )
    return figure


def _draw_multiplications(axis: Axes, rows: Rows) -> None:
    base = next(row["seconds_median"] for row in rows if (math.log2(row["polynomial_degree"]), row["log2_q"]) == BASE)
    degrees = sorted({row["polynomial_degree"] for row in rows})
    for degree, colour, marker in zip(degrees, itertools.cycle(_COLOURS), itertools.cycle(_MARKERS)):
        own = sorted((row for row in rows if row["polynomial_degree"] == degree), key=lambda row: float(row["log2_q"]))
        x, y = [row["log2_q"] for row in own], [row["seconds_median"] / base for row in own]
        axis.plot(x, y, color=colour, label=f"n = 2^{math.log2(degree):.0f}", linewidth=1.2, zorder=1)
        for row, value in zip(own, y, strict=True):
            fill = colour if row["secure"] == "True" else "white"
            axis.plot(
                row["log2_q"], value, marker=marker, markersize=6, color=colour, markerfacecolor=fill, linestyle="none"
            )
            if math.log2(degree) <= 13:  # the paper's
                axis.annotate(
                    f"{value:.1f}", (row["log2_q"], value), (0, 5), textcoords="offset points", ha="center", size=7
                )
    axis.set_yscale("log")
    axis.set_xticks(sorted({row["log2_q"] for row in rows}))
    axis.grid(axis="y")


def sensitivity_figure(rows: Rows, parameters: Rows) -> Figure:
    """The paper's Figure 4: (a) kernel size, (b) bit width, (c) error rate, (d) net, net-L and layer.

    In (a) and (b) n stands above q; a point without a set is left out.

    Args:
        rows: of the experiment `sensitivity`.
        parameters: of `tables.parameters_rows`; (d) takes those of the network that has most layers alike, the first.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.0, 7.6), layout="constrained")
        grid = figure.add_gridspec(4, 2, height_ratios=(1, 2, 0.2, 3))
        for column, kind in enumerate(("kernel size", "bit width")):
            degree, modulus = figure.add_subplot(grid[0, column]), figure.add_subplot(grid[1, column])
            _draw_kind(degree, rows, kind, "polynomial_degree")
            _draw_kind(modulus, rows, kind, "log2_q")
            degree.set_ylabel("log2 n")
            modulus.set_ylabel("log2 q (bits)")
            degree.set_xticklabels([])
            modulus.set_xlabel(_KINDS[kind][0])
            modulus.set_ylim(0)
        rate = figure.add_subplot(grid[3, 0])
        _draw_kind(rate, rows, "error rate", "log2_q")
        rate.set_xlabel(_KINDS["error rate"][0])
        rate.set_ylabel("log2 q (bits)")
        rate.set_ylim(0)
        _draw_schemes(figure.add_subplot(grid[3, 1]), parameters)
        figure.legend(*rate.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _draw_kind(axis: Axes, rows: Rows, kind: str, column: str) -> None:
    for packing, colour in _PACKINGS.items():
        for flooding, (line, fill) in _FLOODINGS.items():
            own = [
                row
                for row in rows
                if (row["kind"], row["packing"], row["flooding"]) == (kind, packing, flooding) and row[column] != ""
            ]
            values = [float(row[column]) for row in own]
            if column == "polynomial_degree":
                values = [math.log2(value) for value in values]
            axis.plot(
                [row["level"] for row in own],
                values,
                color=colour,
                linestyle=line,
                marker="o",
                markersize=4,
                markerfacecolor=fill or colour,
                label=f"{packing}, flooding {flooding}",
            )
    axis.grid(axis="y")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if column == "polynomial_degree":
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        low, high = axis.get_ylim()
        axis.set_ylim(low - 0.4, high + 0.4)


def _draw_schemes(axis: Axes, parameters: Rows) -> None:
    """Bars from the smallest to the largest q of each scheme of the paper, a dot at the mean, n beside."""
    network = parameters[0]["network"]
    packings = [p for p in _PACKINGS if any(row["packing"] == p for row in parameters)]
    names = [name for name in _NAMES if any(row["scheme"] == name for row in parameters)]
    for place, name in enumerate(names):
        for number, packing in enumerate(packings):
            own = [
                row for row in parameters if (row["network"], row["scheme"], row["packing"]) == (network, name, packing)
            ]
            if not own:
                continue
            bits = [row["log2_q"] for row in own]
            x = place + 0.44 * (number - (len(packings) - 1) / 2)
            axis.vlines(x, min(bits), max(bits), color=_PACKINGS[packing], linewidth=6, alpha=0.35)
            mean = sum(bits) / len(bits)
            axis.plot(x, mean, marker=scheme(name).marker, markersize=6, color=_PACKINGS[packing])
            degrees = sorted({int(math.log2(row["polynomial_degree"])) for row in own})
            text = f"{mean:.0f} bits\nn = 2^{', 2^'.join(map(str, degrees))}"
            axis.annotate(text, (x, max(bits)), (0, 5), textcoords="offset points", ha="center", size=7)
    axis.set_xticks(range(len(names)), [f"{_NAMES[name]}\n({name})" for name in names])
    axis.set_xlabel(f"(d) schemes, {network}")
    axis.set_ylabel("log2 q (bits)")
    axis.set_ylim(0, axis.get_ylim()[1] * 1.25)
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.grid(axis="y")
