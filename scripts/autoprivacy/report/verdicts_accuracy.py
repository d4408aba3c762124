"""Verdicts on the paper's claims about accuracy, tolerated errors and the plaintext modulus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autoprivacy.report.claims import (
    CONTRADICTS,
    NONE,
    NOT_REPRODUCED,
    QUALITATIVELY,
    REPRODUCED,
    Outcome,
    worst_and_best,
)
from autoprivacy.report.evidence import AUTOPRIVACY, PAPERS_PACKING, Evidence, NotTestedError, Row
from autoprivacy.report.tables import accuracy_row
from autoprivacy.report.text import points, power_of_two

Values = Mapping[str, Any]
RATE = "rate"  # of search.tolerance: the kind of row whose level is the base-2 logarithm of an error rate
SMALL_LOSS = 1.0  # points below which a loss counts as small


def accuracy_loss(evidence: Evidence, values: Values) -> Outcome:
    """Finetuned and with simulated errors, against the integer network, in the paper's packing."""
    found = _stages(evidence)
    losses = [before["accuracy_percent"] - after["accuracy_percent"] for _, before, _, after in found]
    interval = max(after["interval_percent"] for *_, after in found)
    wanted = values["points"]
    if max(losses) <= wanted:
        verdict, reason = REPRODUCED, "After finetuning no network loses more than the paper allows."
    elif max(losses) <= max(SMALL_LOSS, interval):
        verdict, reason = QUALITATIVELY, "The loss is small, but above the paper's or within the sampling error."
    else:
        verdict = NOT_REPRODUCED
        reason = (
            "A spoiled ciphertext loses the image, and the rates that the search may pick spoil enough of them to show."
        )
    return Outcome(
        verdict,
        reason,
        f"{worst_and_best(losses, 'points lost')}",
        "; ".join(f"{name} {points(-loss)}" for (name, *_), loss in zip(found, losses, strict=True))
        + f"; 95% interval {interval:.2f}",
        f"{points(max(losses) - wanted)} points",
        "accuracy.csv",
    )


def _stages(evidence: Evidence) -> list[tuple[str, Row, Row, Row]]:
    """Per network and packing of autoprivacy: its name and the rows integer, errors and errors_finetuned."""
    keys = [key for key in evidence.search if key[1] == AUTOPRIVACY]
    own = [key for key in keys if key[2] == PAPERS_PACKING] or keys
    if not own:
        raise NotTestedError(f"no policy of {AUTOPRIVACY} was searched")
    return [
        (
            f"{network}, {packing}",
            accuracy_row(evidence.accuracy, network, AUTOPRIVACY, packing, "integer"),
            accuracy_row(evidence.accuracy, network, AUTOPRIVACY, packing, "errors"),
            accuracy_row(evidence.accuracy, network, AUTOPRIVACY, packing, "errors_finetuned"),
        )
        for network, _, packing in own
    ]


def finetuning(evidence: Evidence, values: Values) -> Outcome:
    """Accuracy with errors before and after finetuning, the mean over networks in the paper's packing."""
    found = _stages(evidence)
    gains = [after["accuracy_percent"] - before["accuracy_percent"] for _, _, before, after in found]
    mean = sum(gains) / len(gains)
    wanted = values["points"]
    interval = max(after["interval_percent"] for *_, after in found)
    if mean >= wanted - interval:
        verdict, reason = REPRODUCED, "Finetuning wins the paper's points."
    elif mean > interval:
        verdict, reason = QUALITATIVELY, "Finetuning wins accuracy back, but less than in the paper."
    else:
        verdict = NOT_REPRODUCED
        reason = "A spoiled ciphertext is random modulo p and comes once in many images: weights cannot adapt to it."
    return Outcome(
        verdict,
        reason,
        f"{points(mean)} points on average",
        "; ".join(f"{name} {points(gain)}" for (name, *_), gain in zip(found, gains, strict=True)),
        f"{points(mean - wanted)} points",
        "accuracy.csv",
    )


def tolerance_values(evidence: Evidence, values: Values) -> Outcome:
    """Coefficient packing, where an error changes one value by one."""
    return _tolerance(evidence, "coefficient", "value", values["log2_rate"])


def tolerance_ciphertexts(evidence: Evidence, values: Values) -> Outcome:
    """Slot packing, where an error spoils a ciphertext."""
    return _tolerance(evidence, PAPERS_PACKING, "ciphertext", values["log2_rate"])


def _tolerance(evidence: Evidence, packing: str, unit: str, level: float) -> Outcome:
    """Whether a rate in all layers at once loses accuracy that shows at 95%, before finetuning."""
    studied = {network: rows for (network, of), rows in evidence.need("tolerance").items() if of == packing}
    if not studied:
        raise NotTestedError(f"no network's tolerance was studied in {packing} packing")
    at = {network: _row_at(rows, level) for network, rows in studied.items()}
    losing = [network for network, row in at.items() if row["high_points"] < 0]
    bounds = {network: _harmless(rows) for network, rows in studied.items()}
    worst = min((row["difference_points"] for row in at.values()), default=0.0)
    if not losing:
        verdict = REPRODUCED
        reason = f"At 2^{level:g} errors of a {unit} cost nothing that shows: the next activation rounds them away."
    else:
        verdict = NOT_REPRODUCED
        reason = f"At 2^{level:g} errors of a {unit} lose accuracy: every packed value is random modulo p then."
    largest = ", ".join(
        f"{name} {'none' if rate is None else power_of_two(2.0**rate)}" for name, rate in bounds.items()
    )
    return Outcome(
        verdict,
        reason.replace("^-", "^\N{MINUS SIGN}"),
        f"{points(worst)} points at {power_of_two(2.0**level)}",
        f"largest rate without a loss that shows: {largest}; "
        + "; ".join(
            f"{name} {points(row['difference_points'])} [{points(row['low_points'])}, {points(row['high_points'])}]"
            for name, row in at.items()
        ),
        f"{points(worst)} points",
        f"tolerance/{next(iter(studied))}-{packing}.csv",
    )


