"""What quantisation does to one network: its accuracy in floats and in integers, before any scheme; its confusions."""

import logging
from typing import Any

from autoprivacy.data.dataset import load
from autoprivacy.networks import build_for
from autoprivacy.quantization.accuracy import confusion_rows, evaluation_rows
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.quantize import plaintext_bits, required_range
from autoprivacy.storage import read_rows, write_rows
from autoprivacy.training.checkpoints import load_weights
from autoprivacy.workflow.logs import run_script


def main(snakemake: Any) -> None:
    params, files = snakemake.params, snakemake.input
    dataset = load(files.dataset, params.normalisation)
    model = build_for(params.model, params.classes, dataset)
    load_weights(model, files.checkpoint)
    modulus = 1 << plaintext_bits(*required_range(read_rows(files.layers)))
    network = IntegerNetwork.load(files.network)
    rows, confusion = evaluation_rows(snakemake.wildcards.network, model.eval(), network, modulus, dataset)
    for row in rows:
        logging.info("%s: %.2f%%", row["stage"], row["accuracy_percent"])
    write_rows(snakemake.output.rows, rows)
    write_rows(snakemake.output.confusion, confusion_rows(confusion))


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
