"""The tables of the report as rows: the paper's Table 2, the parameters per layer, where the CPU seconds go."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from autoprivacy.errors import UserError
from autoprivacy.report.results import PARTIES, ResultFile, finite, scheme
from autoprivacy.report.text import megabytes, significant, spread

TIMES = ("t_pre", "t_on", "t_total")
QUARTILES = ("lower_quartile", "upper_quartile")
PREDICTIONS = ("z", "tau", "decryption_error_rate", "latency_seconds", "bytes_up", "bytes_down")

TABLE2_TEXT_COLUMNS = 5  # of table 2 for people: network, scheme, packing, flooding, setting


def table2_rows(measurements: Sequence[ResultFile], accuracy: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per measurement, in the shape of the paper's Table 2.

    Times and traffic are per image, medians over the measured images (times with quartiles); set-up, needed once per
    session, stands apart and is in no total. Traffic counts both directions; every image takes the same messages, so
    m_total is the sum of the two medians.

    Args:
        measurements: as `protocol.measurement` writes them.
        accuracy: the rows of accuracy.csv; each scheme takes those of its stage (`results.SCHEMES`).

    Raises:
        UserError: a value is missing or not finite, or accuracy has no row for a measurement.
    """
    return [_table2_row(measurement, accuracy) for measurement in measurements]


