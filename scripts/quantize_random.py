"""Make the integer network and per-layer table of a network that is not trained: random weights, real images."""

from typing import Any

from autoprivacy.data.dataset import load
from autoprivacy.quantization.quantize import QuantizationSettings, quantize
from autoprivacy.quantization.random_weights import random_network
from autoprivacy.storage import write_rows
from autoprivacy.workflow.logs import run_script
from autoprivacy.workflow.provenance import provenance


def main(snakemake: Any) -> None:
    params = snakemake.params
    dataset = load(snakemake.input.dataset, params.normalisation)
    model = random_network(params.model, params.classes, dataset, params.seed)
    network, rows = quantize(model, dataset, QuantizationSettings(**params.quantization))
    record = provenance({"quantization": params.quantization, "weights": "random"}, params.seed)
    network.save(snakemake.output.network, provenance=record)
    write_rows(snakemake.output.layers, rows)


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
