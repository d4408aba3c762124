"""Choose one network's parameters by rule: delphi, delphi-worst-case, darl (one set), autoprivacy+ (a set a layer)."""

from typing import Any

from autoprivacy.he.profiling.profile import OperationProfile
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.selection.by_rule import chosen_by_rule
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.plaintext_modulus import PlaintextRule
from autoprivacy.storage import read_rows
from autoprivacy.workflow.logs import run_script


def main(snakemake: Any) -> None:
    settings, files, wildcards = snakemake.params.selection, snakemake.input, snakemake.wildcards
    network, rows = IntegerNetwork.load(files.network), read_rows(files.layers)
    selection = Selection.from_config(settings, OperationProfile.load(files.profile), wildcards.packing)
    rule = PlaintextRule(**settings["plaintext"])
    policy = chosen_by_rule(wildcards.scheme, network, wildcards.network, rows, selection, rule)
    policy.save(snakemake.output[0])


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
