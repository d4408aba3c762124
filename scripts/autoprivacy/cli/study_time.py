"""How long a run will take: the sum of its steps, each from what it works on.

The seconds are those of an idle machine of two cores (Intel Xeon, Sapphire Rapids), one core for each step that leaves
the other to others. They were fitted to one run of config/quick.yaml and to the jobs of one of config/paper-short.yaml
(`logs/*.usage.json`). Steps that ran before in the same folder with the same settings count what they took then.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoprivacy.data.sources import image_shape
from autoprivacy.workflow.config import search_settings
from autoprivacy.workflow.durations import Step

if TYPE_CHECKING:
    from autoprivacy.networks.size import NetworkSize

IMAGE_SHAPE = (3, 32, 32)  # of images that only preparing them shows
FORWARD = (14e-3, 0.4e-3)  # seconds of an image in training: by 10^9 multiply-accumulates, by 10^6 values
TUNED = (8e-3, 3e-3)  # the same under decryption errors
INTEGER = 17e-3  # seconds of an image in the integer network, by 10^6 values; with errors a little more
DISTURBED = 8e-3  # seconds of an image in a search, by 10^6 values
TRAINING = 3  # forward passes that a step of training is worth: one forward and two of the size backward
# Rules whose steps run alone or never in a study; they count once they have run here.
UNKNOWN = ("compare_peers", "quantize_random")
START = 3.0  # seconds of a step that only reads and writes results


@dataclass(frozen=True)
class Work:
    """What a network's steps work on."""

    size: NetworkSize
    train: int  # images
    test: int

    @property
    def forward(self) -> float:
        """Seconds of an image's forward pass."""
        return FORWARD[0] * self.size.operations + FORWARD[1] * self.size.values


def step_seconds(step: Step, config: Mapping[str, Any], work: Mapping[str, Work]) -> float:
    """Of one step.

    Args:
        step: the job.
        config: the completed configuration.
        work: of every network that steps name.
    """
    if step.before is not None:
        return step.before
    own = work.get(step.wildcards.get("network", ""))
    if own is not None and step.rule in OF_NETWORKS:
        return OF_NETWORKS[step.rule](step, config, own)
    if step.rule in OF_STUDIES:
        return OF_STUDIES[step.rule](config)
    return 0.0 if step.rule in UNKNOWN else START


def _train(step: Step, config: Mapping[str, Any], work: Work) -> float:
    training = config["networks"][step.wildcards["network"]]["training"]
    return 8 + TRAINING * work.forward * work.train * training["epochs"]


def _quantize(step: Step, config: Mapping[str, Any], work: Work) -> float:
    settings = config["quantization"]
    tuned = TRAINING * work.forward * work.train * settings["finetuning_epochs"]
    return 6 + 2.4 * INTEGER * work.size.values * min(settings["calibration_images"], work.train) + tuned


def _evaluate(step: Step, config: Mapping[str, Any], work: Work) -> float:
    return 4.5 + INTEGER * work.size.values * work.test


def _select(step: Step, config: Mapping[str, Any], work: Work) -> float:
    return 3.5 + (0.25 if step.wildcards["scheme"] in ("darl", "autoprivacy+") else 0.05) * work.size.layers


def _search(step: Step, config: Mapping[str, Any], work: Work) -> float:
    settings = search_settings(config, step.wildcards["network"])
    tuned, seen = exploration_images(settings, config["networks"][step.wildcards["network"]]["classes"], work.train)
    image = DISTURBED * work.size.values
    passes = TRAINING * tuned * config["finetuning"]["epochs"] + seen
    if step.wildcards["scheme"] == "autoprivacy":
        return 10 + settings["episodes"] * (0.1 + image * passes)
    chosen = 1.5 * settings["finalists"] * passes + 4 * settings["episodes"] * seen
    return 10 + 0.5 * work.size.layers + image * chosen


def _finetune(step: Step, config: Mapping[str, Any], work: Work) -> float:
    settings = config["finetuning"]
    image = TUNED[0] * work.size.operations + TUNED[1] * work.size.values
    return 8 + TRAINING * image * min(settings["images"] or work.train, work.train) * settings["epochs"]


def _network_accuracy(step: Step, config: Mapping[str, Any], work: Work) -> float:
    packings = len(config["run"]["packings"])
    schemes = set(config["run"]["schemes"]) - set(config["measure"]["leave_out"])
    evaluated = sum(packings if scheme == "autoprivacy" else 1 for scheme in schemes)
    return 5 + INTEGER * work.size.values * work.test * evaluated


def _measure(step: Step, config: Mapping[str, Any], work: Work) -> float:
    settings, setting = config["measure"], config["network_settings"][step.wildcards["setting"]]
    schemes = [scheme for scheme in config["run"]["schemes"] if scheme not in settings["leave_out"]]
    many = settings["throughput"]
    images = settings["images"] + settings["warm_up_images"] + (many["images"] if many else 0)
    link = 4 * work.size.layers * (setting["round_trip_seconds"] or 0)
    if setting["bits_per_second"]:
        link += 1.2e9 * 8 * work.size.values / setting["bits_per_second"]
    seconds = 6.0
    for packing in config["run"]["packings"]:
        image = 3 + 13 * work.size.values if packing == "slot" else 0.1 + 2.5 * work.size.values
        contenders = [scheme for scheme in schemes if packing == "coefficient" or scheme != "tolerant"]
        seconds += len(contenders) * (4 + images * (image + link))
    return seconds


