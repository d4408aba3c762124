"""Mean and spread of every search strategy over its seeds, as a table and a figure."""

from pathlib import Path
from typing import Any

from autoprivacy.logs import run_script
from autoprivacy.report.figures import save
from autoprivacy.report.results import read_comparison
from autoprivacy.report.strategies import comparison_figure, summary_rows
from autoprivacy.storage import write_rows


def main(snakemake: Any) -> None:
    rows = [row for path in snakemake.input.networks for row in read_comparison(path)]
    write_rows(snakemake.output.table, summary_rows(rows))
    save(comparison_figure(rows), Path(snakemake.output.figure[0]).with_suffix(""))


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
