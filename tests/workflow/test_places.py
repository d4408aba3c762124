"""Where a study is made: another working directory, --directory, paths with spaces, two runs at once."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkout import CONFIGS, NETWORK, Checkout

PREPARED = "results/tiny/datasets/animals.npz"
ROOT_BIN = Path(__file__).parents[2] / "bin"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("a checkout"))
    checkout.write_example()
    return checkout


@pytest.fixture
def elsewhere(checkout, tmp_path):
    """A folder with what the study's config names, and nothing of the project."""
    folder = tmp_path / "else where"
    folder.mkdir()
    shutil.copytree(checkout.folder / "my", folder / "my")
    shutil.copy(checkout.folder / CONFIGS[-1], folder)
    return folder


def snakemake(checkout, folder, *arguments):
    command = checkout.command(*arguments)
    run = subprocess.run(command, cwd=folder, env=checkout.environment(), capture_output=True, text=True)
    return run.returncode, run.stdout + run.stderr


@pytest.mark.parametrize("with_config", [False, True])
@pytest.mark.parametrize("way", ["--snakefile", "--directory"])
def test_9_a_study_is_planned_from_another_working_directory(checkout, elsewhere, way, with_config):
    if with_config:
        shutil.copytree(checkout.folder / "config", elsewhere / "config")
    if way == "--snakefile":
        place, arguments = elsewhere, ("--snakefile", str(checkout.folder / "Snakefile"))
    else:
        # Snakemake reads config files before it changes directory
        place, arguments = checkout.folder, ("--directory", str(elsewhere))
    code, output = snakemake(checkout, place, *arguments, *CONFIGS, "--dry-run")
    assert code == 0, output[-3000:]
    assert {"train", "measure", "report"} <= set(re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE))


def test_a_data_set_is_prepared_in_another_working_directory(checkout, elsewhere):
    code, output = snakemake(
        checkout, elsewhere, "--snakefile", str(checkout.folder / "Snakefile"), *CONFIGS, "--", PREPARED
    )
    assert code == 0, output[-3000:]
    assert (elsewhere / PREPARED).exists() and not (checkout.folder / PREPARED).exists()


def test_the_command_runs_from_anywhere(checkout, tmp_path):
    shutil.copytree(checkout.folder.parents[0] / checkout.folder.name, tmp_path / "the copy")
    shutil.copytree(ROOT_BIN, tmp_path / "the copy" / "bin")
    command = [
        str(tmp_path / "the copy" / "bin" / "autoprivacy"),
        "run",
        "the copy/my/study.yaml",
        "the copy/tiny.yaml",
    ]
    environment = {**checkout.environment(), "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    run = subprocess.run([*command, "--dry-run"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "measure" in run.stdout and not (tmp_path / "results").exists()


def test_a_second_run_in_the_folder_is_refused_in_words(checkout, tmp_path):
    other = checkout.copy(tmp_path / "checkout")
    slow = "import time\nprint('started', flush=True)\ntime.sleep(60)\n"
    (other.folder / "scripts" / "prepare_dataset.py").write_text(slow)
    first = subprocess.Popen(
        other.command(*CONFIGS, "--", PREPARED),
        cwd=other.folder,
        env=other.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert any("started" in line for line in first.stdout)
        code, output = other.snakemake(*CONFIGS, "--", f"results/tiny/networks/{NETWORK}.npz")
    finally:
        os.killpg(first.pid, 9)
        first.wait()
        first.stdout.close()
    assert code != 0 and "cannot be locked" in output and "Traceback" not in output
