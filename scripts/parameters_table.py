"""Make the parameters table and the ablation: CSV and Markdown of all networks, a figure of each."""

from pathlib import Path
from typing import Any

from autoprivacy.report.ablation_figure import ablation_figure
from autoprivacy.report.figures import save
from autoprivacy.report.parameter_tables import ablation_markdown, ablation_rows, choices_markdown, read_choices
from autoprivacy.storage import write_rows, write_text
from autoprivacy.workflow.logs import run_script


def main(snakemake: Any) -> None:
    choices = [row for path in snakemake.input.choices for row in read_choices(path)]
    ablation, output = ablation_rows(choices), snakemake.output
    write_rows(output.choices, choices)
    write_text(output.choices_markdown, choices_markdown(choices))
    write_rows(output.ablation, ablation)
    write_text(output.ablation_markdown, ablation_markdown(ablation))
    folder = Path(output.figures[0]).parent
    for network in dict.fromkeys(row["network"] for row in ablation):
        own = [row for row in ablation if row["network"] == network]
        save(ablation_figure(own), folder / f"ablation-{network}")


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
