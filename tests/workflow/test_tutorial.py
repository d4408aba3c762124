"""docs/tutorial.md followed as a newcomer does: its files written, its commands run, its images classified."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from support.checkout import Checkout

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text()


def commands():
    """What stands in blocks without a language, in order."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.S | re.M)
    return [line for language, block in blocks if not language for line in block.splitlines()]


def checkout(place):
    """A copy of the project without results, with this installation's packages and compiled kernels."""
    left_out = shutil.ignore_patterns(".git", ".venv", ".snakemake", "results", "my", ".*_cache")
    shutil.copytree(ROOT, place, ignore=left_out)
    os.symlink(ROOT / ".venv", place / ".venv")
    (place / "my").mkdir()
    for name, text in re.findall(r"`(my/[\w.]+)`:\n```\w+\n(.*?)```", PAGE, flags=re.S):
        (place / name).write_text(text)
    return place


def run(command, place):
    result = subprocess.run(command, shell=True, cwd=place, capture_output=True, text=True)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.mark.slow
def test_the_tutorial(tmp_path):
    place = checkout(tmp_path / "a checkout")
    server = None
    try:
        for command in commands():
            if command.startswith("bin/autoprivacy serve"):
                server = subprocess.Popen(shlex.split(command), cwd=place, stdout=subprocess.PIPE, text=True)
                assert server.stdout.readline() == "127.0.0.1:9000\n"
            else:
                shown = run(command, place)
            if command.startswith("bin/autoprivacy inspect") and "policies" in command:
                assert "exact" in shown and all(name in shown for name in ("conv1", "conv2", "fc"))
    finally:
        if server is not None:
            server.kill()
            server.wait()
            server.stdout.close()
    lines = shown.splitlines()
    assert len(lines) == 2 and lines[0].startswith("my/animals/test/frog/0.png: ")
    assert all(re.search(r": (bird|cat|dog|frog)  \(", line) for line in lines)


def test_every_command_of_the_tutorial_is_known():
    assert len(commands()) == 7
    assert all(line.startswith(("bin/autoprivacy ", "PYTHONPATH=scripts .venv/bin/python my/")) for line in commands())


@pytest.mark.parametrize("page", ["tutorial", "own-network"])
def test_a_study_of_ones_own_makes_none_of_the_papers_experiments(tmp_path, page):
    """The default config is the paper's study, so what a study of one's own leaves out would come from there."""
    (tmp_path / "checkout").mkdir()
    checkout = Checkout(tmp_path / "checkout")
    if page == "tutorial":
        (checkout.folder / "my").mkdir()
        for name, text in re.findall(r"`(my/[\w.]+)`:\n```\w+\n(.*?)```", PAGE, flags=re.S):
            (checkout.folder / name).write_text(text)
        for split in ("train", "test"):
            for name in ("bird", "cat", "dog", "frog"):
                (checkout.folder / "my" / "animals" / split / name).mkdir(parents=True)
                for index in range(20):
                    (checkout.folder / "my" / "animals" / split / name / f"{index}.png").touch()
        config = "my/tutorial.yaml"
    else:
        checkout.write_example()
        config = "my/study.yaml"
    code, output = checkout.snakemake("--configfile", config, "--dry-run")
    assert code == 0, output
    rules = set(re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE))
    assert {"train", "quantize", "measure", "report"} <= rules
    assert not rules & {
        "tolerance_study",
        "sampling_study",
        "sensitivity",
        "multiplication",
        "search_comparison",
        "wraps",
    }
    assert set(re.findall(r"dataset=([\w-]+)", output)) == {"animals"}
