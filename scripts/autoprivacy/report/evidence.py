"""All result files of a study as the claims read them, and what to say where one that a claim needs is not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoprivacy.report import tables
from autoprivacy.report.results import (
    BASELINE,
    NUMBERS,
    ResultFile,
    read_accuracy,
    read_comparison,
    read_paper,
    read_search,
    read_table,
    searched,
)

Row = Mapping[str, Any]
AUTOPRIVACY = "autoprivacy"
PAPERS_PACKING = "slot"
PAPERS_SETTING = "lan"


class NotTestedError(Exception):
    """A claim's evidence is not part of the study; the message says what is missing."""


@dataclass(frozen=True)
class Evidence:
    """The results of one study.

    Attributes:
        paper: config/paper.yaml.
        measurements, policies: the JSON results.
        accuracy: rows of accuracy.csv.
        search: per network, scheme and packing the episodes.
        quantization: per network the rows of its layers.
        profile: the hardware profile.
        published: rows of published-sets.csv.
        multiplication, sensitivity, wraps, sampling, comparison: rows of the experiments; empty where left out.
        tolerance: per network and packing the rows of the experiment.
        repeated_queries: the experiment's result; None where left out.
    """

    paper: Mapping[str, Any]
    measurements: Sequence[ResultFile]
    policies: Sequence[ResultFile]
    accuracy: Sequence[Row]
    search: Mapping[tuple[str, str, str], Sequence[Row]]
    quantization: Mapping[str, Sequence[Row]]
    profile: ResultFile
    published: Sequence[Row] = ()
    multiplication: Sequence[Row] = ()
    sensitivity: Sequence[Row] = ()
    wraps: Sequence[Row] = ()
    sampling: Sequence[Row] = ()
    comparison: Sequence[Row] = ()
    tolerance: Mapping[tuple[str, str], Sequence[Row]] = field(default_factory=dict)
    repeated_queries: ResultFile | None = None

    @classmethod
    def read(cls, files: Mapping[str, Any]) -> Evidence:
        """Read the files of a study; a list of paths under each name of an attribute, empty where it was left out."""

        def rows(kind: str) -> list[dict[str, Any]]:
            return [row for path in files.get(kind, ()) for row in read_table(path, numbers=NUMBERS.get(kind, ()))]

        repeated = list(files.get("repeated_queries", ()))
        return cls(
            paper=read_paper(files["paper"][0]),
            measurements=[ResultFile.read(path) for path in files["measurements"]],
            policies=[ResultFile.read(path) for path in files["policies"]],
            accuracy=read_accuracy(files["accuracy"][0]),
            search={searched(path): read_search(path) for path in files["search"]},
            quantization={Path(path).stem: read_table(path) for path in files["quantization"]},
            profile=ResultFile.read(files["profile"][0]),
            **{kind: rows(kind) for kind in ("published", "multiplication", "sensitivity", "wraps", "sampling")},
            comparison=[row for path in files.get("comparison", ()) for row in read_comparison(path)],
            tolerance={
                (path.stem.rpartition("-")[0], path.stem.rpartition("-")[2]): read_table(
                    path, text=("kind", "layer"), numbers=NUMBERS["tolerance"]
                )
                for path in map(Path, files.get("tolerance", ()))
            },
            repeated_queries=ResultFile.read(repeated[0]) if repeated else None,
        )

    def need(self, name: str) -> Any:
        """The attribute; NotTestedError where the study leaves it out."""
        value = getattr(self, name)
        if not value:
            raise NotTestedError(f"this study leaves out the experiment {name.replace('_', ' ')} (run.studies)")
        return value

    def table2(self) -> list[dict[str, Any]]:
        """The rows of Table 2."""
        return tables.table2_rows(self.measurements, self.accuracy)

    def pairs(self, scheme: str = AUTOPRIVACY) -> list[tuple[Row, Row]]:
        """A scheme's and the baseline's row of Table 2, for the paper's networks, under one network setting.

        The setting is the local network where it was measured, as in the paper; else the first.

        Raises:
            NotTestedError: no network has both.
        """
        rows = self.table2()
        settings = [row["network_setting"] for row in rows]
        setting = PAPERS_SETTING if PAPERS_SETTING in settings else settings[0]
        by_case = {
            (row["network"], row["packing"], row["scheme"]): row for row in rows if row["network_setting"] == setting
        }
        found: list[tuple[Row, Row]] = [
            (row, by_case[network, packing, BASELINE])
            for (network, packing, of), row in by_case.items()
            if of == scheme and network in self.paper["table2"] and (network, packing, BASELINE) in by_case
        ]
        if not found:
            raise NotTestedError(f"no network of the paper was measured under both {BASELINE} and {scheme}")
        return found

    def policy(self, network: str, scheme: str, packing: str) -> ResultFile | None:
        """The policy of that network, scheme and packing; None where there is none."""
        for policy in self.policies:
            if (policy.network, policy.scheme, policy.get("packing")) == (network, scheme, packing):
                return policy
        return None

    def policies_of(self, scheme: str, network: str | None = None) -> list[ResultFile]:
        """The policies of a scheme, one per packing, the paper's packing first; NotTestedError where there is none."""
        found = [p for p in self.policies if p.scheme == scheme and network in (None, p.network)]
        if not found:
            raise NotTestedError(f"this study has no policy of {scheme}{f' for {network}' if network else ''}")
        return sorted(found, key=lambda policy: policy.get("packing") != PAPERS_PACKING)
