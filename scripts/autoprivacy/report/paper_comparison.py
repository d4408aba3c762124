"""The study beside the paper: one table and the sentences that its numbers support."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from autoprivacy.report.results import BASELINE
from autoprivacy.report.tables import contenders
from autoprivacy.report.text import change, megabytes, points, significant

NOT_KNOWN = "\N{EN DASH}"
BYTES_PER_GIGABYTE = 1e9
_CASE = ("network", "packing", "network_setting")  # rows that agree in these differ by their scheme alone
_PRINTED_TO = 0.005  # the paper prints two decimals

Row = Mapping[str, Any]


def comparison_cells(rows: Sequence[Row], paper: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Table 2's main columns, each beside the paper's value: header and cells.

    Args:
        rows: of `tables.table2_rows`.
        paper: config/paper.yaml.
    """
    header = ["network", "scheme"]
    for quantity in ("t_pre (s)", "t_on (s)", "t_total (s)", "m_total (MB)", "accuracy (%)"):
        header += [quantity, "paper"]
    return [*header, f"t_total against {BASELINE}", "paper"], [
        [row["network"], name, *_comparison_values(row, rows, paper)]
        for row, name in zip(rows, contenders(rows), strict=True)
    ]


def _comparison_values(row: Row, rows: Sequence[Row], paper: Mapping[str, Any]) -> list[str]:
    printed = paper_row(paper, row["network"], row["scheme"])
    cells: list[str] = []
    for time in ("t_pre_seconds", "t_on_seconds", "t_total_seconds"):
        cells += [significant(row[time]), f"{printed[time]:g}" if printed else NOT_KNOWN]
    traffic = megabytes(printed["m_total_gigabytes"] * BYTES_PER_GIGABYTE) if printed else NOT_KNOWN
    cells += [megabytes(row["m_total_bytes"]), traffic]
    cells += [f"{row['accuracy_percent']:.2f}", f"{printed['accuracy_percent']:.2f}" if printed else NOT_KNOWN]
    base, base_printed = baseline(row, rows), paper_row(paper, row["network"], BASELINE)
    compared = base is not None and row["scheme"] != BASELINE
    cells.append(change(row["t_total_seconds"], base["t_total_seconds"]) if base and compared else NOT_KNOWN)
    if printed and base_printed and row["scheme"] != BASELINE:
        return [*cells, change(printed["t_total_seconds"], base_printed["t_total_seconds"])]
    return [*cells, NOT_KNOWN]


def paper_row(paper: Mapping[str, Any], network: str, scheme: str) -> Row | None:
    """The paper's Table 2 row of a network and scheme; None when it has none."""
    row: Row | None = paper["table2"].get(network, {}).get(scheme)
    return row


def baseline(row: Row, rows: Sequence[Row]) -> Row | None:
    """The baseline scheme's row for the same network, packing and network setting; None when it was not measured."""
    for other in rows:
        if other["scheme"] == BASELINE and all(other[key] == row[key] for key in _CASE):
            return other
    return None


def comparison_sentences(rows: Sequence[Row], paper: Mapping[str, Any]) -> list[str]:
    """Each scheme against the baseline, as measured and as in the paper."""
    sentences = []
    for row, name in zip(rows, contenders(rows), strict=True):
        base = baseline(row, rows)
        if base is not None and row["scheme"] != BASELINE:
            parts = [_measured(row, name, base), _caution(row, base), _printed(row, paper)]
            sentences.append(" ".join(part for part in parts if part))
    return sentences


def _measured(row: Row, name: str, base: Row) -> str:
    time, base_time = row["t_total_seconds"], base["t_total_seconds"]
    traffic, base_traffic = row["m_total_bytes"], base["m_total_bytes"]
    return (
        f"{row['network']}: {name} takes {significant(time)} s per image where {BASELINE} takes "
        f"{significant(base_time)} s ({change(time, base_time)}) and sends {megabytes(traffic)} MB where {BASELINE} "
        f"sends {megabytes(base_traffic)} MB ({change(traffic, base_traffic)}); its accuracy differs by "
        f"{points(row['accuracy_percent'] - base['accuracy_percent'])} percentage points."
    )


def _caution(row: Row, base: Row) -> str:
    """What stands against reading the difference as the schemes' own."""
    text = ""
    lower, upper = (f"t_total_{quartile}_quartile_seconds" for quartile in ("lower", "upper"))
    if row[lower] <= base[upper] and base[lower] <= row[upper]:
        text += "The quartiles of the two times overlap, so the times show no clear difference."
    if row["flooding"] != base["flooding"]:
        text += f" The two flood differently ({row['flooding']} and {base['flooding']})."
    return text.strip()


def _printed(row: Row, paper: Mapping[str, Any]) -> str:
    own, base = (paper_row(paper, row["network"], scheme) for scheme in (row["scheme"], BASELINE))
    if own is None or base is None:
        return f"The paper has no row for {row['network']}, {row['scheme']}."
    time = change(own["t_total_seconds"], base["t_total_seconds"])
    text = f"The paper: {time} in time, {change(own['m_total_gigabytes'], base['m_total_gigabytes'])} in traffic."
    if not _adds_up(own, "t", "seconds"):
        parts = own["t_pre_seconds"] + own["t_on_seconds"]
        text += f" (Its parts add up to {parts:.2f} s, which would be {change(parts, base['t_total_seconds'])}.)"
    return text


def _adds_up(row: Row, quantity: str, unit: str) -> bool:
    parts = row[f"{quantity}_pre_{unit}"] + row[f"{quantity}_on_{unit}"]
    return math.isclose(parts, row[f"{quantity}_total_{unit}"], abs_tol=_PRINTED_TO)


def contradictions(paper: Mapping[str, Any], networks: Sequence[str]) -> list[str]:
    """The paper's rows for these networks whose printed total is not the sum of its parts."""
    found = []
    for network in networks:
        for scheme, row in paper["table2"].get(network, {}).items():
            for quantity, unit in (("t", "seconds"), ("m", "gigabytes")):
                if not _adds_up(row, quantity, unit):
                    pre, on, total = (row[f"{quantity}_{part}_{unit}"] for part in ("pre", "on", "total"))
                    found.append(
                        f"The paper's row {network}, {scheme} prints {quantity}_total = {total:g} {unit}, but "
                        f"{pre:g} and {on:g} add up to {pre + on:.2f}."
                    )
    return found
