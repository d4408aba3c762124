"""A whole study of a grey network of odd size on coloured photographs in folders; its server asked for a folder."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.checkout import ROOT, Checkout
from support.made_up_profile import PROFILE

from autoprivacy.data.dataset import load
from autoprivacy.gc import rates as gc_rates
from autoprivacy.lookup import rates as lookup_rates
from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.storage import read_json, read_rows
from autoprivacy.timing import quartiles

pytestmark = pytest.mark.slow

CLASSES = ("bright", "dark", "striped")
NETWORK = """
from torch import nn


def grey(classes):
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, (3, 2), padding=(1, 0), bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(), nn.Linear(48, classes),
    )
"""
STUDY = """
study: grey
datasets: {shapes: {folder: my/shapes}}
networks:
  grey:
    model: my/grey.py:grey
    dataset: shapes
    classes: 3
    input: {height: 20, width: 14, channels: 1}
    normalisation: {mean: [0.4], std: [0.3]}
    training: {epochs: 8, batch_size: 15, learning_rate: 0.05, crop_padding: 0, ema_decay: 0.5}
run: {networks: [grey], schemes: [darl, autoprivacy+], packings: [coefficient], studies: []}
hardware: {profile: my/profile.json}
measure: {images: 2, network_settings: [loopback], leave_out: []}
"""


def photograph(label, generator):
    """28x40 coloured pixels of a class."""
    base = {0: 190, 1: 60, 2: 125}[label]
    pixels = generator.normal(base, 12, (40, 28, 3))
    if label == 2:
        pixels[::4] += 80
        pixels[2::4] -= 80
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("a checkout"))
    own, generator = checkout.folder / "my", np.random.default_rng(4)
    own.mkdir()
    (own / "grey.py").write_text(NETWORK)
    (own / "study.yaml").write_text(STUDY)
    rates = dict.fromkeys((*gc_rates.OPERATIONS, *lookup_rates.OPERATIONS), quartiles([1e-8]))
    replace(PROFILE, garbling=rates, provenance={"cpu": "made up"}).save(own / "profile.json")
    for split, count in (("train", 30), ("test", 4)):
        for label, name in enumerate(CLASSES):
            folder = own / "shapes" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                photograph(label, generator).save(folder / f"{index}.png")
    code, output = checkout.snakemake("--configfile", "my/study.yaml")
    assert code == 0, output[-5000:]
    assert re.search(r"^(?:local)?rule fit_dataset:", output, re.MULTILINE)
    return checkout


def test_the_study_ends_with_exact_inferences(made):
    results = made.folder / "results" / "grey"
    rows = read_rows(results / "tables" / "table2.csv")
    assert len(rows) == 2 and all(row["images_differing"] == "0" for row in rows)
    network = IntegerNetwork.load(results / "networks" / "grey.npz")
    assert network.architecture.nodes[0].shape == (1, 20, 14)
    assert network.architecture.image_mean == (0.4,) and network.architecture.class_names == CLASSES
    accuracy = {row["stage"]: float(row["accuracy_percent"]) for row in read_rows(results / "accuracy.csv")}
    assert accuracy["integer"] > 80 and read_json(results / "measurements/grey/darl-coefficient-loopback.json")["exact"]


def test_a_folder_of_photographs_is_classified(made):
    shutil.copytree(ROOT / "bin", made.folder / "bin", dirs_exist_ok=True)
    results, environment = made.folder / "results" / "grey", {**made.environment(), "PYTHONPATH": "scripts"}
    program = [sys.executable, "-m", "autoprivacy"]
    served = ["--network", str(results / "networks/grey.npz")]
    served += ["--policy", str(results / "policies/grey/autoprivacy+-coefficient.json")]
    server = subprocess.Popen(
        [*program, "serve", *served], cwd=made.folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        asked = ["infer", "my/shapes/test", "--resize", "--json", "--timeout", "600"]
        run = subprocess.run(
            [*program, *asked, "--connect", server.stdout.readline().strip()],
            cwd=made.folder,
            env=environment,
            capture_output=True,
            text=True,
        )
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    assert run.returncode == 0, run.stderr
    answers = {line["image"]: line for line in map(json.loads, run.stdout.splitlines())}
    network = IntegerNetwork.load(results / "networks" / "grey.npz")
    test = load(results / "datasets" / "shapes" / "20-14-1.npz").test
    exact = Evaluator(network, None).forward(network.architecture.quantize_images(test.images)).numpy()
    names = [f"my/shapes/test/{name}/{index}.png" for name in CLASSES for index in range(4)]
    assert list(answers) == names
    for name, scores in zip(names, exact.reshape(len(names), -1), strict=True):
        assert list(answers[name]["scores"].values()) == scores.astype(int).tolist()
        assert answers[name]["label"] == CLASSES[int(scores.argmax())]
