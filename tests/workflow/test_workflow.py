"""The workflow itself: the example of docs/own-network.md from training to report, what reruns, what a mistake says."""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from PIL import Image
from support.checkout import CONFIG, CONFIGS, NETWORK, Checkout

from autoprivacy.data.dataset import load
from autoprivacy.storage import read_json, read_rows

BY_RULE = ("delphi", "delphi-worst-case", "darl", "autoprivacy+")
SCHEMES = ("delphi", "delphi-worst-case", "darl", "autoprivacy", "autoprivacy+", "tolerant")  # as the tables list them
CONTENDERS = [(scheme, "coefficient") for scheme in SCHEMES]
CONTENDERS += [(scheme, "slot") for scheme in SCHEMES if scheme != "tolerant"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("checkout"))
    checkout.write_example()
    code, output = checkout.snakemake(*CONFIGS)
    assert code == 0, output[-5000:]
    return checkout


@pytest.fixture
def study(finished):
    return finished.folder / "results" / "tiny"


def test_the_study_ends_with_tables_figures_and_a_report(study):
    rows = read_rows(study / "tables" / "table2.csv")
    assert [(row["scheme"], row["packing"]) for row in rows] == CONTENDERS
    for row in rows:
        assert float(row["t_pre_seconds"]) > 0 and int(float(row["m_pre_bytes"])) > 0
        assert row["images_differing"] == "0" or row["exact"] == "False"
    page = (study / "report.html").read_text()
    assert page.count("<svg") >= 3 and "autoprivacy" in page


def test_a_claim_is_made_again_by_the_command_beside_it(finished, study):
    for row in read_rows(study / "claims.csv"):
        first, *arguments = row["command"].split()
        assert first == "snakemake" and arguments[-1] == f"results/tiny/{row['file']}"
        assert arguments[arguments.index("--configfile") + 1] != "config/config.yaml"  # Snakemake reads that anyway
    code, output = finished.snakemake("-n", *arguments[arguments.index("--configfile") :])
    assert code == 0, output[-2000:]


def test_every_measured_parameter_set_is_secure_and_exact_where_promised(study):
    for scheme, packing in CONTENDERS:
        record = read_json(study / "measurements" / NETWORK / f"{scheme}-{packing}-loopback.json")
        policy = read_json(study / "policies" / NETWORK / f"{scheme}-{packing}.json")
        assert all(layer["predicted"]["security_bits"] >= 128 for layer in policy["layers"])
        assert len(record["images"]) == 2 and record["exact"] == (scheme in BY_RULE)
        if record["exact"]:
            assert all(image["differing_outputs"] == 0 for image in record["images"])


def test_policies_predict_activations(study):
    for scheme, packing in CONTENDERS:
        policy = read_json(study / "policies" / NETWORK / f"{scheme}-{packing}.json")
        totals, layers = policy["predicted"], policy["layers"]
        spent = [totals.get(name, 0) for name in ("latency_seconds", "garbled_seconds", "lookup_seconds")]
        assert totals["total_seconds"] == pytest.approx(sum(spent))
        of_activations = 0.0
        for name in ("garbled_bytes", "lookup_bytes"):
            behind = [layer["predicted"].get(name, 0) for layer in layers]
            assert sum(behind) == pytest.approx(totals.get(name, 0)) and behind[-1] == 0
            of_activations += sum(behind)
        assert of_activations > 0


def test_latencies_are_compared_and_a_profile_is_taken_as_it_is(finished, study):
    reused = ("--config", "study=reused", "hardware={profile: results/tiny/profile.json}")
    code, output = finished.snakemake(*CONFIGS, *reused, "--", "latency_comparison")
    assert code == 0, output[-5000:]
    other = finished.folder / "results" / "reused"
    assert read_json(other / "profile.json") == read_json(study / "profile.json")
    rows = read_rows(other / "latency" / "layers.csv")
    assert {(row["packing"], row["weights"]) for row in rows} == {("coefficient", "random"), ("slot", "random")}
    assert all(float(row["predicted_seconds"]) > 0 and float(row["measured_seconds"]) > 0 for row in rows)
    summary = read_rows(other / "latency" / "summary.csv")
    assert [row["packing"] for row in summary] == ["coefficient", "slot", "all"]
    assert int(summary[-1]["layers"]) == len(rows)
    assert (other / "figures" / "latency.png").exists() and (other / "figures" / "latency.svg").exists()


def test_the_network_is_evaluated_before_any_scheme(study):
    rows = read_rows(study / "accuracy" / f"{NETWORK}-evaluation.csv")
    assert [row["stage"] for row in rows] == ["float", "folded", "integer", "integer_modulo_p"]
    table = read_rows(study / "accuracy.csv")
    columns = [name for name in table[0] if name != "packing"]  # which no accuracy before a scheme has
    assert [[row[name] for name in columns] for row in rows[:3]] == [
        [row[name] for name in columns] for row in table[:3]
    ]
    confusion = read_rows(study / "confusion" / f"{NETWORK}.csv")
    total = sum(int(count) for row in confusion for name, count in row.items() if name != "class")
    right = sum(int(row[f"predicted_{row['class']}"]) for row in confusion)
    assert total == int(rows[3]["images"])
    assert 100 * right / total == pytest.approx(float(rows[3]["accuracy_percent"]), abs=1e-3)


