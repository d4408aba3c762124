"""Mean and spread of every search strategy over its seeds, as a table and a figure."""

from pathlib import Path
from typing import Any

from autoprivacy.report.figures import save
from autoprivacy.report.results import read_comparison
from autoprivacy.report.strategy_comparison import comparison_figure, summary_rows
from autoprivacy.storage import write_rows
from autoprivacy.workflow.logs import run_script


def main(snakemake: Any) -> None:
    rows = [row for path in snakemake.input.seeds for row in read_comparison(path)]
    write_rows(snakemake.output.table, summary_rows(rows))
    save(comparison_figure(rows), Path(snakemake.output.figure[0]).with_suffix(""))


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
