"""Make the paper's Tables 1, 2 and 3 as CSV, Markdown and LaTeX, and every layer's parameters as CSV."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoprivacy.report import paper_tables
from autoprivacy.report.results import ResultFile, read_accuracy, read_paper, read_table
from autoprivacy.report.table_formats import TextTable
from autoprivacy.report.tables import parameters_rows, table2_rows
from autoprivacy.storage import write_rows, write_text
from autoprivacy.workflow.logs import run_script


def write(folder: str, name: str, rows: Sequence[Mapping[str, Any]], table: TextTable) -> None:
    """`folder`/`name`.csv, .md and .tex."""
    write_rows(f"{folder}/{name}.csv", rows)
    write_text(f"{folder}/{name}.md", table.markdown())
    write_text(f"{folder}/{name}.tex", table.latex(f"tab:{name}"))


def main(snakemake: Any) -> None:
    files, paper = snakemake.input, read_paper(snakemake.input.paper)
    measurements = [ResultFile.read(path) for path in files.measurements]
    policies = [ResultFile.read(path) for path in files.policies]
    folder = str(Path(snakemake.output.parameters).parent)
    first = paper_tables.table1_rows(read_table(files.published[0]), policies, paper)
    write(folder, "table1", first, paper_tables.table1(first))
    measured = table2_rows(measurements, read_accuracy(files.accuracy[0]))
    second = paper_tables.table2_paper_columns(measured, paper)
    write(folder, "table2", second, paper_tables.table2(second, measurements, paper))
    third = paper_tables.table3_rows(measured, policies, paper)
    write(folder, "table3", third, paper_tables.table3(third, measurements))
    write_rows(snakemake.output.parameters, parameters_rows(policies))


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
