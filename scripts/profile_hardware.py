"""Time every homomorphic operation over (n, number of primes) and those of garbling, or take a profile made before."""

import logging
from dataclasses import replace
from typing import Any

from autoprivacy.gc.rates import garbling_times
from autoprivacy.he.profiling.profile import OperationProfile, profile
from autoprivacy.lookup.rates import lookup_times
from autoprivacy.timing import quartiles
from autoprivacy.workflow.logs import run_script


def main(snakemake: Any) -> None:
    hardware = snakemake.params.hardware
    if hardware["profile"] is not None:
        made = OperationProfile.load(hardware["profile"])  # its provenance goes with it, into the report
        when, where = (made.provenance.get(key, "it does not say where or when") for key in ("date", "cpu"))
        logging.info("%s, measured %s on %s", hardware["profile"], when, where)
        made.save(snakemake.output[0])
        return
    counts = range(1, hardware["maximum_primes"] + 1)
    repeats = hardware["repeats"]
    passes = {**garbling_times(repeats), **lookup_times(repeats)}
    garbling = {name: quartiles(times) for name, times in passes.items()}
    measured = profile(hardware["degrees"], counts, hardware["repeats"])
    replace(measured, garbling=garbling).save(snakemake.output[0])


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
