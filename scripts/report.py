"""Make the report page from the study's results and figures."""

from pathlib import Path
from typing import Any

from autoprivacy.report.page import Study, render
from autoprivacy.report.results import ResultFile, read_accuracy, read_paper, read_search, read_table, searched
from autoprivacy.storage import write_text
from autoprivacy.workflow.logs import run_script
from autoprivacy.workflow.provenance import provenance


def main(snakemake: Any) -> None:
    files = snakemake.input
    study = Study(
        name=snakemake.params.study,
        measurements=[ResultFile.read(path) for path in files.measurements],
        policies=[ResultFile.read(path) for path in files.policies],
        accuracy=read_accuracy(files.accuracy[0]),
        quantization={Path(path).stem: read_table(path) for path in files.quantization},
        search={searched(path): read_search(path) for path in files.search},
        profile=ResultFile.read(files.profile[0]),
        paper=read_paper(files.paper[0]),
        claims=read_table(files.claims, text=("claim", "verdict", "reason", "file")),
        published=read_table(files.published[0]),
        figures=Path(files.figures[0]).parent,
        made=provenance(),
    )
    write_text(snakemake.output[0], render(study))


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
