"""The parameters table and the ablation as rows and as Markdown, from the files parameters/<network>.csv."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoprivacy.report.results import finite, read_table
from autoprivacy.report.text import megabytes, power_of_two, significant

KEYS = ("network", "weights", "packing", "flooding", "flooding_bits", "step")
COUNTS = ("encrypt", "load", "product", "reply", "decrypt", "encoding", "rotation")
OPTIONAL = ("target_decryption_error_rate", "target_tau", "tau")  # empty where a packing or target has none
REQUIRED = (
    *("plaintext_modulus", "plaintext_bits", "polynomial_degree", "primes", "log2_q", "security_bits", "log2_noise"),
    *("error_rate_per_coefficient", "error_rate_per_ciphertext", "failures_per_image", *COUNTS),
    *("bytes_up", "bytes_down", "latency_seconds"),
)
# What a person calls the steps, and what each changes.
STEPS = {
    "published": "published set of DELPHI: p of 22 bits, n = 2^13, q of 180 bits",
    "worst-case": "one set for the network, worst-case noise, p for every possible image",
    "average-case": "average-case noise, decryption error rate 2^-40",
    "calibrated-p": "p from the calibrated range",
    "layer-wise": "a set per layer",
    "tolerated-errors": "tolerated decryption errors",
    "tolerated-noise": "tolerated noise of the activation's step",
}
NONE = "\N{EN DASH}"

Row = Mapping[str, Any]


def read_choices(path: str | Path) -> list[dict[str, Any]]:
    """The rows of one network: numbers as floats; a row with a note has none of them.

    Raises:
        UserError: the file or a column is missing, or a number is none.
    """
    rows = read_table(path, (*KEYS, "layer", "note", *REQUIRED, *OPTIONAL))
    for line, row in enumerate(rows, start=2):  # the header is line 1
        for name in (*REQUIRED, *OPTIONAL):
            needed = name in REQUIRED and not row["note"]
            row[name] = finite(row[name], f"{path}: line {line}: {name}") if row[name] or needed else None
    return rows


def ablation_rows(choices: Sequence[Row]) -> list[dict[str, Any]]:
    """One row per network, packing, flooding and step, over its layers.

    log2_q_mean and log2_q_max are bits of q as deployed, the key-switching prime included; saved_bits is what the step
    takes off the mean of the step before; primes, failures_per_image, bytes and seconds are sums.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in choices:
        groups.setdefault(tuple(row[key] for key in KEYS), []).append(row)
    rows: list[dict[str, Any]] = []
    for key, layers in groups.items():
        row = {**dict(zip(KEYS, key, strict=True)), **_sums(layers), "note": layers[0]["note"]}
        previous = rows[-1] if rows and all(rows[-1][name] == row[name] for name in KEYS[:-1]) else None
        known = previous is not None and previous["log2_q_mean"] is not None and row["log2_q_mean"] is not None
        row["saved_bits"] = previous["log2_q_mean"] - row["log2_q_mean"] if previous and known else None
        rows.append(row)
    return rows


def _sums(layers: Sequence[Row]) -> dict[str, Any]:
    names = ("layers", "plaintext_bits", "polynomial_degrees", "log2_q_mean", "log2_q_max", "primes")
    totals = ("failures_per_image", "bytes_up", "bytes_down", "latency_seconds")
    if layers[0]["note"]:
        return dict.fromkeys((*names, *totals))
    degrees = sorted({int(layer["polynomial_degree"]) for layer in layers})
    bits = [layer["log2_q"] for layer in layers]
    values = (
        len(layers),
        int(max(layer["plaintext_bits"] for layer in layers)),
        " ".join(map(str, degrees)),
        math.fsum(bits) / len(bits),
        max(bits),
        int(sum(layer["primes"] for layer in layers)),
    )
    return {**dict(zip(names, values, strict=True)), **{name: sum(row[name] for row in layers) for name in totals}}


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(line) + " |" for line in (header, rule, *rows)]


def _flooding(row: Row) -> str:
    return f"{row['flooding']}, {float(row['flooding_bits']):g} bits" if row["flooding_bits"] else str(row["flooding"])


