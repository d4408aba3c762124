"""Choose one network's parameters by rule: delphi, delphi-worst-case, darl (one set), autoprivacy+ (a set a layer)."""

from typing import Any

from autoprivacy.he.profiling.profile import OperationProfile
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.quantize import required_range, required_ranges
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.exact import EXACT_SCHEME, autoprivacy_plus, fastest
from autoprivacy.selection.garbled_costs import with_garbling
from autoprivacy.selection.plaintext_modulus import PlaintextRule
from autoprivacy.selection.schemes import darl, delphi, delphi_worst_case
from autoprivacy.storage import read_rows
from autoprivacy.workflow.logs import run_script


def main(snakemake: Any) -> None:
    settings, files, wildcards = snakemake.params.selection, snakemake.input, snakemake.wildcards
    network, name, rows = IntegerNetwork.load(files.network), wildcards.network, read_rows(files.layers)
    selection = Selection.from_config(settings, OperationProfile.load(files.profile), wildcards.packing)
    degrees, squares = selection.profile.degrees, bool(network.architecture.squares)
    if wildcards.scheme == "delphi":
        policy = delphi(network, name, required_range(rows), selection)
    elif wildcards.scheme == "delphi-worst-case":
        ranges = required_ranges(rows, "worst_case")
        p = PlaintextRule(kind="prime").modulus(ranges, selection.packing, degrees, squares)
        policy = delphi_worst_case(network, name, p, selection)
    elif wildcards.scheme == EXACT_SCHEME:
        policy = autoprivacy_plus(
            network, name, required_ranges(rows), selection, PlaintextRule(**settings["plaintext"])
        )
    else:
        rule = PlaintextRule(**settings["plaintext"])
        moduli = rule.candidates(required_ranges(rows), selection.packing, degrees, squares)
        policy = fastest(network, moduli, selection, lambda p: darl(network, name, p, selection))
    with_garbling(policy, network.architecture, selection.profile, selection.link).save(snakemake.output[0])


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
