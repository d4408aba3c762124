"""Intermediate results that are damaged, and a disk that is full: one line says so, and the study can go on after."""

import shutil
import subprocess

import numpy as np
import pytest
from support.cases import CASES, tiny_arrays
from support.checkout import CONFIGS, NETWORK, Checkout
from support.made_up_profile import PROFILE

pytestmark = pytest.mark.slow

FEW = ("--config", "run={networks: [small-residual], schemes: [darl, tolerant], packings: [coefficient], studies: []}")
# Intermediate below results/tiny -> what is made of it.
MADE_OF = {
    "datasets/animals.npz": f"networks/{NETWORK}.npz",
    f"checkpoints/{NETWORK}.npz": f"networks/{NETWORK}.npz",
    f"networks/{NETWORK}.npz": f"policies/{NETWORK}/darl-coefficient.json",
    f"quantization/{NETWORK}.csv": f"policies/{NETWORK}/darl-coefficient.json",
    "profile.json": f"policies/{NETWORK}/darl-coefficient.json",
    f"search/{NETWORK}/tolerant-coefficient.json": f"policies/{NETWORK}/tolerant-coefficient.json",
    f"search/{NETWORK}/tolerant-coefficient.csv": "claims.csv",
    f"policies/{NETWORK}/darl-coefficient.json": f"measurements/{NETWORK}/darl-coefficient-loopback.json",
    f"measurements/{NETWORK}/darl-coefficient-loopback.json": "tables/parameters.csv",
    "claims.csv": "report.html",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("finished"))
    checkout.write_example()
    code, output = checkout.snakemake(*CONFIGS, *FEW)
    assert code == 0, output[-5000:]
    return checkout


@pytest.mark.parametrize("damaged", MADE_OF)
def test_a_damaged_intermediate_is_named_and_made_again_once_it_is_deleted(finished, tmp_path, damaged):
    checkout = finished.copy(tmp_path / "checkout")
    path = checkout.folder / "results" / "tiny" / damaged
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    target = ("--", f"results/tiny/{MADE_OF[damaged]}")
    code, output = checkout.snakemake(*CONFIGS, *FEW, *target)
    lines = [line for line in output.splitlines() if damaged in line and ": " in line and "again" in line]
    assert code != 0 and "Traceback" not in output and "the traceback is in" not in output, output[-3000:]
    assert len(lines) == 1, output[-3000:]
    path.unlink()
    code, output = checkout.snakemake(*CONFIGS, *FEW, *target)
    assert code == 0, output[-3000:]


def can_mount():
    """Whether this user may mount a small disk that nobody else sees."""
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "-o", "size=36k", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


FULL_DISK = """
mkdir -p results && mount -t tmpfs -o size=$SIZE tmpfs results || exit 9
"$@"; echo "with $SIZE: $?"
find results -name '.*' -type f -o -name '*.new' -type f | sed 's/^/left: /'
mount -o remount,size=50m results && "$@"; echo "with more: $?"
"""
STUDY = """
study: small
datasets: {few: {npz: my/few.npz}}
networks:
  few:
    model: my/nets.py:good
    dataset: few
    classes: 4
    checkpoint: null
    training: {epochs: 1, batch_size: 20, learning_rate: 0.05, crop_padding: 0, ema_decay: 0.5}
run: {networks: [few], schemes: [darl]}
quantization: {calibration_images: 20}
measure: {images: 2}
hardware: {profile: my/profile.json}
"""


@pytest.mark.skipif(not can_mount(), reason="this user may not mount a disk")
@pytest.mark.parametrize("size", ["36k", "56k", "88k", "400k"])
def test_11_a_full_disk_is_one_line_and_the_study_goes_on_with_a_larger_one(tmp_path, size):
    checkout = Checkout(tmp_path)
    own = tmp_path / "my"
    own.mkdir()
    shutil.copy(CASES / "nets.py", own)
    PROFILE.save(own / "profile.json")
    (own / "study.yaml").write_text(STUDY)
    np.savez(own / "few.npz", **tiny_arrays(train=40, test=20))
    target = "results/small/policies/few/darl-coefficient.json"
    command = checkout.command("--configfile", "my/study.yaml", "--", target)
    run = subprocess.run(
        ["unshare", "--mount", "sh", "-c", FULL_DISK, "sh", *command],
        cwd=tmp_path,
        env={**checkout.environment(), "SIZE": size},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    first, _, then = run.stdout.partition(f"with {size}: ")
    assert "Traceback" not in run.stdout and "left: " not in then and then.endswith("with more: 0\n"), run.stdout[
        -5000:
    ]
    if not then.startswith("0\n"):
        assert "No space left on device; free some space or name another disk" in first, first[-5000:]
    assert size == "400k" or not then.startswith("0\n")
