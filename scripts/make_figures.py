"""Make the figures: parameters per layer, where the CPU seconds go, the history of the search; SVG and PNG."""

from pathlib import Path
from typing import Any

from autoprivacy.logs import run_script
from autoprivacy.report.figures import breakdown_figure, parameters_figure, save, search_figure
from autoprivacy.report.results import ResultFile, by_network, read_search
from autoprivacy.report.tables import parameters_rows


def main(snakemake: Any) -> None:
    folder = Path(snakemake.output[0]).parent
    save(breakdown_figure([ResultFile.read(path) for path in snakemake.input.measurements]), folder / "breakdown")
    policies = [ResultFile.read(path) for path in snakemake.input.policies]
    for network, own in by_network(policies).items():
        save(parameters_figure(parameters_rows(own)), folder / f"parameters-{network}")
    for path in map(Path, snakemake.input.search):
        save(search_figure(read_search(path), path.stem), folder / f"search-{path.parent.name}-{path.stem}")


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
