"""The figures of the studies of decryption errors: what a network tolerates, and how error rates are estimated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from autoprivacy.report.figures import STYLE, WIDTH

Rows = Sequence[Mapping[str, Any]]

# Palette of Okabe and Ito.
_METHODS = {"gaussian fit": "#009E73", "brute force": "#D55E00", "sigma-scaled": "#0072B2"}
_NOISES = {"flooded": ("-", "o"), "unflooded": ("--", "s")}
_COLOURS = ("#0072B2", "#D55E00", "#009E73")
_PANELS = {
    "rate": "decryption error rate\nof {unit}, log2",
    "tau": "noise tau in\naccumulator LSBs, log2",
    "step": "noise tau in units\nof the step 2^f, log2",
    "ignored": "ignored share bits t,\nat most f",
}
_ERRORS = (1e-3, 1e2)  # relative errors that are drawn; beyond, an estimate says nothing
_NAME_INCHES = 0.075  # height that a letter of a turned layer name takes
_LEAST_POINTS = 1.0  # of accuracy that a panel shows at least, so that noise does not look like a loss


def sampling_figure(rows: Rows) -> Figure:
    """Relative error of each method over the number of samples, a panel per target rate.

    Args:
        rows: those of `search.rate_estimation.study_rows`, of one or several noises.
    """
    targets = sorted({row["target"] for row in rows})
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
        axes = figure.subplots(1, len(targets), sharey=True, squeeze=False)[0]
        for axis, target in zip(axes, targets, strict=True):
            _draw_sampling(axis, [row for row in rows if row["target"] == target])
            axis.set_title(f"target rate 2^\N{MINUS SIGN}{target}")
            axis.set_xlabel("samples")
        axes[0].set_ylabel("relative error of the estimate\n(root mean square)")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _draw_sampling(axis: Axes, rows: Rows) -> None:
    for noise in dict.fromkeys(row["noise"] for row in rows):
        line, marker = _NOISES[noise]
        for method, colour in _METHODS.items():
            own = [row for row in rows if row["noise"] == noise and row["method"] == method]
            # estimates that do not exist leave a gap; the label has to be there all the same
            errors = [float("nan") if row["relative_error"] == "" else row["relative_error"] for row in own]
            look: dict[str, Any] = {"color": colour, "linestyle": line, "marker": marker, "markersize": 4}
            axis.plot([row["samples"] for row in own], errors, label=f"{method}, {noise}", linewidth=1.4, **look)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylim(*_ERRORS)
    axis.grid()


def tolerance_figure(rows: Rows, unit: str) -> Figure:
    """Change of the accuracy with its 95% interval: over error rates and noise sizes, and layer by layer.

    Args:
        rows: those of `search.tolerance.study_rows` of one network and packing.
        unit: what a rate is the rate of: `an output` or `a ciphertext`.
    """
    everywhere = [row for row in rows if not row["layer"]]
    kinds = list(dict.fromkeys(row["kind"] for row in everywhere))
    alone = [row for row in rows if row["layer"]]
    longest = max((len(row["layer"]) for row in alone), default=0)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 5.2 + _NAME_INCHES * longest), layout="constrained")
        grid = figure.add_gridspec(2 if alone else 1, len(kinds))
        for column, kind in enumerate(kinds):
            axis = figure.add_subplot(grid[0, column])
            own = [row for row in everywhere if row["kind"] == kind]
            _draw_changes(axis, [row["level"] for row in own], own, _COLOURS[0])
            _finish_changes(axis)
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axis.set_xlabel(_PANELS.get(kind, "{kind}, log2").format(unit=unit, kind=kind))
        if alone:
            _draw_layers(figure.add_subplot(grid[1, :]), alone)
        figure.axes[0].set_ylabel("change of accuracy\n(points)")
    return figure


def _draw_changes(axis: Axes, positions: Sequence[float], rows: Rows, colour: str, label: str | None = None) -> None:
    changes = [row["difference_points"] for row in rows]
    # the interval's centre is not the difference: where few answers differ it may even lie beyond a bound
    below = [max(0.0, change - row["low_points"]) for change, row in zip(changes, rows, strict=True)]
    above = [max(0.0, row["high_points"] - change) for change, row in zip(changes, rows, strict=True)]
    look: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 4, "elinewidth": 1.0, "capsize": 2}
    axis.errorbar(positions, changes, yerr=(below, above), color=colour, label=label, **look)


def _finish_changes(axis: Axes) -> None:
    axis.axhline(0, color="#666666", linewidth=0.8)
    axis.grid(axis="y")
    bottom, top = axis.get_ylim()
    axis.set_ylim(min(bottom, -_LEAST_POINTS), max(top, _LEAST_POINTS))


def _setting(row: Mapping[str, Any]) -> str:
    """What was done to single layers, the same words for all of them."""
    if row["kind"] == "ignored":
        return "t = f"
    return f"rate 2^{row['level']:g}" if row["kind"] == "rate" else f"tau = 2^(f{row['level']:+g})"


def _draw_layers(axis: Axes, rows: Rows) -> None:
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    settings = list(dict.fromkeys(_setting(row) for row in rows))
    for number, setting in enumerate(settings):
        own = [row for row in rows if _setting(row) == setting]
        offset = 0.3 * (number / max(1, len(settings) - 1) - 0.5)
        positions = [layers.index(row["layer"]) + offset for row in own]
        _draw_changes(axis, positions, own, _COLOURS[number % len(_COLOURS)], setting)
    axis.set_xticks(range(len(layers)), layers, rotation=90)
    axis.set_xlabel("the one layer with errors")
    axis.set_ylabel("change of accuracy\n(points)")
    _finish_changes(axis)
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(settings))  # above, where no bar stands
