"""Accuracy of one network on the test split: float, integer, and per scheme modulo its p, with its errors injected."""

import logging
from typing import Any

from autoprivacy.accuracy import float_row, integer_row
from autoprivacy.data import load
from autoprivacy.logs import run_script
from autoprivacy.networks import build
from autoprivacy.policy import Policy
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.search.errors import perturbation, simulates
from autoprivacy.storage import write_rows
from autoprivacy.training import load_weights


def main(snakemake: Any) -> None:
    params, files = snakemake.params, snakemake.input
    dataset, name = load(files.dataset), snakemake.wildcards.network
    model = build(params.model, params.classes)
    load_weights(model, files.checkpoint)
    network = IntegerNetwork.load(files.network)
    rows = [float_row(name, model, dataset), integer_row(name, "", "integer", network, None, dataset)]
    for policy_file, network_file in zip(files.policies, files.deployed, strict=True):
        policy = Policy.load(policy_file)
        p = policy.plaintext_modulus
        rows.append(integer_row(name, policy.scheme, "integer", network, p, dataset))
        if not simulates(policy):
            continue
        errors = perturbation(policy, "evaluate", params.seed)
        rows.append(integer_row(name, policy.scheme, "errors", network, p, dataset, errors))
        if network_file != files.network:
            deployed = IntegerNetwork.load(network_file)
            again = perturbation(policy, "evaluate", params.seed)
            rows.append(integer_row(name, policy.scheme, "errors_finetuned", deployed, p, dataset, again))
    for row in rows:
        logging.info("%s %s: %.2f%%", row["scheme"] or name, row["stage"], row["accuracy_percent"])
    write_rows(snakemake.output[0], rows)


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
