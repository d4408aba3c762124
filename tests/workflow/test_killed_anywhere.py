"""Every rule of a tiny study, ended by every signal in the middle of its work, and run again as README.md says."""

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from support.checkout import CONFIGS, NETWORK, Checkout

from autoprivacy.storage import read_arrays, read_json, read_rows

pytestmark = pytest.mark.slow

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
# Rule -> one of its outputs below results/tiny, and whether it is the same each time.
RULES = {
    "prepare_dataset": ("datasets/animals.npz", True),
    "train": (f"checkpoints/{NETWORK}.npz", True),
    "quantize": (f"networks/{NETWORK}.npz", True),
    "evaluate": (f"accuracy/{NETWORK}-evaluation.csv", True),
    "profile_hardware": ("profile.json", False),
    "select_parameters": (f"policies/{NETWORK}/darl-coefficient.json", True),
    "search": (f"search/{NETWORK}/tolerant-coefficient.csv", True),
    "finetune": (f"networks/{NETWORK}-tolerant-coefficient.npz", True),
    "network_accuracy": (f"accuracy/{NETWORK}.csv", True),
    "measure": (f"measurements/{NETWORK}/darl-coefficient-loopback.json", False),
    "tables": ("tables/parameters.csv", True),
    "figures": ("figures/breakdown.svg", False),
    "claims": ("claims.csv", True),
    "report": ("report.html", False),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A checkout in which each test makes what it needs and no other has made."""
    checkout = Checkout(tmp_path_factory.mktemp("shared"))
    checkout.write_example()
    return checkout


def content(path):
    """What a result says beside when and where it was made."""
    if path.suffix == ".npz":
        return {name: array.tolist() for name, array in read_arrays(path)[0].items()}
    if path.suffix == ".csv":
        return [{key: value for key, value in row.items() if key != "seconds"} for row in read_rows(path)]
    drawn = ("provenance", "commitment")  # the salt of a policy's commitment is random
    return {key: value for key, value in read_json(path).items() if key not in drawn}


def wait_for_script(process, rule):
    """Until the rule's script has worked for a moment."""
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline and process.poll() is None:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = entry.read_bytes()
                group = os.getpgid(int(entry.parent.name))
            except OSError:
                continue
            if group == process.pid and f".{rule}.py".encode() in command:
                time.sleep(np.random.default_rng().uniform(0.1, 1.0))
                return
        time.sleep(0.05)
    raise AssertionError(f"{rule} did not start: {process.poll()}")


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_that_was_ended_is_made_again(shared, tmp_path, rule, number):
    result, same = RULES[rule]
    code, output = shared.snakemake(*CONFIGS, "--", f"results/tiny/{result}")
    assert code == 0, output[-5000:]
    checkout = shared.copy(tmp_path / "checkout")
    path = checkout.folder / "results" / "tiny" / result
    before = content(path) if same else None
    target = ("--forcerun", rule, "--", f"results/tiny/{result}")
    process = subprocess.Popen(
        checkout.command(*CONFIGS, *target),
        cwd=checkout.folder,
        env=checkout.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for_script(process, rule)
    os.killpg(process.pid, number)
    process.wait(timeout=600)
    if number == signal.SIGKILL:
        code, output = checkout.snakemake(*CONFIGS, "--", f"results/tiny/{result}")
        assert code != 0 and "--unlock" in output
        assert checkout.snakemake(*CONFIGS, "--unlock")[0] == 0
    code, output = checkout.snakemake(*CONFIGS, "--", f"results/tiny/{result}")
    assert code == 0, output[-5000:]
    assert path.stat().st_size > 0
    if same:
        assert content(path) == before
    assert not [file for file in path.parent.iterdir() if file.name.startswith(f".{path.name}.")]
