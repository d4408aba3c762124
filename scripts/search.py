"""Search every layer's target: autoprivacy as in the paper (section 3.1), tolerant in a wider space and faster."""

from dataclasses import replace
from typing import Any

from autoprivacy.data.dataset import load
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.he.profiling.profile import OperationProfile
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.quantize import required_ranges
from autoprivacy.search.configured_problems import noise_problem, paper_problem, tolerant_modulus
from autoprivacy.search.finetuning import FinetuneSettings
from autoprivacy.search.reward import FinetunedReward, SimulatedReward, exploration_splits
from autoprivacy.search.search import Finals, SearchSettings, run_search
from autoprivacy.search.space import NoiseLevels
from autoprivacy.search.strategies import PAPER
from autoprivacy.search.strategies.strategy import StrategySettings
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.garbled_costs import with_garbling
from autoprivacy.storage import read_rows, write_rows
from autoprivacy.workflow.logs import run_script
from autoprivacy.workflow.provenance import provenance
from autoprivacy.workflow.resumption import resumable


def main(snakemake: Any) -> None:
    params, files, search = snakemake.params, snakemake.input, snakemake.params.search
    network, darl = IntegerNetwork.load(files.network), Policy.load(files.darl)
    selection = Selection.from_config(params.selection, OperationProfile.load(files.profile), darl.packing)
    images = (search["classes"], search["finetune_images"], search["evaluation_images"])
    splits = exploration_splits(load(files.dataset).train, *images, params.seed)
    # during exploration the paper finetunes for one epoch, whatever the final finetuning takes
    finetuned = FinetunedReward(network, splits, FinetuneSettings(**{**params.finetuning, "epochs": 1}), params.seed)
    run = StrategySettings(search["episodes"], params.seed, search["warm_up_episodes"])
    if snakemake.wildcards.scheme == NoiseLevels.scheme:
        p = tolerant_modulus(
            network, required_ranges(read_rows(files.layers)), selection, params.selection["plaintext"]
        )
        reward = SimulatedReward(network, splits.together, params.seed)
        problem = noise_problem(network, darl, selection, reward, search, p)
        run = replace(run, allowed_loss=search["allowed_loss_percent"] / 100)
        settings = SearchSettings(search["strategy"], run, True, Finals(finetuned, search["finalists"]))
    else:
        problem = paper_problem(network, darl, selection, finetuned, search)
        settings = SearchSettings(PAPER, run)
    with resumable(snakemake) as state:
        result = run_search(problem, settings, state)
        record = {**provenance(search, params.seed), "finalists": result.finalists, "search_seconds": result.seconds}
        policy = replace(result.policy, provenance=record)
        with_garbling(policy, network.architecture, selection.profile, selection.link).save(snakemake.output.policy)
        write_rows(snakemake.output.history, result.history)


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
