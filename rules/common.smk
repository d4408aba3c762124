# What all rules share: the validated config, paths, and the input functions.
import os
import sys
from pathlib import Path

sys.path.insert(0, os.path.join(workflow.basedir, "scripts"))

from autoprivacy.data.sources import counts, folder_listing
from autoprivacy.workflow.config import complete, search_settings
from autoprivacy.workflow.config_origin import Origin
from autoprivacy.workflow.data_limits import check_limits
from autoprivacy.workflow.durations import announcement, steps_of
from autoprivacy.errors import UserError
from autoprivacy.workflow.fingerprint import SourceFiles

SOURCES = SourceFiles(
    Path(workflow.basedir, "scripts"), cache=Path(".snakemake/autoprivacy-sources.json")
)

try:
    # merged in this order: Snakemake lists those of the command line, which come last, first
    given = workflow.overwrite_configfiles
    origin = Origin(
        [
            os.path.relpath(file)
            for file in [
                *(f for f in workflow.configfiles if Path(f).absolute() not in given),
                *given,
            ]
        ]
    )
    config = complete(config, origin)
    if workflow.is_main_process:
        used = {
            config["networks"][name]["dataset"] for name in config["run"]["networks"]
        }
        found = {
            name: counts(
                name, config["datasets"].get(name), Path(workflow.basedir, "data")
            )
            for name in used
        }
        check_limits(config, found, origin)
    # a network's function is named in the config, so its file is no import that a script shows
    MODEL_FILES = {
        name: SOURCES.of_model(network["model"])
        for name, network in config["networks"].items()
    }
except UserError as error:
    # not a WorkflowError: Snakemake would put its own file, line and stack around the one line that matters
    sys.exit(str(error))

RESULTS = f"results/{config['study']}"
# What a run names beside config/config.yaml, for the commands that the report prints.
STUDY_CONFIG = " ".join(map(os.path.relpath, given)) or None


# How finetuning is done, wherever it is; on how many images is each user's own.
FINETUNING = {
    key: value for key, value in config["finetuning"].items() if key != "images"
}
NETWORKS = config["run"]["networks"]
SCHEMES = config["run"]["schemes"]
# Schemes whose targets a search finds, and schemes that exist in coefficient packing alone.
SEARCHED_SCHEMES = ("autoprivacy", "tolerant")
COEFFICIENT_SCHEMES = ("tolerant",)
# What is chosen: every scheme in every packing that it has.
CHOICES = [
    (scheme, packing)
    for packing in config["run"]["packings"]
    for scheme in SCHEMES
    if scheme not in COEFFICIENT_SCHEMES or packing == "coefficient"
]
# What is measured of it.
CONTENDERS = [pair for pair in CHOICES if pair[0] not in config["measure"]["leave_out"]]


def measured_settings(network):
    """Names of the network settings that a network is measured under."""
    settings, linked = (
        config["measure"][key] for key in ("network_settings", "linked_networks")
    )
    return settings if linked is None or network in linked else settings[:1]


SEARCHES = [pair for pair in CHOICES if pair[0] in SEARCHED_SCHEMES]
# For the accuracy: of an exact scheme one packing, as its errors show in none; of a searched one each.
EVALUATED = [
    pair
    for pair in CONTENDERS
    if pair in SEARCHES
    or pair == next(other for other in CONTENDERS if other[0] == pair[0])
]
# Experiments beside the comparison of the schemes, and the networks that they are made with.
STUDIES = config["run"]["studies"]
TOLERANCE_NETWORKS = config["tolerance"]["networks"] or NETWORKS
SAMPLING_NETWORKS = config["sampling"]["networks"] or NETWORKS[:1]
COMPARED_NETWORKS = config["search"]["comparison"]["networks"] or NETWORKS
# of every network a file for each seed, which are made side by side
COMPARISONS = [
    f"{RESULTS}/comparison/{network}/{config['seed'] + number}.csv"
    for network in COMPARED_NETWORKS
    for number in range(config["search"]["comparison"]["seeds"])
]
SENSITIVITY_NETWORK = config["sensitivity"]["network"] or NETWORKS[0]


def usable_cores():
    """Cores of a run: `-j8` may be more than this machine has, where the run is on it."""
    if not workflow.local_exec:
        return workflow.cores
    return min(workflow.cores, len(os.sched_getaffinity(0)))


onstart:
    takes = config["takes"]
    if takes["minutes"]:
        print(
            f"The whole {config['study']} study takes about {takes['minutes']} minutes on two cores, "
            f"{takes['memory_gb']} GB of memory and {takes['disk_gb']} GB of disk.",
            file=sys.stderr,
        )
    print(
        announcement(steps_of(workflow), config, found, usable_cores()),
        file=sys.stderr,
    )


