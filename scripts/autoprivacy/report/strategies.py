"""The comparison of search strategies: mean and spread over the seeds, and the figure of best accuracy on the way.

Read from comparison/<network>.csv alone, like the rest of the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from autoprivacy.report.figures import STYLE, panels

# Colour (palette of Okabe and Ito) and line style, in the order in which strategies first appear.
LOOKS = (
    ("#000000", "-"),
    ("#E69F00", "--"),
    ("#56B4E9", ":"),
    ("#009E73", "-."),
    ("#D55E00", "-"),
    ("#0072B2", "--"),
    ("#CC79A7", "-."),
)

SMALLEST_SPAN = 1.0  # points of accuracy that the axis shows at least


def summary_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per network and strategy the mean and spread over the seeds at the end, the most accurate on other images first.

    Args:
        rows: of `Comparison.run`, numbers as floats.
    """
    last: dict[tuple[str, str], dict[float, Mapping[str, Any]]] = {}
    for row in rows:
        last.setdefault((row["network"], row["strategy"]), {})[row["seed"]] = row
    summary = []
    for (network, strategy), runs in last.items():
        row = {"network": network, "strategy": strategy, "seeds": len(runs)}
        for name in ("accuracy_percent", "held_out_accuracy_percent", "latency_seconds", "evaluations"):
            values = [float(run[name]) for run in runs.values()]
            row[name] = round(float(np.mean(values)), 6)
            row[f"{name}_deviation"] = round(float(np.std(values, ddof=1)), 6) if len(values) > 1 else 0.0
        summary.append(row)
    networks = list(dict.fromkeys(row["network"] for row in summary))
    return sorted(summary, key=lambda row: (networks.index(row["network"]), -row["held_out_accuracy_percent"]))


def curves(
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Per network and strategy the evaluations at which all seeds have a policy, and float64 [seeds, evaluations] of
    the best accuracy; a run that ended keeps its last."""
    networks: dict[str, dict[str, dict[float, dict[int, float]]]] = {}
    for row in rows:
        runs = networks.setdefault(row["network"], {}).setdefault(row["strategy"], {})
        runs.setdefault(row["seed"], {})[int(row["evaluations"])] = float(row["accuracy_percent"])
    drawn: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for network, strategies in networks.items():
        end = max(max(run) for runs in strategies.values() for run in runs.values())
        drawn[network] = {}
        for strategy, runs in strategies.items():
            numbers = np.arange(max(min(run) for run in runs.values()), end + 1)
            best = [[run[min(n, max(run))] for n in numbers.tolist()] for run in runs.values()]
            drawn[network][strategy] = numbers, np.array(best)
    return drawn


def comparison_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Best accuracy so far against the policies tried: the mean over the seeds, the band from worst to best.

    The axis begins a little below the worst end: how bad the first guesses were is cut off.
    """
    drawn = curves(rows)
    strategies = list(dict.fromkeys(row["strategy"] for row in rows))
    looks = {name: LOOKS[index % len(LOOKS)] for index, name in enumerate(strategies)}
    with mpl.rc_context(STYLE):
        figure, axes = panels(len(drawn), 1, 0.9 + 3.2 * len(drawn), sharex=True)
        for axis, (network, own) in zip(axes, drawn.items(), strict=True):
            for strategy, (numbers, accuracies) in own.items():
                _draw_curve(axis, strategy, numbers, accuracies, looks[strategy])
            ends = [float(accuracy) for _, best in own.values() for accuracy in best[:, -1]]
            room = max(max(ends) - min(ends), SMALLEST_SPAN)
            axis.set_ylim(min(ends) - room / 2, max(ends) + room / 8)
            axis.set_ylabel("best accuracy under the\nlatency budget (%)")
            axis.set_title(network)
            axis.grid(axis="y")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[-1].set_xlabel("policies tried")
        found = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=4)
    return figure


def _draw_curve(axis: Axes, name: str, numbers: np.ndarray, accuracies: np.ndarray, look: tuple[str, str]) -> None:
    colour, line = look
    mean = accuracies.mean(0)
    # a strategy may propose one policy at its very end: a marker shows where the first one stands
    axis.plot(numbers, mean, label=name, color=colour, linestyle=line, marker="o", markevery=[0], markersize=4)
    axis.fill_between(numbers, accuracies.min(0), accuracies.max(0), color=colour, alpha=0.12, linewidth=0)
