"""Judge every claim of the paper by the study's result files."""

import logging
from collections import Counter
from typing import Any

from autoprivacy.report import verdicts_accuracy, verdicts_cost, verdicts_parameters, verdicts_search
from autoprivacy.report.claims import claims_table, judge
from autoprivacy.report.evidence import Evidence
from autoprivacy.storage import write_rows, write_text
from autoprivacy.workflow.logs import run_script

RULES = {**verdicts_cost.RULES, **verdicts_accuracy.RULES, **verdicts_parameters.RULES, **verdicts_search.RULES}


def _paths(files: Any, kind: str) -> list[str]:
    """The input files of that name, none or several."""
    found = files.get(kind, [])
    return [found] if isinstance(found, str) else list(found)


def main(snakemake: Any) -> None:
    params, output = snakemake.params, snakemake.output
    evidence = Evidence.read({kind: _paths(snakemake.input, kind) for kind in params.kinds})
    rows = judge(evidence, params.study, params.configfile, RULES)
    for verdict, count in Counter(row["verdict"] for row in rows).items():
        logging.info("%s: %d", verdict, count)
    write_rows(output.table, rows)
    table = claims_table(rows, str(evidence.profile.get("provenance", "cpu")))
    write_text(output.markdown, table.markdown())
    write_text(output.latex, table.latex("tab:claims"))


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
