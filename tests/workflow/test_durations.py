"""What a run is said to take: close to what it took, computed from what its steps work on."""

import numpy as np
import pytest
import yaml
from PIL import Image
from support.checkout import ROOT

from autoprivacy.cli.study_time import Work, exploration_images, in_words, run_seconds, step_seconds
from autoprivacy.data.sources import Counts, image_shape
from autoprivacy.networks.size import network_size
from autoprivacy.workflow.config import complete
from autoprivacy.workflow.durations import Step, announcement

SEVEN_CNET = "autoprivacy.networks.seven_cnet:seven_cnet"


def study(name):
    """The config of a committed study, laid over the default one."""

    def lay_over(config, other):
        for key, value in other.items():
            if isinstance(value, dict) and isinstance(config.get(key), dict):
                lay_over(config[key], value)
            else:
                config[key] = value

    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    lay_over(config, yaml.safe_load((ROOT / "config" / name).read_text()))
    return complete(config)


def quick_steps():
    """All of config/quick.yaml on two cores."""
    network, packing = {"network": "7cnet"}, {"packing": "coefficient"}
    of = {**network, "scheme": "autoprivacy", **packing}
    small = [Step(rule, {}) for rule in ("published_sets", "accuracy", "tables", "figures", "claims", "report")]
    return [
        Step("prepare_dataset", {"dataset": "cifar10-sample"}),
        Step("profile_hardware", {}, 2),
        Step("quantize", network),
        Step("evaluate", network),
        Step("select_parameters", {**of, "scheme": "delphi"}),
        Step("select_parameters", {**of, "scheme": "darl"}),
        Step("search", of),
        Step("finetune", of),
        Step("network_accuracy", network),
        Step("measure", {**network, "setting": "loopback"}, 2),
        *small,
    ]


def seven_cnet():
    return Work(network_size(SEVEN_CNET, 10, (3, 32, 32)), 2000, 1000)


def test_the_size_of_a_network():
    size = network_size(SEVEN_CNET, 10, (3, 32, 32))
    assert size.layers == 8 and size.values * 1e6 == pytest.approx(173_056 + 10)
    assert 0.05 < size.operations < 0.2


def test_the_quick_study_takes_what_is_said():
    """150 s on an idle machine of two cores, from the first step's start to the report."""
    seconds = run_seconds(quick_steps(), study("quick.yaml"), {"7cnet": seven_cnet()}, 2)
    assert 150 / 1.5 < seconds < 150 * 1.5


@pytest.mark.parametrize(
    ("rule", "measured"),
    [
        ("profile_hardware", 43),
        ("quantize", 18),
        ("evaluate", 7),
        ("search", 40),
        ("finetune", 11),
        ("network_accuracy", 12),
        ("measure", 24),
    ],
)
def test_each_step_of_the_quick_study(rule, measured):
    """Seconds of the same run."""
    step = next(step for step in quick_steps() if step.rule == rule)
    assert measured / 1.5 < step_seconds(step, study("quick.yaml"), {"7cnet": seven_cnet()}) < measured * 1.5


def test_what_a_step_took_before_counts():
    step = Step("search", {"network": "7cnet"}, 2, before=123.0)
    assert step_seconds(step, {}, {}) == 123.0


def test_steps_of_a_network_wait_for_each_other():
    steps = [
        Step(rule, {"network": name}, 1, before=10.0) for name in "ab" for rule in ("quantize", "search", "search")
    ]
    assert run_seconds(steps, {}, {}, 2) == 30  # six steps, two at a time
    assert run_seconds(steps, {}, {}, 8) == 20
    assert run_seconds([*steps, Step("measure", {"network": "a"}, 8, before=5.0)], {}, {}, 8) == 25


def test_steps_that_take_one_core_run_side_by_side():
    steps = [Step("tables", {}, threads, before=10.0) for threads in (1, 1, 4)]
    assert run_seconds(steps, {}, {}, 4) == 10 / 4 + 10 / 4 + 10
    assert run_seconds(steps, {}, {}, 1) == 30  # Snakemake cuts threads down to the cores


def test_the_images_of_an_episode():
    settings = {"classes": None, "finetune_images": None, "evaluation_images": None}
    assert exploration_images(settings, 10, 50_000) == (7500, 2500)
    assert exploration_images({**settings, "classes": 3, "evaluation_images": 7}, 10, 1000) == (225, 7)


def test_the_line():
    config = study("quick.yaml")
    steps = [*quick_steps(), Step("compare_peers", {}, 2)]
    counts = {"cifar10-sample": Counts(2000, 1000, (200,) * 10)}
    line = announcement(steps, config, counts, 2)
    assert line.startswith("This run takes about ") and "search" in line and "minutes on an idle machine" in line
    assert line.endswith("and what compare_peers take, which is not known before the first run.")
    assert announcement([Step("prepare_dataset", {"dataset": "cifar10"}), Step("report", {})], config, counts, 2) == ""
    config["networks"]["7cnet"]["model"] = "nothing:there"
    assert announcement(steps, config, counts, 2) == "How long this run takes is not known."


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "5 seconds"), (64, "60 seconds"), (150, "2 minutes"), (3600, "60 minutes"), (9000, "2.5 hours")],
)
def test_durations_in_words(seconds, words):
    assert in_words(seconds) == words


def test_the_shape_of_a_data_sets_images(tmp_path):
    np.savez(tmp_path / "a.npz", train_images=np.zeros((2, 5, 7, 1), np.uint8))
    assert image_shape({"npz": str(tmp_path / "a.npz")}) == (1, 5, 7)
    folder = tmp_path / "folder" / "train" / "a"
    folder.mkdir(parents=True)
    Image.new("RGB", (9, 4)).save(folder / "1.png")
    assert image_shape({"folder": str(tmp_path / "folder")}) == (3, 4, 9)
    assert image_shape(None) == (3, 32, 32) and image_shape({"torchvision": "SVHN"}) is None
    assert image_shape({"npz": str(tmp_path / "none.npz")}) is None
