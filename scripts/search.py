"""Let the DDPG agent choose every layer's decryption error rate (the paper's section 3.1)."""

from typing import Any

from autoprivacy.data import load
from autoprivacy.he.latency import Link
from autoprivacy.he.parameters import Flooding
from autoprivacy.he.profiling import OperationProfile
from autoprivacy.he.selection import layer_policy
from autoprivacy.logs import run_script
from autoprivacy.policy import Policy
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.resumption import resumable
from autoprivacy.search.ddpg import Agent, AgentSettings
from autoprivacy.search.environment import FEATURES, Budget, LayerwiseEnvironment
from autoprivacy.search.finetuning import FinetuneSettings
from autoprivacy.search.search import FinetunedReward, exploration_splits, run_search
from autoprivacy.storage import write_rows


def main(snakemake: Any) -> None:
    params, files = snakemake.params, snakemake.input
    search, selection = params.search, params.selection
    network, darl = IntegerNetwork.load(files.network), Policy.load(files.darl)
    profile, link = OperationProfile.load(files.profile), Link(**selection["link"])
    flooding = Flooding(selection["flooding"], selection["kappa"])
    splits = exploration_splits(
        load(files.dataset).train,
        search["classes"],
        search["finetune_images"],
        search["evaluation_images"],
        params.seed,
    )
    # during exploration the paper finetunes for one epoch, whatever the final finetuning takes
    reward = FinetunedReward(network, splits, FinetuneSettings(**{**params.finetuning, "epochs": 1}), params.seed)
    environment = LayerwiseEnvironment(
        network,
        darl,
        lambda layer, target: layer_policy(
            layer, target, darl.plaintext_modulus, flooding, profile, link, packing=darl.packing
        ),
        reward,
        Budget(**{search["budget"]["kind"]: search["budget"]["value"]}),
    )
    agent = Agent(len(FEATURES), AgentSettings(warm_up_episodes=search["warm_up_episodes"]), params.seed)
    with resumable(params.state, files, params.library) as state:
        result = run_search(environment, agent, search["episodes"], state)
        result.policy.save(snakemake.output.policy)
        write_rows(snakemake.output.history, result.history)


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