def _compare_searches(step: Step, config: Mapping[str, Any], work: Work) -> float:
    settings = search_settings(config, step.wildcards["network"])
    _, seen = exploration_images(settings, config["networks"][step.wildcards["network"]]["classes"], work.train)
    compared = settings["comparison"]
    return 6 + INTEGER * work.size.values * len(compared["strategies"]) * compared["evaluations"] * seen


def _tolerance(step: Step, config: Mapping[str, Any], work: Work) -> float:
    return 4 + 1.2 * work.size.values * min(config["tolerance"]["images"], work.test)


def _wraps(step: Step, config: Mapping[str, Any], work: Work) -> float:
    return 4 + 0.12 * work.size.values * min(config["tolerance"]["images"], work.test)


def _parameter_choices(step: Step, config: Mapping[str, Any], work: Work) -> float:
    return 5 + 200 * work.size.values**2


def _sampling(step: Step, config: Mapping[str, Any], work: Work) -> float:
    return 4 + 0.23e-6 * config["sampling"]["samples"] * config["sampling"]["repetitions"]


def _profile(config: Mapping[str, Any]) -> float:
    hardware = config["hardware"]
    if hardware["profile"]:
        return START
    sets = sum(math.log2(degree / 1024) + 1 for degree in hardware["degrees"]) * hardware["maximum_primes"] / 2
    return 28 + 0.05 * sets * hardware["repeats"]


# Steps of a network of which each waits for the one before.
CHAIN = ("quantize", "select_parameters", "search", "finetune", "network_accuracy")
# Steps of the whole study, and of one network, by rule.
OF_STUDIES: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "profile_hardware": _profile,
    "multiplication": lambda config: 1.5 + 2.9 * config["multiplication"]["repeats"],
    "latency_comparison": lambda config: 30 + 9 * config["latency_comparison"]["repeats"],
    "published_sets": lambda config: 2 + 2 * len(config["run"]["networks"]),
    "parameters_table": lambda config: 2.5 * len(config["run"]["networks"]),
    "repeated_queries": lambda config: 6.0,
    "sensitivity": lambda config: 8.5,
}
OF_NETWORKS: dict[str, Callable[[Step, Mapping[str, Any], Work], float]] = {
    "train": _train,
    "quantize": _quantize,
    "evaluate": _evaluate,
    "select_parameters": _select,
    "search": _search,
    "finetune": _finetune,
    "network_accuracy": _network_accuracy,
    "measure": _measure,
    "network_search_comparison": _compare_searches,
    "tolerance_study": _tolerance,
    "wraps": _wraps,
    "parameter_choices": _parameter_choices,
    "sampling_study": _sampling,
}


def exploration_images(settings: Mapping[str, Any], classes: int, train: int) -> tuple[int, int]:
    """Images that an episode finetunes with and that it is evaluated on, as `search.reward` draws them."""
    chosen = settings["classes"] or max(classes // 10, 2)
    usable = train * chosen // classes
    seen = settings["evaluation_images"] or min(usable // 4, 2500)
    return settings["finetune_images"] or min(usable - usable // 4, 7500), seen


def run_seconds(steps: Iterable[Step], config: Mapping[str, Any], work: Mapping[str, Work], cores: int) -> float:
    """Of a whole run: steps that take all cores one after the other, others side by side as far as a network's steps do
    not wait for each other."""
    alone = spread = 0.0
    chains: dict[str, dict[str, float]] = {}
    for step in steps:
        seconds, threads = step_seconds(step, config, work), min(step.threads, cores)
        if threads == cores:
            alone += seconds
            continue
        spread += seconds * threads / cores
        if step.rule in CHAIN and "network" in step.wildcards:
            own = chains.setdefault(step.wildcards["network"], {})
            own[step.rule] = max(own.get(step.rule, 0.0), seconds)
    return alone + max(spread, *(sum(chain.values()) for chain in chains.values()), 0.0)


def in_words(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"{max(5, round(seconds, -1)):.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


def _work(config: Mapping[str, Any], counts: Mapping[str, Mapping[str, Any] | None], network: str) -> Work:
    from autoprivacy.networks.size import network_size  # imports torch, which takes seconds

    entry = config["networks"][network]
    wanted = entry["input"]
    held_shape = image_shape(config["datasets"].get(entry["dataset"])) or IMAGE_SHAPE
    channels, height, width = (
        wanted[key] or own for key, own in zip(("channels", "height", "width"), held_shape, strict=True)
    )
    held = counts.get(entry["dataset"]) or {"train": 50000, "test": 10000}
    train, test = (min(held[split], config["data"][f"{split}_images"] or held[split]) for split in ("train", "test"))
    return Work(network_size(entry["model"], entry["classes"], (channels, height, width)), train, test)


def main() -> None:
    """Print the line for what stands on standard input."""
    given = json.load(sys.stdin)
    steps = [Step(**step) for step in given["steps"]]
    names = {step.wildcards["network"] for step in steps if "network" in step.wildcards and step.before is None}
    work = {name: _work(given["config"], given["counts"], name) for name in names}
    seconds = run_seconds(steps, given["config"], work, given["cores"])
    of_rules: dict[str, float] = {}
    for step in steps:
        of_rules[step.rule] = of_rules.get(step.rule, 0.0) + step_seconds(step, given["config"], work)
    longest = sorted(of_rules, key=lambda rule: -of_rules[rule])[:3]
    parts = ", ".join(f"{rule} {in_words(of_rules[rule])}" for rule in longest)
    unknown = sorted({step.rule for step in steps if step.rule in UNKNOWN and step.before is None})
    more = f", and what {', '.join(unknown)} take, which is not known before the first run" if unknown else ""
    print(f"This run takes about {in_words(seconds)} on an idle machine of two cores ({parts}){more}.")


if __name__ == "__main__":
    main()
