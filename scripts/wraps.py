"""Count the accumulators of one network that wrap modulo a p of few bits, and what that costs in accuracy."""

from typing import Any

from autoprivacy.data.dataset import load
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.wraps import wrap_rows
from autoprivacy.search.tolerance import study_split
from autoprivacy.storage import write_rows
from autoprivacy.workflow.logs import run_script


def main(snakemake: Any) -> None:
    params, files = snakemake.params, snakemake.input
    split = study_split(load(files.dataset).test, params.images, params.seed)
    rows = wrap_rows(snakemake.wildcards.network, IntegerNetwork.load(files.network), split)
    write_rows(snakemake.output[0], rows)


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
