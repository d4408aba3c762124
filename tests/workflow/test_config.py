"""The configuration: the committed ones are valid, defaults are filled in, every mistake is one helpful line."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from autoprivacy.data.sources import Counts
from autoprivacy.errors import UserError
from autoprivacy.protocol.measurement import MeasureSettings
from autoprivacy.quantization.quantize import QuantizationSettings
from autoprivacy.training.settings import Distillation, TrainingSettings
from autoprivacy.workflow.config import complete, keys, load_schema, search_settings
from autoprivacy.workflow.data_limits import check_limits

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
        ({"seed": "x"}, ["seed", "'x'", "integer", "command line"]),
        ({"seed": -1}, ["seed", "-1", "at least 0"]),
        ({"run": {"networks": ["7cnt"], "schemes": ["darl"]}}, ["run.networks", '"7cnt"', "7cnet"]),
        ({"run": {"networks": ["7cnet"], "schemes": ["delfi"]}}, ["run.schemes.0", "delfi", "delphi, delphi-worst"]),
        ({"run": {"networks": ["7cnet"]}}, ["run.schemes", "nothing"]),
        ({"run": {"networks": ["7cnet", "7cnet"], "schemes": ["darl"]}}, ["run.networks", "no value twice"]),
        (
            {"run": {"networks": ["7cnet"], "schemes": ["darl"], "packings": ["rows"]}},
            ["packings.0", "coefficient, slot"],
        ),
        ({"measure": {"linked_networks": ["7cnt"]}}, ["measure.linked_networks", '"7cnt"', "7cnet"]),
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


def merged(tmp_path, *texts):
    """The configuration of files laid over each other, as Snakemake merges them, and the files."""
    config, files = {}, []
    for number, text in enumerate(texts):
        files.append(tmp_path / f"{number}.yaml")
        files[-1].write_text(text)
        _lay_over(config, yaml.safe_load(text))
    return config, files


def _lay_over(config, other):
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            _lay_over(config[key], value)
        else:
            config[key] = value


OWN = """
study: own
datasets: {mine: {npz: a.npz}}
networks:
  a: {model: "a.py:f", dataset: mine, classes: 3, training: {epochs: 1}}
