"""Choose one layer's parameters over kernel sizes, bit widths and error rates."""

import logging
from typing import Any

from autoprivacy.he.profiling.profile import OperationProfile
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.quantize import required_ranges
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.sensitivity import middle_convolution, sensitivity_rows, variants
from autoprivacy.storage import read_rows, write_rows
from autoprivacy.workflow.logs import run_script

FLOODINGS = ("none", "statistical")  # the paper's Figure 4 has none


def main(snakemake: Any) -> None:
    params, files = snakemake.params, snakemake.input
    layer = middle_convolution(IntegerNetwork.load(files.network).layers.values())
    ranges = required_ranges(read_rows(files.layers))
    profile = OperationProfile.load(files.profile)
    selections = [
        Selection.from_config({**params.selection, "flooding": flooding}, profile, packing)
        for packing in params.packings
        for flooding in FLOODINGS
    ]
    logging.info("layer %s", layer.shape.name)
    studied = variants(layer, ranges[layer.shape.name], params.seed)
    write_rows(snakemake.output[0], sensitivity_rows(studied, selections))


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