ABLATION_NOTE = (
    "Each step has one change to the step before it. Bits of q are those that are deployed, the key-switching prime "
    "included: mean and maximum over the layers; n and tilings are chosen anew in each step for the least predicted "
    "latency, so a step may take more bits and less time. Failures per image are the expected number of wrong outputs "
    "in coefficient packing, of ciphertexts whose outputs are all wrong in slot packing. Latency is predicted, of the "
    "linear layers alone. Random weights stand for a network that is not trained yet; its noise and p will differ "
    "somewhat."
)


def ablation_markdown(rows: Sequence[Row]) -> str:
    """The ablation for people: a table per network, flooding and packing."""
    lines = ["# Ablation", "", ABLATION_NOTE]
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["network"], row["weights"], row["packing"], _flooding(row)), []).append(row)
    header = ("step", "bits of p", "n", "bits of q, mean", "max", "saved", "primes", "failures per image", "MB", "s")
    for (network, weights, packing, flooding), own in groups.items():
        lines += ["", f"## {network} ({weights} weights), {packing} packing, flooding {flooding}", ""]
        lines += _table(header, map(_ablation_cells, own))
        lines += ["", *(f"No {row['step']}: {row['note']}" for row in own if row["note"])]
    return "\n".join([*lines, ""])


def _ablation_cells(row: Row) -> list[str]:
    name = f"{row['step']}: {STEPS[row['step']]}"
    if row["note"]:
        return [name, *[NONE] * 9]
    saved = NONE if row["saved_bits"] is None else f"{row['saved_bits']:.1f}".replace("-", "\N{MINUS SIGN}")
    return [
        name,
        str(row["plaintext_bits"]),
        row["polynomial_degrees"],
        *(f"{row[key]:.1f}" for key in ("log2_q_mean", "log2_q_max")),
        saved,
        str(row["primes"]),
        _expected(row["failures_per_image"]),
        megabytes(row["bytes_up"] + row["bytes_down"]),
        significant(row["latency_seconds"]),
    ]


def _expected(count: float) -> str:
    """An expected number: a power of two where it is small."""
    return significant(count) if count >= 0.01 else power_of_two(count)


CHOICES_NOTE = (
    "Every choice, layer by layer. Noise is the predicted standard deviation of a reply's coefficient; rates are the "
    "probabilities that a coefficient, and that any of a ciphertext's n, decrypts wrongly; operations are those of one "
    "image: ciphertexts up, products, rotations, ciphertexts down; the CSV file beside this one has all of them."
)


def choices_markdown(rows: Sequence[Row]) -> str:
    """The parameters table for people: a table per network, packing, flooding and step."""
    lines = ["# Parameters", "", CHOICES_NOTE]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        key = (row["network"], row["weights"], row["packing"], _flooding(row), row["step"])
        groups.setdefault(key, []).append(row)
    header = [
        *("layer", "p", "n", "primes", "bits of q", "security", "log2 noise", "error rate, coefficient", "ciphertext"),
        *("failures per image", "up", "products", "rotations", "down", "MB up", "MB down", "s"),
    ]
    for (network, weights, packing, flooding, step), own in groups.items():
        lines += ["", f"## {network} ({weights} weights), {packing} packing, flooding {flooding}: {step}", ""]
        lines += [own[0]["note"]] if own[0]["note"] else _table(header, map(_choice_cells, own))
    return "\n".join([*lines, ""])


def _choice_cells(row: Row) -> list[str]:
    return [
        row["layer"],
        *(f"{row[key]:.0f}" for key in ("plaintext_modulus", "polynomial_degree", "primes")),
        *(f"{row[key]:.1f}" for key in ("log2_q", "security_bits", "log2_noise")),
        *(power_of_two(row[f"error_rate_per_{what}"]) for what in ("coefficient", "ciphertext")),
        _expected(row["failures_per_image"]),
        *(f"{row[key]:.0f}" for key in ("encrypt", "product", "rotation", "reply")),
        *(megabytes(row[f"bytes_{way}"]) for way in ("up", "down")),
        significant(row["latency_seconds"]),
    ]
