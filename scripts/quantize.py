"""Make the 8-bit integer network of a trained network, finetuned where the config asks so, and its per-layer table."""

from typing import Any

from autoprivacy.data.dataset import load
from autoprivacy.networks import build_for
from autoprivacy.quantization.quantize import QuantizationSettings, measured_rows, quantize
from autoprivacy.search.finetuning import FinetuneSettings, finetune
from autoprivacy.storage import write_rows
from autoprivacy.training.checkpoints import load_weights
from autoprivacy.workflow.logs import run_script
from autoprivacy.workflow.provenance import provenance
from autoprivacy.workflow.resumption import resumable


def main(snakemake: Any) -> None:
    params = snakemake.params
    dataset = load(snakemake.input.dataset, params.normalisation)
    model = build_for(params.model, params.classes, dataset)
    load_weights(model, snakemake.input.checkpoint)
    settings = QuantizationSettings(**params.quantization)
    with resumable(snakemake) as state:
        network, rows = quantize(model.eval(), dataset, settings)
        if settings.finetuning_epochs:
            finetuning = FinetuneSettings(**params.finetuning)
            network = finetune(network, dataset.train, None, finetuning, params.seed, state)
            rows = measured_rows(network, dataset, settings)
        record = provenance({"quantization": params.quantization, "finetuning": params.finetuning}, params.seed)
        network.save(snakemake.output.network, provenance=record)
        write_rows(snakemake.output.layers, rows)


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
