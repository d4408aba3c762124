"""Finetune the integer network on the training split with the errors of the policy that the search found.

The policy is bound to the result."""

from dataclasses import replace
from typing import Any

import numpy as np

from autoprivacy.data.dataset import load
from autoprivacy.he.parameters.commitment import NetworkCommitment
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.search.decryption_errors import perturbation
from autoprivacy.search.finetuning import FinetuneSettings, finetune
from autoprivacy.workflow.logs import run_script
from autoprivacy.workflow.provenance import provenance
from autoprivacy.workflow.resumption import resumable


def main(snakemake: Any) -> None:
    params, files = snakemake.params, snakemake.input
    policy = Policy.load(files.policy)
    network, train = IntegerNetwork.load(files.network), load(files.dataset).train
    # all of them where `images` is null
    train = train.take(np.random.default_rng(params.seed).permutation(len(train.labels))[: params.images])
    errors = perturbation(policy, network.architecture, "finetune", params.seed)
    with resumable(snakemake) as state:
        finetuned = finetune(network, train, errors, FinetuneSettings(**params.finetuning), params.seed, state)
        settings = {**params.finetuning, "images": params.images}
        finetuned.save(snakemake.output.network, provenance=provenance(settings, params.seed))
        replace(policy, commitment=NetworkCommitment.of(finetuned)).save(snakemake.output.policy)


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