def _table2_row(measurement: ResultFile, accuracy: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    number = measurement.number
    row: dict[str, Any] = {
        "network": measurement.network,
        "scheme": measurement.scheme,
        "packing": measurement.get("packing"),
        "flooding": measurement.get("flooding", "kind"),
        "flooding_bits": None,
        "network_setting": measurement.get("network_setting"),
        "t_setup_seconds": number("summary", "t_setup"),
    }
    if row["flooding"] == "statistical":  # kappa means nothing to the other kinds
        row["flooding_bits"] = int(number("flooding", "kappa"))
    for time in TIMES:
        row[f"{time}_seconds"] = number("summary", time, "median")
        for quartile in QUARTILES:
            row[f"{time}_{quartile}_seconds"] = number("summary", time, quartile)
    row["m_setup_bytes"] = round(number("summary", "m_setup"))
    row["m_pre_bytes"] = round(number("summary", "m_pre", "median"))
    row["m_on_bytes"] = round(number("summary", "m_on", "median"))
    row["m_total_bytes"] = row["m_pre_bytes"] + row["m_on_bytes"]
    row["cpu_seconds_setup"] = number("summary", "cpu_setup")
    row["cpu_seconds_pre"] = number("summary", "cpu_pre", "median")
    row["cpu_seconds_on"] = number("summary", "cpu_on", "median")
    deployed = accuracy_row(accuracy, measurement.network, measurement.scheme, str(measurement.get("packing")))
    row["accuracy_percent"] = deployed["accuracy_percent"]
    row["accuracy_interval_percent"] = deployed["interval_percent"]
    return {**row, **_agreement(measurement)}


def _agreement(measurement: ResultFile) -> dict[str, Any]:
    images = range(_images(measurement))
    differing = [index for index in images if measurement.number("images", index, "differing_outputs") > 0]
    return {"images": len(images), "images_differing": len(differing), "exact": bool(measurement.get("exact"))}


def _images(measurement: ResultFile) -> int:
    count = len(measurement.get("images"))
    if not count:
        raise UserError(f"{measurement.path}: no images; expected at least one; measure again")
    return count


def accuracy_row(
    rows: Sequence[Mapping[str, Any]], network: str, of: str, packing: str, stage: str | None = None
) -> Mapping[str, Any]:
    """The accuracy of a network under a scheme in a packing at a stage, by default that of what the scheme deploys.

    An exact scheme, whose stage is `integer`, is evaluated in one packing and as accurate in the other.

    Raises:
        UserError: accuracy.csv has no such row.
    """
    stage = scheme(of).accuracy_stage if stage is None else stage
    found = [row for row in rows if (row["network"], row["scheme"], row["stage"]) == (network, of, stage)]
    for row in found:
        if row["packing"] == packing or stage == "integer":
            return row
    names = ("network", "scheme", "packing", "stage")
    got = "; ".join(sorted({", ".join(row[name] for name in names) for row in rows})) or "no rows"
    raise UserError(
        f"accuracy: no row for network {network}, scheme {of}, {packing} packing, stage {stage}; got {got}; measure "
        "the accuracy again"
    )


def agreement_rows(measurements: Sequence[ResultFile]) -> list[dict[str, Any]]:
    """Per measurement: how the secure outputs compare with the integer network's, value for value."""
    rows = []
    for measurement in measurements:
        images = range(_images(measurement))

        def of(key: str, file: ResultFile = measurement, count: range = images) -> list[float]:
            return [file.number("images", index, key) for index in count]

        predicted, expected = of("prediction"), of("expected_prediction")
        rows.append(
            {
                "network": measurement.network,
                "scheme": measurement.scheme,
                "packing": measurement.get("packing"),
                "network_setting": measurement.get("network_setting"),
                **_agreement(measurement),
                "outputs_differing": round(sum(of("differing_outputs"))),
                "largest_difference": round(max(of("largest_difference"))),
                "rms_difference": measurement.number("rms_difference"),
                "simulated_rms_difference": _simulated_rms(measurement),
                "ignored_share_bits": round(measurement.number("ignored_share_bits")),
                "predictions_differing": sum(a != b for a, b in zip(predicted, expected, strict=True)),
            }
        )
    return rows


def _simulated_rms(measurement: ResultFile) -> float | None:
    key = "simulated_rms_difference"
    return None if measurement.get(key) is None else measurement.number(key)


def parameters_rows(policies: Sequence[ResultFile]) -> list[dict[str, Any]]:
    """One row per network, scheme and layer: parameter set, target, prediction (None where a policy has none)."""
    return [_parameters_row(policy, index) for policy in policies for index in range(len(policy.get("layers")))]


def _parameters_row(policy: ResultFile, index: int) -> dict[str, Any]:
    where = ("layers", index)
    primes = [*policy.get(*where, "parameters", "primes"), policy.get(*where, "parameters", "key_switching_prime")]
    deployed = [prime for prime in primes if prime is not None]
    target, predicted = policy.get(*where, "target"), policy.get(*where).get("predicted", {})
    name = policy.get(*where, "name")
    row = {
        "network": policy.network,
        "scheme": policy.scheme,
        "packing": policy.get("packing"),
        "approximate": policy.value.get("approximate"),
        "layer": name,
        "plaintext_modulus": policy.get(*where, "parameters", "plaintext_modulus"),
        "polynomial_degree": policy.get(*where, "parameters", "polynomial_degree"),
        "primes": len(deployed),
        "log2_q": sum(math.log2(finite(prime, f"{policy.path}: layer {name}: prime")) for prime in deployed),
        "security_bits": _optional(policy, name, predicted, "security_bits"),
        "target_decryption_error_rate": target.get("decryption_error_rate"),
        "target_tau": target.get("tau"),
        "ignored_share_bits": target.get("ignored_share_bits", 0),
        "activation": policy.get(*where).get("activation"),
        "activation_reason": policy.get(*where).get("activation_reason"),
    }
    return {**row, **{f"predicted_{key}": _optional(policy, name, predicted, key) for key in PREDICTIONS}}


def contenders(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What to call each row: its scheme, and its packing and network setting where the rows have several."""
    telling = [key for key in ("packing", "network_setting") if len({row.get(key) for row in rows}) > 1]
    return [", ".join([str(row["scheme"]), *(str(row[key]) for key in telling)]) for row in rows]


def _optional(policy: ResultFile, layer: str, predicted: Mapping[str, Any], key: str) -> float | None:
    value = predicted.get(key)
    return None if value is None else finite(value, f"{policy.path}: layer {layer}: predicted {key}")


def cpu_seconds_by_kind(measurement: ResultFile, phase: str) -> dict[str, float]:
    """CPU seconds of both parties per image in a phase, by the ledger's kinds of work, which leave next to nothing out.

    Means over the images, because means of parts add up to the mean of the whole; CPU seconds, because the parties'
    wall times overlap.
    """
    count = _images(measurement)
    seconds: dict[str, float] = {}
    for index in range(count):
        for party in PARTIES:
            where = ("images", index, phase, party)
            for number, part in enumerate(measurement.get(*where, "parts")):
                value = measurement.number(*where, "parts", number, "cpu_seconds")
                seconds[part["kind"]] = seconds.get(part["kind"], 0.0) + value / count
    return seconds


def he_share_percent(measurement: ResultFile) -> float:
    """Share of HE in both parties' CPU seconds per image, offline and online together."""
    phases = [cpu_seconds_by_kind(measurement, phase) for phase in ("offline", "online")]
    return 100 * sum(phase.get("he", 0.0) for phase in phases) / sum(sum(phase.values()) for phase in phases)


def table2_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Table 2 for people: the header and one list of cells per row, rounded, units in the header."""
    header = ["network", "scheme", "packing", "flooding", "setting", "t_setup (s)", "t_pre (s)", "t_on (s)"]
    header += ["t_total (s)", "m_setup (MB)", "m_pre (MB)", "m_on (MB)", "m_total (MB)", "CPU pre (s)", "CPU on (s)"]
    header += ["accuracy (%)", "images", "differing", "exact promised"]
    return header, [_table2_cells(row) for row in rows]


def _table2_cells(row: Mapping[str, Any]) -> list[str]:
    flooding = f"{row['flooding']} {row['flooding_bits']} bits" if row["flooding_bits"] else row["flooding"]
    times = [
        spread(*(row[f"{time}_{key}seconds"] for key in ("", *(f"{quartile}_" for quartile in QUARTILES))))
        for time in TIMES
    ]
    return [
        *(str(row[key]) for key in ("network", "scheme", "packing")),
        str(flooding),
        str(row["network_setting"]),
        significant(row["t_setup_seconds"]),
        *times,
        *(megabytes(row[f"m_{phase}_bytes"]) for phase in ("setup", "pre", "on", "total")),
        *(significant(row[f"cpu_seconds_{phase}"]) for phase in ("pre", "on")),
        f"{row['accuracy_percent']:.2f} ± {row['accuracy_interval_percent']:.2f}",
        str(row["images"]),
        str(row["images_differing"]),
        "yes" if row["exact"] else "no",
    ]


TABLE2_NOTE = (
    "Medians over the measured images, quartiles in brackets; MB are 10^6 bytes sent in both directions; set-up is "
    "once per session and in no total; CPU seconds are both parties' together; accuracy is the integer network's on "
    "the test split (autoprivacy and tolerant: finetuned, with simulated decryption errors) with the half-width of "
    "its 95% interval; differing counts images with any output unlike the integer network's; a scheme "
    "that promises exactness promises that there is none."
)