run: {networks: [a], schemes: [darl]}
"""


def test_numbers_as_names(tmp_path):
    text = (
        OWN.replace("  a: {", "  18: {")
        .replace("[a]", "[18]")
        .replace("mine", "2024")
        .replace("study: own", "study: 7")
    )
    config = complete(*merged(tmp_path, text))
    assert list(config["networks"]) == ["18"] == config["run"]["networks"] and config["study"] == "7"
    assert list(config["datasets"]) == ["2024"] and config["networks"]["18"]["dataset"] == "2024"


@pytest.mark.parametrize("name", ["on", "010", "0x10", "1_000", "~", "1.5"])
def test_names_that_are_something_else_to_yaml_are_to_be_quoted(tmp_path, name):
    with pytest.raises(UserError, match=rf"{name} is .* to YAML, .* write it in quotes; .*, line 5"):
        complete(*merged(tmp_path, OWN.replace("  a: {", f"  {name}: {{")))
    if name != "~":  # an empty item has the schema's own message
        with pytest.raises(UserError, match=rf"run.networks.0: {name} is .* in quotes; file: .*0.yaml, line 6"):
            complete(*merged(tmp_path, OWN.replace("[a]", f"[{name}]")))


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("2E-1", 0.2), ("'0.5'", 0.5), ("1e0", 1.0)])
def test_numbers_that_yaml_takes_for_text(tmp_path, text, value):
    training = f"{{epochs: 1e1, learning_rate: {text}}}"
    config = complete(*merged(tmp_path, OWN.replace("{epochs: 1}", training)))
    training = config["networks"]["a"]["training"]
    assert (training["learning_rate"], training["epochs"]) == (value, 10) and isinstance(training["epochs"], int)


def test_text_that_is_no_number_stays_text(tmp_path):
    with pytest.raises(UserError, match=r"learning_rate: got '1e-3x'; allowed: number, above 0; .*0.yaml, line 5"):
        complete(*merged(tmp_path, OWN.replace("{epochs: 1}", "{epochs: 1, learning_rate: 1e-3x}")))


def test_a_key_that_stands_twice(tmp_path):
    with pytest.raises(UserError, match=r"config: networks.a: set twice, in lines 5 and 6 of .*0.yaml; keep one"):
        complete(*merged(tmp_path, OWN.replace("run:", "  a: {classes: 3}\nrun:")))
    anchors = OWN.replace("a: {model", "a: &a {model").replace("run:", "  b: {<<: *a, classes: 4}\nrun:")
    assert complete(*merged(tmp_path, anchors))["networks"]["b"]["classes"] == 4  # which a merge brings is no second


def test_the_file_and_line_of_a_mistake(tmp_path):
    over = "seed: 3\nnetworks:\n  a:\n    classes: 1\n"
    with pytest.raises(UserError, match=r"networks.a.classes: got 1; .* file: .*1.yaml, line 4$"):
        complete(*merged(tmp_path, OWN, over))
    config, files = merged(tmp_path, OWN, "seed: 3\n")
    with pytest.raises(UserError, match=r"seed: got -3; .* file: the command line"):
        complete({**config, "seed": -3}, files)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study: a\n\tseed: 1\n", "line 2: not valid YAML: a tab; YAML takes spaces alone"),
        ("study: [a\n", "not valid YAML"),
        (None, "none.yaml: no such file"),
    ],
)
def test_files_that_are_no_yaml(tmp_path, text, message):
    path = tmp_path / "none.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        complete(main_config(), [MAIN, path])
    assert "\n" not in str(error.value)


CIFAR10 = Counts(50000, 10000, (5000,) * 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"measure": {"images": 10001}},
            "measure.images: got 10001; .* at most 10000: .* cifar10 has 10000",
        ),
        ({"data": {"test_images": 2}, "measure": {"images": 3}}, "measure.images: got 3; allowed: at most 2"),
        ({"search": {"classes": 11}}, "search.classes: got 11; allowed: at most 10"),
        (
            {"search": {"classes": 2, "finetune_images": 10001}},
            "finetune_images: got 10001; allowed: at most 10000",
        ),
        (
            {"search": {"finetune_images": 7600, "evaluation_images": 2500}},
            "got 7600; allowed: at most 7500",
        ),
        (
            {"networks": {"7cnet": {**NETWORK, "dataset": "cifar10", "classes": 11}}},
            "classes: got 11; allowed: at most 10",
        ),
    ],
)
def test_settings_larger_than_the_data(change, message):
    config = complete({**main_config(), "run": {"networks": ["7cnet"], "schemes": ["autoprivacy"]}, **change})
    with pytest.raises(UserError, match=message):
        check_limits(config, {"cifar10": CIFAR10})
    check_limits(config, {})  # nothing is known of the data


def test_the_batch_size_counts_where_a_network_is_trained():
    networks = {"a": {**NETWORK, "training": {"epochs": 1, "batch_size": 300}}}
    config = complete({**main_config(), "datasets": {"mine": {"npz": "a"}}, "networks": networks, "run": RUN})
    with pytest.raises(UserError, match="networks.a.training.batch_size: got 300; allowed: at most 200"):
        check_limits({**config, "measure": {**config["measure"], "images": 2}}, {"mine": Counts(200, 80, (67, 67, 66))})


def test_a_measurement_takes_every_setting_that_its_rule_passes_on():
    """Others say what is measured, not how."""
    rule = (ROOT / "rules" / "measure.smk").read_text()
    left_out = set(re.findall(r'"(\w+)"', re.search(r"if key not in \(([^)]*)\)", rule)[1]))
    known = set(load_schema()["properties"]["measure"]["properties"])
    assert known - left_out == {field.name for field in fields(MeasureSettings)} - {"network"}
