"""Compare the predicted with the measured latency of every linear layer, under the sets that darl chooses."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autoprivacy.data.dataset import load
from autoprivacy.he.profiling.layer_timing import TOLERANCE, comparison_rows, summary_rows, time_layers
from autoprivacy.he.profiling.profile import OperationProfile
from autoprivacy.networks import build
from autoprivacy.quantization.integer_network import IntegerNetwork, Interval
from autoprivacy.quantization.quantize import required_ranges
from autoprivacy.quantization.untrained import untrained_network
from autoprivacy.report.figures import latency_figure, save
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.plaintext_modulus import PlaintextRule
from autoprivacy.selection.schemes import darl
from autoprivacy.storage import read_rows, write_rows
from autoprivacy.workflow.logs import run_script

# The range of accumulators where there are no trained weights to measure it with: p of 17 bits.
UNTRAINED_RANGE = (-(1 << 15), (1 << 16) - 1)


def networks(snakemake: Any) -> Iterator[tuple[str, str, IntegerNetwork, dict[str, Interval]]]:
    """Name, kind of weights, network and ranges of accumulators of every network."""
    files = snakemake.input
    trained, datasets = iter(zip(files.networks, files.layers, strict=True)), iter(files.datasets)
    for entry in snakemake.params.networks:
        if entry["trained"]:
            weights, layers = next(trained)
            yield entry["name"], "trained", IntegerNetwork.load(weights), required_ranges(read_rows(layers))
        else:
            image = load(next(datasets)).image_shape
            network = untrained_network(build(entry["model"], entry["classes"]), image)
            yield entry["name"], "random", network, dict.fromkeys(network.layers, UNTRAINED_RANGE)


def main(snakemake: Any) -> None:
    params, output = snakemake.params, snakemake.output
    profile = OperationProfile.load(snakemake.input.profile)
    rows = []
    for name, weights, network, ranges in networks(snakemake):
        for packing in params.packings:
            selection = Selection.from_config(params.selection, profile, packing)
            squares = bool(network.architecture.squares)
            p = PlaintextRule(kind="prime").modulus(ranges, packing, profile.degrees, squares)
            logging.info("%s, %s packing: choosing parameters", name, packing)
            policy = darl(network, name, p, selection)
            rows += comparison_rows(policy, time_layers(network, policy, params.repeats), weights=weights)
    summary = summary_rows(rows)
    for row in summary:
        told = row["network"], row["packing"], 100 * row["share_within_tolerance"], row["layers"], 100 * TOLERANCE
        logging.info("%s, %s packing: %.0f%% of %d layers within %.0f%%", *told)
    write_rows(output.layers, rows)
    write_rows(output.summary, summary)
    save(latency_figure(rows, TOLERANCE), Path(output.figures[0]).with_suffix(""))


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
