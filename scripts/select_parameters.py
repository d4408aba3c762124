"""Choose one network's parameters by rule: delphi (as published), delphi-worst-case or darl (one set each)."""

import logging
from typing import Any

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.he.profiling.profile import OperationProfile
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.quantize import required_range, required_ranges
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.garbled_costs import predicted_seconds, with_garbling
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
    else:
        rule = PlaintextRule(**settings["plaintext"])
        moduli = rule.candidates(required_ranges(rows), selection.packing, degrees, squares)
        policy = cheapest_darl(network, name, moduli, selection)
    with_garbling(policy, network.architecture, selection.profile, selection.link).save(snakemake.output[0])


def cheapest_darl(network: IntegerNetwork, name: str, moduli: list[int], selection: Selection) -> Policy:
    """Of darl's policies for these plaintext moduli the one of least predicted latency, garbled circuits included."""
    policies: list[Policy] = []
    refusals: list[UserError] = []
    for p in moduli:
        try:
            policy = darl(network, name, p, selection)
        except UserError as error:  # no matter where another p serves
            logging.info("%s", error)
            refusals.append(error)
            continue
        policies.append(with_garbling(policy, network.architecture, selection.profile, selection.link))
        logging.info("p = %d: %.3f s predicted", p, predicted_seconds(policies[-1]))
    if not policies:
        raise refusals[0]
    return min(policies, key=predicted_seconds)


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
