"""Join the networks' accuracy tables."""

from autoprivacy.logs import run_script
from autoprivacy.storage import read_rows, write_rows


def main(snakemake):
    write_rows(snakemake.output[0], [row for path in snakemake.input.networks for row in read_rows(path)])


run_script(main, snakemake)  # noqa: F821
