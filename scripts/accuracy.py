"""Join the networks' accuracy tables."""

from typing import Any

from autoprivacy.storage import read_rows, write_rows
from autoprivacy.workflow.logs import run_script


def main(snakemake: Any) -> None:
    write_rows(snakemake.output[0], [row for path in snakemake.input.networks for row in read_rows(path)])


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
