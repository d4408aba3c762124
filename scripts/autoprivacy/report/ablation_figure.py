"""The ablation as a figure: bits of q and predicted latency, step by step, of one network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autoprivacy.report.figures import STYLE, WIDTH
from autoprivacy.report.text import significant

# Colours of the palette of Okabe and Ito; hatches, so that colour is not the only difference.
PACKINGS = {"slot": ("#E69F00", "//"), "coefficient": ("#0072B2", "")}
BAR = 0.8  # of a step's width that its bars share
HEIGHT = 6.6


def ablation_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Bars per step and packing, a column of panels per flooding: bits of q above, seconds below.

    Args:
        rows: those of `ablation.ablation_rows` that belong to one network.
    """
    floodings = list(dict.fromkeys(row["flooding"] for row in rows))
    steps = list(dict.fromkeys(row["step"] for row in rows))
    packings = [packing for packing in PACKINGS if any(row["packing"] == packing for row in rows)]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        axes = figure.subplots(2, len(floodings), squeeze=False, sharex=True)
        for column, flooding in enumerate(floodings):
            own = {
                (row["packing"], row["step"]): row for row in rows if row["flooding"] == flooding and not row["note"]
            }
            for index, packing in enumerate(packings):
                _draw(axes[0, column], own, packing, steps, index, len(packings), "log2_q_mean")
                _draw(axes[1, column], own, packing, steps, index, len(packings), "latency_seconds")
            axes[0, column].set_title(f"flooding: {flooding}")
            axes[1, column].set_xticks(range(len(steps)), steps, rotation=35, ha="right")
        axes[0, 0].set_ylabel("bits of q as deployed,\nmean (bar) and maximum (line)")
        axes[1, 0].set_ylabel("predicted latency of\nlinear layers (s)")
        figure.suptitle(f"{rows[0]['network']} ({rows[0]['weights']} weights)", size=10)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=len(packings))
    return figure


def _draw(
    axis: Axes,
    rows: Mapping[tuple[str, str], Mapping[str, Any]],
    packing: str,
    steps: Sequence[str],
    index: int,
    count: int,
    key: str,
) -> None:
    colour, hatch = PACKINGS[packing]
    width = BAR / count
    places = [place for place, step in enumerate(steps) if (packing, step) in rows]
    left = [place - BAR / 2 + (index + 0.5) * width for place in places]
    own = [rows[packing, steps[place]] for place in places]
    axis.bar(left, [row[key] for row in own], width, label=f"{packing} packing", color=colour, hatch=hatch, ec="white")
    for x, row in zip(left, own, strict=True):
        top = row[key]
        if key == "log2_q_mean":
            top = row["log2_q_max"]
            axis.plot([x - width / 2, x + width / 2], [top, top], color="#333333", linewidth=1.2)
        text = f"{row[key]:.0f}" if key == "log2_q_mean" else significant(row[key], 2)
        axis.annotate(text, (x, top), (0, 2), textcoords="offset points", ha="center", size=7)
    axis.grid(axis="y")
