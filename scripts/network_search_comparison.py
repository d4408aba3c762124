"""Run every search strategy on one network's problem of tolerant with one seed."""

from typing import Any

from autoprivacy.data.dataset import load
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.he.profiling.profile import OperationProfile
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.quantize import required_ranges
from autoprivacy.search.configured_problems import noise_problem, tolerant_modulus
from autoprivacy.search.problem import SearchProblem
from autoprivacy.search.reward import SimulatedReward, exploration_splits
from autoprivacy.search.strategy_comparison import Comparison
from autoprivacy.selection.conditions import Selection
from autoprivacy.storage import read_rows, write_rows
from autoprivacy.workflow.logs import run_script
from autoprivacy.workflow.resumption import resumable


def main(snakemake: Any) -> None:
    params, files, search = snakemake.params, snakemake.input, snakemake.params.search
    network, darl = IntegerNetwork.load(files.network), Policy.load(files.darl)
    selection = Selection.from_config(params.selection, OperationProfile.load(files.profile), darl.packing)
    images = (search["classes"], search["finetune_images"], search["evaluation_images"])
    splits = exploration_splits(load(files.dataset).train, *images, params.first_seed)
    # nothing is finetuned here, so these images are free to tell what the best policies are worth elsewhere
    others = splits.finetune.take(slice(0, len(splits.evaluate.labels)))
    p = tolerant_modulus(network, required_ranges(read_rows(files.layers)), selection, params.selection["plaintext"])

    def problem(seed: int) -> SearchProblem:
        reward = SimulatedReward(network, splits.evaluate, seed)
        return noise_problem(network, darl, selection, reward, search, p)

    settings = search["comparison"]
    comparison = Comparison(
        snakemake.wildcards.network,
        problem,
        lambda seed: SimulatedReward(network, others, seed + settings["seeds"]),
        settings["strategies"],
        settings["evaluations"],
        search["warm_up_episodes"],
        search["allowed_loss_percent"] / 100,
        [int(snakemake.wildcards.seed)],
    )
    with resumable(snakemake) as state:
        write_rows(snakemake.output[0], comparison.run(state))


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
