"""How long a run will take: the sum of its steps, each from what it works on.

The seconds are those of an idle machine of two cores (Intel Xeon, Sapphire Rapids), fitted to one run of
config/quick.yaml; no other run has checked them yet.
Steps that ran before in the same folder with the same settings count what they took then.
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
FORWARD = (14e-3, 0.4e-3)  # seconds of an image's forward pass: by 10^9 multiply-accumulates, by 10^6 values
TRAINING = 3  # forward passes that a step of training is worth: one forward and two of the size backward
# Experiments that no model of their time was fitted for: they count once they have run here.
UNKNOWN = (
    "compare_peers",
    "latency_comparison",
    "multiplication",
    "network_search_comparison",
    "parameter_choices",
    "parameters_table",
    "quantize_random",
    "repeated_queries",
    "sampling_study",
    "sensitivity",
    "tolerance_study",
    "wraps",
)
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
    if step.rule == "profile_hardware":
        return _profile(config["hardware"])
    return 0.0 if step.rule in UNKNOWN else START


def _train(step: Step, config: Mapping[str, Any], work: Work) -> float:
    training = config["networks"][step.wildcards["network"]]["training"]
    return 8 + TRAINING * work.forward * work.train * training["epochs"]


def _quantize(step: Step, config: Mapping[str, Any], work: Work) -> float:
    settings = config["quantization"]
    tuned = TRAINING * work.forward * work.train * settings["finetuning_epochs"]
    return 6 + 8 * work.forward * min(settings["calibration_images"], work.train) + tuned


def _evaluate(step: Step, config: Mapping[str, Any], work: Work) -> float:
    return 5 + 3 * work.forward * work.test


def _select(step: Step, config: Mapping[str, Any], work: Work) -> float:
    return 4 + 0.3 * work.size.layers


def _search(step: Step, config: Mapping[str, Any], work: Work) -> float:
    settings = search_settings(config, step.wildcards["network"])
    tuned, seen = exploration_images(settings, config["networks"][step.wildcards["network"]]["classes"], work.train)
    passes = TRAINING * tuned * config["finetuning"]["epochs"] + seen
    if step.wildcards["scheme"] == "autoprivacy":
        return 10 + settings["episodes"] * (0.1 + work.forward * passes)
    return 10 + settings["finalists"] * work.forward * passes + 20 * work.forward * seen


def _finetune(step: Step, config: Mapping[str, Any], work: Work) -> float:
    settings = config["finetuning"]
    return 5 + TRAINING * work.forward * min(settings["images"] or work.train, work.train) * settings["epochs"]


def _network_accuracy(step: Step, config: Mapping[str, Any], work: Work) -> float:
    schemes = len(config["run"]["schemes"]) * len(config["run"]["packings"])
    return 5 + 2 * schemes * work.forward * work.test


def _measure(step: Step, config: Mapping[str, Any], work: Work) -> float:
    settings, setting = config["measure"], config["network_settings"][step.wildcards["setting"]]
    schemes = [scheme for scheme in config["run"]["schemes"] if scheme not in settings["leave_out"]]
    contenders = len(schemes) * len(config["run"]["packings"])
    image = 0.1 + 2.5 * work.size.values
    if setting["bits_per_second"]:
        image += 1.5e9 * 8 * work.size.values / setting["bits_per_second"]
    image += 4 * work.size.layers * (setting["round_trip_seconds"] or 0)
    many = settings["throughput"]
    images = settings["images"] + settings["warm_up_images"] + (many["images"] if many else 0)
    return 6 + contenders * (3 + images * image)


def _profile(hardware: Mapping[str, Any]) -> float:
    if hardware["profile"]:
        return START
    sets = sum(math.log2(degree / 1024) + 1 for degree in hardware["degrees"]) * hardware["maximum_primes"] / 2
    return 6 + 0.12 * sets * hardware["repeats"]


OF_NETWORKS: dict[str, Callable[[Step, Mapping[str, Any], Work], float]] = {
    "train": _train,
    "quantize": _quantize,
    "evaluate": _evaluate,
    "select_parameters": _select,
    "search": _search,
    "finetune": _finetune,
    "network_accuracy": _network_accuracy,
    "measure": _measure,
}


def exploration_images(settings: Mapping[str, Any], classes: int, train: int) -> tuple[int, int]:
    """Images that an episode finetunes with and that it is evaluated on, as `search.reward` draws them."""
    chosen = settings["classes"] or max(classes // 10, 2)
    usable = train * chosen // classes
    seen = settings["evaluation_images"] or min(usable // 4, 2500)
    return settings["finetune_images"] or min(usable - usable // 4, 7500), seen


def run_seconds(steps: Iterable[Step], config: Mapping[str, Any], work: Mapping[str, Work], cores: int) -> float:
    """Of a whole run: steps that take all cores one after the other, others side by side."""
    return sum(step_seconds(step, config, work) * min(step.threads, cores) / cores for step in steps)


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
