"""What is published: checkpoints with their records, and the accuracy table, which README.md repeats."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from autoprivacy.networks import build
from autoprivacy.storage import read_json, read_rows
from autoprivacy.training.checkpoints import load_weights
from autoprivacy.training.settings import TrainingSettings
from autoprivacy.workflow.config import complete

ROOT = Path(__file__).parents[2]
NETWORKS = complete(yaml.safe_load((ROOT / "config" / "config.yaml").read_text()))["networks"]
ACCURACY = {(row["network"], row["stage"]): row for row in read_rows(ROOT / "models" / "accuracy.csv")}


@pytest.mark.parametrize("name", NETWORKS)
def test_checkpoints_fit_their_networks_and_have_a_record(name):
    network = NETWORKS[name]
    header = load_weights(build(network["model"], network["classes"]), ROOT / network["checkpoint"])
    record = read_json((ROOT / network["checkpoint"]).with_suffix(".json"))
    assert header == record
    assert record["dataset"] == network["dataset"] and record["test_images"] == 10_000
    commit = record["provenance"]["commit"].removesuffix("-dirty")  # models/README.md names the changes
    assert len(commit) == 40 and all(digit in "0123456789abcdef" for digit in commit)
    assert record["provenance"]["settings"]["epochs"] == len(record["progress"]["losses"])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_config_holds_the_recipe(name):
    """Of networks trained in one run, as far as the record's commit had the settings already."""
    record = read_json((ROOT / NETWORKS[name]["checkpoint"]).with_suffix(".json"))
    if record.get("initial_weights_sha256"):
        pytest.skip("trained in several runs")
    recorded = record["provenance"]["settings"]
    settings = asdict(TrainingSettings.from_config(NETWORKS[name]["training"], record["provenance"]["seed"]))
    expected = json.loads(json.dumps(settings))
    assert recorded == {key: expected[key] for key in recorded}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_accuracy_table_is_of_these_checkpoints_and_the_readme_repeats_it(name):
    record = read_json((ROOT / NETWORKS[name]["checkpoint"]).with_suffix(".json"))
    stages = {stage: ACCURACY[name, stage] for stage in ("float", "folded", "integer", "integer_modulo_p")}
    assert {int(row["images"]) for row in stages.values()} == {10_000}
    assert float(stages["float"]["accuracy_percent"]) == pytest.approx(record["test_accuracy_percent"], abs=0.03)
    figures = [f"{float(stages[stage]['accuracy_percent']):.2f}%" for stage in ("float", "integer_modulo_p")]
    cells = [
        line.split("|") for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| `{name}`")
    ]
    assert [[cell.strip() for cell in row[3:5]] for row in cells] == [figures]
