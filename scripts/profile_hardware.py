"""Time every homomorphic operation over (n, number of primes) on this machine."""

from typing import Any

from autoprivacy.he.profiling import profile
from autoprivacy.logs import run_script


def main(snakemake: Any) -> None:
    hardware = snakemake.params.hardware
    counts = range(1, hardware["maximum_primes"] + 1)
    profile(hardware["degrees"], counts, hardware["repeats"]).save(snakemake.output[0])


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
