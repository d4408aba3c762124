"""The comparison of search strategies: mean and spread over the seeds, and the figure of best accuracy on the way.

Read from comparison/<network>/<seed>.csv alone, like the rest of the report.
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
ACCURACY, LATENCY = "accuracy_percent", "latency_seconds"
COLUMNS = (ACCURACY, LATENCY, "chosen_accuracy_percent", "held_out_accuracy_percent", "evaluations")


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
        for name in COLUMNS:
            values = [float(run[name]) for run in runs.values()]
            row[name] = round(float(np.mean(values)), 6)
            row[f"{name}_deviation"] = round(float(np.std(values, ddof=1)), 6) if len(values) > 1 else 0.0
        summary.append(row)
    networks = list(dict.fromkeys(row["network"] for row in summary))
    return sorted(summary, key=lambda row: (networks.index(row["network"]), -row["held_out_accuracy_percent"]))


def curves(
    rows: Sequence[Mapping[str, Any]], column: str = ACCURACY
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Per network and strategy the evaluations at which all seeds have a policy, and float64 [seeds, evaluations] of
    a column; a run that ended keeps its last."""
    networks: dict[str, dict[str, dict[float, dict[int, float]]]] = {}
    for row in rows:
        runs = networks.setdefault(row["network"], {}).setdefault(row["strategy"], {})
        runs.setdefault(row["seed"], {})[int(row["evaluations"])] = float(row[column])
    drawn: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for network, strategies in networks.items():
        end = max(max(run) for runs in strategies.values() for run in runs.values())
        drawn[network] = {}
        for strategy, runs in strategies.items():
            numbers = np.arange(max(min(run) for run in runs.values()), end + 1)
            values = [[run[min(n, max(run))] for n in numbers.tolist()] for run in runs.values()]
            drawn[network][strategy] = numbers, np.array(values)
    return drawn


def comparison_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Against the policies tried, per network: the best accuracy under the budget, and the latency of the fastest
    policy that loses next to none (of the most accurate one as long as all lose more). The mean over the seeds, the
    band from the lowest to the highest.

    The accuracy axis begins a little below the worst end: how bad the first guesses were is cut off.
    """
    accuracies, latencies = curves(rows), curves(rows, LATENCY)
    strategies = list(dict.fromkeys(row["strategy"] for row in rows))
    looks = {name: LOOKS[index % len(LOOKS)] for index, name in enumerate(strategies)}
    with mpl.rc_context(STYLE):
        figure, axes = panels(len(accuracies), 2, 0.9 + 3.2 * len(accuracies), sharex=True)
        for network, (left, right) in zip(accuracies, zip(axes[::2], axes[1::2], strict=True), strict=True):
            for axis, own in ((left, accuracies[network]), (right, latencies[network])):
                for strategy, (numbers, values) in own.items():
                    _draw_curve(axis, strategy, numbers, values, looks[strategy])
                axis.set_title(network)
                axis.grid(axis="y")
                axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            _cut_off(left, accuracies[network])
            left.set_ylabel("best accuracy under the\nlatency budget (%)")
            right.set_ylabel("predicted latency of the\npolicy chosen (s)")
        for axis in axes[-2:]:
            axis.set_xlabel("policies tried")
        found = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=4)
    return figure


def _cut_off(axis: Axes, accuracies: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    ends = [float(accuracy) for _, best in accuracies.values() for accuracy in best[:, -1]]
    room = max(max(ends) - min(ends), SMALLEST_SPAN)
    axis.set_ylim(min(ends) - room / 2, max(ends) + room / 8)


def _draw_curve(axis: Axes, name: str, numbers: np.ndarray, values: np.ndarray, look: tuple[str, str]) -> None:
    colour, line = look
    mean = values.mean(0)
    # a strategy may propose one policy at its very end: a marker shows where the first one stands
    axis.plot(numbers, mean, label=name, color=colour, linestyle=line, marker="o", markevery=[0], markersize=4)
    axis.fill_between(numbers, values.min(0), values.max(0), color=colour, alpha=0.12, linewidth=0)
