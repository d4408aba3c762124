"""Accuracy of one network on the test split: float, integer, and per scheme modulo its p, with its errors injected."""

import logging
from typing import Any

from autoprivacy.accuracy import COLUMNS, integer_row
from autoprivacy.data import load
from autoprivacy.logs import run_script
from autoprivacy.policy import Policy
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.search.errors import perturbation
from autoprivacy.storage import read_rows, write_rows


def main(snakemake: Any) -> None:
    params, files, name = snakemake.params, snakemake.input, snakemake.wildcards.network
    dataset, network = load(files.dataset), IntegerNetwork.load(files.network)
    evaluated = [row for row in read_rows(files.evaluation) if row["stage"] != "integer_modulo_p"]
    rows: list[dict[str, Any]] = [{column: row[column] for column in COLUMNS} for row in evaluated]
    for policy_file, network_file in zip(files.policies, files.deployed, strict=True):
        policy = Policy.load(policy_file)
        p = policy.plaintext_modulus
        rows.append(integer_row(name, policy.scheme, "integer", network, p, dataset))
        errors = perturbation(policy, network.architecture, "evaluate", params.seed)
        rows.append(integer_row(name, policy.scheme, "errors", network, p, dataset, errors))
        if network_file != files.network:
            deployed = IntegerNetwork.load(network_file)
            again = perturbation(policy, network.architecture, "evaluate", params.seed)
            rows.append(integer_row(name, policy.scheme, "errors_finetuned", deployed, p, dataset, again))
    for row in rows:
        logging.info("%s %s: %s%%", row["scheme"] or name, row["stage"], row["accuracy_percent"])
    write_rows(snakemake.output[0], rows)


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
