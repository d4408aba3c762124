"""The paper's Tables 1, 2 and 3: rows for CSV files, and tables for people with the paper's numbers beside ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from autoprivacy.report import tables
from autoprivacy.report.network_settings import setting_text
from autoprivacy.report.paper_comparison import BYTES_PER_GIGABYTE, NOT_KNOWN, paper_row
from autoprivacy.report.results import ResultFile
from autoprivacy.report.table_formats import TextTable
from autoprivacy.report.text import extent, megabytes, power_of_two, significant

Row = Mapping[str, Any]
QUANTITIES = ("t_pre_seconds", "t_on_seconds", "t_total_seconds")
TRAFFIC = ("m_pre", "m_on", "m_total")
SECONDS_PER_HOUR = 3600.0
TABLE3_NETWORK, TABLE3_SCHEME = "mobilenetv2-cifar10", "autoprivacy"


def setting_caption(measurements: Sequence[ResultFile]) -> str:
    """Machine, connections and images of measurements, in a sentence each."""
    machines = dict.fromkeys(str(file.provenance.get("cpu", "unknown")) for file in measurements)
    settings = dict.fromkeys(map(setting_text, measurements))
    images = sorted({len(file.get("images")) for file in measurements})
    return (
        f"Machine: {', '.join(machines)}, both parties on it, one thread each. Network settings: "
        f"{'; '.join(settings)}. Images per row: {', '.join(map(str, images))}."
    )


def table1_rows(
    published: Sequence[Row], policies: Sequence[ResultFile], paper: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The published sets as printed and recomputed, and below them the sets of this study's policies.

    Args:
        published: rows of published-sets.csv.
        policies: of all networks, schemes and packings.
        paper: config/paper.yaml.
    """
    printed = {row["scheme"]: row for row in paper["table1"]}
    rows = [_published_row(row, printed[row["system"]]) for row in published]
    return rows + [_policy_row(policy) for policy in policies]


def _published_row(row: Row, printed: Row) -> dict[str, Any]:
    as_printed = row["reading"] == "as printed"
    return {
        "system": f"{row['system']} ({row['reading']})",
        "source": "paper, Table 1",
        "network": row["network"],
        "packing": row["packing"],
        "plaintext_bits": row["plaintext_bits"],
        "log2_n": math.log2(float(row["polynomial_degree"])),
        "log2_q_smallest": float(row["log2_q"]),
        "log2_q_largest": float(row["log2_q"]),
        "security_bits": float(row["security_bits"]),
        "printed_security": printed["security"] if as_printed else "",
        "error_rate": row["rate_per_value"],
        "ciphertext_error_rate": row["rate_per_ciphertext"],
        "printed_error_rate": printed["decryption_error"] if as_printed else "",
        "note": row["note"],
    }


def _policy_row(policy: ResultFile) -> dict[str, Any]:
    layers = tables.parameters_rows([policy])
    rates = [row["predicted_decryption_error_rate"] for row in layers]
    known = [rate for rate in rates if rate is not None]
    degrees = sorted({int(math.log2(row["polynomial_degree"])) for row in layers})
    worst = max(known) if known else ""
    in_slots = policy.get("packing") == "slot"
    return {
        "system": policy.scheme,
        "source": "this study",
        "network": policy.network,
        "packing": policy.get("packing"),
        "plaintext_bits": max((row["plaintext_modulus"] - 1).bit_length() for row in layers),
        "log2_n": " ".join(map(str, degrees)),
        "log2_q_smallest": min(row["log2_q"] for row in layers),
        "log2_q_largest": max(row["log2_q"] for row in layers),
        "security_bits": min((row["security_bits"] for row in layers if row["security_bits"] is not None), default=""),
        "printed_security": "",
        "error_rate": "" if in_slots else worst,
        "ciphertext_error_rate": worst if in_slots else "",
        "printed_error_rate": "",
        "note": "",
    }


TABLE1_CAPTION = (
    "Published sets as printed, and recomputed under three readings, because the paper does not say whether they are "
    "before or after its flooding (4n, 3 log q). Security: the cheaper of uSVP and BDD under the MATZOV cost model, q "
    "with every prime. Error rates: the worst layer's without flooding, average-case noise, rotations left out; of "
    "this study's policies as deployed, flooding included. Below: the sets that this study's schemes chose."
)


def table1(rows: Sequence[Row]) -> TextTable:
    """Table 1 for people."""
    header = ["system", "network", "packing", "log p", "log n", "log q", "security (bits)", "printed"]
    header += ["error rate of a value", "of a ciphertext", "printed"]
    body = []
    for row in rows:
        low, high = float(row["log2_q_smallest"]), float(row["log2_q_largest"])
        body.append(
            [
                *(str(row[key]) for key in ("system", "network", "packing", "plaintext_bits")),
                f"{row['log2_n']:g}" if isinstance(row["log2_n"], float) else str(row["log2_n"]),
                extent(f"{low:.0f}", f"{high:.0f}"),
                NOT_KNOWN if row["security_bits"] == "" else f"{float(row['security_bits']):.0f}",
                row["printed_security"] or NOT_KNOWN,
                *(_rate(row[key], row["note"]) for key in ("error_rate", "ciphertext_error_rate")),
                row["printed_error_rate"] or NOT_KNOWN,
            ]
        )
    return TextTable("Table 1: HE parameters", TABLE1_CAPTION, header, body, text_columns=3)


