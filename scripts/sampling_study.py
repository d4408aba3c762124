"""How many samples of the noise it takes to know a decryption error rate, by each method; a table and a figure."""

from pathlib import Path
from typing import Any

from autoprivacy.he.parameters.policy import Policy
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.report.figures import save
from autoprivacy.report.studies import sampling_figure
from autoprivacy.search.rate_estimation import GaussianNoise, Noise, noisiest_reply, study_rows
from autoprivacy.storage import write_rows
from autoprivacy.workflow.logs import run_script


def main(snakemake: Any) -> None:
    params, files = snakemake.params, snakemake.input
    reply = noisiest_reply(IntegerNetwork.load(files.network), Policy.load(files.policy))
    noises: dict[str, Noise] = {"flooded": GaussianNoise(), "unflooded": reply}
    settings = params.sampling
    rows = [
        row
        for name, noise in noises.items()
        for row in study_rows(name, noise, settings["samples"], settings["repetitions"], params.seed)
    ]
    write_rows(snakemake.output.table, rows)
    save(sampling_figure(rows), Path(snakemake.output.figures[0]).with_suffix(""))


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
