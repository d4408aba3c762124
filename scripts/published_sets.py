"""Recompute the security and the error rates of the sets that the paper prints for prior systems."""

from typing import Any

from autoprivacy.he.profiling.profile import OperationProfile
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.report.results import read_paper
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.published_sets import PublishedSet, error_rows, security_rows
from autoprivacy.storage import write_rows
from autoprivacy.workflow.logs import run_script


def main(snakemake: Any) -> None:
    params, files = snakemake.params, snakemake.input
    published = [
        PublishedSet(row["scheme"], row["plaintext_bits"], row["log2_n"], row["log2_q"])
        for row in read_paper(files.paper)["table1"]
    ]
    rows, profile = security_rows(published), OperationProfile.load(files.profile)
    found = []
    for name, path in zip(params.networks, files.networks, strict=True):
        network = IntegerNetwork.load(path)
        for packing in params.packings:
            found += error_rows(rows, name, network, Selection.from_config(params.selection, profile, packing))
    write_rows(snakemake.output[0], found)


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
