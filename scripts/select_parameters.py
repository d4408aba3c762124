"""Choose one network's parameters by rule: delphi (as published), delphi-worst-case or darl (one set each)."""

from typing import Any

from autoprivacy.he.plaintext import PlaintextRule
from autoprivacy.he.profiling import OperationProfile
from autoprivacy.he.schemes import darl, delphi, delphi_worst_case
from autoprivacy.he.selection import Selection
from autoprivacy.logs import run_script
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.quantize import required_range, required_ranges
from autoprivacy.storage import read_rows


def main(snakemake: Any) -> None:
    settings, files, wildcards = snakemake.params.selection, snakemake.input, snakemake.wildcards
    network, name, rows = IntegerNetwork.load(files.network), wildcards.network, read_rows(files.layers)
    selection = Selection.from_config(settings, OperationProfile.load(files.profile), wildcards.packing)
    degrees = selection.profile.degrees
    if wildcards.scheme == "delphi":
        policy = delphi(network, name, required_range(rows), selection)
    elif wildcards.scheme == "delphi-worst-case":
        p = PlaintextRule().modulus(required_ranges(rows, "worst_case"), selection.packing, degrees)
        policy = delphi_worst_case(network, name, p, selection)
    else:
        p = PlaintextRule(**settings["plaintext"]).modulus(required_ranges(rows), selection.packing, degrees)
        policy = darl(network, name, p, selection)
    policy.save(snakemake.output[0])


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
