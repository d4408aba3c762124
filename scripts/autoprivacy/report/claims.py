"""A verdict on every claim of the paper, computed from the study's result files.

`judge` gives one row per claim of config/paper.yaml. The rules of the verdicts are functions by the claims' names, in
the modules `verdicts_*`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from autoprivacy.errors import UserError
from autoprivacy.report.evidence import Evidence, NotTestedError
from autoprivacy.report.table_formats import TextTable
from autoprivacy.report.text import extent

REPRODUCED = "reproduced"
QUALITATIVELY = "reproduced qualitatively"
NOT_REPRODUCED = "not reproduced"
CONTRADICTS = "the paper contradicts itself"
NOT_TESTED = "not tested"
VERDICTS = (REPRODUCED, QUALITATIVELY, NOT_REPRODUCED, CONTRADICTS, NOT_TESTED)

NONE = "\N{EN DASH}"


@dataclass(frozen=True)
class Outcome:
    """What became of a claim.

    Attributes:
        verdict: one of VERDICTS.
        reason: one sentence.
        measured: the value, in the claim's unit.
        spread: quartiles, an interval, or the range over networks.
        deviation: from the paper's number.
        result: the file, below the study's results, that shows it and whose making reproduces it.
    """

    verdict: str
    reason: str
    measured: str = NONE
    spread: str = NONE
    deviation: str = NONE
    result: str = "tables/table2.csv"


Rule = Callable[[Evidence, Mapping[str, Any]], Outcome]


def judge(evidence: Evidence, study: str, configfile: str | None, rules: Mapping[str, Rule]) -> list[dict[str, Any]]:
    """One row per claim, in the order of config/paper.yaml.

    Args:
        evidence: the study's results.
        study: its name.
        configfile: what it was run with beside config/config.yaml; None for nothing.
        rules: by the claims' names.

    Returns:
        Rows with claim, states, source, verdict, measured, spread, deviation, reason, file, command.

    Raises:
        UserError: a claim has no rule, or a result is damaged.
    """
    option = f" --configfile {configfile}" if configfile else ""
    rows = []
    for name, claim in evidence.paper["claims"].items():
        if name not in rules:
            raise UserError(
                f"config/paper.yaml: claim {name}: no rule for its verdict; got rules for {', '.join(rules)}"
            )
        try:
            outcome = rules[name](evidence, claim["values"])
        except NotTestedError as error:
            outcome = Outcome(NOT_TESTED, f"Missing: {error}.")
        path = f"results/{study}/{outcome.result}"
        rows.append(
            {
                "claim": name,
                "states": claim["states"],
                "source": claim["source"],
                "verdict": outcome.verdict,
                "measured": outcome.measured,
                "spread": outcome.spread,
                "deviation": outcome.deviation,
                "reason": outcome.reason,
                "file": outcome.result,
                "command": f"snakemake -j8{option} -- {path}",  # --configfile takes all that follows
            }
        )
    return rows


CAPTION = (
    "Verdicts are computed from the result files of this study by fixed rules (scripts/autoprivacy/report/verdicts_*). "
    "Reproduced: the measured number is within the claim. Reproduced qualitatively: the direction holds, the number "
    "does not. Not tested: this study leaves out what the claim needs."
)


def claims_table(rows: list[dict[str, Any]], machine: str) -> TextTable:
    """The claims for people."""
    header = ["claim", "where", "verdict", "measured", "spread", "deviation", "reason", "command"]
    keys = ("states", "source", "verdict", "measured", "spread", "deviation", "reason", "command")
    body = [[str(row[key]) for key in keys] for row in rows]
    return TextTable("Claims of the paper", f"{CAPTION} Machine: {machine}.", header, body, text_columns=len(header))


def worst_and_best(values: list[float], unit: str) -> str:
    """The range of several values, in a unit."""
    low, high = min(values), max(values)
    text = extent(f"{low:.3g}", f"{high:.3g}")
    return f"{text}{'' if unit.startswith('%') else ' '}{unit}".replace("-", "\N{MINUS SIGN}")
