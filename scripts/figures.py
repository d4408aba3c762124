"""Make the figures: parameters per layer, where the CPU seconds go, network settings, searches; SVG and PNG."""

from itertools import chain
from pathlib import Path
from typing import Any

from autoprivacy.report.figures import breakdown_figure, parameters_figure, save, search_figure
from autoprivacy.report.network_settings import by_setting, settings_figure
from autoprivacy.report.results import ResultFile, by_network, read_search, searched
from autoprivacy.report.tables import parameters_rows
from autoprivacy.workflow.logs import run_script


def main(snakemake: Any) -> None:
    folder = Path(snakemake.output[0]).parent
    settings = by_setting([ResultFile.read(path) for path in snakemake.input.measurements])
    first, *others = settings.values()
    save(breakdown_figure(first), folder / "breakdown")
    if others:
        save(settings_figure([*first, *chain(*others)]), folder / "network-settings")
    policies = [ResultFile.read(path) for path in snakemake.input.policies]
    for network, own in by_network(policies).items():
        save(parameters_figure(parameters_rows(own)), folder / f"parameters-{network}")
    for path in snakemake.input.search:
        network, scheme, packing = searched(path)
        save(search_figure(read_search(path), scheme), folder / f"search-{network}-{scheme}-{packing}")


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
