"""The configuration: the committed ones are valid, defaults are filled in, every mistake is one helpful line."""

from pathlib import Path

import pytest
import yaml

from autoprivacy.errors import UserError
from autoprivacy.quantization.quantize import QuantizationSettings
from autoprivacy.training.settings import Distillation, TrainingSettings
from autoprivacy.workflow.config import complete, keys, load_schema, search_settings

ROOT = Path(__file__).parents[2]
MAIN = ROOT / "config" / "config.yaml"
DISTILLATION = dict(keys())["networks.<name>.training.distillation"]["properties"]


NETWORK = {"model": "a/b.py:f", "dataset": "mine", "classes": 3, "training": {"epochs": 1}}
RUN = {"networks": ["a"], "schemes": ["darl"]}
RUN_7CNET = {**RUN, "networks": ["7cnet"]}


def student(teacher):
    return {**NETWORK, "training": {"epochs": 1, "distillation": {"teacher": teacher}}}


def main_config():
    """The default configuration without the parts that name networks, for tests that replace these."""
    config = yaml.safe_load(MAIN.read_text())
    return {key: value for key, value in config.items() if key not in ("search", "tolerance")}


def test_every_key_is_described():
    assert [key for key, entry in keys() if "description" not in entry] == []


def test_every_optional_key_has_a_default_and_defaults_are_filled_in():
    config = complete(main_config())
    assert config["selection"]["link"] == {"bits_per_second": 1000000000, "round_trip_seconds": 0.001}
    assert config["networks"]["7cnet"]["training"]["batch_size"] == 256
    assert complete(config) == config


def test_data_sets_and_teachers_of_ones_own():
    networks = {"a": student("b"), "b": NETWORK}
    config = complete({**main_config(), "datasets": {"mine": {"folder": "x"}}, "networks": networks, "run": RUN})
    assert config["networks"]["a"]["training"]["distillation"] == {"teacher": "b", "temperature": 4, "weight": 0.9}
    assert config["networks"]["b"]["training"]["distillation"] is None


def test_the_schemas_defaults_are_those_of_the_training_settings():
    network = complete({**main_config(), "datasets": {"mine": {"folder": "x"}}, "networks": {"a": NETWORK}, "run": RUN})
    training = network["networks"]["a"]["training"]
    assert TrainingSettings.from_config(training, 7) == TrainingSettings(epochs=1, seed=7)
    assert Distillation("b") == Distillation("b", *(DISTILLATION[key]["default"] for key in ("temperature", "weight")))


def test_the_schemas_defaults_are_those_of_the_quantization_settings():
    assert QuantizationSettings(**complete(main_config())["quantization"]) == QuantizationSettings()


def test_shared_definitions_stand_where_they_are_referred_to():
    found = dict(keys())
    assert found["search.budget.kind"]["enum"] == found["networks.<name>.search.budget.kind"]["enum"]
    assert found["search.budget.value"]["default"] == 0.5 and "$ref" not in str(load_schema())
    with pytest.raises(UserError, match="run.packings.0: got 'slots'; allowed: coefficient, slot; file: "):
        complete({**main_config(), "run": {**RUN_7CNET, "packings": ["slots"]}})


def test_a_networks_own_search_settings_come_first():
    config = main_config()
    config["networks"]["resnet32"]["search"] = {"episodes": 7, "budget": {"kind": "seconds", "value": 3}}
    config = complete({**config, "search": {"classes": 3, "episodes": 9}})
    own, other = (search_settings(config, network) for network in ("resnet32", "7cnet"))
    assert (own["episodes"], own["classes"], own["budget"]) == (7, 3, {"kind": "seconds", "value": 3})
    assert (other["episodes"], other["classes"], other["budget"]) == (9, 3, {"kind": "way", "value": 0.5})
    assert own["strategy"] == other["strategy"] and own["comparison"] == config["search"]["comparison"]
    assert own.keys() == other.keys() == config["search"].keys()


