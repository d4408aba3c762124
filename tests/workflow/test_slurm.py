"""profiles/slurm on a real Slurm of one node."""

import re
import subprocess
import sys

import pytest
from support import slurm
from support.checkout import CONFIGS, NETWORK, Checkout

from autoprivacy.storage import read_rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(slurm.missing() is not None, reason=f"Slurm cannot be run: {slurm.missing()}"),
]


def test_steps_run_as_jobs_with_their_resources(tmp_path):
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="requirements-slurm.txt is optional")
    (tmp_path / "checkout").mkdir()
    checkout = Checkout(tmp_path / "checkout")
    checkout.write_example()
    command = [sys.executable, "-m", "snakemake", "--profile", "profiles/slurm", "--cores", "2", *CONFIGS]
    target = f"results/tiny/quantization/{NETWORK}.csv"
    with slurm.running(tmp_path / "slurm"):
        run = subprocess.run(
            [*command, "--", target],
            cwd=checkout.folder,
            env=checkout.environment(),
            capture_output=True,
            text=True,
        )
        output = run.stdout + run.stderr
        assert run.returncode == 0, output[-5000:]
        jobs = re.findall(r"submitted with SLURM jobid (\d+)", output)
        shown = subprocess.run(["scontrol", "show", "jobs", "-o"], capture_output=True, text=True).stdout
    assert len(jobs) == 3  # prepare_dataset, train, quantize
    states = dict(re.findall(r"JobId=(\d+) .*?JobState=(\w+)", shown))
    assert {states[job] for job in jobs} == {"COMPLETED"}
    # training asks for all cores and 4 GB
    assert re.search(r"NumCPUs=2 .*(mem=4000M|MinMemoryNode=4000M)", shown)
    assert read_rows(checkout.folder / target)