def _everywhere(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["kind"] == RATE and not row["layer"]]


def _row_at(rows: Sequence[Row], level: float) -> Row:
    for row in _everywhere(rows):
        if row["level"] == level:
            return row
    raise NotTestedError(f"the tolerance to a rate of 2^{level:g} was not studied")


def _harmless(rows: Sequence[Row]) -> float | None:
    """The largest rate up to which no loss shows."""
    best = None
    for row in sorted(_everywhere(rows), key=lambda row: float(row["level"])):
        if row["high_points"] < 0:
            break
        best = row["level"]
    return best


def narrow_plaintext(evidence: Evidence, values: Values) -> Outcome:
    """Accuracy and wraps modulo 2^14."""
    rows = evidence.need("wraps")
    wanted = values["bits"]
    at = {row["network"]: row for row in rows if row["plaintext_bits"] == wanted}
    if not at:
        raise NotTestedError(f"p of {wanted} bits was not studied")
    widest = {
        name: max((row for row in rows if row["network"] == name), key=lambda row: float(row["plaintext_bits"]))
        for name in at
    }
    losses = {name: widest[name]["accuracy_percent"] - row["accuracy_percent"] for name, row in at.items()}
    wrapped = [row["wrapped_percent"] for row in at.values()]
    suffices = all(loss <= at[name]["interval_percent"] for name, loss in losses.items())
    enough = {
        name: min(row["plaintext_bits"] for row in rows if row["network"] == name and float(row["wraps"]) == 0)
        if any(row["network"] == name and float(row["wraps"]) == 0 for row in rows)
        else None
        for name in at
    }
    return Outcome(
        REPRODUCED if suffices else NOT_REPRODUCED,
        "Accumulators of 8-bit weights and activations fit."
        if suffices
        else "Accumulators of 8-bit weights and activations exceed 14 bits and wrap, and the networks fall to chance.",
        f"{worst_and_best(wrapped, '% of accumulators wrap')}, {worst_and_best(list(losses.values()), 'points lost')}",
        "no wraps from: "
        + ", ".join(f"{name} {NONE if bits is None else f'{bits:.0f} bits'}" for name, bits in enough.items()),
        f"{points(-max(losses.values()))} points",
        f"wraps/{next(iter(at))}.csv",
    )


def resnet_accuracy(evidence: Evidence, values: Values) -> Outcome:
    """Of the published checkpoint, in floats."""
    network = values["network"]
    rows = [row for row in evidence.accuracy if (row["network"], row["stage"]) == (network, "float")]
    if not rows:
        raise NotTestedError(f"{network} was not evaluated")
    row, wanted = rows[0], values["percent"]
    difference = row["accuracy_percent"] - wanted
    reached = difference >= -row["interval_percent"]
    return Outcome(
        REPRODUCED if reached else NOT_REPRODUCED,
        "The checkpoint reaches the paper's accuracy."
        if reached
        else f"A plain ResNet-32 reaches about {values['plain_resnet32_percent']}% on CIFAR-100 (the paper's number is "
        "near ResNet-34's of a public list), and the published checkpoint was trained for few epochs on a CPU.",
        f"{row['accuracy_percent']:.2f}%",
        f"\N{PLUS-MINUS SIGN} {row['interval_percent']:.2f} ({row['images']:.0f} images)",
        f"{points(difference)} points",
        "accuracy.csv",
    )


def repeated_queries(evidence: Evidence, values: Values) -> Outcome:
    """Whether a client that asks the same images again and again learns weights from tolerated errors.

    The experiment's file states how many weights of the last layer an attack knew exactly under an approximate policy,
    and under an exact one.
    """
    result = evidence.need("repeated_queries")
    known, total = (result.number("approximate", key) for key in ("weights_recovered", "weights"))
    exact = result.number("exact", "weights_recovered")
    return Outcome(
        NOT_REPRODUCED if known else REPRODUCED,
        "Errors depend on values that the client knows, so outputs of repeated queries differ by weights; exact "
        "outputs never differ."
        if known
        else "No weight was recovered from repeated queries.",
        f"{known:.0f} of {total:.0f} weights of the last layer known exactly",
        f"{result.number('queries'):.0f} queries; under an exact policy {exact:.0f}",
        NONE,
        "repeated-queries.json",
    )


def quantized_width(evidence: Evidence, values: Values) -> Outcome:
    """Two sections of the paper, compared."""
    differ = values["bits"] != values["table3_bits"]
    return Outcome(
        CONTRADICTS if differ else REPRODUCED,
        "Table 3 says 14 bits, which section 4 gives for p, where section 3 quantizes with 8; this study uses 8."
        if differ
        else "Both say the same.",
        "8 bits in this study",
        NONE,
        f"{values['bits']} against {values['table3_bits']} bits in the paper",
        "tables/table3.csv",
    )


RULES = {
    "accuracy-loss": accuracy_loss,
    "finetuning": finetuning,
    "tolerance-values": tolerance_values,
    "tolerance-ciphertexts": tolerance_ciphertexts,
    "narrow-plaintext": narrow_plaintext,
    "resnet-accuracy": resnet_accuracy,
    "repeated-queries": repeated_queries,
    "quantized-width": quantized_width,
}