def test_bytes_and_times_of_the_two_parties_agree(study):
    record = read_json(study / "measurements" / NETWORK / "darl-coefficient-loopback.json")
    for image in record["images"]:
        for phase in ("offline", "online"):
            client, server = image[phase]["client"], image[phase]["server"]
            for party in (client, server):
                assert sum(part["seconds"] for part in party["parts"]) <= party["seconds"] * 1.0001
            for sent, received in (("sent", "received"), ("received", "sent")):
                assert client[f"bytes_{sent}"] == server[f"bytes_{received}"]
                assert client["messages"][sent] == server["messages"][received]
                assert sum(part[f"bytes_{sent}"] for part in client["parts"]) == client[f"bytes_{sent}"]


def test_a_second_run_does_nothing(finished):
    code, output = finished.snakemake(*CONFIGS)
    assert code == 0 and "Nothing to be done" in output
    assert finished.would_run() == set()


def test_the_parameters_table_is_made_on_demand(finished, study):
    code, output = finished.snakemake(*CONFIGS, "--", "parameters_table")
    assert code == 0, output[-5000:]
    rows = read_rows(study / "tables" / "ablation.csv")
    assert {(row["packing"], row["flooding"]) for row in rows} == {
        (packing, flooding) for packing in ("slot", "coefficient") for flooding in ("statistical", "none")
    }
    assert {row["weights"] for row in rows} == {"trained"} and len(rows) == 4 * 7
    choices = {row["step"]: row for row in read_rows(study / "tables" / "parameter-choices.csv")}
    policy = read_json(study / "policies" / NETWORK / "darl-coefficient.json")
    bits = (policy["layers"][0]["parameters"]["plaintext_modulus"] - 1).bit_length()  # of the prime, 2^k or a bit more
    assert 0 <= bits - (int(float(choices["calibrated-p"]["plaintext_modulus"])) - 1).bit_length() <= 1
    for name in ("tables/ablation.md", "tables/parameter-choices.md", f"figures/ablation-{NETWORK}.svg"):
        assert (study / name).stat().st_size > 1000
    # a network that nobody has trained gets random weights, and asking for the table trains none
    code, output = finished.snakemake(*CONFIGS, "--dry-run", "--", "results/tiny/parameters/untrained.csv")
    rules = set(re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE))
    assert code == 0 and rules == {"prepare_dataset", "quantize_random", "parameter_choices"}


def test_an_image_folder_is_prepared_again_when_an_image_changes(finished):
    pictures = finished.folder / "pictures"
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (pictures / name).mkdir(parents=True)
        Image.linear_gradient("L").convert("RGB").resize((4, 4)).save(pictures / name / "1.png")
    (finished.folder / "pictures.yaml").write_text("datasets: {pictures: {folder: pictures}}")
    arguments = (*CONFIGS, "pictures.yaml", "--", "results/tiny/datasets/pictures.npz")
    code, output = finished.snakemake(*arguments)
    assert code == 0, output
    assert load(finished.folder / arguments[-1]).classes == 2
    assert "Nothing to be done" in finished.snakemake(*arguments)[1]
    Image.new("RGB", (5, 4)).save(pictures / "test" / "b" / "2.png")
    code, output = finished.snakemake(*arguments)
    assert code != 0 and "2.png: 5x4 pixels, but" in output and "Traceback" not in output


def test_a_wrong_config_value_is_one_line(finished):
    before = (finished.folder / CONFIG).read_text()
    (finished.folder / CONFIG).write_text(before.replace("images: 2", "images: two"))
    try:
        code, output = finished.snakemake(*CONFIGS, "--dry-run")
    finally:
        (finished.folder / CONFIG).write_text(before)
    assert code != 0 and "Traceback" not in output
    assert "measure.images: got 'two'; allowed: integer, at least 2; file: tiny.yaml" in output


def test_the_integer_network_can_be_finetuned(finished, tmp_path):
    checkout = object.__new__(Checkout)
    checkout.folder = tmp_path / "copy"
    shutil.copytree(finished.folder, checkout.folder)
    checkout.edit(CONFIG, "calibration_images: 200", "calibration_images: 200\n  finetuning_epochs: 1")
    assert {"quantize", "evaluate", "measure", "report"} <= checkout.would_run()
    results = checkout.folder / "results" / "tiny"
    rounded, rows = (
        (results / f"networks/{NETWORK}.npz").read_bytes(),
        read_rows(results / f"quantization/{NETWORK}.csv"),
    )
    code, output = checkout.snakemake(*CONFIGS, "--", f"results/tiny/quantization/{NETWORK}.csv")
    assert code == 0, output
    assert (results / f"networks/{NETWORK}.npz").read_bytes() != rounded
    tuned = read_rows(results / f"quantization/{NETWORK}.csv")
    assert [row["name"] for row in tuned] == [row["name"] for row in rows]
    assert [row["accumulator_maximum"] for row in tuned] != [row["accumulator_maximum"] for row in rows]
    assert not list((results / "state").glob("quantize*"))


