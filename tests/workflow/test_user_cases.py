"""Cases that went wrong for users, with their own files: each has its right outcome now. Numbers name cases."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from support.cases import CASES, CLASSES, prepare_tiny
from support.made_up_profile import LINK, PROFILE
from support.services import service

from autoprivacy.cli.main import main
from autoprivacy.data.dataset import load
from autoprivacy.he.parameters.parameter_set import Flooding
from autoprivacy.networks import build_for
from autoprivacy.protocol.server import main as server_main
from autoprivacy.protocol.server_session import Model
from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.quantization.quantize import QuantizationSettings, quantize
from autoprivacy.selection.by_rule import chosen_by_rule
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.network_check import check_network
from autoprivacy.selection.plaintext_modulus import PlaintextRule
from autoprivacy.training.checkpoints import load_weights

NETS = CASES / "nets.py"
SETTINGS = QuantizationSettings(calibration_images=100)
TRAINED = CASES / "6" / "half.pt"  # of the network `good`
SCRIPTS = CASES.parents[2] / "scripts"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def dataset(prepared):
    return load(prepared)


def quantized(function, weights, dataset):
    """The integer network and its table of a network of nets.py with the weights of a file."""
    model = build_for(f"{NETS}:{function}", CLASSES, dataset)
    load_weights(model, weights)
    return quantize(model.eval(), dataset, SETTINGS)


def outputs(network, images):
    """The integer network's, int64 [N, classes]."""
    values = Evaluator(network, None).forward(network.architecture.quantize_images(images))
    return values.numpy().reshape(len(images), -1).astype(np.int64)


def policy_of(network, rows):
    selection = Selection(PROFILE, LINK, Flooding("statistical"), "coefficient")
    return chosen_by_rule("darl", network, "good", rows, selection, PlaintextRule(kind="cheapest"))


@pytest.fixture(scope="module")
def good(dataset):
    """Integer network and policy of the trained network."""
    network, rows = quantized("good", TRAINED, dataset)
    return network, policy_of(network, rows)


@pytest.mark.parametrize("function", ["view", "view_shape", "view_number", "pool_size", "functional_dropout"])
def test_6_and_7_the_flatten_and_dropout_of_most_tutorials(function, dataset, caplog):
    with caplog.at_level("INFO"):
        check_network(f"{NETS}:{function}", CLASSES, dataset, 1)
    assert "the network can be made private: 2 linear layers" in caplog.text
    model = build_for(f"{NETS}:{function}", CLASSES, dataset).eval()
    network, _ = quantize(model, dataset, SETTINGS)
    images = dataset.test.images[:32]
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2) / 255).float()
    mean, std = (torch.tensor(value).view(1, 3, 1, 1).float() for value in (dataset.mean, dataset.std))
    with torch.no_grad():
        expected = model((pixels - mean) / std).numpy()
    scale = network.output_scale
    assert np.abs(outputs(network, images) * scale - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("function", ["view", "view_number", "view_shape", "functional_dropout"])
def test_6_a_checkpoint_takes_the_place_of_training(function, dataset, good):
    network, _ = quantized(function, TRAINED, dataset)
    images, labels = dataset.test.images, dataset.test.labels
    assert (outputs(network, images).argmax(1) == labels).mean() > 0.95
    assert np.array_equal(outputs(network, images), outputs(good[0], images))


def test_15_weights_as_others_save_them(dataset, good):
    networks = [quantized("good", CASES / "15" / file, dataset)[0] for file in ("module.pt", "old.pt", "thop.pt")]
    module, old, thop = (outputs(network, dataset.test.images) for network in networks)
    assert np.array_equal(module, old) and np.array_equal(module, thop)
    half = outputs(good[0], dataset.test.images)  # the same weights, rounded
    assert np.abs(module - half).max() < 0.01 * np.abs(half).max()


def test_1_a_policy_is_not_served_with_other_weights(tmp_path, dataset, good, monkeypatch, capsys):
    monkeypatch.setattr("autoprivacy.protocol.server.serve_clients", lambda *arguments: None)
    state = torch.load(TRAINED, weights_only=True)
    state["bn.running_var"][0] = 0  # a channel that dwarfs all others, as the case's policy was made for
    torch.save(state, tmp_path / "other.pt")
    other, rows = quantized("good", tmp_path / "other.pt", dataset)
    good[0].save(tmp_path / "good.npz")
    good[1].save(tmp_path / "good.json")
    policy_of(other, rows).save(tmp_path / "other.json")
    served = ["--network", str(tmp_path / "good.npz"), "--policy"]
    assert server_main([*served, str(tmp_path / "good.json")]) == 0
    capsys.readouterr()
    assert server_main([*served, str(tmp_path / "other.json")]) == 1
    told = capsys.readouterr().err
    assert "made for another network" in told and told.count("\n") == 1


def test_1_the_cases_own_files_are_refused(monkeypatch, capsys):
    monkeypatch.setattr("autoprivacy.protocol.server.serve_clients", lambda *arguments: None)
    files = ["--network", str(CASES / "1" / "good.npz"), "--policy", str(CASES / "1" / "darl-coefficient.json")]
    assert server_main(files) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "Traceback" not in told


@pytest.fixture(scope="module")
def address(good):
    model = Model(*good)
    with service(model=model, timeout=600.0) as address:
        yield address


def test_12_a_client_that_holds_one_image(good, address, capsys):
    own = CASES / "12"
    files = [own / "mine.png", own / "mine.npz", own / "mine2.npz"]
    assert main(["infer", *map(str, files), "--timeout", "600", "--connect", address, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["image"] for line in lines] == [str(files[0]), f"{files[1]}[0]", f"{files[2]}[0]"]
    for line, file in zip(lines, (files[1], files[1], files[2]), strict=True):
        with np.load(file) as arrays:
            expected = outputs(good[0], arrays["test_images"])[0]
        assert list(line["scores"].values()) == expected.tolist() and line["class"] == expected.argmax()


def client(address, prepared, **streams):
    """The client program on three images."""
    command = [sys.executable, "-m", "autoprivacy.protocol.client", "--connect", address, "--timeout", "600"]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    return subprocess.run(
        [*command, "--dataset", str(prepared)],
        env=environment,
        input="0\n1\n2\n",
        stderr=subprocess.PIPE,
        text=True,
        **streams,
    )


def test_11_a_full_disk_takes_the_clients_answers(address, prepared):
    with open("/dev/full", "w") as full:
        run = client(address, prepared, stdout=full)
    assert run.returncode == 1 and run.stderr.splitlines()[-1].endswith(
        "No space left on device; free some space or name another disk"
    )
    assert "Traceback" not in run.stderr


def test_11_whoever_reads_the_clients_answers_stops(address, prepared):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        run = client(address, prepared, stdout=writer)
    finally:
        os.close(writer)
    assert run.returncode == 1 and "Broken pipe; whoever read the output has stopped reading it" in run.stderr
    assert "Traceback" not in run.stderr