def test_the_given_config_is_not_changed():
    config = main_config()
    complete(config)
    assert config == main_config()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeed": 1}, ["seeed", "unknown key", "seed", "command line"]),
        ({"seed": "x"}, ["seed", "'x'", "integer", str(MAIN)]),
        ({"seed": -1}, ["seed", "-1", "at least 0"]),
        ({"run": {"networks": ["7cnt"], "schemes": ["darl"]}}, ["run.networks", '"7cnt"', "7cnet"]),
        ({"run": {"networks": ["7cnet"], "schemes": ["delfi"]}}, ["run.schemes.0", "delfi", "delphi, delphi-worst"]),
        ({"run": {"networks": ["7cnet"]}}, ["run.schemes", "nothing"]),
        ({"run": {"networks": ["7cnet", "7cnet"], "schemes": ["darl"]}}, ["run.networks", "no value twice"]),
        (
            {"run": {"networks": ["7cnet"], "schemes": ["darl"], "packings": ["rows"]}},
            ["packings.0", "coefficient, slot"],
        ),
        ({"measure": {"network_settings": ["moon"]}}, ["measure.network_settings", '"moon"', "loopback, lan, wan"]),
        (
            {"network_settings": {"slow": {"round_trip_seconds": 1, "source": "a guess"}}},
            ["network_settings.slow.bits_per_second", "got null", "a throughput"],
        ),
        ({"network_settings": {"slow": {"bits_per_second": 1}}}, ["network_settings.slow.source", "where the figures"]),
        ({"sampling": {"samples": 99_999}}, ["sampling.samples", "got 99999", "at least 100000"]),
        ({"tolerance": {"images": 0}}, ["tolerance.images", "got 0", "at least 1"]),
        ({"measure": {"images": 1}}, ["measure.images", "got 1", "at least 2"]),
        ({"networks": {}}, ["networks", "at least 1"]),
        (
            {"networks": {"a": {**NETWORK, "dataset": "cifar11"}}, "run": RUN},
            [
                "networks.a.dataset",
                '"cifar11"',
                "built-in or a key of datasets: cifar10, cifar100, cifar10-sample, mine",
            ],
        ),
        ({"datasets": {"cifar10": {"npz": "a.npz"}}}, ["datasets.cifar10", "built-in data set's name"]),
        ({"datasets": {"mine": {"npz": "a.npz", "folder": "b"}}}, ["datasets.mine", "entries: at most 1"]),
        ({"datasets": {"mine": {"zip": "a"}}}, ["datasets.mine.zip", "unknown key", "torchvision, folder, npz"]),
        ({"networks": {"a": {**NETWORK, "model": "a-b:f"}}}, ["networks.a.model", "path/to/file.py:function"]),
        (
            {"networks": {"a": student("b"), "b": {**NETWORK, "classes": 4}}, "run": RUN},
            ["networks.a.training.distillation.teacher", '"b"', "same dataset and classes: there is none"],
        ),
        (
            {"networks": {"a": student("a"), "b": NETWORK, "c": student("b")}, "run": RUN},
            ["networks.a.training.distillation.teacher", '"a"', "same dataset and classes: b, c"],
        ),
        ({"selection": {"plaintext": {"bits": 40}}}, ["selection.plaintext.bits", "got 40", "at most 31"]),
        (
            {"selection": {"plaintext": {"kind": "power_of_two"}}, "run": {**RUN_7CNET, "packings": ["slot"]}},
            ["selection.plaintext.kind", "got power_of_two", "another where run.packings has slot"],
        ),
        (
            {"selection": {"plaintext": {"kind": "composite"}}, "run": RUN_7CNET},
            ["selection.plaintext.kind", "got composite", "another where run.packings has coefficient"],
        ),
        (
            {"run": {"networks": ["7cnet"], "schemes": ["tolerant"], "packings": ["slot"]}},
            ["run.packings", "the scheme tolerant is made in it"],
        ),
        ({"search": {"strategy": "annealing"}}, ["search.strategy", "annealing", "greedy, dynamic_programming"]),
        ({"search": {"comparison": {"seeds": 2}}}, ["search.comparison.seeds", "got 2", "at least 3"]),
        (
            {"networks": {"a": {**NETWORK, "search": {"strategy": "greedy"}}}, "run": RUN},
            ["networks.a.search.strategy", "unknown key", "episodes"],
        ),
        ({"study": "A B"}, ["study", "'A B'", "pattern"]),
        ({"search": {"budget": {"kind": "way", "valu": 1}}}, ["search.budget.valu", "unknown key", "kind, value"]),
    ],
)
def test_a_mistake_gets_one_line(change, words):
    with pytest.raises(UserError) as error:
        complete({**main_config(), "datasets": {"mine": {"npz": "a.npz"}}, **change}, [MAIN])
    message = str(error.value)
    assert "\n" not in message and all(word in message for word in words)


def test_the_message_names_the_last_file_that_sets_the_key(tmp_path):
    other = tmp_path / "mine.yaml"
    other.write_text("seed: many\n")
    with pytest.raises(UserError, match="mine.yaml"):
        complete({**main_config(), "seed": "many"}, [MAIN, other])