def test_a_network_that_no_scheme_is_run_for_can_be_evaluated(tmp_path):
    checkout = Checkout(tmp_path)
    wanted = ["results/paper/accuracy/resnet32-evaluation.csv", "results/paper/confusion/mobilenetv2-cifar10.csv"]
    code, output = checkout.snakemake("--dry-run", *wanted)
    assert code == 0, output
    assert set(re.findall(r"^rule (\w+):", output, re.MULTILINE)) <= {
        "prepare_dataset",
        "train",
        "quantize",
        "evaluate",
    }


def test_the_committed_studies_can_be_planned(tmp_path):
    checkout = Checkout(tmp_path)
    for arguments in (
        [],
        *(["--configfile", f"config/{study}.yaml"] for study in ("quick", "networks", "paper-short")),
    ):
        code, output = checkout.snakemake("--dry-run", *arguments)
        assert code == 0, output
        assert {"profile_hardware", "search", "measure", "claims", "report"} <= set(re.findall(r"rule (\w+):", output))


def test_networks_that_are_not_linked_are_measured_under_the_first_setting_alone(tmp_path):
    code, output = Checkout(tmp_path).snakemake("--dry-run", "--configfile", "config/paper-short.yaml")
    assert code == 0, output
    measured = set(re.findall(r"log: results/paper-short/logs/measure-([\w-]+)\.log", output))
    linked = {f"{network}-{link}" for network in ("7cnet", "resnet32") for link in ("loopback", "lan")}
    assert measured == {*linked, "mobilenetv2-loopback", "mobilenetv2-cifar10-loopback"}
    assert "figures/network-settings.svg" in output


def test_a_study_whose_networks_have_one_setting_each_has_no_figure_of_several(tmp_path):
    none = ("--config", "measure={network_settings: [loopback, lan], linked_networks: []}")
    code, output = Checkout(tmp_path).snakemake("--dry-run", "--configfile", "config/quick.yaml", *none)
    assert code == 0 and "rule figures" in output, output
    assert "figures/network-settings" not in output and "-lan.json" not in output


@pytest.mark.slow
def test_the_quick_study_runs_from_a_clean_checkout(tmp_path):
    checkout = Checkout(tmp_path)
    quick = ("--configfile", "config/quick.yaml")
    code, output = checkout.snakemake(*quick)
    assert code == 0, output[-5000:]
    rows = read_rows(tmp_path / "results" / "quick" / "tables" / "table2.csv")
    exact = [row for row in rows if row["exact"] == "True"]
    assert len(rows) == 3 and len(exact) == 2 and all(row["images_differing"] == "0" for row in exact)
    code, output = checkout.snakemake(*quick)
    assert code == 0 and "Nothing to be done" in output


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stood(tmp_path):
    checkout = Checkout(tmp_path)
    checkout.write_example()
    # long enough to be caught in the middle; state is written every 0.2 s
    checkout.edit(CONFIG, "epochs: 3", "epochs: 10")
    checkout.edit(
        "scripts/autoprivacy/training/settings.py",
        "save_every_seconds: float = 60.0",
        "save_every_seconds: float = 0.2",
    )
    target = (f"results/tiny/checkpoints/{NETWORK}.npz", *CONFIGS)
    process = subprocess.Popen(
        checkout.command(*target),
        cwd=tmp_path,
        env=checkout.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob(f"results/tiny/state/train-{NETWORK}/*.pt")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / f"results/tiny/checkpoints/{NETWORK}.npz").exists()
    assert checkout.snakemake(*CONFIGS, "--unlock")[0] == 0
    code, output = checkout.snakemake(*target)
    assert code == 0, output[-5000:]
    assert "going on at step" in (tmp_path / f"results/tiny/logs/train-{NETWORK}.log").read_text()
    assert (tmp_path / f"results/tiny/checkpoints/{NETWORK}.json").exists()
    assert not list(tmp_path.glob("results/tiny/state/*"))


@pytest.mark.slow
def test_the_short_study_of_the_paper_runs_to_its_end(tmp_path):
    """With AUTOPRIVACY_DATA set to CIFAR-10 and CIFAR-100."""
    if not os.environ.get("AUTOPRIVACY_DATA"):
        pytest.skip("AUTOPRIVACY_DATA does not say where CIFAR is")
    checkout = Checkout(tmp_path)
    command = checkout.command("--configfile", "config/paper-short.yaml")
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-5000:]
    results = tmp_path / "results" / "paper-short"
    verdicts = {row["claim"]: row["verdict"] for row in read_rows(results / "claims.csv")}
    assert verdicts["security"] and "not tested" not in verdicts.values()
    for table in ("table1", "table2", "table3"):
        assert all((results / "tables" / f"{table}.{form}").stat().st_size > 100 for form in ("csv", "md", "tex"))
    for figure in ("breakdown", "multiplication", "sensitivity", "parameters-resnet32", "parameters-mobilenetv2"):
        assert all((results / "figures" / f"{figure}.{form}").stat().st_size > 1000 for form in ("pdf", "png", "svg"))
