"""Make the 8-bit integer network of a trained network, and its per-layer table."""

from typing import Any

from autoprivacy.data import load
from autoprivacy.logs import run_script
from autoprivacy.networks import build_for
from autoprivacy.provenance import provenance
from autoprivacy.quantization.quantize import QuantizationSettings, quantize
from autoprivacy.storage import write_rows
from autoprivacy.training import load_weights


def main(snakemake: Any) -> None:
    params = snakemake.params
    dataset = load(snakemake.input.dataset)
    model = build_for(params.model, params.classes, dataset)
    load_weights(model, snakemake.input.checkpoint)
    network, rows = quantize(model.eval(), dataset, QuantizationSettings(**params.quantization))
    network.save(snakemake.output.network, provenance=provenance(params.quantization))
    write_rows(snakemake.output.layers, rows)


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
