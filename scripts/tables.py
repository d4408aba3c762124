"""Make the tables: the paper's Table 2 as CSV and Markdown, and every layer's parameters as CSV."""

from typing import Any

from autoprivacy.report.results import ResultFile, read_accuracy
from autoprivacy.report.tables import parameters_rows, table2_markdown, table2_rows
from autoprivacy.storage import write_rows, write_text
from autoprivacy.workflow.logs import run_script


def main(snakemake: Any) -> None:
    measurements = [ResultFile.read(path) for path in snakemake.input.measurements]
    policies = [ResultFile.read(path) for path in snakemake.input.policies]
    rows = table2_rows(measurements, read_accuracy(snakemake.input.accuracy))
    write_rows(snakemake.output.table2, rows)
    write_text(snakemake.output.markdown, table2_markdown(rows))
    write_rows(snakemake.output.parameters, parameters_rows(policies))


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