def _rate(value: Any, note: str) -> str:
    if value in ("", None):
        return "no such p" if note else NOT_KNOWN
    return power_of_two(float(value)) if float(value) else "below 2^\N{MINUS SIGN}1000"


def table2_paper_columns(rows: Sequence[Row], paper: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of `tables.table2_rows` with the paper's numbers as columns paper_*; empty where it has none."""
    found = []
    for row in rows:
        printed = paper_row(paper, row["network"], row["scheme"]) or {}
        columns = {f"paper_{name}": printed.get(name, "") for name in (*QUANTITIES, *_gigabytes(), "accuracy_percent")}
        found.append({**row, **columns})
    return found


def _gigabytes() -> tuple[str, ...]:
    return tuple(f"{name}_gigabytes" for name in TRAFFIC)


def table2(rows: Sequence[Row], measurements: Sequence[ResultFile], paper: Mapping[str, Any]) -> TextTable:
    """Table 2 for people: every measured row, the paper's numbers in parentheses.

    Args:
        rows: of `table2_paper_columns`.
        measurements: for the caption.
        paper: config/paper.yaml.
    """
    header = ["network", "scheme", "packing", "setting", "t_setup (s)", "t_pre (s)", "t_on (s)", "t_total (s)"]
    header += ["m_setup (MB)", "m_pre (MB)", "m_on (MB)", "m_total (MB)", "accuracy (%)", "exact"]
    body = []
    for row in rows:
        seconds = [_beside(significant(row[name]), row[f"paper_{name}"]) for name in QUANTITIES]
        traffic = []
        for name in TRAFFIC:
            printed = row[f"paper_{name}_gigabytes"]
            traffic.append(
                _beside(megabytes(row[f"{name}_bytes"]), "" if printed == "" else printed * BYTES_PER_GIGABYTE / 1e6)
            )
        body.append(
            [
                *(str(row[key]) for key in ("network", "scheme", "packing", "network_setting")),
                significant(row["t_setup_seconds"]),
                *seconds,
                megabytes(row["m_setup_bytes"]),
                *traffic,
                _beside(
                    f"{row['accuracy_percent']:.2f} \N{PLUS-MINUS SIGN} {row['accuracy_interval_percent']:.2f}",
                    row["paper_accuracy_percent"],
                ),
                "yes" if row["exact"] else "no",
            ]
        )
    caption = (
        f"In parentheses the paper's numbers, from {paper['setting']}. Times are medians of the measured images; "
        f"set-up is once per session and in no total; MB are 10^6 bytes, both directions. "
        f"{setting_caption(measurements)}"
    )
    return TextTable(
        "Table 2: latency, communication and accuracy of an inference", caption, header, body, text_columns=4
    )


def _beside(own: str, printed: Any) -> str:
    return own if printed == "" else f"{own} ({printed:g})"


def table3_rows(
    table2_rows: Sequence[Row], policies: Sequence[ResultFile], paper: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The published rows of the paper's Table 3, and below them MobileNet-V2 on CIFAR-10 as measured.

    The search's hours are those recorded in the policy; they count finetuning in every episode.
    """
    rows = [{"source": "paper, Table 3", "packing": "", "network_setting": "", **row} for row in paper["table3"]]
    seconds = {
        policy.get("packing"): policy.provenance.get("search_seconds")
        for policy in policies
        if (policy.network, policy.scheme) == (TABLE3_NETWORK, TABLE3_SCHEME)
    }
    for row in table2_rows:
        if (row["network"], row["scheme"]) == (TABLE3_NETWORK, TABLE3_SCHEME):
            searched = seconds.get(row["packing"])
            rows.append(
                {
                    "source": "this study",
                    "packing": row["packing"],
                    "network_setting": row["network_setting"],
                    "name": row["scheme"],
                    "architecture": "MobileNet-V2",
                    "quantization_bits": "8",
                    "latency_seconds": row["t_total_seconds"],
                    "communication_gigabytes": row["m_total_bytes"] / BYTES_PER_GIGABYTE,
                    "accuracy_percent": row["accuracy_percent"],
                    "search_hours": "" if searched is None else searched / SECONDS_PER_HOUR,
                }
            )
    return rows


def table3(rows: Sequence[Row], measurements: Sequence[ResultFile]) -> TextTable:
    """Table 3 for people."""
    header = ["name", "source", "architecture", "packing", "setting", "quantization (bits)", "latency (s)"]
    header += ["communication (GB)", "accuracy (%)", "search time (h)"]
    body = [
        [
            *(str(row[key]) or NOT_KNOWN for key in ("name", "source", "architecture", "packing", "network_setting")),
            str(row["quantization_bits"]),
            significant(float(row["latency_seconds"])),
            significant(float(row["communication_gigabytes"])),
            f"{float(row['accuracy_percent']):.2f}",
            NOT_KNOWN if row["search_hours"] == "" else significant(float(row["search_hours"])),
        ]
        for row in rows
    ]
    caption = (
        "Published rows ran on the paper's machines, so seconds and hours cannot be compared directly with this "
        f"study's; the paper's searches ran on a GTX 1080 Ti. {setting_caption(measurements)}"
    )
    return TextTable("Table 3: MobileNet-V2 on CIFAR-10 beside NASS", caption, header, body, text_columns=5)
