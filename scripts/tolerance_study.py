"""What decryption errors one network tolerates in one packing; a table and a figure."""

import logging
from pathlib import Path
from typing import Any

from autoprivacy.data.dataset import load
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.report.figures import save
from autoprivacy.report.studies import tolerance_figure
from autoprivacy.search.tolerance import IGNORED, RATE, disturbances, harmless_level, study_rows, study_split
from autoprivacy.storage import write_rows
from autoprivacy.workflow.logs import run_script
from autoprivacy.workflow.resumption import resumable


def main(snakemake: Any) -> None:
    params, files = snakemake.params, snakemake.input
    network, policy = IntegerNetwork.load(files.network), Policy.load(files.policy)
    split = study_split(load(files.dataset).test, params.tolerance["images"], params.seed)
    evaluator = Evaluator(network, policy.plaintext_modulus)
    with resumable(snakemake) as state:
        rows = study_rows(evaluator, split, disturbances(network, policy, params.seed), state)
        harmless, bits = harmless_level(rows, RATE), harmless_level(rows, IGNORED)
        where = "an output" if policy.packing == "coefficient" else "a ciphertext"
        logging.info(
            "largest error rate of %s without a loss that shows: %s; the paper: 2^-7",
            where,
            "none" if harmless is None else f"2^{harmless:g}",
        )
        if bits is not None:
            logging.info("most ignored share bits in all layers without a loss that shows: %g", bits)
        write_rows(snakemake.output.table, rows)
        save(tolerance_figure(rows, where), Path(snakemake.output.figures[0]).with_suffix(""))


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
