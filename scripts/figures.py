"""Make the figures of the paper from the study's results: PDF, PNG and SVG."""

from itertools import chain
from pathlib import Path
from typing import Any

from autoprivacy.report.figures import breakdown_figure, parameters_figure, save, search_figure
from autoprivacy.report.network_settings import by_setting, settings_figure
from autoprivacy.report.paper_figures import layer_kinds, multiplication_figure, sensitivity_figure
from autoprivacy.report.results import NUMBERS, ResultFile, by_network, read_search, read_table, searched
from autoprivacy.report.tables import parameters_rows
from autoprivacy.workflow.logs import run_script


def main(snakemake: Any) -> None:
    files, folder = snakemake.input, Path(snakemake.output[0]).parent
    settings = by_setting([ResultFile.read(path) for path in files.measurements])
    first, *others = settings.values()
    save(breakdown_figure(first), folder / "breakdown")
    if others:
        save(settings_figure([*first, *chain(*others)]), folder / "network-settings")
    policies = [ResultFile.read(path) for path in files.policies]
    quantization = {Path(path).stem: read_table(path) for path in files.quantization}
    for network, own in by_network(policies).items():
        kinds = layer_kinds(quantization[network])
        save(parameters_figure(parameters_rows(own), kinds), folder / f"parameters-{network}")
    for path in files.search:
        network, scheme, packing = searched(path)
        save(search_figure(read_search(path), scheme), folder / f"search-{network}-{scheme}-{packing}")
    for path in files.multiplication:
        save(multiplication_figure(read_table(path, numbers=NUMBERS["multiplication"])), folder / "multiplication")
    for path in files.sensitivity:
        rows = read_table(path, numbers=NUMBERS["sensitivity"])
        save(sensitivity_figure(rows, parameters_rows(policies)), folder / "sensitivity")


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
