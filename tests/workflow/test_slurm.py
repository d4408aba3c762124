"""profiles/slurm on a real Slurm of one node."""

import re
import subprocess
import sys

import pytest
import yaml
from support import slurm
from support.checkout import CONFIGS, NETWORK, ROOT, Checkout

from autoprivacy.storage import read_rows

TIMING = {"profile_hardware", "multiplication", "latency_comparison", "measure", "compare_peers"}


def on_slurm(checkout, cores, *arguments):
    """Run the profile; the fields of every job by its rule."""
    command = [sys.executable, "-m", "snakemake", "--profile", "profiles/slurm", "--cores", str(cores), *CONFIGS]
    run = subprocess.run(
        [*command, *arguments], cwd=checkout.folder, env=checkout.environment(), capture_output=True, text=True
    )
    output = run.stdout + run.stderr
    assert run.returncode == 0, output[-5000:]
    shown = subprocess.run(["scontrol", "show", "jobs", "-o"], capture_output=True, text=True).stdout
    jobs = {}
    for line in shown.splitlines():
        fields = dict(re.findall(r"(\w+)=(\S+)", line))
        (rule,) = re.findall(r"Comment=(?:rule_)?(\w+)", line)
        jobs.setdefault(rule.partition("_wildcards")[0], []).append(fields)
    return jobs, output


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="requirements-slurm.txt is optional")
    folder = tmp_path_factory.mktemp("slurm")
    checkout = Checkout(tmp_path_factory.mktemp("checkout"))
    checkout.write_example()
    with slurm.running(folder / "slurm"):
        yield checkout


@pytest.mark.slow
@pytest.mark.skipif(slurm.missing() is not None, reason=f"Slurm cannot be run: {slurm.missing()}")
def test_steps_run_as_jobs_with_their_resources(cluster):
    target = f"results/tiny/quantization/{NETWORK}.csv"
    jobs, _ = on_slurm(cluster, 2, "--set-resources", "train:gpu=1", "--", target)
    assert set(jobs) == {"prepare_dataset", "train", "quantize"}
    assert {job["JobState"] for found in jobs.values() for job in found} == {"COMPLETED"}
    (train,) = jobs["train"]
    assert train["NumCPUs"] == "2" and "mem=4000M" in str(train)
    assert re.search(r"gres[:/]gpu[:=]1", str(train)) and "gpu" not in str(jobs["quantize"])
    assert read_rows(cluster.folder / target)


@pytest.mark.slow
@pytest.mark.skipif(slurm.missing() is not None, reason=f"Slurm cannot be run: {slurm.missing()}")
def test_timing_has_a_node_for_itself_and_searches_run_side_by_side(cluster):
    searches = [f"results/tiny/search/{NETWORK}/{name}.csv" for name in ("autoprivacy-slot", "tolerant-coefficient")]
    jobs, _ = on_slurm(cluster, 1, "--", *searches)
    (profile,) = jobs["profile_hardware"]
    assert profile["OverSubscribe"] == "NO"  # --exclusive
    assert all(job["OverSubscribe"] != "NO" for job in jobs["search"])
    first, second = sorted(jobs["search"], key=lambda job: job["StartTime"])
    assert second["StartTime"] < first["EndTime"]


def test_every_rule_that_takes_timings_has_a_node_for_itself():
    profile = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text())
    exclusive = {rule for rule, own in profile["set-resources"].items() if "--exclusive" in own.get("slurm_extra", "")}
    assert exclusive == TIMING
    text = "".join(file.read_text() for file in (ROOT / "rules").glob("*.smk"))
    rules = dict(re.findall(r"^rule (\w+):\n(.*?)(?=^rule |\Z)", text, flags=re.M | re.S))
    timed = {name for name, body in rules.items() if "nothing else runs" in body}
    assert timed and timed <= exclusive
    assert all("threads: lambda wildcards: workflow.cores" in rules[name] for name in exclusive)
