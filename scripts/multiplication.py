"""Time HE multiplications over n and q, our kernels beside SEAL's."""

from typing import Any

from autoprivacy.he.profiling.multiplication import multiplication_rows
from autoprivacy.storage import write_rows
from autoprivacy.workflow.logs import run_script


def main(snakemake: Any) -> None:
    params = snakemake.params.multiplication
    counts = range(1, params["maximum_primes"] + 1)
    write_rows(snakemake.output[0], multiplication_rows(params["degrees"], counts, params["repeats"]))


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
