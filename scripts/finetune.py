"""Finetune the integer network on the whole training split with the errors of the policy that the search found."""

from pathlib import Path

from autoprivacy.data import load
from autoprivacy.logs import run_script
from autoprivacy.policy import Policy
from autoprivacy.provenance import provenance
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.search.errors import perturbation
from autoprivacy.search.finetuning import FinetuneSettings, finetune


def main(snakemake):
    params, files = snakemake.params, snakemake.input
    policy = Policy.load(files.policy)
    network = finetune(
        IntegerNetwork.load(files.network),
        load(files.dataset).train,
        perturbation(policy, "finetune", params.seed),
        FinetuneSettings(**params.finetuning),
        params.seed,
        Path(params.state) / "state.pt",
    )
    network.save(snakemake.output[0], provenance=provenance(params.finetuning, params.seed))


run_script(main, snakemake)  # noqa: F821