wildcard_constraints:
    network="|".join(config["networks"]),
    dataset="[a-z0-9-]+",
    scheme=r"delphi|delphi-worst-case|darl|autoprivacy\+?|tolerant",
    packing="coefficient|slot",
    setting="|".join(config["network_settings"]),


# How many jobs that compute run at a time here (profiles/default): one alone does not fill the cores. A cluster decides.
COMPUTING = int(workflow.local_exec)


def half_of_the_cores(wildcards):
    """Threads of such a job."""
    return max(1, usable_cores() // 2)


def library(*scripts):
    """A digest of scripts and of what they import: a param, so that a change of it reruns the step."""
    paths = [SOURCES.root / script for script in scripts]
    return SOURCES.fingerprint(
        [*paths, *(file for path in paths for file in SOURCES.imported(path))]
    )


def model_code(wildcards):
    """A digest of the files that define a network: no import of a script shows them, as the config names it."""
    return SOURCES.fingerprint(MODEL_FILES[wildcards.network])


def network_settings(wildcards):
    return config["networks"][wildcards.network]


def trained_settings(wildcards):
    """What training uses of a network's entry: how parameters are searched for it is no part of it."""
    entry = network_settings(wildcards)
    used = {key: value for key, value in entry.items() if key != "search"}
    start = own_or_project(entry["training"]["initial_weights"])
    return {**used, "training": {**entry["training"], "initial_weights": start}}


def used_search(network, *unused):
    """The part `search` of the config as it is for a network, less what a step does not use."""
    settings = search_settings(config, network)
    return {key: value for key, value in settings.items() if key not in unused}


def scheme_search(wildcards):
    """What a scheme's search uses: how strategies are compared is no part of it, and autoprivacy is always the
    paper's."""
    fixed = (
        ("strategy", "finalists", "allowed_loss_percent")
        if wildcards.scheme == "autoprivacy"
        else ()
    )
    return used_search(wildcards.network, "comparison", *fixed)


def strategy_comparison(wildcards):
    """What the comparison of strategies uses."""
    settings = used_search(wildcards.network, "episodes", "strategy", "finalists")
    comparison = settings["comparison"]
    used = {key: value for key, value in comparison.items() if key != "networks"}
    return {**settings, "comparison": used}


def teacher(wildcards):
    """The name of the network that this one is distilled from, or None."""
    distillation = network_settings(wildcards)["training"]["distillation"]
    return distillation and distillation["teacher"]


def prepared_dataset(wildcards):
    return dataset_of(wildcards.network)


def dataset_of(network):
    """The prepared data set of a network, its images fitted where the network takes others."""
    entry = config["networks"][network]
    wanted = entry["input"]
    if not any(wanted.values()):
        return f"{RESULTS}/datasets/{entry['dataset']}.npz"
    parts = "-".join(
        str(wanted[key] or "own") for key in ("height", "width", "channels")
    )
    return f"{RESULTS}/datasets/{entry['dataset']}/{parts}.npz"


def own_dataset(wildcards):
    """The entry of `datasets` that the wildcard names; empty for a built-in data set."""
    return config["datasets"].get(wildcards.dataset, {})


def checkpoint_file(wildcards):
    """The checkpoint of the network of the wildcard."""
    return network_checkpoint(wildcards.network)


def network_checkpoint(network):
    """The checkpoint that the config names, or the one that the train rule makes."""
    published = config["networks"][network]["checkpoint"]
    return own_or_project(published) or f"{RESULTS}/checkpoints/{network}.npz"


def project(path):
    """A file of the checkout, as seen from the working directory: relative, so that it does not matter where both lie."""
    return os.path.relpath(Path(workflow.basedir, path))


def own_or_project(path):
    """A path of the config: of the working directory, or of the checkout where only that has it; None for None."""
    return path if not path or os.path.exists(path) else project(path)


def integer_network(network):
    return f"{RESULTS}/networks/{network}.npz"


def deployed_network(network, scheme, packing):
    """The integer network that a scheme serves: finetuned with its errors where the scheme tolerates any."""
    if scheme in SEARCHED_SCHEMES:
        return f"{RESULTS}/networks/{network}-{scheme}-{packing}.npz"
    return integer_network(network)


def policy_file(network, scheme, packing):
    return f"{RESULTS}/policies/{network}/{scheme}-{packing}.json"


def measurement_file(network, scheme, packing, setting):
    return f"{RESULTS}/measurements/{network}/{scheme}-{packing}-{setting}.json"


def table_weights(network):
    """Whether the network is trained; asking for the table trains none."""
    return "trained" if os.path.exists(network_checkpoint(network)) else "random"


def table_stem(wildcards):
    """The name of the files of the network's integer form."""
    random = table_weights(wildcards.network) == "random"
    return f"{wildcards.network}-random" if random else wildcards.network
