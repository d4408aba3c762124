"""Make the report page from the study's results and figures."""

from pathlib import Path
from typing import Any

from autoprivacy.report.page import Study, render
from autoprivacy.report.results import ResultFile, read_accuracy, read_paper, read_search, read_table, searched
from autoprivacy.storage import write_text
from autoprivacy.workflow.logs import run_script
from autoprivacy.workflow.provenance import provenance


def main(snakemake: Any) -> None:
    study = Study(
        name=snakemake.params.study,
        measurements=[ResultFile.read(path) for path in snakemake.input.measurements],
        policies=[ResultFile.read(path) for path in snakemake.input.policies],
        accuracy=read_accuracy(snakemake.input.accuracy),
        quantization={Path(path).stem: read_table(path) for path in snakemake.input.quantization},
        search={searched(path): read_search(path) for path in snakemake.input.search},
        profile=ResultFile.read(snakemake.input.profile),
        paper=read_paper(snakemake.input.paper),
        figures=Path(snakemake.input.figures[0]).parent,
        made=provenance(),
    )
    write_text(snakemake.output[0], render(study))


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
