"""Prepare one data set: find, verify, unpack."""

import os
from pathlib import Path
from typing import Any

from autoprivacy.data.origins import prepare
from autoprivacy.workflow.logs import run_script


def main(snakemake: Any) -> None:
    folder = snakemake.config["data"]["folder"] or os.environ.get("AUTOPRIVACY_DATA")
    prepare(
        snakemake.wildcards.dataset,
        Path(snakemake.output[0]),
        snakemake.params.source,
        Path(folder) if folder else None,
        Path(snakemake.params.sample_folder),
        Path(snakemake.params.download_to),
    )


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
