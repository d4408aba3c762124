"""Choose one network's parameters by every rule of the parameters table: packings, floodings and steps."""

from typing import Any

from autoprivacy.he.profiling.profile import OperationProfile
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.quantize import required_ranges
from autoprivacy.selection.ablation import Subject, Tolerances, parameter_rows
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.plaintext_modulus import PlaintextRule
from autoprivacy.storage import read_rows, write_rows
from autoprivacy.workflow.logs import run_script


def main(snakemake: Any) -> None:
    params, files, name = snakemake.params, snakemake.input, snakemake.wildcards.network
    rows, table = read_rows(files.layers), params.table
    shifts = {row["name"]: int(row["shift"]) for row in rows}
    ranges = required_ranges(rows), required_ranges(rows, "worst_case")
    subject = Subject(name, params.weights, IntegerNetwork.load(files.network), *ranges, shifts)
    profile = OperationProfile.load(files.profile)
    selections = [
        Selection.from_config({**params.selection, "flooding": flooding}, profile, packing)
        for packing in table["packings"]
        for flooding in table["floodings"]
    ]
    rule, tolerances = PlaintextRule(**params.selection["plaintext"]), Tolerances(**table["tolerances"])
    write_rows(snakemake.output[0], parameter_rows(subject, selections, table["steps"], rule, tolerances))


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
