"""Accuracy of one network on the test split: float, integer, and per scheme modulo its p, with its errors injected and
the share bits that its circuits ignore simulated."""

import logging
from typing import Any

from autoprivacy.data.dataset import load
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.quantization.accuracy import COLUMNS, integer_row
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.search.decryption_errors import perturbation, simulated_shares
from autoprivacy.storage import read_rows, write_rows
from autoprivacy.workflow.logs import run_script


def main(snakemake: Any) -> None:
    params, files, name = snakemake.params, snakemake.input, snakemake.wildcards.network
    dataset, network = load(files.dataset), IntegerNetwork.load(files.network)
    evaluated = [row for row in read_rows(files.evaluation) if row["stage"] != "integer_modulo_p"]
    rows: list[dict[str, Any]] = [{column: row[column] for column in COLUMNS} | {"packing": ""} for row in evaluated]
    for policy_file, network_file in zip(files.policies, files.deployed, strict=True):
        policy = Policy.load(policy_file)
        residues = policy.residues(network.architecture)
        own = [integer_row(name, policy.scheme, "integer", network, residues, dataset)]
        deployed = {"errors": network}
        if network_file != files.network:
            deployed["errors_finetuned"] = IntegerNetwork.load(network_file)
        for stage, served in deployed.items():
            errors = perturbation(policy, network.architecture, "evaluate", params.seed)
            shares = simulated_shares("evaluate", params.seed)
            own.append(integer_row(name, policy.scheme, stage, served, residues, dataset, errors, shares))
        rows += [row | {"packing": policy.packing} for row in own]
        for row in own:
            logging.info("%s, %s, %s: %s%%", policy.scheme, policy.packing, row["stage"], row["accuracy_percent"])
    write_rows(snakemake.output[0], rows)


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
